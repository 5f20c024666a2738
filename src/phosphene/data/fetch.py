"""Downloads that can be trusted: every file arrives whole under its final name, or does not.

A download goes to a name beside its place, is compared with what is published of it (size, checksum, first bytes), and is
renamed. An interrupted one goes on where it stopped if the server says that the file is still the same. One connection at
a time, to hosts of the table only. What arrived, when and with which SHA-256 is kept in ``downloads.json`` of the folder,
so that a later change is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from phosphene.data.fetch_archive import unpack
from phosphene.data.fetch_http import Policy, TransientError, open_url
from phosphene.data.fetch_lists import LEDGER, ledger, looked_up, remember
from phosphene.data.plan import Item, Plan, downloads, human, partial_path
from phosphene.errors import DataError, MachineError, NotAvailable
from phosphene.io import atomic
from phosphene.io.claims import claimed
from phosphene.io.inside import plain_file
from phosphene.io.progress import Progress, duration

__all__ = ["LEDGER", "Report", "default_policy", "download", "fetch", "ledger", "looks_like"]

_BLOCK = 2**20  # bytes received at once: a break loses little, and progress can be told often
_TELL_AFTER_S = 10  # between two words about one file
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<error>")


def default_policy() -> Policy:
    """Hosts of the shipped table, over encrypted connections alone, with the patience of `Policy`."""
    return Policy(downloads().hosts)


@dataclass(frozen=True)
class Report:
    """What became of a plan.

    Parameters
    ----------
    fetched : tuple of Item, default ()
        files that arrived now
    there : tuple of Item, default ()
        files that were there before
    by_hand : tuple of Item, default ()
        files that a person must get
    waiting : tuple of Item, default ()
        files whose terms are not accepted yet
    """

    fetched: tuple[Item, ...] = ()
    there: tuple[Item, ...] = ()
    by_hand: tuple[Item, ...] = ()
    waiting: tuple[Item, ...] = ()


@dataclass
class _Mark:
    """What is known of the file that a partial download belongs to; stands beside it."""

    url: str = ""
    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """What ``If-Range`` takes; "" where the server gave nothing that tells versions apart."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


def fetch(
    plan: Plan, *, accept_terms: bool = False, policy: Policy | None = None, say: Progress | None = None
) -> Report:
    """Get everything of a plan that can be got, one file after the other.

    Parameters
    ----------
    plan : Plan
        from ``plan.make``
    accept_terms : bool, default False
        whether the person accepted the terms of the set; files under terms wait without
    policy : Policy, optional
        hosts that may be asked, and patience; `default_policy` by default
    say : Progress, optional
        told about every file

    Returns
    -------
    Report
        Files that are there are not fetched again; interrupted ones go on.

    Raises
    ------
    NotAvailable
        No network, a refusal, or a server that keeps failing. What arrived before is kept.
    DataError
        A file of another size, checksum or kind than published, or a web page in its place; an unsafe archive.
    MachineError
        Too little room, said before the first request where sizes are published; or another process fetches there.
    """
    policy = policy or default_policy()
    say = say or Progress(quiet=True)
    states = {i: i.state for i in plan.items}

    for item, state in states.items():
        if state.startswith("wrong"):
            if item.bytes is None:
                published = ""
            else:
                published = f"; {item.bytes} are published"

            raise DataError(
                f"{item.path} is there but {state}{published}. It is never overwritten: move it away and run the same "
                "command again."
            )

    present = []
    by_hand = []
    waiting = []
    to_fetch = []
    for item, state in states.items():
        if state == "there":
            present.append(item)
        elif item.access == "manual":
            by_hand.append(item)
        elif item.access == "terms" and not accept_terms:
            waiting.append(item)
        else:
            to_fetch.append(item)

    if to_fetch:
        _check_room(plan, to_fetch)
        with atomic.explained_write(plan.root):
            plan.root.mkdir(parents=True, exist_ok=True)

        # Two processes that write one partial file would leave a file that is neither's.
        with claimed(plan.root / f"{atomic.PARTIAL}fetching") as is_ours:
            if not is_ours:
                raise MachineError(f"another process is fetching into {plan.root}; wait for it, or stop it.")

            for number, item in enumerate(to_fetch, start=1):
                _one(plan, item, states[item], policy, say, f"{number} of {len(to_fetch)}")

    return Report(tuple(to_fetch), tuple(present), tuple(by_hand), tuple(waiting))


