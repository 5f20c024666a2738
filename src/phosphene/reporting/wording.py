"""Small pieces of sentences."""

from __future__ import annotations


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
