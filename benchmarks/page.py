"""The table as Markdown: every bar first, then how each side grows, then every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from benchmarks.record import SIZES, Record


def number(value: float, digits: int = 3) -> str:
    """A figure of three digits, thousands with commas; a dash for none.

    Examples
    --------
    >>> number(0.012345), number(12345.6), number(float("nan"))
    ('0.0123', '12,346', '–')
    """
    if pd.isna(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def sizes(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{int(row[s]):,} {s}" for s in SIZES if not pd.isna(row[s]))


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows) + "\n"


def bars(judged: pd.DataFrame) -> str:
    return markdown(
        ["what", "goal", "measured", ""], judged[["what", "goal", "measured", "verdict"]].to_numpy().tolist()
    )


def exponents(record: Record) -> str:
    """One line a curve: sizes, seconds at the largest, ratio there, exponent."""
    lines = []
    for (benchmark, task, along, who), curve in record.curves():
        curve = curve[curve["cpu_s"].notna()].sort_values(along)
        if len(curve):
            last, span = curve.iloc[-1], " to ".join(f"{int(curve[along].iloc[i]):,}" for i in (0, -1))
            grown = f"{last['slope']:.2f}" if not pd.isna(last["slope"]) else "–"
            name = f"{benchmark}{f', {task}' if task else ''}"
            lines.append([name, who, f"{along} {span}", grown, number(last["cpu_s"]), number(last["ratio"])])
    return markdown(["benchmark", "who", "from, to", "exponent", "CPU s at the last", "ratio to ours there"], lines)


def everything(record: Record) -> str:
    lines = []
    for row in record.rows.to_dict("records"):
        part = (
            ""
            if pd.isna(row["part"]) or row["part"] == 1
            else f"{100 * row['part']:.2g} % done, the rest by proportion"
        )
        name = row["benchmark"] + (f", {row['task']}" if row["task"] else "")
        threads = f" ({int(row['threads'])} threads)" if row["threads"] != 1 else ""
        note = "; ".join(text for text in (part, row["note"]) if text)
        lines.append([name, sizes(row), f"{row['who']}{threads}", *(number(row[c]) for c in
                      ("cpu_s", "wall_s", "memory_mb", "extra_mb", "ratio", "difference")), note.replace("|", "/")])  # fmt: skip
    head = ["benchmark", "size", "who", "CPU s", "wall s", "peak MB", "grown by MB", "ratio", "difference", "note"]
    return markdown(head, lines)


def write(record: Record, judged: pd.DataFrame, machine: Mapping[str, Any], path: Path) -> None:
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    path.write_text(
        f"# Benchmarks\n\n{about}\n\nSeconds are those of the processor; ratio is CPU seconds over ours.\n\n"
        f"## Bars\n\n{bars(judged)}\n## Growth\n\nSeconds as a power of the size, by least squares of logarithms.\n\n"
        f"{exponents(record)}\n## Everything measured\n\n{everything(record)}",
        encoding="utf-8",
    )
