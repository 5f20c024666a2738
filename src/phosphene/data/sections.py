"""Facts and findings as plain text with aligned columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from phosphene.data.findings import Finding


@dataclass(frozen=True)
class Section:
    """A titled list of facts, or a table.

    Parameters
    ----------
    title : str
        such as "splits"
    rows : tuple of tuple of str
        (name, value) pairs, or rows of a table under `columns`
    columns : tuple of str, default ()
        headings of the table; empty for pairs
    """

    title: str
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...] = ()


def render(sections: Iterable[Section], width: int = 110) -> str:
    """Sections as plain text with aligned columns.

    Parameters
    ----------
    sections : iterable of Section
        what `listing` and `info` return
    width : int, default 110
        of the text; the last column is wrapped to it
    """
    return "\n\n".join(f"{s.title}\n{_aligned(s, width)}" for s in sections)


def _aligned(section: Section, width: int) -> str:
    rows = ([section.columns] if section.columns else []) + list(section.rows)
    if not rows:
        return "  none"

    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []

    for row in rows:
        start = "  " + "".join(f"{cell:<{w}}  " for cell, w in zip(row[:-1], widths[:-1], strict=True))
        out.append(_wrapped(start, row[-1], width))

    return "\n".join(out)


def render_findings(findings: Iterable[Finding], width: int = 110) -> str:
    """Findings as plain text, what to do next on a line of its own, and a count at the end."""
    findings = list(findings)
    name = max((len(f.what) for f in findings), default=0)
    out = []

    for f in findings:
        start = f"{f.level:<8} {f.what:<{name}}  "
        out.append(_wrapped(start, f.detail, width))
        if f.next_step:
            out.append(_wrapped(" " * len(start) + "-> ", f.next_step, width))

    counts = {level: sum(f.level == level for f in findings) for level in ("problem", "note", "ok")}
    words = [f"{n} {level if level == 'ok' or n == 1 else level + 's'}" for level, n in counts.items()]

    return "\n".join([*out, ", ".join(words)])


def _wrapped(start: str, text: str, width: int) -> str:
    room = max(30, width - len(start))
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join((start if i == 0 else " " * len(start)) + line for i, line in enumerate(lines)).rstrip()