def _one(plan: Plan, item: Item, state: str, policy: Policy, say: Progress, place: str) -> None:
    """Get one file of the plan, note it in the ledger, and unpack it where it is an archive."""
    if state != "not unpacked":
        if item.listed:
            item = looked_up(item, policy)

        start = time.monotonic()
        facts = download(item, policy, say)
        elapsed = max(1e-3, time.monotonic() - start)
        remember(plan.root, item, facts)
        name = item.path.relative_to(plan.root)
        say.say(f"{place}: {name}, {human(facts['bytes'])} in {duration(elapsed)}, SHA-256 {facts['sha256'][:12]}")

    if item.unpack is not None:
        with say.step(f"unpacking {item.path.name}"):
            unpack(item.path, item.unpack)


def _check_room(plan: Plan, items: list[Item]) -> None:
    """Raise MachineError when what is certainly needed is more than what is free."""
    needed = 0
    for item in items:
        if item.bytes is not None and item.state != "not unpacked":
            needed += item.bytes - _size(partial_path(item.path))

    place = plan.root  # not made yet: the disk is that of the nearest folder that exists
    while not place.exists() and place != place.parent:
        place = place.parent

    free = shutil.disk_usage(place).free
    if needed > free:
        raise MachineError(
            f"{human(needed)} are needed at {plan.root}, but only {human(free)} are free. Nothing was fetched: free some "
            "space, choose another --root, or fetch less with --subject, --part or --sessions."
        )


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    if path.is_file():
        return path.stat().st_size

    return 0


# -- one file ----------------------------------------------------------------------------------------------------------


def download(item: Item, policy: Policy, say: Progress | None = None) -> dict[str, Any]:
    """Get one file, going on with what an earlier attempt left.

    Parameters
    ----------
    item : Item
        with an address; see `looked_up` for one that is in a list
    policy : Policy
        hosts that may be asked, number of tries, and waiting between them
    say : Progress, optional
        told how far it is, every ten seconds

    Returns
    -------
    dict of {str: Any}
        dict with ``url, bytes, sha256, etag, date``

    Raises
    ------
    NotAvailable, DataError, MachineError
        See `fetch`. After NotAvailable and MachineError the part that arrived is kept; after DataError it is not.
    """
    policy.check(item.url)
    part = partial_path(item.path)
    tries = 0
    best = -1

    while True:
        try:
            return _attempt(item, policy, say or Progress(quiet=True))
        except TransientError as problem:
            # An attempt that got further is no failure: a large file over a bad line arrives in many pieces.
            kept = _size(part)
            if kept > best >= 0:
                tries = 1
            else:
                tries = tries + 1

            best = max(best, kept)
            if tries >= policy.tries:
                if kept:
                    size = f"{human(kept)} are kept"
                else:
                    size = "nothing arrived"

                raise NotAvailable(
                    f"{item.path.name} could not be fetched in {tries} tries: {problem}. {size}; run the same command again "
                    "later to go on."
                ) from problem

            policy.wait(max(min(60.0, 2.0**tries), problem.after_s))  # seconds; what the server asks for counts more


def _attempt(item: Item, policy: Policy, say: Progress) -> dict[str, Any]:
    """One request for what is still missing of a file. Raises TransientError where another attempt may help."""
    part = partial_path(item.path)
    mark_file = part.with_name(f"{part.name}.json")
    with atomic.explained_write(item.path):
        item.path.parent.mkdir(parents=True, exist_ok=True)

    # Both are written in place: a link there would lead that to another file.
    plain_file(part)
    plain_file(mark_file)
    mark, kept = _resumable(item, part, mark_file)
    if kept and kept == mark.total:  # stopped between the last byte and the renaming
        return _finish(item, mark, part, mark_file, kept, *_digests(part), pieces=True)
    # With If-Range a server sends the rest only of the same version, else the whole file with status 200.
    headers = {}
    if kept:
        headers["Range"] = f"bytes={kept}-"
        if mark.validator:
            headers["If-Range"] = mark.validator

    with open_url(item.url, policy, headers) as response:
        if response.status == 416 or (response.status == 206 and not _continues(response, mark, kept)):
            _forget(part, mark_file)
            raise TransientError("the file changed on the server while it was fetched; it is fetched anew")

        if response.status not in (200, 206):
            raise NotAvailable(f"{item.url} answered {response.status}, which is no file. Get it by hand.")

        if response.status != 206:
            kept = 0

        length = response.headers.get("Content-Length", "")
        if length.isdigit():
            total = kept + int(length)
        else:
            total = None

        _check_answer(item, response, total, kept)
        mark = _Mark(item.url, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), total)
        with atomic.explained_write(item.path):
            mark_file.write_text(json.dumps(vars(mark)), encoding="utf-8")

        most = _most(item, total, policy)
        size, sha256, md5 = _receive(item, response, part, kept, most, say)

    if total is not None and size < total:
        raise TransientError(f"only {size} of {total} bytes arrived before the connection ended")
    return _finish(item, mark, part, mark_file, size, sha256, md5, pieces=bool(kept))


