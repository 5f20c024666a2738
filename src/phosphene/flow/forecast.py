"""What a fit will need, stage by stage, before it is done: memory, disk and time, each with how it is known.

A recipe is rehearsed: its real stages are fitted on a few training stimuli, then on twice as many, until that takes some
seconds; its trainer is a :class:`phosphene.training.rehearsal.Rehearsal`, which judges trainings and does none. Time, memory
and size outside trainings are carried on from the last two rehearsals to all stimuli as powers of their number. What cannot
be rehearsed is unknown.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phosphene import recipes
from phosphene.errors import PhospheneError
from phosphene.io.memory import Peak, size
from phosphene.io.progress import duration
from phosphene.io.stages import STAGE
from phosphene.run import Run
from phosphene.types import Trials

if TYPE_CHECKING:
    from phosphene.recipes.base import Recipe
    from phosphene.training.rehearsal import Training

FIRST = 32  # stimuli of the first rehearsal
FURTHEST = 32  # times as many stimuli as rehearsed is as far as anything is carried on
_SMALL = 0.02  # seconds; what takes less is all overhead, and its growth is not to be trusted
_CACHE = "PHOSPHENE_CACHE"


@dataclass(frozen=True)
class Forecast:
    """What one stage of one fit will need; None is unknown.

    Attributes
    ----------
    stage : str
        its name
    seconds : float or None
        of wall time on this machine when nothing else runs
    peak_bytes : int or None
        of memory beyond what the program holds when the stage begins
    disk_bytes : int or None
        of the finished stage, and of its checkpoints while it is trained
    how : str
        how this is known, or why it is not
    trainings : tuple of Training
        of networks, in their order
    """

    stage: str
    seconds: float | None
    peak_bytes: int | None
    disk_bytes: int | None
    how: str
    trainings: tuple[Training, ...] = ()

    @property
    def kept_bytes(self) -> int | None:
        """Bytes of the disk that stay when the stage is finished and its checkpoints are gone."""
        if self.disk_bytes is None:
            return None

        return self.disk_bytes - max((2 * t.checkpoint for t in self.trainings), default=0)


@dataclass
class _Seen:
    """A stage of one rehearsal."""

    n: int
    seconds: float
    peak: int | None
    disk: int
    held: int
    trainings: list[Training]


def forecast(opened: Run, fold: int = 0, *, patience: float = 5.0, recompute: bool = False) -> list[Forecast]:
    """Rehearse the fit of one fold; writes nothing.

    Parameters
    ----------
    opened : Run
        the run to be
    fold : int, default 0
        which
    patience : float, default 5.0
        seconds after which no larger rehearsal is begun; with 0, one rehearsal is all, and only trainings mean much
    recompute : bool, default False
        whether to find out as well what computing every block twice would save

    Returns
    -------
    list of Forecast
        one Forecast per stage
    """
    config = opened.config
    train, _ = opened.sides(fold)
    unpaired = opened.unpaired(fold)
    ids = list(dict.fromkeys(train.stimuli.astype(str)))
    order = [ids[i] for i in np.random.default_rng(config.seed).permutation(len(ids))]
    seen: dict[str, list[_Seen]] = {}
    failed: dict[str, str] = {}
    n = min(FIRST, max(2, len(ids) // 4))
    cache = os.environ.pop(_CACHE, None)  # what is cached there would be neither written nor timed

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            few = [t.take(np.arange(min(len(t), math.ceil(len(t) * n / len(ids))))) for t in unpaired]

            # Judges the trainings; the time of the rest includes every import and is thrown away.
            found, failed = _rehearse(opened, _few(train, order[:n]), few, {}, recompute)
            known = {stage: one.trainings for stage, one in found.items()}
            if not patience:
                seen = {stage: [one] for stage, one in found.items()}

            while patience:
                start = time.perf_counter()
                few = [t.take(np.arange(min(len(t), math.ceil(len(t) * n / len(ids))))) for t in unpaired]
                found, failed = _rehearse(opened, _few(train, order[:n]), few, known, recompute)

                for stage, one in found.items():
                    seen.setdefault(stage, []).append(one)

                if time.perf_counter() - start > patience or 4 * n > len(ids) or not found:
                    break

                n *= 2
    finally:
        if cache is not None:
            os.environ[_CACHE] = cache

    judged = []
    for stage in recipes.recipe(config.recipe.kind).stages_of(config.recipe):
        judged.append(_judged(stage.name, seen.get(stage.name, []), failed.get(stage.name), len(ids)))

    return judged


def _few(trials: Trials, ids: Iterable[str]) -> Trials:
    return trials.take(np.isin(trials.stimuli.astype(str), list(ids)))


def _rehearse(
    opened: Run, trials: Trials, unpaired: Sequence[Trials], known: dict[str, list[Training]], recompute: bool
) -> tuple[dict[str, _Seen], dict[str, str]]:
    """Fit the stages on a few trials; what was seen of each, and why others could not be fitted."""
    from phosphene.training.rehearsal import Rehearsal

    config = opened.config
    recipe: Recipe = recipes.recipe(config.recipe.kind)(config.recipe, seed=config.seed)
    stimuli = recipe.prepare(trials, opened.stimuli, unpaired)
    seen = {}
    failed = {}
    before: list[str] = []

    for stage in recipe.stages_of(recipe.config):
        start = time.perf_counter()
        try:
            with Peak() as peak:
                rehearsal = Rehearsal(peak, known.get(stage.name, []), recompute)
                recipe.trainer = rehearsal
                part = recipe.fit_stage(stage, trials, stimuli)
                setattr(recipe, f"{stage.name}_", part)
                disk = sum(np.asarray(a).nbytes for a in part.state()[0].values())
        except Exception as error:  # a rehearsal is no fit: what fails on a few stimuli is not known, and said to be so
            is_ours = isinstance(error, PhospheneError)
            if is_ours:
                failed[stage.name] = str(error)
            else:
                failed[stage.name] = f"{type(error).__name__} in the rehearsal: {error}"

            needs = before if stage.needs is None else stage.needs
            unknown = [name for name in needs if name in failed]
            if unknown:
                verb = "is" if len(unknown) == 1 else "are"
                failed[stage.name] = f"needs {' and '.join(unknown)}, which {verb} unknown"

            continue
        finally:
            before.append(stage.name)

        seconds = time.perf_counter() - start - rehearsal.seconds
        n = len(trials.stimulus_ids)
        seen[stage.name] = _Seen(n, seconds, peak.bytes, disk, rehearsal.held, rehearsal.trainings)

    return seen, failed


def _judged(stage: str, seen: list[_Seen], failed: str | None, n: int) -> Forecast:
    if failed is not None or not seen:
        return Forecast(stage, None, None, None, f"unknown: {failed or 'not rehearsed'}")

    last = seen[-1]
    trainings = tuple(seen[-1].trainings)
    if n > FURTHEST * last.n:
        why = f"unknown: rehearsed on {last.n} stimuli only, too few to say anything of {n}"
        return Forecast(stage, None, None, None, why, trainings)

    ns = [s.n for s in seen]
    seconds = _carried_on(ns, [s.seconds for s in seen], n, _SMALL, 3)
    disk = _carried_on(ns, [s.disk for s in seen], n, 0, 1)
    peak = None

    if all(s.peak is not None for s in seen):
        peak = _carried_on(ns, [s.peak or 0 for s in seen], n, 1 << 20, 2)

    how = f"rehearsed on {' and '.join(str(s.n) for s in seen[-2:])} of {n} stimuli"
    if trainings:
        held = last.held * n / last.n - trainings[0].held["weights"]
        most = max(max(t.peak(), t.saving) for t in trainings)

        if peak is None:
            peak = None
        else:
            peak = max(peak, max(0.0, held) + most)

        seconds += sum(t.seconds for t in trainings)
        disk += max(2 * t.checkpoint for t in trainings)
        how = f"{'; '.join(t.how for t in trainings)}; the rest {how}"

    return Forecast(stage, seconds, None if peak is None else int(peak), int(disk), how, trainings)


def _carried_on(ns: Sequence[int], values: Sequence[float], n: int, small: float, steepest: float) -> float:
    """The last value at `n`, as the power of n that the last two follow; proportional where they are small."""
    power = 1.0
    if len(ns) > 1 and min(values[-2:]) > small:
        power = math.log(values[-1] / values[-2]) / math.log(ns[-1] / ns[-2])

    return values[-1] * (n / ns[-1]) ** min(max(power, 0.0), steepest)


# -- said, and held against what happened ------------------------------------------------------------------------------


def text_of(forecasts: Sequence[Forecast], folds: int = 1) -> str:
    """A table for people, one line per stage."""
    lines = [f"{'stage':<16}{'memory':>10}{'disk':>10}{'time':>14}  how it is known"]
    for f in forecasts:
        if f.seconds is None:
            seconds = "unknown"
        else:
            seconds = duration(f.seconds)

        lines.append(f"{f.stage:<16}{_size(f.peak_bytes):>10}{_size(f.disk_bytes):>10}{seconds:>14}  {f.how}")

    known = [f.seconds for f in forecasts if f.seconds is not None]
    rest = len(forecasts) - len(known)
    lines.append(
        f"all stages{'' if folds == 1 else f' of {folds} folds'}: {duration(folds * sum(known))}"
        + (f" and {rest} unknown" if rest else "")
        + "; memory is beyond what the program holds when a stage begins, and disk holds the checkpoints of a training, "
        "which go when it is done"
    )

    return "\n".join(lines)


def _size(n: int | None) -> str:
    if n is None:
        return "unknown"

    return size(n)


def write_beside(opened: Run, predicted: Sequence[Forecast], fold: int = 0) -> pd.DataFrame:
    """Write RUN/forecast.csv: what was predicted of each stage of a fold, and what stage.json says of it."""
    from phosphene.io.run_folder import read_json

    rows: list[dict[str, Any]] = []
    for f in predicted:
        record = read_json(opened.place(fold) / "stages" / f.stage / STAGE)
        files = (opened.place(fold) / "stages" / f.stage).iterdir()
        rows.append(
            {
                "stage": f.stage,
                "predicted_seconds": f.seconds,
                "seconds": record.get("seconds"),
                "predicted_peak_bytes": f.peak_bytes,
                "peak_bytes": record.get("peak_bytes"),
                "predicted_disk_bytes": f.kept_bytes,
                "disk_bytes": sum(p.stat().st_size for p in files),
                "how": f.how,
            }
        )

    table = pd.DataFrame(rows)
    opened.folder.write_table(table, "forecast.csv")

    return table


# -- cards -------------------------------------------------------------------------------------------------------------

CARDS = (12, 24, 80)  # GB
ROOM = 0.9  # of a card; the rest is the driver's and lost between tensors


def settings_for(training: Training, card: float) -> str:
    """The settings that let a training fit a card: as few parts as possible, then every block computed twice.

    A loss that compares the items of a batch with each other keeps its parts: smaller ones would change what is learned.

    Parameters
    ----------
    training : Training
        as predicted
    card : float
        GB of the card
    """
    parts = [n for n in range(training.accumulate, training.batch_size + 1) if training.batch_size % n == 0]
    if training.together:
        parts = parts[:1]

    for recompute in (False, True) if training.recomputed else (False,):
        for n in parts:
            if training.peak(n, recompute) <= ROOM * card * 1e9:
                if recompute:
                    also = ", recompute"
                else:
                    also = ""

                return f"{n} part{'s' if n > 1 else ''}{also} ({size(training.peak(n, recompute))})"

    return "does not fit"


def text_of_cards(forecasts: Sequence[Forecast], cards: Sequence[int] = CARDS) -> str:
    """A Markdown table of the settings for each card, by arithmetic; nothing of it was run on one."""
    lines = [
        f"| stage | network | batch | weights | {' | '.join(f'{c} GB' for c in cards)} |",
        "|---|---|---|---|" + "---|" * len(cards),
    ]

    for f in forecasts:
        for t in f.trainings:
            fits = " | ".join(settings_for(t, c) for c in cards)
            lines.append(f"| {f.stage} | {t.network} | {t.batch_size} | {t.weights / 1e6:.3g} M | {fits} |")

        if f.seconds is None:
            lines.append(f"| {f.stage} | {f.how} |{' |' * (2 + len(cards))}")

    return "\n".join(lines)


def show_memory(opened: Run) -> str:
    """What `phosphene show memory` prints: settings for cards, by arithmetic."""
    quick = forecast(opened, patience=0.0, recompute=True)
    return (
        f"{text_of_cards(quick)}\n\nBy arithmetic, not run: weights, gradients, AdamW's moments and averages, and the tensors "
        f"of a step as counted on two and four rows. Parts are `accumulate`; at most {ROOM:.0%} of a card is used."
    )
