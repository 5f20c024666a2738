"""What can be reached at most: the best linear decoder, for data whose true signals and true noise are known.

Only simulated data know them. Their reader offers the decoder by a method, `OracleReader.oracle`; other data
have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from phosphene.data.registry import locate
from phosphene.data.sections import Section

__all__ = ["BestLinear", "OracleReader", "best_linear"]


@dataclass(frozen=True)
class BestLinear:
    """The linear decoder of pixels that knows the true responses and the true noise.

    Attributes
    ----------
    subject : str
        whose responses are decoded
    reached : float
        its expected correlation over the test pictures, mean over pixels; learned from training pictures alone
    bound : float
        the same over the pictures it learned from. On pictures like these, no linear decoder is expected to do better
    showings : int
        how many responses to a test picture are averaged
    learned : int
        number of pictures it learned from
    """

    subject: str
    reached: float
    bound: float
    showings: int
    learned: int


@runtime_checkable
class OracleReader(Protocol):
    """A reader of data whose truth is known; see :class:`~phosphene.data.reader.Reader` for the rest of it."""

    def subjects(self, path: Path, options: Any) -> tuple[str, ...]:
        """Names of the subjects at `path`."""
        ...

    def oracle(
        self, path: Path, options: Any, subject: str, *, split: str | None = None, averaged: bool = True
    ) -> BestLinear | None:
        """The best linear decoder of the pixels of the test pictures.

        Parameters
        ----------
        path : Path
            Where the data stand.
        options : ReaderOptions
            The reader's options.
        subject : str
            One subject.
        split : str, optional
            Name of the split in use; the data set's own by default.
        averaged : bool, default True
            Whether the mean over all showings of a test picture is decoded, or one response.

        Returns
        -------
        BestLinear or None
            None for a split for which it is not known.
        """
        ...


def best_linear(
    spec: str | Path,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Section]:
    """How well the best linear decoder does on simulated data, from the true signals and the true noise.

    Parameters
    ----------
    spec : str or Path
        see `open_dataset`
    root : str or Path, optional
        see `open_dataset`
    options : mapping of {str: Any}, optional
        see `open_dataset`

    Returns
    -------
    list of Section
        one Section, whose numbers are means over pixels of the expected correlation over pictures, nothing drawn; or an
        empty list for data whose truth is not known
    """
    source = locate(spec, root=root)
    if not isinstance(source.reader, OracleReader):
        return []

    values = source.options(options)
    if source.subject:
        subjects = (source.subject,)
    else:
        subjects = source.reader.subjects(source.path, values)

    rows = []
    for subject in subjects:
        averaged = source.reader.oracle(source.path, values, subject)
        decoders = [averaged]

        if averaged is not None and averaged.showings > 1:
            decoders.insert(0, source.reader.oracle(source.path, values, subject, averaged=False))

        for best in decoders:
            if best is not None:
                numbers = (f"{best.reached:.3f}", f"{best.bound:.3f}")
                rows.append((subject, str(best.showings), *numbers, str(best.learned)))

    headings = ("subject", "trials averaged", "test pictures", "pictures learned from", "how many of these")
    return [Section("best linear decoder of pixels, expected correlation", tuple(rows), headings)]
