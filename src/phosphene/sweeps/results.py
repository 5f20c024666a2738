"""What a sweep ends with: its tables, its figure and its page, of the runs that are there."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from phosphene.io import atomic
from phosphene.io.config import flatten
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.io.run_tables import write_table
from phosphene.metrics.statistics import Interval
from phosphene.reporting.contents import Contents
from phosphene.reporting.sweep_figure import draw_sweep
from phosphene.reporting.sweep_page import write_sweep_page
from phosphene.reporting.sweep_results import SweepPoint, SweepResults, SweepRun, SweepScale, SweptKey
from phosphene.sweeps.grid import Planned, Point, SweepGrid, value_words
from phosphene.sweeps.reference import best_linear_of, correlation_over_pictures
from phosphene.sweeps.sweep_folder import Sweep
from phosphene.sweeps.table import block_label, point_table, shown_metrics, summary_table, within_block


def write_results(whole: Sweep) -> None:
    """Write points.csv, summary.csv, figure.png and sweep.html of the runs that are there."""
    grid = whole.grid
    points = point_table(whole)
    write_table(points, whole.out / "points.csv")

    @cache
    def items(run: str) -> pd.DataFrame:
        try:
            return RunFolder(whole.folder(run)).table("evaluation", "test", "per_item.csv")
        except (OSError, ValueError):  # a damaged table pairs nothing; the run's own report names it
            return pd.DataFrame()

    summary = summary_table(points, grid, items)
    write_table(summary, whole.out / "summary.csv")
    results = _results(whole, grid, points, summary)

    if len(summary):
        buffer = io.BytesIO()
        figure = draw_sweep(summary, results.columns, results.scales, grid.file.title)
        figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
        atomic.write_bytes(whole.out / "figure.png", buffer.getvalue())

    write_sweep_page(results)


# -- what the page is made of ------------------------------------------------------------------------------------------


def _results(whole: Sweep, grid: SweepGrid, points: pd.DataFrame, summary: pd.DataFrame) -> SweepResults:
    columns: list[tuple[str, str]] = []
    if len(summary):
        columns = shown_metrics(summary, grid.file.metrics)

    return SweepResults(
        title=grid.file.title or f"Sweep {whole.file.stem}",
        out=whole.out,
        command=f"phosphene sweep {whole.file.name} --out {whole.out}",
        is_crossed=grid.file.crossed,
        keys=_keys(grid),
        base=_base(whole, grid),
        points=[_page_point(grid, point) for point in grid.points],
        runs={name: _page_run(whole, planned) for name, planned in grid.runs.items()},
        columns=columns,
        scales=_scales(grid),
        scores=points,
        summary=summary,
    )


def _keys(grid: SweepGrid) -> list[SweptKey]:
    keys = []
    for axes, is_repeated in ((grid.file.grid, False), (grid.file.repeat, True)):
        for axis in axes:
            for key, values in axis.items():
                words = ", ".join(dict.fromkeys(map(value_words, values)))
                keys.append(SweptKey(key, words, is_repeated))

    return keys


def _base(whole: Sweep, grid: SweepGrid) -> Mapping[str, object]:
    """Values that all runs share; those of the command line lie over those of the file."""
    values = {"recipe": grid.file.recipe, **flatten(grid.file.base)}
    for _, over in whole.layers:
        values |= flatten(dict(over))

    return values


def _page_point(grid: SweepGrid, point: Point) -> SweepPoint:
    repetition = ", ".join(f"{key} {value_words(value)}" for key, value in point.repeat.items())

    return SweepPoint(
        axis=point.axis,
        label=point.label,
        block=block_label(grid, point),
        within=within_block(grid, point),
        repetition=repetition,
        run=point.run,
    )


def _page_run(whole: Sweep, planned: Planned) -> SweepRun:
    folder = whole.folder(planned.name)
    if not whole.is_done(planned.name):
        return SweepRun(folder, is_done=False, failure=whole.failure(planned.name))

    best = best_linear_of(planned.config)
    correlation = None
    if best is not None and best.reached > 0:
        correlation = _correlation(folder)

    return SweepRun(folder, is_done=True, best=best, correlation=correlation)


def _correlation(folder: Path) -> Interval | None:
    """Pixel correlation of a run's decoded pictures with those seen; None where they are not all there."""
    contents = Contents(RunFolder(folder))
    decoded = contents.pictures("brain")
    seen = contents.pictures(SEEN)
    if decoded is None or seen is None or decoded.shape != seen.shape:
        return None

    return correlation_over_pictures(decoded, seen)


def _scales(grid: SweepGrid) -> dict[int, SweepScale]:
    """What stands on every axis: the one value that a point sets, or its label where it sets several."""
    scales = {}
    for axis in [-1, *range(len(grid.file.grid))]:
        values: dict[str, object] = {}
        for point in grid.points:
            if point.axis != axis or not point.sets:
                continue

            if len(point.sets) == 1:
                (values[point.label],) = point.sets.values()
            else:
                values[point.label] = point.label

        keys: tuple[str, ...] = ()
        if axis >= 0:
            keys = tuple(grid.file.grid[axis])

        scales[axis] = SweepScale(keys, values)

    return scales
