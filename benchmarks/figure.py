"""How each grows: one small panel a curve, ours and its rivals, both axes logarithmic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from benchmarks.page import number
from benchmarks.record import Record

PANELS = (
    ("ridge", "", "voxels", "Ridge"),
    ("ridge", "", "trials", "Ridge"),
    ("ridge", "", "targets", "Ridge"),
    ("betas", "", "voxels", "Betas B, C and D"),
    ("two_way", "", "items", "Two-way, 10,000 features"),
    ("ssim", "", "pixels", "SSIM of 50 x 50 pictures"),
    ("nway", "", "items", "50-way top-1"),
    ("store", "write", "items", "Feature store, writing"),
    ("store", "read in random order", "items", "Feature store, random rows"),
    ("imports", "read", "trials", "Betas of NSD's kind, imported"),
    ("reading", "", "trials", "15,724 int16 to float32"),
    ("mae_step", "", "voxels", "MAE step, batch 2"),
)
"""(benchmark, task, along, title)"""
OURS, RIVALS = "#0b6e75", ("#c8553d", "#8d99ae", "#e0a458", "#6d597a")


def draw(record: Record, path: Path) -> None:
    """Write the figure; panels without two sizes of ours are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = {key: rows[rows["cpu_s"].notna()].sort_values(key[2]) for key, rows in record.curves()}
    shown = [p for p in PANELS if len(curves.get((*p[:3], "ours"), ())) >= 2]
    if not shown:
        return
    columns = min(3 if len(shown) <= 9 else 4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.7 * columns, 2.9 * lines), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, (benchmark, task, along, title) in zip(panels, shown, strict=False):
        mine = [(k[3], rows) for k, rows in curves.items() if k[:3] == (benchmark, task, along)]
        rivals, ends = iter(RIVALS), []
        for who, rows in sorted(mine, key=lambda entry: entry[0] != "ours"):
            if who == "ours" or not (who.startswith("ours,") or who.endswith(", cold")):
                colour = OURS if who == "ours" else next(rivals)
                _curve(panel, who, rows, along, colour)
                if who != "ours" and not pd.isna(rows["ratio"].iloc[-1]):
                    ends.append((rows[along].iloc[-1], rows["cpu_s"].iloc[-1], rows["ratio"].iloc[-1], colour))
        panel.set_title(title, fontsize=10, loc="left", fontweight="bold")
        panel.set_xlabel(_AXIS.get((benchmark, along), along), fontsize=8)
        panel.set_xscale("log")
        panel.set_yscale("log")
        _ticks(panel, sorted({int(v) for _, rows in mine for v in rows[along]}))
        low, high = panel.get_ylim()
        panel.set_ylim(low, high * (high / low) ** 0.35)
        _ratios(panel, ends)
        panel.legend(
            fontsize=7, frameon=False, loc="upper left", handlelength=1.4, labelspacing=0.25, borderaxespad=0.1
        )
    for row in range(lines):
        panels[row * columns].set_ylabel("CPU seconds", fontsize=8)
    figure.savefig(path)


_AXIS = {
    ("nway", "items"): "pictures", ("store", "items"): "pictures of 257 x 768", ("two_way", "items"): "pairs",
    ("ssim", "pixels"): "side, pixels",
}  # fmt: skip


def _curve(panel, who: str, rows: pd.DataFrame, along: str, colour: str) -> None:
    last = rows.iloc[-1]
    grown = f"  n$^{{{last['slope']:.2f}}}$" if not pd.isna(last["slope"]) else ""
    wide = 2.2 if who == "ours" else 1.4
    panel.plot(rows[along], rows["cpu_s"], "o-", color=colour, lw=wide, ms=wide + 1.6, label=f"{who}{grown}")


def _ratios(panel, ends: list[tuple[float, float, float, str]], apart: float = 0.085) -> None:
    """How many times ours each rival took, beside its last point; shares of the panel's height apart."""
    low, high = np.log(panel.get_ylim())
    above = -np.inf
    for x, y, ratio, colour in sorted(ends, key=lambda end: end[1]):
        at = (np.log(y) - low) / (high - low)
        above = max(at, above + apart)
        panel.annotate(
            f"{number(ratio, 2)}×", (x, np.exp(low + above * (high - low))), (6, 0), textcoords="offset points",
            fontsize=8, color=colour, va="center",
        )  # fmt: skip


def _ticks(panel, values: list[int]) -> None:
    from matplotlib.ticker import NullLocator

    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(values, [f"{v:,}" for v in values], fontsize=7)
    panel.tick_params(axis="y", labelsize=7)
    panel.margins(x=0.18)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(True, which="major", color="#e6e8ea", lw=0.6)
    panel.set_axisbelow(True)
