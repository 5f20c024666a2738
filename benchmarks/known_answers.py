"""Known answers of the checks: studies and decoders that are wrong in one way each. python -m benchmarks known_answers

Each violation is planted once into a small simulated study and goes through fit, decode and evaluate as any run does. It is
caught when one of the checks meant for it flags or fails, or when the flow refuses it; the same checks on the clean run of
the same seed say how often that is a false alarm. ``--recipes`` fits every recipe's lab preset on
clean data.

    python -m benchmarks known_answers --seeds 5
    python -m benchmarks known_answers --recipes --seeds 2
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.dishonest import registered

from phosphene import flow, recipes
from phosphene.data import registry
from phosphene.data.dataset_folder import write_dataset
from phosphene.errors import PhospheneError, PhospheneWarning
from phosphene.flow import analyse
from phosphene.run import Run
from phosphene.types import Dataset, Stimuli, Trials

SIZES = {"n_train": 150, "n_test": 60, "n_voxels": 150, "train_repeats": 2, "pixels": 16}
PLAIN = {"recipe.curve.kind": "none", "recipe.pixels.n_components": 60, "recipe.alphas": [10.0, 1e3, 1e5]}
ALARMS = ("flag", "fail")
CONTROLS = ("shuffled", "noise", "mean", "truth")
REFUSED = "refused"

Answers = Mapping[str, str]
"""Verdict by check id; ``REFUSED`` -> the name of the error, where the flow went no further."""


@dataclass
class Lab:
    """One simulated study, and the folder that runs on it go to.

    Parameters
    ----------
    seed : of the world and of the runs
    folder : where everything is written
    """

    seed: int
    folder: Path
    reasons: dict[str, pd.DataFrame] = field(default_factory=dict)
    _answers: dict[str, Answers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = registry.open_dataset("insilico", options={**SIZES, "seed": self.seed})
        # A name of its own, so that no network looks at the pictures: pixels do, and every answer comes in a second.
        self.study = replace(made, name="known-answers")
        self.rng = np.random.default_rng([self.seed, 1])

    def clean(self) -> Answers:
        """Answers of the linear recipe on the study as it is."""
        return self.judged("clean")

    def judged(
        self,
        name: str,
        study: Dataset | None = None,
        recipe: str = "linear",
        *,
        then: Callable[[Run], None] | None = None,
        **values: Any,
    ) -> Answers:
        """What the checks answer about one run; the same name is run once.

        Parameters
        ----------
        name : of the run's folder
        study : as it is by default
        recipe : name of a recipe
        then : called with the run when it is decoded
        values : of the run, with ``__`` for a dot
        """
        if name not in self._answers:
            self._answers[name] = self._run(name, study or self.study, recipe, then, values)
        return self._answers[name]

    def _run(
        self, name: str, study: Dataset, recipe: str, then: Callable[[Run], None] | None, values: Mapping[str, Any]
    ) -> Answers:
        group, _, own = name.partition("/")  # runs of one group lie beside each other
        place = self.folder / f"data-{group}-{own}"
        plain = PLAIN if issubclass(recipes.recipe(recipe), recipes.recipe("linear")) else {}
        given = {"data.name": str(place), "data.mask_from": "the simulation", "seed": self.seed, **plain}
        given |= {key.replace("__", "."): value for key, value in values.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PhospheneWarning)
                write_dataset(study, place)
                opened = flow.fit(
                    flow.configure(recipe, [("known answer", given)])[0], self.folder / group / (own or "run")
                )
                flow.decode(opened, controls=CONTROLS)
                if then is not None:
                    then(opened)
                flow.evaluate(opened)
        except PhospheneError as error:
            return {REFUSED: type(error).__name__}
        self.reasons[name] = opened.folder.table("validity.csv").set_index("id")
        return self.reasons[name]["verdict"].to_dict()


# -- tampering -----------------------------------------------------------------------------------------------------------


def _with_trials(study: Dataset, trials: Trials) -> Dataset:
    return replace(study, subjects={trials.subject: trials})


def _relabelled(study: Dataset, stimuli: np.ndarray) -> Dataset:
    trials = study.trials()
    return _with_trials(study, replace(trials, table=trials.table.assign(stimulus=stimuli)))


def _with_pictures(study: Dataset, pictures: np.ndarray) -> Dataset:
    return replace(study, stimuli=replace(study.stimuli, images=pictures, rows=None))


def _some_of_each(lab: Lab, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a few training and a few test pictures."""
    split = lab.study.split()
    rows = {str(s): k for k, s in enumerate(lab.study.stimuli.ids)}
    return tuple(
        np.asarray([rows[i] for i in lab.rng.choice(ids, n, replace=False)]) for ids in (split.train, split.test)
    )


