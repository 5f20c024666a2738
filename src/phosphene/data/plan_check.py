"""Fetched files against what is published of them, and against what they were when they arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path

from phosphene.data import plan as plans
from phosphene.data.fetch_lists import ledger
from phosphene.data.findings import Finding
from phosphene.data.plan import Plan, human

_SMALL = 64 * 2**20  # bytes; smaller files are always read


def check_fetched(name: str, path: Path, *, thorough: bool = False) -> list[Finding]:
    """Check the files of a data set of the table where its reader found them.

    Parameters
    ----------
    name : str
        of a data set, or of anything else: then there is nothing to say
    path : Path
        folder, or file, the reader found
    thorough : bool, default False
        see `check_plan`

    Returns
    -------
    list of Finding
        parts of which nothing is there are not asked for
    """
    if name not in plans.downloads().sets:
        return []

    if path.is_file():
        root = path.parent
    else:
        root = path

    return check_plan(plans.make(name, root=root), thorough=thorough, begun=True)


def check_plan(plan: Plan, *, thorough: bool = False, begun: bool = False) -> list[Finding]:
    """Compare what is there with what a plan says.

    Parameters
    ----------
    plan : Plan
        from ``plan.make``
    thorough : bool, default False
        read every file to compare checksums; otherwise only small ones, and sizes of the others
    begun : bool, default False
        speak only of parts (and subjects) of which some file is there

    Returns
    -------
    list of Finding
        "problem" for a wrong size or checksum, "note" for missing files, "ok" for what was compared
    """
    out = []
    right = 0
    unread = 0
    known = ledger(plan.root)
    states = {i: i.state for i in plan.items}
    there = {(i.part, i.subject) for i, s in states.items() if s != "not there"}
    missing: dict[str, list[str]] = {}

    for item, state in states.items():
        name = item.path.relative_to(plan.root).as_posix()
        if state.startswith("wrong"):
            if item.bytes is None:
                published = ""
            else:
                published = f"; {item.bytes} are published"
            detail = f"{name} is {state}{published}."
            out.append(Finding("problem", "file size", detail, "Move it away and fetch it again."))
        elif state != "there":
            if not begun or (item.part, item.subject) in there:
                missing.setdefault(item.part, []).append(f"{name} ({state})" if state != "not there" else name)
        elif item.path.is_file():
            wrong, read = _differs(item.path, item, known.get(name, {}), thorough)
            if wrong:
                out.append(Finding("problem", "checksum", f"{name} {wrong}.", "Move it away and fetch it again."))
            right += not wrong and read
            unread += not wrong and not read

    for part, names in missing.items():
        detail = f"{len(names)} of part '{part}', first {names[0]}."
        step = f"phosphene data plan {plan.name} --part {part} says where to get them."
        out.append(Finding("note", "files not there", detail, step))

    if right:
        out.append(
            Finding("ok", "checksum", f"{right} file{'s are' if right > 1 else ' is'} as published or as fetched.")
        )

    if unread:
        detail = (
            f"{unread} file{'s' if unread > 1 else ''} above {human(_SMALL)}, or never fetched by phosphene, unread."
        )

        if thorough:
            step = ""
        else:
            step = "Compare those with a known checksum with --thorough."

        out.append(Finding("note", "checksum", detail, step))

    return out


def _differs(path: Path, item: plans.Item, fetched: object, thorough: bool) -> tuple[str, bool]:
    """How a file differs from what is known of it, and whether its content was compared."""
    if isinstance(fetched, dict):
        then = fetched
    else:
        then = {}

    size = path.stat().st_size
    if then.get("bytes") not in (None, size):
        date = then.get("date", "an unknown day")
        return f"has {size} bytes, but had {then['bytes']} when it was fetched on {date}", True

    expected = item.sha256 or str(then.get("sha256", ""))
    if not expected or (size > _SMALL and not thorough):
        return "", False

    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()

    if digest.startswith(expected):
        return "", True

    if item.sha256:
        source = "published"
    else:
        source = "that of the day it was fetched"

    return f"has a SHA-256 that begins with {digest[:12]}; {source} is {expected[:12]}", True
