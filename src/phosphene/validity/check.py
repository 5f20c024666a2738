"""What a validity check is given, what it answers, and how a set of them is run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
import pandas as pd

from phosphene.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from phosphene.io.ledger import Ledger
    from phosphene.validity.decoding_target import DecodingTarget
    from phosphene.validity.likeness import Likeness

T = TypeVar("T")
Answer = Literal["pass", "flag", "fail", "not applicable", "not tested", "cannot be known from outside"]
UNKNOWN_OUTSIDE: Answer = "cannot be known from outside"
"""Answer of a check that needs the recipe or its data, about pictures that were made elsewhere."""
VERDICT_COLUMNS = ("id", "verdict", "value", "reason")
NOTHING = float("nan")  # the value of a finding that has no number


@dataclass(frozen=True)
class CheckResult:
    """What a check found: a verdict, the number behind it, a sentence, and the same as data.

    Attributes
    ----------
    verdict : {"pass", "flag", "fail", "not applicable", "not tested", "cannot be known from outside"}
        the answer
    value : float
        the number behind it, NaN where there is none
    reason : str
        one sentence
    details : Mapping[str, Any]
        what the sentence tells, for programs: numbers, names, lists of ids; no program reads the sentence
    """

    verdict: Answer
    value: float
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


def passed(value: float, reason: str, **details: Any) -> CheckResult:
    """All is well.

    Parameters
    ----------
    value : float
        the number behind the verdict
    reason : str
        one sentence
    **details : Any
        the same as data

    Returns
    -------
    CheckResult
        ``pass``
    """
    return CheckResult("pass", float(value), reason, details)


def flagged(value: float, reason: str, **details: Any) -> CheckResult:
    """Something that a reader of the scores must know.

    Parameters
    ----------
    value : float
        the number behind the verdict
    reason : str
        one sentence that ends with what to do, where something can be done
    **details : Any
        the same as data

    Returns
    -------
    CheckResult
        ``flag``
    """
    return CheckResult("flag", float(value), reason, details)


def failed(value: float, reason: str, **details: Any) -> CheckResult:
    """The scores cannot be believed.

    Parameters
    ----------
    value : float
        the number behind the verdict
    reason : str
        one sentence that ends with what to do, where something can be done
    **details : Any
        the same as data

    Returns
    -------
    CheckResult
        ``fail``
    """
    return CheckResult("fail", float(value), reason, details)


def not_applicable(reason: str, **details: Any) -> CheckResult:
    """The question does not arise here, or too little is there to answer it.

    Parameters
    ----------
    reason : str
        one sentence
    **details : Any
        the same as data

    Returns
    -------
    CheckResult
        ``not applicable``, without a number
    """
    return CheckResult("not applicable", NOTHING, reason, details)


def not_tested(reason: str, **details: Any) -> CheckResult:
    """The question stays open.

    Parameters
    ----------
    reason : str
        one sentence
    **details : Any
        the same as data

    Returns
    -------
    CheckResult
        ``not tested``, without a number
    """
    return CheckResult("not tested", NOTHING, reason, details)


def unknown_outside(reason: str, **details: Any) -> CheckResult:
    """Nobody can tell from pictures that were made elsewhere.

    Parameters
    ----------
    reason : str
        one sentence
    **details : Any
        the same as data

    Returns
    -------
    CheckResult
        ``cannot be known from outside``, without a number
    """
    return CheckResult(UNKNOWN_OUTSIDE, NOTHING, reason, details)


@dataclass(frozen=True)
class Verdict:
    """Answer of one check.

    Attributes
    ----------
    id : str
        of the check, such as ``S1``
    verdict : {"pass", "flag", "fail", "not applicable", "not tested", "cannot be known from outside"}
        the answer; the last is about pictures that were made elsewhere
    value : float
        the number behind it, NaN where there is none
    reason : str
        one sentence
    waived_by : str
        who decided to go on in spite of it; empty when nobody did
    details : Mapping[str, Any]
        what the sentence tells, for programs; see `CheckResult`
    """

    id: str
    verdict: Answer
    value: float
    reason: str
    waived_by: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_blocking(self) -> bool:
        """A failure that nobody has waived."""
        return self.verdict == "fail" and not self.waived_by


@dataclass(frozen=True)
class Lineage:
    """What one fitted step saw.

    Parameters
    ----------
    name : str
        of the step, such as ``standardise`` or ``fold 3 ridge``
    fitted_on : iterable or None
        trial ids that entered the fit, or stimulus ids where it sees pictures alone; None when nobody recorded them
    evaluated_on : iterable
        trial or stimulus ids of the test set that this fit is judged on
    sees : {"brain", "brain and pictures", "pictures"}, default "brain and pictures"
        ``brain`` when the ids are those of trials of which the fit used responses only, ``brain and pictures`` when it used
        what was shown as well, ``pictures`` when they are those of stimuli
    """

    name: str
    fitted_on: Iterable | None
    evaluated_on: Iterable
    sees: Literal["brain", "brain and pictures", "pictures"] = "brain and pictures"


@dataclass(frozen=True)
class CycleEvidence:
    """A score of pictures that were encoded and then decoded (or the other way round).

    Parameters
    ----------
    name : str
        of the score or analysis
    encoder_stimuli, decoder_stimuli : iterable
        ids of the stimuli that either direction was fitted on
    is_marked : bool, default False
        whether its readers are told that it proves nothing about a brain
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
    drawn : ndarray of shape (n, n_samples, height, width, channels)
        uint8 or 0-1 floats, n_samples pictures for each trial
    scored : ndarray of shape (n, height, width, channels)
        the one that is shown, and scored where others are not: a sample, or their mean
    true : ndarray of shape (n, height, width, channels)
        what was shown
    is_chosen : bool, default False
        whether the recipe says that it chose the one that is scored
    """

    drawn: np.ndarray
    scored: np.ndarray
    true: np.ndarray
    is_chosen: bool = False


class Predict(Protocol):
    """The function that was scored, as the checks try it: by a fresh copy of the fitted recipe at each call."""

    def __call__(
        self,
        betas: np.ndarray,
        rows: np.ndarray,
        *,
        names: int = 0,
        order: int = 0,
        keys: np.ndarray | None = None,
        first: bool = False,
    ) -> np.ndarray:
        """Predictions for responses.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            responses
        rows : ndarray of shape (n,), int
            which test items they are of, or take the place of: gives the noise key and the columns of the bare table
        names, order : int
            another number hands them over under other names, or in another order; 0 as they were when scored
        keys : ndarray of shape (n,), int, optional
            test items whose noise is drawn; `rows` by default
        first : bool, default False
            only the first sample, where several are drawn: the second axis has one entry then

        Returns
        -------
        ndarray of shape (n, ...)
            in the order of `betas`
        """
        ...


@dataclass(frozen=True, eq=False)
class Redecoding:
    """The scored function, what it was scored on, and what it gave.

    Parameters
    ----------
    betas : ndarray of shape (n, n_voxels)
        test responses of the items that are decoded again: all, or fewer where that would take long
    predict : Predict
        the function
    scored : ndarray of shape (n, ...), optional
        what was scored of them; made by `predict` by default
    groups : ndarray of shape (n,), int, optional
        items that were decoded in one call have one number; one call for all by default
    n_items : int, optional
        test items in all; as many as decoded again by default
    true : ndarray of shape (n, 1, ...), optional
        truths, broadcast over the samples on the second axis of predictions, where noise keys change these
    slack : float or ndarray, default 0
        by how much values of `scored` may be off because of how they are kept, broadcast against them
    columns : sequence of str, default ()
        columns of the trial table that the recipe declares to need
    data_files : sequence of str, default ()
        files and folders of the data set, and pictures of runs: what must not be opened
    opened : callable, optional
        gives the files read and written while decoding up to now
    known : dict of str to ndarray
        what one check has found and another asks for as well; empty at first
    """

    betas: np.ndarray
    predict: Predict
    scored: np.ndarray | None = None
    groups: np.ndarray | None = None
    n_items: int | None = None
    true: np.ndarray | None = None
    slack: Any = 0.0
    columns: Sequence[str] = ()
    data_files: Sequence[str] = ()
    opened: Callable[[], tuple[Collection[str], Collection[str]]] | None = None
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def reference(self) -> np.ndarray:
        """(n, ...) predictions that others are compared with: those that were scored."""
        if self.scored is not None:
            return self.scored

        return self.predict(self.betas, np.arange(len(self.betas)))

    @property
    def tried(self) -> str:
        """Which items are decoded again, in words."""
        if self.n_items is None or len(self.betas) == self.n_items:
            return f"all {len(self.betas)} test items"

        return f"{len(self.betas)} of {self.n_items} test items (decoding is slow)"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything a check may ask for. What is left out makes the checks that need it "not applicable".

    Parameters
    ----------
    splits : sequence of tuple of (iterable, iterable), optional
        (training stimulus ids, test stimulus ids), one pair per fold; a plain split is one pair
    by_trial : bool, default False
        whether the split was asked for by trial (such as leaving out runs), so that the same stimuli train and test
    digests : Mapping[object, str], optional
        stimulus id -> SHA-256 of its pixels (see ``picture_digests``)
    test_labels : ndarray, optional
        class of each distinct test stimulus
    inner_folds : Mapping[str, Sequence[tuple[iterable, iterable]]], optional
        name -> list of (fitted stimulus ids, held-out stimulus ids), as used to choose penalties and the like
    lineages : sequence of Lineage, optional
        one per fitted step and fold
    redecoding : Redecoding, optional
        the whole chain that is being scored, and what it is tried on
    similarity : ndarray of shape (n, n), optional
        decoded items in rows, true ones in columns, both in the order of ``test_ids``
    test_ids : ndarray of shape (n,), optional
        stimulus ids in that order
    orders : Mapping[str, ndarray], optional
        name -> (n,) other order of the truths that a mistake could have produced
    scores : DataFrame, optional
        table of scores with rows for ``brain`` and for each control
    differences : DataFrame, optional
        paired differences to the controls (``phosphene.metrics.controls``)
    likeness : Likeness, optional
        hashes and features of all stimuli
    trials : DataFrame, optional
        one row per trial, in order of presentation: ``stimulus``, ``session``, ``run``
    sides : sequence of tuple of (ndarray, ndarray), optional
        (rows of `trials` that train, rows that test), one pair per fold, in the order of ``splits``
    responses : ndarray of shape (n_trials, n_voxels), optional
        of `trials`; some of the voxels are enough
    held_out : str, optional
        what the split keeps on one side as a whole, such as ``clusters of pictures``; empty for single stimuli
    usual_scores : DataFrame, optional
        scores of the same recipe under a split that holds out single stimuli
    anchors : Mapping[str, iterable], optional
        name -> stimulus ids whose responses of several people were used to align them
    generators : Mapping[str, Sequence[str] | None], optional
        name of each pretrained generator -> what it was trained on; None where that is not known
    corpora : sequence of str, optional
        collections that the pictures of this data set come from
    left_out : Mapping[str, int], optional
        reason -> number of trials that are in the data set but not in this evaluation
    voxel_choices : sequence of Lineage, optional
        one per step that chose voxels
    setting : str, optional
        ``strict``, or ``relax`` where a recipe may see test responses
    strict_scores : DataFrame, optional
        scores of the same recipe in setting strict
    ledger : Ledger, optional
        earlier evaluations of this run
    looks_beside : int, default 0
        how often other runs, with another configuration, evaluated the same test set
    looks_planned : int, default 0
        other configurations that the sweep of this run evaluates on the same test set
    config : str, default ""
        digest of this run's configuration, as in the ledger
    monitored : Mapping[str, tuple[int, iterable]], optional
        name of a choice made while training -> fold, from 0, and stimulus ids it was made by
    samples : Samples, optional
        pictures drawn for each item, and the one scored
    cycles : sequence of CycleEvidence, optional
        scores of what was encoded and decoded in turn
    targets : sequence of DecodingTarget, optional
        training and test items of one fold, one entry per space that is decoded to, and the pictures
    is_random : bool, default False
        whether pictures are drawn with chance
    other_kind : str, optional
        what the test stimuli are, where they are of another kind than those of training; otherwise empty
    golden : Mapping[str, float], optional
        metric -> its value on the golden items, as computed now (``phosphene.metrics.golden``)
    n_features : Mapping[str, int], optional
        name of a feature extractor -> number of its features
    """

    splits: Sequence[tuple[Iterable, Iterable]] | None = None
    by_trial: bool = False
    digests: Mapping[object, str] | None = None
    test_labels: np.ndarray | None = None
    inner_folds: Mapping[str, Sequence[tuple[Iterable, Iterable]]] | None = None
    lineages: Sequence[Lineage] | None = None
    redecoding: Redecoding | None = None
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
    looks_planned: int = 0
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
    id : str
        such as ``S1``
    title : str
        two or three words
    question : str
        what it asks, in one sentence
    needs : tuple of str
        fields of ``Evidence`` without which it does not apply
    run : callable or None
        (evidence, rng) -> CheckResult; None for a check that is listed but not written yet
    cost : str
        what it takes for 1,000 test items, on two cores, without the generator
    """

    id: str
    title: str
    question: str
    needs: tuple[str, ...] = ()
    run: Callable[[Evidence, np.random.Generator], CheckResult] | None = None
    cost: str = ""


def run_check(check: Check, evidence: Evidence, rng: np.random.Generator) -> Verdict:
    """The verdict of one check on the evidence at hand.

    Parameters
    ----------
    check : Check
        one entry of the table
    evidence : Evidence
        what there is
    rng : numpy.random.Generator
        of the rows and permutations it draws

    Returns
    -------
    Verdict
        "not applicable" where evidence is missing, with what is
    """
    missing = [name for name in check.needs if getattr(evidence, name) is None]
    if check.run is None:
        found = not_tested(f"{check.title}: not part of this version.")
    elif missing:
        named = " and ".join(missing).replace("_", " ")
        found = not_applicable(f"{check.title}: no {named} to look at.", missing=missing)
    else:
        found = check.run(evidence, rng)

    return Verdict(check.id, found.verdict, found.value, found.reason, details=found.details)


def waive(verdicts: list[Verdict], waivers: Mapping[str, str], known: Iterable[str]) -> list[Verdict]:
    """Mark verdicts as waived. A waiver keeps the verdict, names who gave it, and is printed.

    Parameters
    ----------
    verdicts : list of Verdict
        of `run_check`
    waivers : Mapping[str, str]
        id of a check -> who waives it, and why
    known : iterable of str
        ids of all checks

    Returns
    -------
    list of Verdict
        in the same order

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

    marked = []
    for verdict in verdicts:
        if verdict.id in waivers:
            verdict = replace(verdict, waived_by=str(waivers[verdict.id]).strip())

        marked.append(verdict)

    return marked