def _brightness(stimuli: Stimuli) -> np.ndarray:
    return stimuli.floats().mean(axis=(1, 2, 3))


# -- violations ----------------------------------------------------------------------------------------------------------


def _split_by_trial(lab: Lab) -> Answers:
    trials = lab.study.trials()
    names, fold = trials.table["trial"].astype(str).to_numpy(), lab.rng.permutation(len(trials)) % 4
    file = lab.folder / "by_trial.json"
    file.write_text(json.dumps({"unit": "trial", "train": [*names[fold > 0]], "test": [*names[fold == 0]]}))
    return lab.judged("by-trial", split=str(file))


def _repeated(lab: Lab, change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """One showing of a few test pictures takes the place of training pictures: other ids, pictures as `change` leaves them."""
    train, test = _some_of_each(lab)
    ids, trials = lab.study.stimuli.ids, lab.study.trials()
    shown = trials.stimuli.copy()
    keep = ~np.isin(shown, ids[train])
    for a, b in zip(train, test, strict=True):
        one = np.flatnonzero(shown == ids[b])[-1]
        shown[one], keep[one] = ids[a], True
    pictures = lab.study.stimuli.pixels().copy()
    pictures[train] = change(pictures[test])
    rows = np.flatnonzero(keep)
    return _with_trials(
        _with_pictures(lab.study, pictures), replace(trials, table=trials.table.assign(stimulus=shown)).take(rows)
    )


def _renumbered(lab: Lab) -> Answers:
    return lab.judged("renumbered", _repeated(lab, lambda pictures: pictures))


def _near_copies(lab: Lab) -> Answers:
    def change(pictures: np.ndarray) -> np.ndarray:
        light = 0.95 * pictures + 6 + lab.rng.normal(0, 1, pictures.shape)
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)

    return lab.judged("near-copies", _repeated(lab, change))


def _shuffled(lab: Lab) -> Answers:
    stimuli = lab.study.trials().stimuli
    tested = np.isin(stimuli.astype(str), lab.study.split().test)
    wrong = stimuli.copy()
    for side in (tested, ~tested):
        wrong[side] = stimuli[side][lab.rng.permutation(int(side.sum()))]
    return lab.judged("shuffled", _relabelled(lab.study, wrong))


def _off_by_one(lab: Lab) -> Answers:
    """Responses to each test picture stand under the next one; repeats stay together."""
    stimuli = lab.study.trials().stimuli
    test = [s for s in dict.fromkeys(stimuli) if str(s) in set(lab.study.split().test)]
    following = dict(zip(test, test[1:] + test[:1], strict=True))
    wrong = np.asarray([following.get(s, s) for s in stimuli], dtype=object)
    return lab.judged("off-by-one", _relabelled(lab.study, wrong))


def _one_trial_late(lab: Lab) -> Answers:
    """Every response stands under the picture before it in time, on each side of the split."""
    stimuli = lab.study.trials().stimuli
    tested = np.isin(stimuli.astype(str), lab.study.split().test)
    wrong = stimuli.copy()
    for side in (tested, ~tested):
        wrong[side] = np.roll(stimuli[side], 1)
    return lab.judged("one-trial-late", _relabelled(lab.study, wrong))


def _region_of_test(lab: Lab) -> Answers:
    trials = lab.study.trials()
    light = dict(zip(lab.study.stimuli.ids, _brightness(lab.study.stimuli), strict=True))
    tested = np.isin(trials.stimuli.astype(str), lab.study.split().test)
    shown, betas = np.asarray([light[s] for s in trials.stimuli[tested]]), trials.betas[tested]
    r = np.abs([np.corrcoef(shown, voxel)[0, 1] for voxel in betas.T])
    voxels = trials.voxels.assign(**{"roi.best": r >= np.sort(r)[-60]})
    return lab.judged("region", _with_trials(lab.study, replace(trials, voxels=voxels)), data__roi="best")


def _best_of_three(lab: Lab) -> Answers:
    """Three configurations on one test set; the last one is kept."""
    for n, alpha in enumerate((1.0, 100.0, 10000.0)):
        answers = lab.judged(f"tried/{n}", recipe__alphas=[alpha])
    return answers


