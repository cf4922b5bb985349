"""For every test: the bundles and models of whoever runs them are not looked at."""

import os

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
