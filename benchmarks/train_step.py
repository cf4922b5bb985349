"""How much faster a training step on the CPU is when freed memory is kept (`iso3d_core.train.memory`).

    python benchmarks/train_step.py [--steps 8]

The image tower, the palette and the sketch on random images, first as the C library has it by itself, then with
`keep_freed`: seconds and page faults of a step, and the ratio.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from iso3d_core.cameras import even_azimuths, orbit, unit_sphere_matrix
from iso3d_core.priors.palette import SLOTS
from iso3d_core.priors.sketch import SIDE
from iso3d_core.train import clip
from iso3d_core.train.loop import fast_autocast
from iso3d_core.train.memory import keep_freed


def random_batch(size: int, words: int) -> dict:
    """Of the shapes that `clip.ReferenceSet` draws."""
    cells, side = (SIDE, SIDE, SIDE), SIDE // clip.EVERY
    camera = unit_sphere_matrix(orbit(even_azimuths(clip.VIEWS_EACH), 10.0)).reshape(1, clip.VIEWS_EACH, 16)
    return {
        "rgb": torch.rand(size, 3, clip.TOWER_SIZE, clip.TOWER_SIZE),
        "tokens": torch.randint(1, words, (size, clip.CONTEXT)),
        "seen_from": camera.expand(size, -1, -1),
        "seen": torch.rand(size, clip.VIEWS_EACH, 4, side, side),
        "offset": (0, 0),
        "solid": (torch.rand(size, *cells) > 0.8).float(),
        "color": torch.rand(size, 3, *cells),
        "colored": (torch.rand(size, *cells) > 0.8).float(),
        "part": torch.randint(SLOTS, (size, *cells)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=48)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = clip.ClipTraining(clip.tiny_config(300)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    batch = random_batch(args.batch, 300)

    def step() -> None:
        with fast_autocast(torch.device("cpu")):
            loss = model(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def measure() -> tuple[float, float]:
        step()
        faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.monotonic()
        for _ in range(args.steps):
            step()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        return (time.monotonic() - started) / args.steps, faults / args.steps

    plain = measure()
    if not keep_freed():
        raise SystemExit("this C library has no such settings; it takes glibc")
    kept = measure()
    for name, (seconds, faults) in (("by itself", plain), ("kept", kept)):
        print(f"{name:10s} {seconds:6.2f} s  {faults:10.0f} page faults a step")
    print(f"ratio {plain[0] / kept[0]:.2f}")


if __name__ == "__main__":
    main()
