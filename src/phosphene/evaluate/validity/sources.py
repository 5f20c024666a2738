"""S7, S8, S9: where responses, generators and trials come from."""

from __future__ import annotations

import numpy as np

from phosphene.evaluate.validity.base import Answer, Evidence, id_set
from phosphene.types.identity import few

CRAWLS = ("web crawl", "LAION", "COYO", "Conceptual Captions")
"""Beginnings of the names of corpora gathered from the web: they may hold any picture that is public."""


def shared_anchors(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S7: stimuli by which people were aligned must not be tested."""
    if not evidence.anchors:
        return "not applicable", float("nan"), "Nothing was aligned across people."
    tested = set().union(*(id_set(map(str, test)) for _, test in evidence.splits))
    shared = {name: sorted(id_set(map(str, ids)) & tested) for name, ids in evidence.anchors.items()}
    shared = {name: ids for name, ids in shared.items() if ids}
    if shared:
        total = len(set().union(*shared.values()))
        parts = [f"{name}: {few(ids)}" for name, ids in shared.items()]
        return "fail", total, (
            f"{total} test stimuli served to align people ({'; '.join(parts)}). Align by training stimuli only: the pictures "
            "that all people saw are often the usual test set."
        )  # fmt: skip
    return "pass", 0, f"None of the stimuli that tie people together ({', '.join(evidence.anchors)}) is tested."


def generator_saw_the_pictures(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S8: was a pretrained generator trained on the collection the test pictures come from?"""
    if not evidence.generators:
        return "pass", 0, "No generator that was trained elsewhere takes part."
    if evidence.corpora is None:
        named = ", ".join(evidence.generators)
        return "not applicable", float("nan"), (
            f"Nothing says where the pictures of this data set come from, so that nobody can tell whether {named} saw them."
        )  # fmt: skip
    ours = {c.lower() for c in evidence.corpora}
    probably, maybe, unknown = [], [], []
    for name, corpora in evidence.generators.items():
        if corpora is None:
            unknown.append(name)
        elif both := [c for c in corpora if c.lower() in ours]:
            probably.append(f"{name} ({', '.join(both)})")
        elif crawls := [c for c in corpora if c.startswith(CRAWLS)]:
            maybe.append(f"{name} ({', '.join(crawls)})")
    parts = []
    if probably:
        parts.append(f"probably seen the test pictures, or others of their collection: {', '.join(probably)}")
    if maybe:
        parts.append(f"trained on pictures from the web and may have seen them: {', '.join(maybe)}")
    if unknown:
        parts.append(f"not known what it was trained on: {', '.join(unknown)}")
    if parts:
        said = "; ".join(parts)
        return "flag", len(probably) + len(maybe) + len(unknown), f"Generators: {said}. Faithful detail may be memory."
    trained = "; ".join(f"{name}: {', '.join(c)}" for name, c in evidence.generators.items())
    return "pass", 0, f"No generator was trained on {', '.join(evidence.corpora)} ({trained})."


def dropped_trials(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """S9: which trials were left out and why; one-back repeats and first trials of runs."""
    dropped = {why: int(n) for why, n in evidence.left_out.items() if n}
    n_dropped = sum(dropped.values())
    kept = 0 if evidence.trials is None else len(evidence.trials)
    parts = [f"{n} {why}" for why, n in dropped.items()]
    said = (
        f"Left out {n_dropped} of {kept + n_dropped} trials: {', '.join(parts)}"
        if dropped
        else f"All {kept} trials used"
    )
    said += _special(evidence)
    unexplained = dropped.get("", 0) + dropped.get("for no known reason", 0)
    share = n_dropped / max(1, kept + n_dropped)
    in_test = _one_backs_in_test(evidence)
    worries = []
    if unexplained:
        worries.append(f"{unexplained} trials were left out without a reason")
    if share > 0.1:
        worries.append(f"{100 * share:.0f} % of all trials are missing, which may not be a fair sample")
    if in_test:
        worries.append(f"{in_test} one-back repeats are among the test trials: a task, and an adapted response")
    if worries:
        return "flag", n_dropped, f"{said}. {'; '.join(worries).capitalize()}."
    return "pass", n_dropped, f"{said}."


def _special(evidence: Evidence) -> str:
    back = _one_backs(evidence)
    if back is None:
        return ""
    runs = evidence.trials.groupby(["session", "run"], sort=False).ngroups
    return f"; among those used are {int(back.sum())} one-back repeats and {runs} first trials of a run"


def _one_backs(evidence: Evidence) -> np.ndarray | None:
    """(n_trials,) bool; None where the order of trials in time is not known."""
    table = evidence.trials
    if table is None or table.groupby(["session", "run"]).ngroups < 2:
        return None
    same = [table[c].to_numpy()[1:] == table[c].to_numpy()[:-1] for c in ("stimulus", "session", "run")]
    back = np.concatenate([[False], np.logical_and.reduce(same)])
    return None if back.mean() > 0.25 else back  # sorted by stimulus, not by time


def _one_backs_in_test(evidence: Evidence) -> int:
    back = _one_backs(evidence)
    if back is None or not evidence.sides:
        return 0
    return int(back[np.unique(np.concatenate([test for _, test in evidence.sides]))].sum())
