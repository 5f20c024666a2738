"""Studies and decoders that are wrong in one way each are caught, and the clean run of the same study passes."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.dishonest import registered
from benchmarks.known_answers import ALARMS, VIOLATIONS, Lab, alarms, clean_recipe, table

from phosphene.recipes import RECIPES

# Scenes of the lab come in kinds, and S3 says so of every split that does not hold out whole kinds.
TRUE_OF_THE_LAB = {"S3"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(0, tmp_path_factory.mktemp("lab"))
    with registered(lab.study):
        yield lab


def test_a_clean_run_passes_every_check(lab):
    found = lab.clean()
    assert set(alarms(found, found)) <= TRUE_OF_THE_LAB, lab.reasons["clean"]["reason"].to_dict()
    # B7 looks at what is decoded to, S6 at sessions, L2 at the decoder: none may pass for want of evidence.
    asked = {check for known in VIOLATIONS for check in known.checks} - {"L8", "M6"}
    assert {check for check in asked if found[check] == "pass"} == asked


def _case(known):
    return pytest.param(known, id=known.title, marks=() if known.is_quick else pytest.mark.slow)


@pytest.mark.parametrize("known", [_case(known) for known in VIOLATIONS])
def test_a_violation_is_caught_by_a_check_that_is_meant_for_it(lab, known):
    clean = lab.clean()  # first: a look at the planted run would be remembered
    found = known.plant(lab)
    assert alarms(found, known.checks), {k: v for k, v in found.items() if v in ALARMS}
    assert not alarms(clean, known.checks)


def test_the_table_counts_caught_missed_and_false_alarms():
    known = VIOLATIONS[0]
    caught = {"clean": {"S1": "pass"}, known.title: {"S1": "fail", "B1": "flag"}}
    missed = {"clean": {"S1": "flag"}, known.title: {"S1": "pass"}}
    row = table({0: caught, 1: missed}, [known]).splitlines()[-1]
    assert row == f"| {known.title} | S1 | 1 | 1 | S1 fail (1) | 1 | B1 (1) |"


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_no_check_of_split_or_leakage_fails_on_a_clean_run_of_any_recipe(kind, tmp_path):
    """Whether a recipe of a few steps decodes at all is another matter: B and M checks are not asked."""
    found = clean_recipe(kind, 0, tmp_path / "run")
    assert not [c for c, verdict in found["verdict"].items() if c[0] in "SL" and verdict == "fail"]
    assert np.isfinite(found.loc["S1", "value"])
