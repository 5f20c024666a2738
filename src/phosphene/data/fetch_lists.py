"""What a server lists of its files, and the record that is kept of those that were fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from phosphene.data.fetch_http import Policy, TransientError, open_url
from phosphene.data.plan import Item, with_listing
from phosphene.errors import NotAvailable
from phosphene.io import atomic

LEDGER = "downloads.json"
"""File in the data set's folder that keeps address, size, SHA-256 and date of everything fetched."""

_LISTING_LIMIT = 4 * 2**20  # bytes; a longer answer is no list of files


def looked_up(item: Item, policy: Policy) -> Item:
    """The item with address, size and MD5 from Figshare's list of its article.

    Parameters
    ----------
    item : Item
        ``listed`` names the file, ``url`` is the address of the list
    policy : Policy
        hosts that may be asked, and number of tries

    Raises
    ------
    NotAvailable
        When the list cannot be read, or does not name the file.
    """
    for attempt in range(1, policy.tries + 1):
        try:
            with open_url(item.url, policy, {"Accept": "application/json"}) as response:
                text = response.read(_LISTING_LIMIT + 1)

            break
        except (TransientError, OSError, HTTPException) as problem:
            if attempt == policy.tries:
                raise NotAvailable(f"the list {item.url} could not be read in {attempt} tries: {problem}.") from problem

            policy.wait(2.0**attempt)

    try:
        if len(text) <= _LISTING_LIMIT:
            entries = json.loads(text)["files"]
        else:
            entries = []

        entry = next(e for e in entries if e["name"] == item.listed)
        address = str(entry["download_url"])
        size = int(entry["size"])
        md5 = str(entry.get("computed_md5") or "")
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise NotAvailable(
            f"{item.url} does not list {item.listed} any more, so its address is unknown. Look for it by hand, put it at "
            f"{item.path}, and run the same command again."
        ) from error

    if not re.fullmatch("[0-9a-f]{32}", md5):  # what is no checksum must not fail a good file
        md5 = ""

    return with_listing(item, address, size, md5)


def ledger(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """What was fetched into a folder: path to ``url, bytes, sha256, etag, date``; empty without a readable record.

    Parameters
    ----------
    root : Path
        folder of the data set
    """
    try:
        record = json.loads((root / LEDGER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}

    if isinstance(record, dict):
        return record

    return {}


def remember(root: Path, item: Item, facts: Mapping[str, Any]) -> None:
    """Add a file to the record of its folder.

    Parameters
    ----------
    root : Path
        folder of the data set
    item : Item
        what was fetched
    facts : mapping of {str: Any}
        ``url, bytes, sha256, etag, date``, as `download` gives them
    """
    path = item.path.relative_to(root).as_posix()
    atomic.write_text(root / LEDGER, json.dumps({**ledger(root), path: facts}, indent=1, sort_keys=True))
