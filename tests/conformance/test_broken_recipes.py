"""Neighbours: the plug-in of docs/examples conforms, and so broken that one promise fails, it is caught.

Paper: none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from phosphene import recipes
from phosphene.conformance import NonConforming, check_recipe
from phosphene.conformance.small_study import Guarded
from phosphene.errors import DataError
from phosphene.recipes.base import Stage
from phosphene.types import Images
from tests.conformance.small import small_study

PLUGIN = Path(__file__).parents[2] / "docs" / "examples" / "plugin"
sys.path.append(str(PLUGIN))

from phosphene_neighbours import Gallery, Neighbours  # noqa: E402


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The plug-in as its pyproject.toml announces it, on this Python's path."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = tmp_path / "phosphene_neighbours-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{k} = {v}" for k, v in project["entry-points"][recipes.PLUGINS].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{recipes.PLUGINS}]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)


def test_the_example_is_found_by_name_and_keeps_its_promises(installed, study):
    assert "neighbours" in recipes.recipe_names()
    fitted = check_recipe("neighbours", study=study)
    assert fitted.lineage_ == study.train.member_keys()


@pytest.mark.slow
def test_the_example_is_installed_and_fitted_from_the_command_line(tmp_path):
    shutil.copytree(PLUGIN, tmp_path / "plugin")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*install, "--target", str(tmp_path / "site"), str(tmp_path / "plugin")], check=False)
    if done.returncode:
        pytest.skip("pip cannot build here (it needs setuptools beside this Python)")
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    sizes = [f"data.options.{k}={v}" for k, v in {"n_train": 40, "n_test": 8, "n_voxels": 60}.items()]
    command = [sys.executable, "-m", "phosphene", "fit", "neighbours", "--data", "insilico", "--preset", "lab"]
    command += [word for size in sizes for word in ("--set", size)] + ["--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    assert (tmp_path / "run" / "recipe.json").is_file()


# -- broken in one way each --------------------------------------------------------------------------------------------


class Peeking(Neighbours):
    """Looks behind the training trials."""

    def fit_gallery(self, trials, stimuli):
        """All there is."""
        gallery = super().fit_gallery(trials, stimuli)
        gallery.betas = gallery.betas - np.asarray(trials.source[:]).mean(axis=0)
        return gallery


class PeekingAtPictures(Neighbours):
    """Looks at test pictures."""

    def fit_gallery(self, trials, stimuli):
        """All there is."""
        assert len(np.asarray(stimuli.images.source[:]))
        return super().fit_gallery(trials, stimuli)


class Short(Neighbours):
    """Loses the last picture."""

    def decode(self, trials):
        return super().decode(trials.take(np.arange(max(1, len(trials) - 1))))


class Together(Neighbours):
    """Standardises by the trials it happens to decode."""

    def decode(self, trials):
        self.check_trials(trials)
        return super().decode(trials.with_betas(trials.betas - trials.betas.mean(axis=0)))


class Ordered(Neighbours):
    """Gives the pictures in another order than the trials."""

    def decode(self, trials):
        images = super().decode(trials)
        return Images(images.ids, images.pixels[np.argsort(images.pixels.mean(axis=(1, 2, 3)))])


class Moody(Neighbours):
    """Draws from the global generator."""

    def decode(self, trials):
        images = super().decode(trials)
        return Images(images.ids, images.pixels + np.float32(1e-3 * np.random.random()))  # noqa: NPY002  the fault


class Unseeded(Neighbours):
    """Fits with noise nobody can repeat."""

    def fit_gallery(self, trials, stimuli):
        """With noise."""
        gallery = super().fit_gallery(trials, stimuli)
        gallery.betas = gallery.betas + np.random.default_rng().normal(size=gallery.betas.shape).astype(np.float32)
        return gallery


class Fading(Gallery):
    """Loses light each time it is read."""

    @classmethod
    def from_state(cls, tensors, meta):
        gallery = super().from_state(tensors, meta)
        gallery.pictures = gallery.pictures * np.float32(0.9)
        return gallery


class Forgetful(Neighbours):
    """Is not what it was after loading."""

    stages = (Stage("gallery", Fading),)


class Wishful(Neighbours):
    """Has a preset that its configuration refuses."""

    presets = {"lab": {}, "paper": {"k": 0}}  # noqa: RUF012


class Careless(Neighbours):
    """Decodes whatever comes: what cannot be is repaired and nobody is told."""

    def decode(self, trials):
        return super().decode(trials.with_betas(np.nan_to_num(trials.betas)))


class Speechless(Neighbours):
    """Decodes without asking whether it was fitted, or on whom."""

    def decode(self, trials):
        return Images(trials.stimuli, self.gallery_.pictures[np.argsort(-trials.betas @ self.gallery_.betas.T)[:, 0]])


class Undocumented(Neighbours):
    def decode(self, trials):
        return super().decode(trials)


class Unstaged(Neighbours):
    """Announces a stage that it cannot fit."""

    stages = (*Neighbours.stages, Stage("curve", Gallery))


class Spoiling(Neighbours):
    """Changes the trials it is given."""

    def decode(self, trials):
        images = super().decode(trials)
        trials.source[0] += 1
        return images


class Scattering(Neighbours):
    """Splits the trials of a picture over inner folds."""

    def inner_folds(self, trials):
        return np.arange(len(trials)) % 2


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (Peeking, {"fit"}),
        (PeekingAtPictures, {"fit"}),
        (Short, {"pictures", "samples", "NaN"}),
        (Together, {"batch dependence"}),
        (Ordered, {"order", "batch dependence", "save"}),
        (Moody, {"global seed", "repeat", "save"}),
        (Unseeded, {"seed"}),
        (Forgetful, {"save"}),
        (Wishful, {"presets"}),
        (Careless, {"NaN"}),
        (Speechless, {"unfitted", "voxels", "subject", "NaN"}),
        (Undocumented, {"docstring"}),
        (Unstaged, {"stages", "fit"}),
        (Scattering, {"folds"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_recipe_broken_in_one_way_is_caught_and_the_way_is_named(broken, claims, study):
    with pytest.raises(NonConforming) as caught:
        check_recipe(broken, study=study, refit=broken is Unseeded)
    assert set(caught.value.failures) & claims
    assert set(caught.value.failures) <= claims, str(caught.value)
    for claim in caught.value.failures:
        assert f"[{claim}] expected" in str(caught.value)


def test_changed_trials_are_noticed():
    with pytest.raises(NonConforming) as caught:
        check_recipe(Spoiling, study=small_study(), refit=False)
    assert "input" in caught.value.failures


def test_a_waived_claim_may_fail_but_not_hold(study):
    check_recipe(Careless, study=study, refit=False, waived={"NaN": "repaired before"})
    with pytest.raises(NonConforming, match="drop the waiver"):
        check_recipe(Neighbours, study=study, refit=False, waived={"NaN": "no longer so"})
    with pytest.raises(NonConforming, match="Did you mean 'NaN'"):
        check_recipe(Neighbours, study=study, refit=False, waived={"nan": "a slip of the pen"})


def test_guarded_rows_are_the_rows_and_refuse_the_others():
    rows = np.arange(12).reshape(6, 2)
    guarded = Guarded(rows, np.array([1, 2, 4]), "a response")
    np.testing.assert_array_equal(guarded[[4, 1]], rows[[4, 1]])
    np.testing.assert_array_equal(guarded[1:3], rows[1:3])
    for asked in (0, slice(None), np.array([True] + [False] * 5), (slice(0, 2), 1)):
        with pytest.raises(DataError, match="test side"):
            guarded[asked]
