"""Memory that a training step freed, kept for the next one."""

from __future__ import annotations

import ctypes

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
AT_ONCE = 256 * 2**20  # bytes that are asked of the system whenever it must be asked


def keep_freed() -> bool:
    """Let the C library keep what large tensors on the CPU leave behind; by itself it hands each back to the system and
    asks for it again, and the system clears every page of it once more (`benchmarks/train_step.py`).

    For processes that do the same over and over: what the largest step needs is held until the end. Returns whether
    there is a C library that can: glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: AT_ONCE}
    done = [mallopt(name, value) == 1 for name, value in wanted.items()]  # each is tried
    return all(done)
