"""The bars: what phosphene aims for, and where in the table it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from benchmarks.page import number
from benchmarks.record import Record

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"


@dataclass(frozen=True)
class Bar:
    """One aim.

    Parameters
    ----------
    what, goal : for people
    limit : the number that must be reached
    at_most : whether the figure may not be above the limit; else not below
    figure : column of the table that is held against it
    row : columns that name the row, and their values; none where nothing here measures it
    why : what it would take, where it is not measured by default
    """

    what: str
    goal: str
    limit: float
    at_most: bool
    figure: str
    row: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    def value(self, rows: pd.DataFrame) -> tuple[float | None, pd.Index]:
        """The figure, of the row with the most rounds, and that row's label."""
        if not self.row:
            return None, rows.index[:0]
        found = rows
        for column, wanted in self.row.items():
            found = found[found[column] == wanted]
        found = found[found[self.figure].notna()].sort_values("rounds", kind="stable")
        if found.empty:
            return None, found.index
        return float(found[self.figure].iloc[-1]), found.index[-1:]

    def verdict(self, value: float | None) -> str:
        if value is None:
            return NOT_MEASURED
        return MET if (value <= self.limit if self.at_most else value >= self.limit) else NOT_MET


def _row(benchmark: str, who: str = "ours", **sizes: Any) -> dict[str, Any]:
    return {"benchmark": benchmark, "who": who, "threads": 1} | sizes


FULL = "by hand: python -m benchmarks ridge --full"
CARD = "needs a card of the H200's kind"
PUBLIC = f"{CARD}, and public weights"
PEER = "needs GLMsingle; see benchmarks/betas.py"
WEIGHTS = "not run: the weights of all targets are 22 GB, which `Ridge` holds in memory"
NSD, EIGHTH = {"trials": 8859}, {"trials": 1107}

BARS = (
    Bar("ridge, full NSD, three fixed penalties", "≥ 150 x the published loop", 150, False, "ratio",
        _row("ridge", "one token of it", **NSD), FULL),
    Bar("the same, memory", "≤ 1.2 GB", 1200, True, "memory_mb", _row("ridge", **NSD), FULL),
    Bar("the same, share of the product rate", "≥ 85 %", 0.85, False, "share", _row("ridge", **NSD), FULL),
    Bar("the same on two free cores, wall", "≤ 25 s", 25, True, "wall_s", _row("ridge", **NSD) | {"threads": 2}, FULL),
    Bar("the same on a card, from disk, wall", "≤ 5 s", 5, True, "wall_s", {}, CARD),
    Bar("ridge, full NSD, penalty chosen", "≤ 90 CPU s", 90, True, "cpu_s", _row("ridge", "ours, chosen", **NSD), FULL),
    Bar("ridge, full NSD, primal weights", "≤ 600 CPU s", 600, True, "cpu_s", {}, WEIGHTS),
    Bar("the same, memory", "≤ 2 GB", 2000, True, "memory_mb", {}, WEIGHTS),
    Bar("ridge, one eighth, fixed (anchor)", "≥ 114 x the published loop", 114, False, "ratio",
        _row("ridge", "scikit-learn per token", **EIGHTH)),
    Bar("ridge, one eighth, chosen (anchor)", "≥ 17 x KernelRidgeCV", 17, False, "ratio",
        _row("ridge", "himalaya CV", **EIGHTH), "needs himalaya: --peers"),
    Bar("n-way top-k of a picture", "≥ 10,000 x the loop", 10_000, False, "ratio",
        _row("nway", "as published", items=1000)),
    Bar("the same, variance", "none", 0, True, "difference", _row("nway", items=1000)),
    Bar("two-way, AlexNet-2", "≥ 4.5 x numpy.corrcoef", 4.5, False, "ratio",
        _row("two_way", "numpy.corrcoef", features=139_968)),
    Bar("the same, extra memory", "≤ 100 MB", 100, True, "extra_mb", _row("two_way", features=139_968)),
    Bar("SSIM of all pairs, 256 px", "≥ 20 x scikit-image", 20, False, "ratio",
        _row("ssim", "scikit-image, float64", pixels=256)),
    Bar("MAE step, batch 8, float32", "≥ 1.0 x MinD-Vis", 1.0, False, "float32", _row("mae_step", "MinD-Vis", items=8)),
    Bar("MAE step, batch 8, bfloat16", "≥ 2.5 x MinD-Vis", 2.5, False, "ratio", _row("mae_step", "MinD-Vis", items=8)),
    Bar("MAE step, batch 100, on a card", "≤ 20 ms", 0.02, True, "wall_s", {}, CARD),
    Bar("betas B + C + D, 1,000 voxels (anchor)", "≥ 73 x GLMsingle", 73, False, "ratio",
        _row("betas", "GLMsingle", voxels=1000), PEER),
    Bar("betas B + C + D, 5,000 voxels, now", "≥ 50 x GLMsingle", 50, False, "ratio",
        _row("betas", "GLMsingle", voxels=5000), PEER),
    Bar("the same, later", "≥ 100 x GLMsingle", 100, False, "ratio", _row("betas", "GLMsingle", voxels=5000), PEER),
    Bar("betas B + C + D, 20,000 voxels", "≥ 40 x GLMsingle", 40, False, "ratio",
        _row("betas", "GLMsingle", voxels=20_000), "two more minutes: python -m benchmarks betas --full"),
    Bar("Versatile Diffusion, an image in a batch", "≤ 0.35 s", 0.35, True, "wall_s", {}, PUBLIC),
    Bar("Versatile Diffusion, 982 images", "< 6 min", 360, True, "wall_s", {}, PUBLIC),
    Bar("latent diffusion, an image of 250 steps in a batch", "≤ 0.2 s", 0.2, True, "wall_s", {}, PUBLIC),
    Bar("27,750 x 15,724 betas into memory, cold, wall", "≤ 1 s", 1, True, "wall_s",
        _row("reading", "ours, cold", trials=27_750)),
    Bar("import of them, once", "≤ 120 CPU s", 120, True, "cpu_s", _row("imports", task="import", trials=27_750)),
    Bar("validity checks of 1,000 test items", "≤ 60 CPU s", 60, True, "cpu_s", _row("checks", items=1000)),
    Bar("phosphene --help, wall", "≤ 0.3 s", 0.3, True, "wall_s", _row("demo", "ours, --help")),
)  # fmt: skip


