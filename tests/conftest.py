"""For every test: the bundles and models of whoever runs them are not looked at."""

import os

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def no_models_of_the_users(tmp_path_factory):
    before = os.environ.get("ISO3D_HOME")
    os.environ["ISO3D_HOME"] = str(tmp_path_factory.mktemp("models"))
    yield
    if before is None:
        del os.environ["ISO3D_HOME"]
    else:
        os.environ["ISO3D_HOME"] = before


@pytest.fixture
def accelerate():
    """A fresh accelerate: its settings are global to the process."""
    pytest.importorskip("accelerate", reason="training needs accelerate (the train extra)")
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def cut_out():
    """[120, 160, 4] uint8: a shaded block with alpha, unlike itself under any rotation or flip."""
    rgba = np.zeros((120, 160, 4), np.uint8)
    rgba[20:90, 30:130] = [200, 60, 20, 255]
    rgba[20:40, 30:80] = [20, 90, 220, 255]
    rgba[80:90, 30:60, 3] = 128
    return rgba
