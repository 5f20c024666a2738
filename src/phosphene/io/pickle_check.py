"""A pickle is walked before it is read: what it wants to put where, and how large it says things are.

Reading a pickle takes memory for what it announces before anything is compared: a memo index of two billion, or an array of
bytes of a terabyte, stands in a file of twenty bytes. What writes pickles counts its memo from 0 or 1 without leaving one out.
"""

from __future__ import annotations

import pickletools
from typing import IO, Any, BinaryIO, cast

_MOST_STEPS = 5_000_000  # of the largest public checkpoints less than a tenth

_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}


def check_pickle(stream: BinaryIO, end: int) -> None:
    """Refuse a pickle that announces more than it holds; the stream stands where it stood afterwards.

    Parameters
    ----------
    stream : BinaryIO
        at the pickle's first byte; it can seek
    end : int
        where the file ends, in bytes

    Raises
    ------
    ValueError
        For an index or a size that no honest pickle has, or bytes that are no pickle.
    """
    start = stream.tell()
    puts = 0
    for number, (step, argument, place) in enumerate(pickletools.genops(cast(IO[bytes], _Bounded(stream, end)))):
        if number > _MOST_STEPS:
            raise ValueError(f"it has more than {_MOST_STEPS} steps")
        if step.name == "DUP":
            raise ValueError(f"a step at byte {place} that nothing writes (DUP)")
        if step.name == "FRAME" and argument is not None and argument > end - start:
            raise ValueError(f"a frame of {argument} bytes at byte {place}, in a file of {end}")

        if step.name in _PUTS:
            index = int(str(argument))
            if index > puts + 1:
                raise ValueError(f"the index {index} at byte {place}, behind {puts} others")

        if step.name in _PUTS or step.name == "MEMOIZE":
            puts += 1

    stream.seek(start)


class _Bounded:
    """A stream that refuses at once to give more than the file has left."""

    def __init__(self, stream: Any, end: int) -> None:
        self._stream = stream
        self._end = end
        self.tell = stream.tell

    def read(self, n: int) -> bytes:
        left = self._end - self._stream.tell()
        if not 0 <= n <= left:
            raise ValueError(f"{n} bytes are announced where {left} are left")
        return self._stream.read(n)

    def readline(self) -> bytes:
        return self._stream.readline(2**20)
