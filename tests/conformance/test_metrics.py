"""Every metric of the table, and metrics that are broken in one way each."""

from dataclasses import replace

import numpy as np
import pytest

from phosphene.conformance import NonConforming, check_metric
from phosphene.metrics import METRICS
from phosphene.metrics.metric import Evaluation, Score


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_its_promises(name):
    check_metric(name)


def _of_the_batch(e: Evaluation, name: str, space: str) -> Score:
    score = METRICS["mse"].compute(e, name, space)
    return replace(score, value=score.value + float(e.decoded.images[0].mean()))


def _with_global_noise(e: Evaluation, name: str, space: str) -> Score:
    score = METRICS["mse"].compute(e, name, space)
    return replace(score, value=score.value + 1e-9 * np.random.random())  # noqa: NPY002  it is the fault


def _in_place(e: Evaluation, name: str, space: str) -> Score:
    e.decoded.images[:] = np.round(e.decoded.images, 1)
    return METRICS["mse"].compute(e, name, space)


def _never_zero(e: Evaluation, name: str, space: str) -> Score:
    return replace(METRICS["mse"].compute(e, name, space), p=0.0)


def _brittle(e: Evaluation, name: str, space: str) -> Score:
    if np.isnan(e.decoded.images).any():
        raise ZeroDivisionError
    return METRICS["mse"].compute(e, name, space)


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("direction", {"better": "higher"}),
        ("facts", {"definition": ""}),
        ("order", {"compute": _of_the_batch}),
        ("global seed", {"compute": _with_global_noise}),
        ("input", {"compute": _in_place}),
        ("score", {"compute": _never_zero}),
        ("degenerate", {"compute": _brittle}),
    ],
)
def test_a_metric_broken_in_one_way_is_caught_and_the_way_is_named(claim, changes):
    with pytest.raises(NonConforming) as caught:
        check_metric(replace(METRICS["mse"], **changes))
    assert claim in caught.value.failures
    assert f"[{claim}] expected" in str(caught.value)
