"""Progress a person can watch, and plain lines where nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    import rich.progress

T = TypeVar("T")

_BETWEEN = 0.1  # seconds between two pictures of the bars: more often costs time and shows nothing


@dataclass
class Progress:
    """Says what is being done, how far it is, and how long it will still take.

    On a terminal, bars of rich that vanish when they are done; what takes long leaves a line, there as elsewhere.

    Parameters
    ----------
    stream : TextIO, optional
        where to; standard error by default
    quiet : bool, default False
        say nothing at all
    live : bool, optional
        show bars; by default only when `stream` is a terminal
    """

    stream: TextIO | None = None
    quiet: bool = False
    live: bool | None = None
    _bars: rich.progress.Progress | None = field(default=None, init=False, repr=False, compare=False)

    def say(self, text: str) -> None:
        """One line.

        Parameters
        ----------
        text : str
            without a line break at its end
        """
        if self.quiet:
            return

        # Above the bars, which rich would otherwise draw over this line. No markup: a path may hold square brackets.
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return

        # Looked up now and not kept: a test, or a notebook, may replace sys.stderr at any time.
        stream = self.stream or sys.stderr
        stream.write(text + "\n")
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

        Yields
        ------
        T
            every item
        """
        if total is None and isinstance(items, Sized):
            total = len(items)

        start = time.perf_counter()
        n_done = 0
        with self._bar(what, total) as advance:
            for item in items:
                yield item
                n_done += 1  # when the caller comes back for the next: what it left by an error is not done
                advance()

        elapsed = time.perf_counter() - start
        if elapsed <= 2:  # seconds; nobody looks up a line about less
            return

        if unit and n_done != 1:
            count = f"{n_done} {unit}s"
        elif unit:
            count = f"{n_done} {unit}"
        else:
            count = str(n_done)

        self.say(f"{what}: {count} in {duration(elapsed)}")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step and, when it took more than a moment, how long.

        Parameters
        ----------
        what : str
            is done in the block

        Yields
        ------
        None
            the step is the block
        """
        start = time.perf_counter()
        with self._bar(f"{what} ...", None):
            yield

        elapsed = time.perf_counter() - start
        if elapsed > 0.5:
            self.say(f"{what} ({duration(elapsed)})")
        else:
            self.say(what)

    @contextmanager
    def _bar(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:
        """A bar below those that are there already, while the block runs, and what moves it on by one."""
        if not self._is_live():
            yield lambda: None
            return

        bars = self._bars = self._bars or _bars_on(self.stream or sys.stderr)
        task = bars.add_task(what, total=total)
        bars.start()
        bars.console.show_cursor(True)  # which rich hides; a killed process would leave the terminal without
        bars.refresh()
        refreshed = time.perf_counter()

        def advance() -> None:
            nonlocal refreshed
            bars.advance(task)

            # Not at every item: ten thousand short ones would spend their time on drawing.
            now = time.perf_counter()
            if now - refreshed > _BETWEEN:
                bars.refresh()
                refreshed = now

        try:
            yield advance
        finally:
            bars.remove_task(task)
            if not bars.tasks:  # the outermost: rich must give the terminal back
                bars.stop()
                self._bars = None

    def _is_live(self) -> bool:
        if self.quiet:
            return False
        if self.live is None:
            return (self.stream or sys.stderr).isatty()
        return self.live


def _bars_on(stream: TextIO) -> rich.progress.Progress:
    """Bars with a count and the time left; nothing is drawn until they are started."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )

    # Refreshed from the loop itself: a thread of its own would be copied into processes that are forked.
    console = Console(file=stream, force_terminal=True)
    return Progress(*columns, console=console, transient=True, auto_refresh=False)


def duration(seconds: float) -> str:
    """Seconds as a person would say them.

    Parameters
    ----------
    seconds : float
        0 or more

    Returns
    -------
    str
        in two units at most

    Examples
    --------
    >>> duration(3.21), duration(75), duration(7300)
    ('3.2 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"

    # Rounded first, so that 59.6 s past a minute become a minute and not 60 s. Above an hour the seconds are cut off.
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
