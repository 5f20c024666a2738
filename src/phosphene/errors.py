"""What phosphene raises. One class per kind of mistake, each with its own exit status.

A message is one paragraph: what was expected, what came, and what to do next.

===============  ===========  ==========================================================
class            exit status  when
===============  ===========  ==========================================================
ConfigError      3            a configuration, option or command line cannot be used
DataError        4            a file, array or table of the user's data is wrong
SplitError       5            training and test cannot be told apart as asked
ModelError       6            a saved model or run cannot be read or does not fit the data
MachineError     7            the disk, the memory or the device gave out
NotAvailable     8            an optional package, a network or a file to download is missing
FailedChecks     9            a check failed where --strict was asked for; all results are written
===============  ===========  ==========================================================

Status 1 is a defect of phosphene itself, 2 a wrong command line, 130 an interrupt, 143 a termination.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import accumulate

_LONGEST = 2400  # characters; a broken file may have put its whole content into a library's message


class PhospheneError(Exception):
    """Base of every error phosphene raises on purpose. Its text is one paragraph, whatever a library put into it."""

    exit_status = 1  # as for any error of Python; each class below has its own

    def __str__(self) -> str:
        # A library's message may be a page of lines. One paragraph fits a log line, a table and a terminal alike.
        text = " ".join(super().__str__().split("\n")).strip()
        if len(text) <= _LONGEST:
            return text

        # What is wrong stands at the front, and what to do at the end; what is cut is the middle.
        return f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 3 :]}"


# Each is also what Python would raise itself, so that code which knows nothing of phosphene can catch it.


class ConfigError(PhospheneError, ValueError):
    """A configuration, option or command line cannot be used."""

    exit_status = 3


class DataError(PhospheneError, ValueError):
    """A file, array or table of the user's data is wrong."""

    exit_status = 4


class SplitError(PhospheneError, ValueError):
    """Training and test cannot be told apart as asked."""

    exit_status = 5


class ModelError(PhospheneError, ValueError):
    """A saved model or run cannot be read, or does not fit the data it was given."""

    exit_status = 6


class MachineError(PhospheneError, OSError):
    """The disk, the memory or the device gave out."""

    exit_status = 7


class NotAvailable(PhospheneError, RuntimeError):
    """An optional package, a network or a file to download is missing."""

    exit_status = 8


class FailedChecks(PhospheneError):
    """A validity check failed, and it was asked that this be an error. Everything was written."""

    exit_status = 9


class PhospheneWarning(UserWarning):
    """Something a careful user would want to know. Silence with ``warnings.filterwarnings``."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion to end an error message with: the nearest known name, and all of them.

    Parameters
    ----------
    name : str
        what the user wrote
    known : iterable of str
        the names that exist

    Returns
    -------
    str
        such as ``"Did you mean 'V1'? Known: V1, V2, V3."``; ``"Nothing is known here."`` for no names. Very many are
        not all listed

    Examples
    --------
    >>> did_you_mean("v1", ["V1", "V2"])
    "Did you mean 'V1'? Known: V1, V2."
    """
    names = [str(k) for k in known]
    if not names:
        return "Nothing is known here."

    # Without regard to case, which is the commonest mistake: "v1" for "V1" counts as half of the name.
    lowered = {n.lower(): n for n in names}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1)
    if near:
        hint = f"Did you mean '{lowered[near[0]]}'? "
    else:
        hint = ""

    return f"{hint}Known: {_listed(names)}."


def _listed(names: list[str], most: int = 1000) -> str:
    """Names up to `most` characters, and how many more there are."""
    ends = accumulate(len(name) + 2 for name in names)  # two for the comma and the space
    listed = []
    for name, end in zip(names, ends, strict=True):
        if end <= most:
            listed.append(name)

    # One at least, however long: a list without any would say nothing.
    listed = listed or names[:1]
    text = ", ".join(listed)
    if len(listed) < len(names):
        text += f" and {len(names) - len(listed)} more"
    return text
