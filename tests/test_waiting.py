"""Threads that wait for each other leave their cores to other programs soon, wherever iso3d starts torch itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iso3d_core.waiting import SPINS

ROOT = Path(__file__).resolve().parent.parent
STARTS = {
    "command line": ["-m", "iso3d_core", "doctor"],
    "worker": ["-m", "iso3d_core.worker"],
    "ComfyUI": ["-c", "import runpy; runpy.run_path('prestartup_script.py'); import torch"],
}


def openmp_settings(start, **given):
    """What GNU's OpenMP prints of itself when torch loads it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    process = subprocess.Popen(
        [sys.executable, *STARTS[start]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT, env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **given},
    )  # fmt: skip
    if start == "worker":  # it loads torch to answer, and ends with its input
        process.stdin.write('{"type": "hello"}\n')
        process.stdin.flush()
        process.stdout.readline()
    said = process.communicate(timeout=120)[1]
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch is not built with GNU's OpenMP")
    return said


@pytest.mark.parametrize("start", STARTS)
def test_threads_spin_briefly(start):
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in openmp_settings(start)


def test_what_the_user_settled_stays():
    assert "GOMP_SPINCOUNT = '7'" in openmp_settings("command line", GOMP_SPINCOUNT="7")
    settings = openmp_settings("command line", OMP_WAIT_POLICY="ACTIVE")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" not in settings
