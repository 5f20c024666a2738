"""Small pieces of sentences."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """Names in a row.

    Examples
    --------
    >>> listed(["V1", "V2", "V4"]), listed(["V1"])
    ('V1, V2 and V4', 'V1')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def percent(share: float) -> str:
    """A share of 0 to 1.

    Examples
    --------
    >>> percent(0.071)
    '7 %'
    """
    return f"{100 * share:.0f} %"


def capital(text: str) -> str:
    """The same, with a capital first letter."""
    return text[:1].upper() + text[1:]