def _sessions(lab: Lab) -> Answers:
    """Each session showed pictures of its own brightness, and has a level of its own in the responses."""
    trials = lab.study.trials()
    light = dict(zip(lab.study.stimuli.ids, _brightness(lab.study.stimuli), strict=True))
    shown = np.asarray([light[s] for s in trials.stimuli])
    session = np.searchsorted(np.quantile(shown, [0.25, 0.5, 0.75]), shown)
    level = lab.rng.normal(0, trials.betas.std(), (4, trials.n_voxels)).astype(np.float32)
    table = trials.table.assign(session=session + 1, run=1)
    moved = replace(trials.with_betas(trials.betas + level[session]), table=table)
    return lab.judged("sessions", _with_trials(lab.study, moved))


def _unmarked_cycle(lab: Lab) -> Answers:
    def then(opened: Run) -> None:
        analyse(opened, "cycle")
        (opened.folder.path / "analysis" / "cycle" / "summary.txt").write_text("The cycle closes.\n")

    return lab.judged("cycle", then=then)


def _marked_cycle(lab: Lab) -> Answers:
    return lab.judged("cycle-marked", then=lambda opened: analyse(opened, "cycle"))


def _ledger_cut(lab: Lab) -> Answers:
    """A line of the ledger of looks at the test set is taken out."""

    def then(opened: Run) -> None:
        flow.evaluate(opened)
        flow.evaluate(opened)
        file = opened.folder.path / "ledger.jsonl"
        file.write_text(file.read_text().split("\n", 1)[1])

    return lab.judged("ledger", then=then)


@dataclass(frozen=True)
class Known:
    """A violation and the checks that are meant for it.

    Attributes
    ----------
    title : for people
    checks : ids, any of which must flag or fail
    plant : lab -> answers
    is_quick : whether it is part of the quick test
    """

    title: str
    checks: tuple[str, ...]
    plant: Callable[[Lab], Answers]
    is_quick: bool = False


def _by(kind: str, **values: Any) -> Callable[[Lab], Answers]:
    return lambda lab: lab.judged(kind, recipe=kind, **values)


VIOLATIONS = (
    Known("repeats of a picture on both sides: a split by trial", ("S1",), _split_by_trial, True),
    Known("a test picture in training under another id", ("S1",), _renumbered),
    Known("changed copies of test pictures in training", ("S2",), _near_copies),
    Known("inner folds that part repeats", ("S5",), _by("ungrouped")),
    Known("session confound: sessions showed pictures of their own", ("S6",), _sessions),
    Known("test-set z-scoring", ("L2", "L3"), _by("batch_scored"), True),
    Known("region of voxels drawn by test responses", ("L4",), _region_of_test),
    Known("voxels chosen by a recipe that saw test trials", ("L1", "L4"), _by("peeking")),
    Known("penalty chosen by test trials", ("L6",), _by("peeking"), True),
    Known("model selection on test: the last of three looks", ("L6",), _best_of_three),
    Known("a look at the test set taken out of the ledger", ("L6",), _ledger_cut),
    Known("moments of test responses, declared as setting relax", ("L1", "L5"), _by("adapting", recipe__setting="relax")),
    Known("best of five samples by the truth", ("L7",), _by("best_of_five"), True),
    Known("circular cycle, its mark taken off", ("L8",), _unmarked_cycle),
    Known("circular cycle as the analysis writes it", ("L8",), _marked_cycle),
    Known("shuffled trials", ("B1", "B2", "B3"), _shuffled, True),
    Known("every trial one late", ("B1", "B2", "B3"), _one_trial_late),
    Known("off-by-one order of test pictures", ("B1",), _off_by_one),
    Known("a decoder that only knows the category", ("B8",), _by("labelled"), True),
    Known("a decoder that names the category, at times a wrong one", ("B8",), _by("naming")),
    Known("a collapsed predictor", ("B7",), _by("collapsed")),
    Known("a generator that ignores the brain", ("M6", "B1", "B3"), _by("brainless"), True),
)  # fmt: skip


def answers(lab: Lab, known: Iterable[Known] = VIOLATIONS) -> dict[str, Answers]:
    """What the checks answer about the clean run and about each violation, by title."""
    with registered(lab.study):
        return {"clean": lab.clean(), **{k.title: k.plant(lab) for k in known}}


def alarms(found: Answers, checks: Iterable[str]) -> dict[str, str]:
    """Which of these checks flag or fail; a refusal counts for all."""
    if REFUSED in found:
        return {REFUSED: found[REFUSED]}
    return {c: found[c] for c in checks if found.get(c) in ALARMS}


