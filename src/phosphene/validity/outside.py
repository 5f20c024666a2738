"""What can be known of pictures that were made elsewhere: by a decoder, from data and with a training that nobody here saw.

A check is answered from pictures where pictures are all it asks about. Others need the fitted recipe, or the responses, and are
never passed: whoever made the pictures may know the answer, and nobody can see it in them. A check that is not named in this
file counts among these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from phosphene.validity.check import Check, CheckResult, Verdict, unknown_outside

Brought = Literal["training", "samples", "controls"]
"""What may come with decoded pictures: training pictures, several samples of each item, pictures of control inputs."""

FROM_PICTURES: Mapping[str, Brought | None] = {
    "S1": "training",
    "S2": "training",
    "S3": "training",
    "S10": None,
    "B1": None,
    "B3": "controls",
    "L12": "controls",
    "B6": "training",
    "B7": "training",
    "B8": "training",
    "M6": "samples",
    "M10": None,
    "M11": None,
}
"""Checks that pictures answer, and what has to come with the decoded and the seen ones."""

ONLY_WARNINGS = ("L6",)
"""Checks of which pictures can tell the bad news and never the good."""

_MISSING: Mapping[Brought, str] = {
    "training": "no training pictures came with them (--train FOLDER)",
    "samples": "one picture of each item came, and how many were drawn is not said",
    "controls": "no pictures decoded from shuffled or noise responses came with them (--shuffled FOLDER, --noise FOLDER)",
}

_TRUST: Mapping[Brought, str] = {
    "training": "That these were all the training pictures is the word of whoever handed them in.",
    "samples": "That no other samples were drawn is the word of whoever handed them in.",
    "controls": "That the same decoder made the controls is the word of whoever handed them in.",
}

_WOULD_NEED: Mapping[str, str] = {
    "S4": "how test pictures were held out",
    "S5": "the folds by which settings were chosen",
    "S6": "the sessions of the trials and their responses",
    "S7": "which stimuli aligned people with each other",
    "S8": "which generator drew the pictures, and what it was trained on",
    "S9": "the trials that were left out",
    "L1": "what each fitted step saw",
    "L2": "the decoder, to decode test items one by one",
    "L3": "the decoder, to decode test items beside noise",
    "L4": "how voxels were chosen",
    "L5": "whether a model was trained on test responses",
    "L6": "how often these pictures were scored by others before",
    "L7": "how many samples were drawn, and how these were chosen",
    "L8": "the stimuli that encoder and decoder were fitted on",
    "L9": "the decoder, to decode test items under other names",
    "L10": "the decoder, to decode responses that were moved a little",
    "L11": "the decoder, to see which files it opens",
    "B2": "the responses to repeats of a picture",
    "B4": "the generator, to draw the true features",
    "B5": "the responses",
    "B10": "the responses that trained and tested the decoder",
    "B9": "what kind of pictures the decoder was trained on",
}


def missing_outside(check: Check, at_hand: Collection[Brought]) -> CheckResult | None:
    """Why a check cannot be run on pictures that were made elsewhere.

    Parameters
    ----------
    check : Check
        one entry of the table
    at_hand : collection of {"training", "samples", "controls"}
        what came with the pictures

    Returns
    -------
    CheckResult or None
        "cannot be known from outside", with what it would need; None where it can be run
    """
    if check.id in ONLY_WARNINGS:
        return None

    if check.id not in FROM_PICTURES:
        return _not_known(check)

    needed = FROM_PICTURES[check.id]
    if needed is None or needed in at_hand:
        return None

    return unknown_outside(f"{check.title}: cannot be known from outside, as {_MISSING[needed]}.", needs=needed)


def as_seen_outside(check: Check, verdict: Verdict) -> Verdict:
    """A verdict on pictures that were made elsewhere, with what it rests on besides them.

    Parameters
    ----------
    check : Check
        the check that gave it
    verdict : Verdict
        of `run_check`

    Returns
    -------
    Verdict
        "cannot be known from outside" in place of good news that pictures cannot tell
    """
    if check.id in ONLY_WARNINGS and verdict.verdict not in ("fail", "flag"):
        answer = _not_known(check)
        return Verdict(check.id, answer.verdict, answer.value, answer.reason, details=answer.details)

    needed = FROM_PICTURES.get(check.id)
    if needed is None or verdict.verdict == "not applicable":
        return verdict

    reason = f"{verdict.reason} {_TRUST[needed]}"
    return Verdict(verdict.id, verdict.verdict, verdict.value, reason, verdict.waived_by, verdict.details)


def _not_known(check: Check) -> CheckResult:
    needs = _WOULD_NEED.get(check.id, "the fitted decoder and its data")
    return unknown_outside(f"{check.title}: cannot be known from outside; it takes {needs}.", needs=needs)
