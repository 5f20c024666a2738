from __future__ import annotations

import pytest

from phosphene import flow, recipes
from phosphene.lab import zoo

TOYS = {
    name: f"tests.analysis.toys:{name.title()}"
    for name in ("deaf", "dice", "haze", "crowd", "mirror", "herd", "broken")
}


@pytest.fixture(scope="package", autouse=True)
def toys():
    """The toy recipes, known by name while these tests run."""
    recipes.RECIPES.update(TOYS)
    yield
    for name in TOYS:
        del recipes.RECIPES[name]


def fitted(kind, folder, data):
    config, _ = flow.configure(kind, [("test", data)])
    return flow.fit(config, folder)


@pytest.fixture(scope="session")
def networks():
    """The lab's networks; without their weights nobody can say how confident a picture of the lab is."""
    if not {"clip", "classifier"} <= set(zoo.names()):
        pytest.skip("the lab's networks are not bundled here")


@pytest.fixture(scope="session")
def linear(tmp_path_factory):
    """The linear recipe on the small in-silico subject."""
    data = {"data.name": "insilico", "data.options": {"size": "small"}}
    return fitted("linear", tmp_path_factory.mktemp("linear") / "run", data)


@pytest.fixture(scope="session")
def seer(tmp_path_factory, networks):
    """The regressor, which reads CLIP latents, on a lab large enough for the areas to be told apart."""
    # The lab's body area prefers bodies, and cats at 0.3 of them. Fitted on 800 trials, the lead of 'body' over 'cat' in its
    # excess is -0.01, 0.10 and 0.08 in worlds of three seeds, which is the chance of the fit; on 1600 it is 0.06 and 0.15.
    data = {"data.name": "insilico", "data.options": {"n_train": 1600, "n_test": 40, "n_voxels": 1000}}
    return fitted("regressor", tmp_path_factory.mktemp("seer") / "run", data)