def _finish(
    item: Item, mark: _Mark, part: Path, mark_file: Path, size: int, sha256: str, md5: str, *, pieces: bool
) -> dict[str, Any]:
    """Compare with what is published, and give the file its name."""
    problem = _wrong(item, size, sha256, md5)
    if problem:
        _forget(part, mark_file)
        if pieces:  # what was kept and what came now may be of two versions: begin anew
            raise TransientError(f"what arrived in pieces is not the published file ({problem}); it is fetched anew")
        raise DataError(
            f"{item.path.name} from {item.url} is not the published file: {problem}. It was deleted. Try again later; if it "
            "stays so, the file was replaced there: ask its authors."
        )

    with atomic.explained_write(item.path):
        os.replace(part, item.path)
        atomic.fsync_folder(item.path.parent)
        mark_file.unlink(missing_ok=True)

    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"url": item.url, "bytes": size, "sha256": sha256, "etag": mark.etag, "date": date}


def _digests(part: Path) -> tuple[str, str]:
    with open(part, "rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        handle.seek(0)
        return sha256, hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _resumable(item: Item, part: Path, mark_file: Path) -> tuple[_Mark, int]:
    """What the part that is there belongs to, and how much of it counts."""
    if not part.is_file():
        return _Mark(), 0

    try:
        mark = _Mark(**json.loads(mark_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Mark(), 0

    # Without a checksum to end with, only a version that the server names can be continued.
    certain = mark.validator or len(item.sha256) == 64 or item.md5
    if mark.url == item.url and certain:
        return mark, part.stat().st_size

    return _Mark(), 0


def _continues(response: HTTPResponse, mark: _Mark, kept: int) -> bool:
    """Whether a partial answer is the rest of what is there."""
    content_range = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if content_range is None or int(content_range[1]) != kept:
        return False
    if mark.total is not None and content_range[3] not in ("*", str(mark.total)):
        return False

    # Not every server heeds If-Range, so that its own words are compared too, where both answers have them.
    etag = response.headers.get("ETag", "")
    modified = response.headers.get("Last-Modified", "")
    if mark.etag and etag and etag != mark.etag:
        return False

    return not (mark.modified and modified and modified != mark.modified)


def _check_answer(item: Item, response: HTTPResponse, total: int | None, kept: int) -> None:
    """Headers that tell at once that this is not the file. Raises DataError or MachineError."""
    if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise DataError(
            f"{item.url} came re-packed ({response.headers['Content-Encoding']}) though this was not allowed."
        )
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise _page(item, response.read(4096))
    if item.bytes is not None and total is not None and total != item.bytes:
        raise DataError(
            f"{item.path.name} should have {item.bytes} bytes as published, but the server has {total}: it was replaced, or "
            f"{item.url} now leads elsewhere. Nothing was fetched; ask its authors."
        )

    free = shutil.disk_usage(item.path.parent).free
    if total is not None and total - kept > free:
        raise MachineError(
            f"{item.path.name} needs {human(total - kept)} more, but only {human(free)} are free at {item.path.parent}. Free "
            "some space and run the same command again."
        )


def _receive(
    item: Item, response: HTTPResponse, part: Path, kept: int, most: int, say: Progress
) -> tuple[int, str, str]:
    """Write what comes behind what is kept; total size, SHA-256 and MD5 of both together."""
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)  # Figshare publishes no other; SHA-256 is what is kept
    mode = "wb"
    if kept:
        mode = "r+b"

    size = kept
    with atomic.explained_write(item.path):
        # Unbuffered: what a full disk refuses would else come up a second time when the file is closed.
        out = open(part, mode, buffering=0)  # noqa: SIM115  closed below; reading errors are not writing errors

    with out:
        # A checksum cannot be kept between processes: what is on disk goes through it first.
        while out.tell() < kept:
            block = out.read(min(_BLOCK, kept - out.tell()))
            if not block:
                raise TransientError("what was kept of it was cut short by another program")

            sha256.update(block)
            md5.update(block)

        with atomic.explained_write(item.path):
            out.seek(kept)
            out.truncate()

        last_told = time.monotonic()

        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, HTTPException) as error:
                raise TransientError(f"the connection broke after {size} bytes ({type(error).__name__})") from error

            if not block:
                break

            if size == 0:  # a login page in place of 40 GB is known by its first bytes
                _check_head(item, block)

            size += len(block)
            if size > most:
                out.close()
                _forget(part, part.with_name(f"{part.name}.json"))
                raise DataError(
                    f"{item.url} sends more than the {most} bytes that {item.path.name} may have; it was deleted. Get the file "
                    "by hand if you know that it is so large."
                )

            sha256.update(block)
            md5.update(block)

            with atomic.explained_write(item.path):
                left = memoryview(block)
                while left:
                    left = left[out.write(left) :]

            if time.monotonic() - last_told > _TELL_AFTER_S:
                last_told = time.monotonic()
                goal = ""
                if item.bytes:
                    goal = f" of {human(item.bytes)}"

                say.say(f"  {item.path.name}: {human(size)}{goal}")

        with atomic.explained_write(item.path):
            os.fsync(out.fileno())

    return size, sha256.hexdigest(), md5.hexdigest()


def _most(item: Item, total: int | None, policy: Policy) -> int:
    """Bytes that a file may have: those published, or else those the server says within reason, or else a limit."""
    if item.bytes is not None:
        return item.bytes

    most = policy.most_unannounced
    if item.about is not None:
        most = int(policy.most_times * item.about) + _BLOCK

    if total is None:
        return most
    if item.about is not None and total > most:
        raise DataError(
            f"{item.path.name} should have about {human(item.about)} as published, but the server has {human(total)}: it was "
            f"replaced, or {item.url} now leads elsewhere. Nothing was fetched; ask its authors."
        )

    return total


def _wrong(item: Item, size: int, sha256: str, md5: str) -> str:
    """How it differs from what is published; "" when it does not."""
    if item.bytes is not None and size != item.bytes:
        return f"it has {size} bytes, {item.bytes} are published"
    if size == 0:
        return "it is empty"
    if not sha256.startswith(item.sha256):
        return f"its SHA-256 begins with {sha256[:12]}, the published one with {item.sha256[:12]}"
    if item.md5 and md5 != item.md5:
        return f"its MD5 is {md5}, {item.md5} is published"
    return ""


def _check_head(item: Item, head: bytes) -> None:
    """Raise DataError when a file does not begin as its kind does."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:20].lower().startswith(_HTML):
        raise _page(item, head)
    if not looks_like(item.kind, head):
        raise DataError(
            f"{item.path.name} from {item.url} should be a {item.kind} file, but begins with {head[:12]!r}. It was not kept; "
            "look at the address in a browser."
        )


def looks_like(kind: str, head: bytes) -> bool:
    """Whether the first bytes are those of a kind of file.

    Parameters
    ----------
    kind : str
        as in the table of downloads, such as "hdf5"; "any" accepts everything
    head : bytes
        beginning of the file, 4096 bytes or more for "text"

    Examples
    --------
    >>> looks_like("hdf5", bytes([137]) + b"HDF" + bytes([13, 10, 26, 10])), looks_like("gzip", b"<html>")
    (True, False)
    """
    begins = {
        "gzip": (b"\x1f\x8b",),
        "hdf5": (b"\x89HDF\r\n\x1a\n",),
        "mat": (b"MATLAB ",),
        # Length of the header, 348 (NIfTI-1) or 540 (NIfTI-2), in either byte order.
        "nifti": (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"),
        "npy": (b"\x93NUMPY",),
        "torch": (b"PK\x03\x04", b"\x80"),  # a ZIP file, or the bare pickle of versions before 1.6
        "zip": (b"PK\x03\x04",),
    }

    if kind in begins:
        return head.startswith(begins[kind])
    if kind == "json":
        return head.lstrip()[:1] in (b"{", b"[")
    if kind == "safetensors":  # length of a JSON header, then the header
        return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27
    if kind == "text":
        return b"\0" not in head[:4096]
    return True


def _page(item: Item, head: bytes) -> DataError:
    """The error for a web page that came in place of a file, with its title, which mostly says why."""
    match = re.search(rb"<title[^>]*>(.*?)</title>", head[:4096], re.IGNORECASE | re.DOTALL)
    title = ""
    if match:
        text = match[1].decode("utf-8", "replace")
        title = "".join(c for c in text if c.isprintable()).strip()[:80]  # a title can hold codes that move the cursor

    titled = ""
    if title:
        titled = f" titled {title!r}"

    return DataError(
        f"a web page{titled} came in place of {item.path.name}: probably a login, licence or "
        f"error page. Open {item.url} in a browser, accept what it asks, and put the file at {item.path}."
    )


def _forget(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)
