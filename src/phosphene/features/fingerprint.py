"""Fingerprints: what an extractor makes of eight reference pictures or texts, kept beside what it computed.

Other library versions can move features by a few percent without any error. A store therefore remembers the
features of eight reference inputs; whoever opens it computes them again, and numbers that moved are not mixed.
"""

from __future__ import annotations

import json
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from phosphene._version import __version__
from phosphene.errors import MachineError, ModelError, PhospheneWarning
from phosphene.io import atomic
from phosphene.io.claims import claimed
from phosphene.io.store import RowStore

FILE = "fingerprint.safetensors"
LEAST_COSINE = 0.9999
LARGEST_ERROR = 1e-3
_PATIENCE_S = 60
_REFERENCES = Path(__file__).with_name("reference_inputs.npz")
_COUNT = 8


def reference_pictures() -> np.ndarray:
    """The eight pictures: scenes that the in-silico lab drew once, kept as a file so that no drawing can change them.

    Returns
    -------
    ndarray of shape (8, 64, 64, 3), uint8
        RGB, 0-255
    """
    with np.load(_REFERENCES) as file:
        return file["pictures"]


def reference_texts() -> list[str]:
    """One caption of each of the eight pictures.

    Returns
    -------
    list of str
        eight texts
    """
    with np.load(_REFERENCES) as file:
        return [str(text) for text in file["texts"]]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("torch", "transformers", "pillow", "numpy")
    return {"phosphene": __version__, **{name: version(name) for name in names}}


def hold(store: RowStore, features: np.ndarray) -> None:
    """Keep the fingerprint of a fresh store, or compare with the one it has.

    Parameters
    ----------
    store : RowStore
        the store, before anything is computed into it or read from it
    features : ndarray
        (8, ...) what the extractor makes of the references here and now

    Raises
    ------
    ModelError
        When a reference moved: cosine under 0.9999 or relative error over 0.001. Both sides' versions are named.
    MachineError
        When another process claims to be writing it and does not.

    Warns
    -----
    PhospheneWarning
        When the fingerprint of a store is lost or damaged; its rows are then computed again.
    """
    from safetensors.numpy import save

    file = store.folder / FILE
    now = np.asarray(features, dtype=np.float32)
    data = save({"features": now}, metadata={"versions": json.dumps(versions(), sort_keys=True)})
    kept = _read(file)
    until = time.monotonic() + _PATIENCE_S

    while kept is None:
        # One writer: two of different versions must not both believe that the store is theirs.
        with claimed(store.folder / f"{FILE}.claim") as mine:
            kept = _read(file)
            if kept is None and mine:
                if len(store.missing()) < store.n_chunks:
                    warnings.warn(
                        f"{file} is lost or damaged, so that nobody can tell what made the rows of {store.folder}; "
                        "they are computed again.",
                        PhospheneWarning,
                        stacklevel=2,
                    )

                    store.forget()

                atomic.write_bytes(file, data)
                return

        if kept is None and time.monotonic() > until:
            raise MachineError(
                f"another process claims to be writing {file} but does not finish within {_PATIENCE_S} s. If it is dead, "
                f"delete {file}.claim and run again."
            )

        time.sleep(0.05)

    before, made_by = kept
    if before.shape != now.shape:
        raise ModelError(f"{file} holds features of shape {before.shape}, not {now.shape}; delete {store.folder}.")

    cosine, error = _compare(now, before)
    if cosine < LEAST_COSINE or error > LARGEST_ERROR:
        here = versions()
        changed = [k for k in sorted({*made_by, *here}) if made_by.get(k) != here.get(k)]
        raise ModelError(
            f"the features in {store.folder} are not those computed here: over {_COUNT} references the smallest cosine "
            f"is {cosine:.6f} (at least {LEAST_COSINE}) and the largest relative error {error:.2g} (at most "
            f"{LARGEST_ERROR}). They were made with {_named(made_by)}; here is {_named(here)}"
            f"{' (other: ' + ', '.join(changed) + ')' if changed else ' (the same: check device and weights)'}. "
            "Install those versions, or choose another cache folder and compute all features again."
        )


def _read(file: Path) -> tuple[np.ndarray, dict[str, str]] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            return opened.get_tensor("features"), dict(json.loads(opened.metadata()["versions"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _compare(now: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Smallest cosine and largest relative error over the references."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (now, before))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    tiny = np.finfo(np.float32).tiny
    cosine = (a * b).sum(axis=1) / np.maximum(norms, tiny)
    error = np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), tiny)

    return float(cosine.min()), float(error.max())


def _named(found: dict[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(found.items()))
