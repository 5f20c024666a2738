"""What a validity check is given, what it answers, and how a set of them is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from phosphene.io.ledger import Ledger
    from phosphene.validity.likeness import Likeness
    from phosphene.validity.targets import DecodingTarget

Answer = Literal["pass", "flag", "fail", "not applicable", "not tested"]
VERDICT_COLUMNS = ("id", "verdict", "value", "reason")


@dataclass(frozen=True)
class Verdict:
    """Answer of one check.

    Attributes
    ----------
    id : of the check, such as ``S1``
    verdict : ``pass``, ``flag``, ``fail``, ``not applicable`` or ``not tested``
    value : the number behind it, NaN where there is none
    reason : one sentence
    waived_by : who decided to go on in spite of it; empty when nobody did
    """

    id: str
    verdict: Answer
    value: float
    reason: str
    waived_by: str = ""

    @property
    def is_blocking(self) -> bool:
        """A failure that nobody has waived."""
        return self.verdict == "fail" and not self.waived_by


@dataclass(frozen=True)
class Lineage:
    """What one fitted step saw.

    Parameters
    ----------
    name : of the step, such as ``standardise`` or ``fold 3 ridge``
    fitted_on : trial ids that entered the fit; None when nobody recorded them
    evaluated_on : trial ids of the test set that this fit is judged on
    sees : ``brain`` when the fit used responses only, ``brain and pictures`` when it used what was shown as well
    """

    name: str
    fitted_on: Iterable | None
    evaluated_on: Iterable
    sees: Literal["brain", "brain and pictures"] = "brain and pictures"


@dataclass(frozen=True)
class CycleEvidence:
    """A score of pictures that were encoded and then decoded (or the other way round).

    Parameters
    ----------
    name : of the score or analysis
    encoder_stimuli, decoder_stimuli : ids of the stimuli that either direction was fitted on
    is_marked : whether its readers are told that it proves nothing about a brain
    """

    name: str
    encoder_stimuli: Iterable
    decoder_stimuli: Iterable
    is_marked: bool = False


@dataclass(frozen=True, eq=False)
class Samples:
    """Pictures drawn for each test item, and the one that is scored.

    Parameters
    ----------
    drawn : (n, n_samples, height, width, channels)
    scored : (n, height, width, channels)
    true : (n, height, width, channels)
    """

    drawn: np.ndarray
    scored: np.ndarray
    true: np.ndarray


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything a check may ask for. What is left out makes the checks that need it "not applicable".

    Parameters
    ----------
    splits : (training stimulus ids, test stimulus ids), one pair per fold; a plain split is one pair
    digests : stimulus id -> SHA-256 of its pixels (see ``picture_digests``)
    test_labels : class of each distinct test stimulus
    inner_folds : name -> list of (fitted stimulus ids, held-out stimulus ids), as used to choose penalties and the like
    lineages : one per fitted step and fold
    predict : (n, n_voxels) responses -> (n, ...) predictions, the whole chain that is being scored
    test_betas : (n, n_voxels), what ``predict`` is tried on
    similarity : (n, n), decoded items in rows, true ones in columns, both in the order of ``test_ids``
    test_ids : (n,) stimulus ids in that order
    orders : name -> (n,) other order of the truths that a mistake could have produced
    scores : table of scores with rows for ``brain`` and for each control
    differences : paired differences to the controls (``phosphene.metrics.controls``)
    likeness : hashes and features of all stimuli
    trials : one row per trial, in order of presentation: ``stimulus``, ``session``, ``run``
    sides : (rows of `trials` that train, rows that test), one pair per fold, in the order of ``splits``
    responses : (n_trials, n_voxels) of `trials`; some of the voxels are enough
    held_out : what the split keeps on one side as a whole, such as ``clusters of pictures``; empty for single stimuli
    usual_scores : scores of the same recipe under a split that holds out single stimuli
    anchors : name -> stimulus ids whose responses of several people were used to align them
    generators : name of each pretrained generator -> what it was trained on; None where that is not known
    corpora : collections that the pictures of this data set come from
    left_out : reason -> number of trials that are in the data set but not in this evaluation
    voxel_choices : one per step that chose voxels
    setting : ``strict``, or ``relax`` where a recipe may see test responses
    strict_scores : scores of the same recipe in setting strict
    ledger : earlier evaluations of this run
    looks_beside : how often runs beside this one, with another configuration, evaluated the same test set
    config : digest of this run's configuration, as in the ledger
    monitored : name of a choice made while training -> fold, from 0, and stimulus ids it was made by
    samples : pictures drawn for each item, and the one scored
    cycles : scores of what was encoded and decoded in turn
    targets : training and test items of one fold, one entry per space that is decoded to, and the pictures
    is_random : whether pictures are drawn with chance
    other_kind : what the test stimuli are, where they are of another kind than those of training; otherwise empty
    golden : metric -> its value on the golden items, as computed now (``phosphene.metrics.golden``)
    n_features : name of an eye -> number of its features
    """

    splits: Sequence[tuple[Iterable, Iterable]] | None = None
    digests: Mapping[object, str] | None = None
    test_labels: np.ndarray | None = None
    inner_folds: Mapping[str, Sequence[tuple[Iterable, Iterable]]] | None = None
    lineages: Sequence[Lineage] | None = None
    predict: Callable[[np.ndarray], np.ndarray] | None = None
    test_betas: np.ndarray | None = None
    similarity: np.ndarray | None = None
    test_ids: np.ndarray | None = None
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)
    scores: pd.DataFrame | None = None
    differences: pd.DataFrame | None = None
    likeness: Likeness | None = None
    trials: pd.DataFrame | None = None
    sides: Sequence[tuple[np.ndarray, np.ndarray]] | None = None
    responses: np.ndarray | None = None
    held_out: str | None = None
    usual_scores: pd.DataFrame | None = None
    anchors: Mapping[str, Iterable] | None = None
    generators: Mapping[str, Sequence[str] | None] | None = None
    corpora: Sequence[str] | None = None
    left_out: Mapping[str, int] | None = None
    voxel_choices: Sequence[Lineage] | None = None
    setting: str | None = None
    strict_scores: pd.DataFrame | None = None
    ledger: Ledger | None = None
    looks_beside: int = 0
    config: str = ""
    monitored: Mapping[str, tuple[int, Iterable]] = field(default_factory=dict)
    samples: Samples | None = None
    cycles: Sequence[CycleEvidence] | None = None
    targets: Sequence[DecodingTarget] | None = None
    is_random: bool = False
    other_kind: str | None = None
    golden: Mapping[str, float] | None = None
    n_features: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One entry of the table of checks.

    Attributes
    ----------
    id : such as ``S1``
    title : two or three words
    question : what it asks, in one sentence
    needs : fields of ``Evidence`` without which it does not apply
    run : (evidence, rng) -> (verdict, value, reason); None for a check that is listed but not written yet
    cost : what it takes for 1,000 test items, on two cores, without the generator
    """

    id: str
    title: str
    question: str
    needs: tuple[str, ...] = ()
    run: Callable[[Evidence, np.random.Generator], tuple[Answer, float, str]] | None = None
    cost: str = ""


def run_check(check: Check, evidence: Evidence, rng: np.random.Generator) -> Verdict:
    """The verdict of one check on the evidence at hand."""
    if check.run is None:
        return Verdict(check.id, "not tested", float("nan"), f"{check.title}: not part of this version.")
    missing = [name for name in check.needs if getattr(evidence, name) is None]
    if missing:
        named = " and ".join(missing).replace("_", " ")
        return Verdict(check.id, "not applicable", float("nan"), f"{check.title}: no {named} to look at.")
    verdict, value, reason = check.run(evidence, rng)
    return Verdict(check.id, verdict, float(value), reason)


def waive(verdicts: list[Verdict], waivers: Mapping[str, str], known: Iterable[str]) -> list[Verdict]:
    """Mark verdicts as waived. A waiver keeps the verdict, names who gave it, and is printed.

    Raises
    ------
    ConfigError
        For a waiver of an unknown check, or one without a name.
    """
    known = list(known)
    for check_id, name in waivers.items():
        if check_id not in known:
            raise ConfigError(f"there is no check {check_id!r} to waive. {did_you_mean(check_id, known)}")
        if not str(name).strip():
            raise ConfigError(f"the waiver of {check_id} needs a name and a reason to print, but it is empty.")
    return [replace(v, waived_by=str(waivers[v.id]).strip()) if v.id in waivers else v for v in verdicts]


def verdict_table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Rows of ``validity.csv``: id, verdict, value, reason. A waiver stands in front of the reason."""
    rows = [
        (v.id, v.verdict, v.value, f"Waived by {v.waived_by}. {v.reason}" if v.waived_by else v.reason)
        for v in verdicts
    ]
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))


def id_set(ids: Iterable) -> set:
    """Ids as Python's own values, whatever array they come in."""
    return set(np.asarray(list(ids)).tolist())


def as_floats(pictures: np.ndarray) -> np.ndarray:
    """Pictures of 8 bits as float32 of 0 to 1; others as float32."""
    pictures = np.asarray(pictures)
    return pictures.astype(np.float32) / 255 if pictures.dtype == np.uint8 else pictures.astype(np.float32)
