"""Signals during a training: the step in hand is finished and saved before the process ends as it would have ended."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class Stopping:
    """While the block runs, a termination or a first interrupt (Ctrl-C) is only remembered; a second interrupt acts at once.

    Attributes
    ----------
    signal : int
        number of the signal that came; 0 for none
    """

    _CAUGHT = (signal.SIGTERM, signal.SIGINT)  # what a cluster sends before it kills, and what a person types

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            # What is ignored stays so (nohup): it would not end the process afterwards.
            for number in self._CAUGHT:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if handler is None:  # set by something that is not Python
                handler = signal.SIG_DFL

            signal.signal(number, handler)

        self._before = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # Twice Ctrl-C is impatience, not an accident. A handler does nothing else: it runs between any two instructions.
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt

        self.signal = number

    def act(self) -> None:
        """After the block: what the remembered signal would have done."""
        # Raised again, not turned into an exit: the parent then sees that a signal ended this process, and which.
        if self.signal:
            signal.raise_signal(self.signal)
