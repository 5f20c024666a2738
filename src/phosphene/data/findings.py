"""What a check of data finds, in words a person can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing a check looked at.

    Parameters
    ----------
    level : {"ok", "note", "problem"}
        "ok" (as it should be), "note" (worth knowing), "problem" (must be mended before fitting)
    what : str
        the thing looked at, such as "checksum" or "NaN voxels"
    detail : str
        what was found, with file, field and row
    next_step : str, default ""
        what to do about it; empty when nothing is to be done
    """

    level: Level
    what: str
    detail: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.what}: {self.detail}{' ' + self.next_step if self.next_step else ''}"
