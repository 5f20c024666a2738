"""Progress a person can watch, and plain lines where nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO, TypeVar

T = TypeVar("T")


@dataclass
class Progress:
    """Says what is being done, how far it is, and how long it will still take.

    Parameters
    ----------
    stream : TextIO, optional
        where to; standard error by default
    quiet : bool, default False
        say nothing at all
    live : bool, optional
        redraw one line; by default only when `stream` is a terminal
    """

    stream: TextIO | None = None
    quiet: bool = False
    live: bool | None = None
    _started: float = field(default_factory=time.perf_counter, repr=False)

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            stream = self.stream or sys.stderr
            stream.write(("\r\x1b[2K" if self._is_live() else "") + text + "\n")
            stream.flush()

    def each(self, items: Iterable[T], what: str, total: int | None = None, unit: str = "") -> Iterator[T]:
        """Pass items through, showing how many are done and the time left.

        Parameters
        ----------
        items : iterable of T
            anything iterable
        what : str
            what is being done to them
        total : int, optional
            how many; ``len(items)`` where it has a length
        unit : str, default ""
            what one of them is, such as "fold"
        """
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]

        start = shown = time.perf_counter()
        done = 0

        for item in items:
            yield item
            done += 1
            now = time.perf_counter()
            if self._is_live() and now - shown > 0.1:
                shown = now
                if total:
                    left = f", {duration((now - start) / done * (total - done))} left"
                else:
                    left = ""

                self._redraw(f"{what}: {done}{f' of {total}' if total else ''}{left}")

        if self._is_live():
            self._redraw("")

        elapsed = time.perf_counter() - start
        if elapsed > 2:
            if unit:
                each = f" {unit}{'s' if done != 1 else ''}"
            else:
                each = ""

            self.say(f"{what}: {done}{each} in {duration(elapsed)}")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step and, when it took more than a moment, how long."""
        start = time.perf_counter()
        if self._is_live():
            self._redraw(f"{what} ...")

        yield
        elapsed = time.perf_counter() - start
        self.say(f"{what}{f' ({duration(elapsed)})' if elapsed > 0.5 else ''}")

    def _is_live(self) -> bool:
        if self.quiet:
            return False

        stream = self.stream or sys.stderr
        if self.live is None:
            return stream.isatty()

        return self.live

    def _redraw(self, text: str) -> None:
        stream = self.stream or sys.stderr
        stream.write("\r\x1b[2K" + text)
        stream.flush()


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    Examples
    --------
    >>> duration(3.21), duration(75), duration(7300)
    ('3.2 s', '1 min 15 s', '2 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"

    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"

    return f"{minutes // 60} h {minutes % 60:02d} min"
