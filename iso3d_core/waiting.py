"""How torch's threads wait for each other, which is settled before torch is loaded."""

import os

SPINS = 2000  # some tens of microseconds; GNU's OpenMP spins 300,000 times where nothing is said


def wait_briefly() -> None:
    """Let torch's threads sleep soon where they wait for each other, if the user has settled nothing about it.

    On Linux they spin for milliseconds. While another program has one of the cores (a page or a window drawn without
    a GPU, a second run), the spinning ones keep those from running that all of them wait for, and every step takes
    several times as long. GNU's OpenMP reads this when torch is loaded: later calls have no effect. Other platforms'
    do not read it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