def table(by_seed: Mapping[int, Mapping[str, Answers]], known: Iterable[Known] = VIOLATIONS) -> str:
    """Caught, missed and false alarms over seeds, as markdown."""
    n = len(by_seed)
    lines = [
        "| violation | checks | caught | missed | by | false alarms on clean runs | other checks that noticed |",
        "|---|---|---|---|---|---|---|",
    ]
    for k in known:
        own = [alarms(found[k.title], k.checks) for found in by_seed.values()]
        clean = [alarms(found["clean"], k.checks) for found in by_seed.values()]
        others = [
            sorted(
                set(alarms(f[k.title], f[k.title])) - set(k.checks) - set(alarms(f["clean"], f["clean"])) - {REFUSED}
            )
            for f in by_seed.values()
        ]
        caught = sum(map(bool, own))
        cells = [
            k.title,
            ", ".join(k.checks),
            caught,
            n - caught,
            _count(own, n),
            sum(map(bool, clean)),
            _count(others, n),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _count(found: list[Any], n: int) -> str:
    """``B1 fail 5, B3 flag 2``: how often each was said; the number is left out where it is always."""
    said = [
        f"{k} {v}".strip()
        for f in found
        for k, v in (f.items() if isinstance(f, dict) else dict.fromkeys(f, "").items())
    ]
    counts = pd.Series(said, dtype=object).value_counts(sort=False)
    return ", ".join(f"{what}{'' if times == n else f' ({times})'}" for what, times in sorted(counts.items()))


# -- clean runs of every recipe ------------------------------------------------------------------------------------------


def clean_recipe(kind: str, seed: int, out: Path, values: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Verdicts of a recipe's lab preset on a clean simulated study, looked at by the networks of the lab."""
    options = {"n_train": 200, "n_test": 60, "n_voxels": 200, "seed": seed}
    given = {
        "data.name": "insilico",
        "data.options": options,
        "seed": seed,
        **recipes.recipe(kind).demo,
        **(values or {}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhospheneWarning)
        opened = flow.fit(flow.configure(kind, [("clean run", given)])[0], out)
        flow.decode(opened, controls=CONTROLS)
        flow.evaluate(opened)
    return opened.folder.table("validity.csv").set_index("id")


def _one_seed(seed: int, folder: Path, only: str) -> tuple[dict[str, Answers], list[str]]:
    lab = Lab(seed, folder / str(seed))
    found = answers(lab, [v for v in VIOLATIONS if only in v.title])
    said = [
        f"  {name}: {check} {row['verdict']}: {row['reason']}"
        for name, rows in lab.reasons.items()
        for check, row in rows[rows["verdict"].isin(ALARMS)].iterrows()
    ]
    return found, said


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks known_answers")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--recipes", nargs="*", help="clean runs of these recipes instead; of all where none is named")
    parser.add_argument("--jobs", type=int, default=1, help="processes, a seed each")
    parser.add_argument("--only", default="", help="violations with this word in their title")
    parser.add_argument("--reasons", action="store_true", help="say why, check by check")
    parser.add_argument("--out", type=Path, help="write the table there as well")
    given = parser.parse_args()
    seeds, known = range(given.first, given.first + given.seeds), [v for v in VIOLATIONS if given.only in v.title]
    by_seed: dict[int, Mapping[str, Answers]] = {}
    with tempfile.TemporaryDirectory() as place:
        if given.recipes is not None:
            lines = ["| recipe | seed | check | verdict | reason |", "|---|---|---|---|---|"]
            for kind in given.recipes or recipes.RECIPES:
                for seed in seeds:
                    found = clean_recipe(kind, seed, Path(place) / f"{kind}-{seed}" / "run")  # alone: L6 looks beside
                    for check, row in found[found["verdict"].isin(ALARMS)].iterrows():
                        lines.append(f"| {kind} | {seed} | {check} | {row['verdict']} | {row['reason']} |")
                    _say(f"{kind}, seed {seed}: {alarms(found['verdict'].to_dict(), found.index)}")
            text = "\n".join(lines)
        else:
            work = partial(_one_seed, folder=Path(place), only=given.only)
            with ProcessPoolExecutor(given.jobs) as pool:
                for seed, (found, why) in zip(seeds, pool.map(work, seeds), strict=True):
                    by_seed[seed] = found
                    _say(f"seed {seed}: clean run {alarms(found['clean'], found['clean'])}")
                    if given.reasons:
                        _say("\n".join(why))
            text = table(by_seed, known)
    _say(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
