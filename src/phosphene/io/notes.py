"""What happened on the way and belongs into the record of a stage, from wherever it happened.

>>> with collecting() as notes:
...     note("computed in 2 parts")
>>> notes
['computed in 2 parts']
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# A context variable and not a global: stages in threads of one process each collect their own.
_open: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """A list that `note` adds to while the block runs.

    Yields
    ------
    list of str
        which grows while the block runs, and stays with the caller
    """
    notes: list[str] = []
    token = _open.set(notes)

    try:
        yield notes
    finally:
        _open.reset(token)


def note(text: str) -> None:
    """Put a sentence on record, once, where anyone is collecting.

    Parameters
    ----------
    text : str
        a sentence a person can read on its own
    """
    notes = _open.get()
    if notes is not None and text not in notes:
        notes.append(text)
