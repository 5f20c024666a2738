"""What a sweep ends with: its tables, its figure and its page, of the runs that are there."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from phosphene.io import atomic
from phosphene.io.folder import RunFolder
from phosphene.reporting.sweep_figure import draw
from phosphene.reporting.sweep_page import write_page
from phosphene.sweeps.table import point_table, summary_table

if TYPE_CHECKING:
    from phosphene.sweeps.run import Sweep


def write_results(whole: Sweep) -> None:
    """Write points.csv, summary.csv, figure.png and sweep.html of the runs that are there."""
    grid = whole.grid
    points = point_table(whole)
    atomic.write_text(whole.out / "points.csv", points.to_csv(index=False))

    @cache
    def items(run: str) -> pd.DataFrame:
        try:
            return RunFolder(whole.folder(run)).table("evaluation", "test", "per_item.csv")
        except (OSError, ValueError):  # a damaged table pairs nothing; the run's own report names it
            return pd.DataFrame()

    summary = summary_table(points, grid, items)
    atomic.write_text(whole.out / "summary.csv", summary.to_csv(index=False))
    if len(summary):
        buffer = io.BytesIO()
        draw(summary, grid).savefig(buffer, format="png", dpi=150, bbox_inches="tight")
        atomic.write_bytes(whole.out / "figure.png", buffer.getvalue())

    write_page(whole, points, summary)
