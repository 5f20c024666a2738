"""Metrics of other packages: a small distribution in a temporary folder, found by its entry point."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from phosphene.conformance import check_metric
from phosphene.errors import PhospheneWarning
from phosphene.metrics import Decoded, all_metrics, compute_scores, find_metric, kind_of, metric_of, space_of
from phosphene.metrics.catalogue import METRICS
from phosphene.metrics.controls import paired_differences

MODULE = """
import numpy as np
from phosphene.metrics.metric import Metric

def absolute(e, name, space):
    decoded, true = e.pair(space)
    every = true[e.first]
    matrix = np.stack([np.abs(row - every).mean(axis=1) for row in decoded])  # (rows, stimuli)
    undefined = np.isnan(matrix)
    matrix = np.where(undefined, 1.0, matrix)
    return e.score(name, matrix[np.arange(len(decoded)), e.truth], matrix, better="lower")

MAE = Metric(
    name="mae.{space}", over="space", title="MAE", definition="mean absolute difference", better="lower",
    chance="mean over all pairings", compute=absolute, family="Pictures", heading="Absolute error in {space}",
    reading="How far the numbers are off.",
)
SEVERAL = [MAE]
TAKEN = Metric("mse", "images", "MSE", "x", "lower", "x", absolute)
NOTHING = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a distribution whose entry points are the lines given."""

    def add(*lines):
        info = tmp_path / "absolute_metrics-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absolute-metrics\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(["[phosphene.metrics]", *lines]) + "\n")
        (tmp_path / "absolute_metrics.py").write_text(MODULE)
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.delitem(sys.modules, "absolute_metrics", raising=False)
    yield add
    sys.modules.pop("absolute_metrics", None)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    true = rng.random((8, 12, 12, 1))
    return true, np.clip(true + 0.1 * rng.standard_normal(true.shape), 0, 1)


@pytest.mark.parametrize("attribute", ["MAE", "SEVERAL"])
def test_a_metric_of_another_package_is_scored_with_all_others(install, pictures, attribute):
    assert find_metric("mae.pixels") is None
    install(f"absolute = absolute_metrics:{attribute}")
    true, decoded = pictures
    found = compute_scores(Decoded(np.arange(8), decoded, true), n_draws=100, n_permutations=99)
    assert found["mae.pixels"].value == pytest.approx(np.abs(decoded - true).mean())
    assert {"mse", "mae.pixels"} <= {s.metric for s in found.scores}
    assert "mae.{space}" in all_metrics()


def test_its_direction_family_and_space_are_known_to_whoever_reads_its_name(install, pictures):
    install("absolute = absolute_metrics:MAE")
    assert (metric_of("mae.pixels").better, metric_of("mae.pixels").family) == ("lower", "Pictures")
    assert (kind_of("mae.clip"), space_of("mae.clip")) == ("mae", "clip")
    true, decoded = pictures
    good = compute_scores(Decoded(np.arange(8), decoded, true), metrics=["mae.*"], n_draws=100, n_permutations=99)
    bad = compute_scores(
        Decoded(np.arange(8), true[::-1].copy(), true), metrics=["mae.*"], n_draws=100, n_permutations=99
    )
    assert paired_differences(good, bad, "shuffled")["value"].item() > 0  # lower is better, so this is a win


def test_it_keeps_the_promises_of_every_metric(install):
    install("absolute = absolute_metrics:MAE")
    check_metric("mae.{space}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x = absolute_metrics:TAKEN", "there is a metric of this name already"),
        ("x = absolute_metrics:NOTHING", "should give a Metric or a list of them, but gave a int"),
        ("x = absolute_metrics:MISSING", "cannot be loaded"),
        ("x = no_such_package:MAE", "cannot be loaded"),
    ],
)
def test_a_plug_in_that_is_broken_is_named(install, line, message):
    install(line)
    with pytest.warns(PhospheneWarning, match=message) as caught:
        known = all_metrics()
    assert line.split(" = ")[1] in str(caught[0].message)
    assert "absolute-metrics 1.0" in str(caught[0].message)
    assert known == METRICS


def test_a_metric_of_phosphene_needs_no_other_package_to_be_found(install):
    install("x = no_such_package:MAE")
    assert metric_of("two_way.pixels").chance == "1/2"
