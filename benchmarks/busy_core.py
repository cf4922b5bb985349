"""How much longer `iso3d generate` takes while another program keeps one core busy, with threads that wait for each
other briefly, as iso3d lets them, and with those that spin as long as GNU's OpenMP does by itself.

python benchmarks/busy_core.py [PRESET]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from presets import measure

from iso3d_core.waiting import SPINS

OPENMP = 300_000


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that does nothing but compute."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def main() -> None:
    preset = sys.argv[1] if len(sys.argv) > 1 else "default"
    os.environ.pop("OMP_WAIT_POLICY", None)
    print(f"{'spins':>8s} {'alone':>8s} {'beside':>8s} {'ratio':>6s}   seconds of {preset}, {os.cpu_count()} cores")
    for spins in (SPINS, OPENMP):
        os.environ["GOMP_SPINCOUNT"] = str(spins)
        alone = measure(preset)[0]
        with busy_core():
            beside = measure(preset)[0]
        print(f"{spins:8,d} {alone:8.1f} {beside:8.1f} {beside / alone:6.2f}", flush=True)


if __name__ == "__main__":
    main()