def judge(record: Record) -> pd.DataFrame:
    """Hold the table against every bar, and mark the rows that answer one.

    Returns
    -------
    one row a bar: what, goal, measured (text), verdict, when
    """
    rows, found = record.rows, []
    rows[["bar", "verdict"]] = ""
    for bar in BARS:
        value, at = bar.value(_with_float32(rows))
        verdict = bar.verdict(value)
        for label in at:
            for column, text in (("bar", f"{bar.what}: {bar.goal}"), ("verdict", verdict)):
                before = rows.loc[label, column]
                rows.loc[label, column] = f"{before}; {text}" if before else text
        when = rows.loc[at, "measured"].iloc[0] if len(at) else ""
        text = bar.why or "not run" if value is None else _text(bar, value)
        found.append({"what": bar.what, "goal": bar.goal, "measured": text, "verdict": verdict, "when": when})
    return pd.DataFrame(found)


def _with_float32(rows: pd.DataFrame) -> pd.DataFrame:
    """The table with one more column: the ratio to our float32 step, where the ratio is to our bfloat16 one."""
    ours = rows[(rows["benchmark"] == "mae_step") & (rows["who"] == "ours") & (rows["items"] == 8)]["cpu_s"]
    return rows.assign(float32=rows["cpu_s"] / ours.iloc[-1] if len(ours) else float("nan"))


def _text(bar: Bar, value: float) -> str:
    if bar.figure in ("ratio", "float32"):
        return f"{number(value)} x"
    if bar.figure in ("memory_mb", "extra_mb"):
        return f"{value / 1000:.2f} GB" if value >= 1000 else f"{value:.0f} MB"
    if bar.figure == "share":
        return f"{100 * value:.0f} %"
    return number(value) + ("" if bar.figure == "difference" else " CPU s" if bar.figure == "cpu_s" else " s")
