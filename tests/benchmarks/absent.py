"""A benchmark whose rival nobody has."""

from __future__ import annotations

from benchmarks.measure import need, timed
from benchmarks.record import Step

TITLE = "sums, against a rival that is not here"


def ours(_, items: int) -> dict:
    clock, _ = timed(sum, range(items))
    return clock.figures(part=0.5, note="half of it")


def rival(_, items: int) -> dict:
    return timed(need("no_such_rival").add, range(items))[0].figures()


CASES = {"ours": ours, "a rival": rival}
STEPS = [Step({"items": 10}, tuple(CASES))]
