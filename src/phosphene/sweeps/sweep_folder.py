"""A sweep on disk: its grid, and what its folder says of every run. Nothing is fitted here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from phosphene._version import __version__
from phosphene.io.run_folder import read_json
from phosphene.run import RunConfig, science_of
from phosphene.sweeps.grid import SweepGrid, read_grid
from phosphene.types import digest_of

__all__ = ["Layers", "Sweep"]

Layers = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Sweep:
    """A grid and the folder its runs lie in. Small and plain, so that it can be sent to another process.

    Parameters
    ----------
    file : Path
        the sweep file
    out : Path
        folder of all runs
    layers : Layers, default ()
        values over the base of the file
    """

    file: Path
    out: Path
    layers: Layers = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process without the grid, which is read there."""
        return Sweep, (self.file, self.out, self.layers)

    @cached_property
    def grid(self) -> SweepGrid:
        """The grid, read once."""
        return read_grid(self.file, self.layers)

    @cached_property
    def planned_looks(self) -> dict[str, int]:
        """Name of a run to the number of other configurations that look at the same test set; other seeds are none."""
        by_test_set: dict[str, set[str]] = {}
        kind: dict[str, tuple[str, str]] = {}

        for name, planned in self.grid.runs.items():
            test_set = _test_set(planned.config)
            configuration = science_of(planned.config.model_copy(update={"seed": 0}))
            by_test_set.setdefault(test_set, set()).add(configuration)
            kind[name] = (test_set, configuration)

        return {name: len(by_test_set[test_set] - {own}) for name, (test_set, own) in kind.items()}

    def folder(self, name: str) -> Path:
        """Where a run lies."""
        return self.out / "runs" / name

    def is_done(self, name: str) -> bool:
        """Whether everything asked of a run is there, made by this version."""
        record = self.out / "done" / f"{name}.json"
        return record.is_file() and read_json(record).get("phosphene") == __version__

    def failure(self, name: str) -> str:
        """Why a run is missing; "" where nothing failed. The whole traceback is in ``failed/NAME.txt``."""
        file = self.out / "failed" / f"{name}.txt"
        if not file.is_file():
            return ""

        return file.read_text(encoding="utf-8").strip().splitlines()[-1].removeprefix("phosphene.errors.")


def _test_set(config: RunConfig) -> str:
    """What decides which pictures test: the data, and the split, with the seed where that draws it."""
    data = config.data
    seed = 0
    if config.split is not None and ":" in config.split:
        seed = config.seed

    return digest_of([data.name, data.root, data.subject, data.options, config.split, seed])
