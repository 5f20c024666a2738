"""What a command says, where nobody may be there to hear it: closed streams, full disks, readers that had enough."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class GuardedStream:
    """A stream that gives up writing, and not the work, at the first error.

    Parameters
    ----------
    stream : TextIO or None
        what is written to; None where the process was started without it
    """

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as the process lives

        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, unless an earlier one could not be.

        Parameters
        ----------
        text : str
            any

        Returns
        -------
        int
            its length, also where it went nowhere
        """
        if self.error is None:
            try:
                self.stream.write(text)
            except OSError as error:
                self._give_up(error)
            except UnicodeEncodeError:
                # A name that is no text of this terminal: shown with escapes rather than not at all.
                shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
                encoding = self.stream.encoding or "utf-8"
                self.stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))

        return len(text)

    def flush(self) -> None:
        """Write out what is held back."""
        if self.error is None:
            try:
                self.stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.error = error

        # Python flushes once more as it ends, and must find an open file.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_streams() -> tuple[GuardedStream, GuardedStream]:
    """Put a guard before what this process prints and what it warns of.

    Returns
    -------
    tuple of (GuardedStream, GuardedStream)
        output and errors
    """
    out = GuardedStream(sys.stdout)
    errors = GuardedStream(sys.stderr)
    sys.stdout = out  # pyright: ignore[reportAttributeAccessIssue]  it has all that a stream has
    sys.stderr = errors  # pyright: ignore[reportAttributeAccessIssue]  it has all that a stream has

    return out, errors
