"""Seconds and peak memory of `iso3d generate` for each preset, every one in a fresh process.

python benchmarks/presets.py [fast default quality paper]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGE = Path(__file__).parent.parent / "examples" / "rocket.png"


def measure(preset: str) -> tuple[float, float]:
    """Wall seconds and peak resident gigabytes of one run, imports and all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "iso3d_core",
            "generate",
            str(IMAGE),
            "-o",
            f"{folder}/mesh.glb",
            "--preset",
            preset,
        ]
        started = time.monotonic()
        # A child of its own for each measurement: the peak of children is a maximum over all of them.
        reader, writer = os.pipe()
        if os.fork() == 0:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            os.write(writer, f"{done.returncode} {peak}".encode())
            os._exit(0)
        os.wait()
        seconds = time.monotonic() - started
        code, peak = os.read(reader, 100).decode().split()
        if code != "0":
            raise RuntimeError(f"{' '.join(command)} ended with {code}")
        return seconds, int(peak) * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    print(f"{'preset':10s} {'seconds':>8s} {'peak GB':>8s}   ({os.cpu_count()} CPU cores)")
    for preset in sys.argv[1:] or ["fast", "default", "quality", "paper"]:
        seconds, memory = measure(preset)
        print(f"{preset:10s} {seconds:8.1f} {memory:8.2f}", flush=True)


if __name__ == "__main__":
    main()