def verdict_table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Rows of ``validity.csv``: id, verdict, value, reason. A waiver stands in front of the reason.

    Parameters
    ----------
    verdicts : iterable of Verdict
        of `run_checks`

    Returns
    -------
    DataFrame
        columns as ``VERDICT_COLUMNS``
    """
    rows = []
    for v in verdicts:
        if v.waived_by:
            reason = f"Waived by {v.waived_by}. {v.reason}"
        else:
            reason = v.reason

        rows.append((v.id, v.verdict, v.value, reason))

    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))


def verdict_record(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """The verdicts of ``validity.json``: what ``validity.csv`` has, with the details as data.

    Parameters
    ----------
    verdicts : iterable of Verdict
        of `run_checks`

    Returns
    -------
    list of dict
        ``id, verdict, value, reason, waived_by, details``, in plain Python; None for numbers that are not finite
    """
    records = []
    for verdict in verdicts:
        records.append(
            {
                "id": verdict.id,
                "verdict": verdict.verdict,
                "value": plain_data(verdict.value),
                "reason": verdict.reason,
                "waived_by": verdict.waived_by,
                "details": plain_data(verdict.details),
            }
        )

    return records


def plain_data(value: Any) -> Any:
    """Values as JSON has them: lists for arrays and sets, None for numbers that are not finite, text for other objects.

    Parameters
    ----------
    value : Any
        numbers, texts, arrays, tables, mappings and sequences of such

    Returns
    -------
    Any
        made of dict, list, str, int, float, bool and None

    Examples
    --------
    >>> plain_data({"ids": {"b", "a"}, "p": np.float64(0.5), "r": float("nan")})
    {'ids': ['a', 'b'], 'p': 0.5, 'r': None}
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    elif isinstance(value, pd.DataFrame):
        value = value.to_dict("records")

    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):  # sorted, so that the same findings are the same file
        return [plain_data(item) for item in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def needed(field: T | None) -> T:
    """A field of the evidence that ``Check.needs`` has made sure of.

    Parameters
    ----------
    field : T or None
        of `Evidence`

    Returns
    -------
    T
        the same
    """
    assert field is not None, "the table of checks names no evidence that this check needs"
    return field


def rows_where(table: pd.DataFrame, **values: str) -> pd.DataFrame:
    """Rows of a table whose columns have these values.

    Parameters
    ----------
    table : DataFrame
        such as scores
    **values : str
        column to value

    Returns
    -------
    DataFrame
        in the same order, possibly without rows
    """
    is_wanted = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        is_wanted &= (table[column] == value).to_numpy(bool)

    return table.take(np.flatnonzero(is_wanted))


def id_set(ids: Iterable) -> set:
    """Ids as Python's own values, whatever array they come in.

    Parameters
    ----------
    ids : iterable
        stimulus or trial ids

    Returns
    -------
    set
        no numpy scalars, whose types would tell equal ids apart
    """
    return set(np.asarray(list(ids)).tolist())


def as_floats(pictures: np.ndarray) -> np.ndarray:
    """Pictures of 8 bits as float32 of 0 to 1; others as float32.

    Parameters
    ----------
    pictures : ndarray
        any shape

    Returns
    -------
    ndarray
        the same shape, float32
    """
    pictures = np.asarray(pictures)
    if pictures.dtype == np.uint8:
        return pictures.astype(np.float32) / 255
    return pictures.astype(np.float32)
