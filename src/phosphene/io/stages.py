"""Stages: fitted parts on disk, each with the digest of what made it.

A stage folder appears whole or not at all. Its digest covers the settings, the version numbers of the part and of the
solvers that fit it, the contents of the weight files it reads, the data and the stages before it; never the text of a
source file. A stage whose digest matches is read back instead of being computed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np

from phosphene._version import __version__
from phosphene.errors import ModelError, PhospheneWarning
from phosphene.io import atomic, memory
from phosphene.io.memory import Peak
from phosphene.io.notes import collecting
from phosphene.io.reading import reads
from phosphene.io.run_folder import read_json

WEIGHTS = "weights.safetensors"
STAGE = "stage.json"
LINEAGE = "lineage.txt"
PICTURES = "pictures.txt"
_LARGEST_HEADER = 100_000_000  # bytes; the safetensors format allows no more


@runtime_checkable
class Part(Protocol):
    """Something fitted that can be put into arrays and plain values, and made again from them.

    A part may have a number ``version: ClassVar[int]``, raised by hand when what it computes changes, see `version_of`.
    """

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by name, and plain values (JSON) beside them."""
        ...

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Self:
        """The same part again. Raises ModelError for missing or extra entries."""
        ...


P = TypeVar("P", bound=Part)
F = TypeVar("F", bound=Callable[..., Any])


def versioned(number: int) -> Callable[[F], F]:
    """Give a solver that is a function its version number; a class has ``version: ClassVar[int]``.

    Examples
    --------
    >>> @versioned(2)
    ... def halved(x):
    ...     return x / 2
    >>> version_of(halved)
    2
    """

    def numbered(function: F) -> F:
        function.version = number  # pyright: ignore[reportFunctionMemberAccess]  a number on a function
        return function

    return numbered


def version_of(solver: Any) -> int:
    """Version number of a part or solver, 1 where it has none.

    Raises
    ------
    ModelError
        When the number is no positive whole number.
    """
    number = getattr(solver, "version", 1)
    is_number = isinstance(number, int) and not isinstance(number, bool) and number >= 1
    if not is_number:
        raise ModelError(f"the version of {name_of(solver)} must be a whole number from 1, but is {number!r}.")

    return number


def name_of(solver: Any) -> str:
    """Module and name of a part or solver, as stages record it."""
    return f"{solver.__module__}:{solver.__qualname__}"


def take(tensors: dict[str, np.ndarray], names: Iterable[str], owner: str) -> list[np.ndarray]:
    """Exactly the named arrays, in that order.

    Raises
    ------
    ModelError
        When one is missing or one too many is there; both lists are printed.
    """
    names = list(names)
    missing = sorted(set(names) - set(tensors))
    extra = sorted(set(tensors) - set(names))
    if missing or extra:
        raise ModelError(
            f"the saved {owner} does not fit this phosphene: missing {', '.join(missing) or 'nothing'}, "
            f"unexpected {', '.join(extra) or 'nothing'}. It was saved by another version or recipe; fit again."
        )

    return [tensors[n] for n in names]


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file, after checking what the format promises.

    Raises
    ------
    ModelError
        Truncated, a header larger than the file or 100 MB, shapes that do not fit the bytes, or NaN values.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    again = "The file is damaged; delete the stage folder and fit again, only that stage is recomputed."
    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            head = handle.read(8)
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}). {again}") from error

    if len(head) == 8:
        length = struct.unpack("<Q", head)[0]
    else:
        length = -1

    if not 0 < length <= min(size - 8, _LARGEST_HEADER):
        raise ModelError(f"{file} announces a header of {length} bytes but has {size} bytes in all. {again}")

    try:
        tensors = load_file(file)
    except (SafetensorError, ValueError, KeyError, OverflowError, MemoryError, OSError) as error:
        if memory.is_exhausted(error):
            raise memory.exhausted(f"reading {file}", error) from error
        raise ModelError(f"{file} is no valid safetensors file ({error}). {again}") from error

    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"'{name}' in {file} holds {int((~np.isfinite(array)).sum())} NaN or infinite values. {again}"
            )

    return tensors


def save_part(
    folder: Path,
    part: Part,
    *,
    stage: str,
    digest: str,
    seconds: float,
    lineage: Iterable[str],
    pictures: Iterable[str] | None = None,
    peak_bytes: int | None = None,
    notes: Iterable[str] = (),
) -> None:
    """Write one stage folder whole or not at all.

    Parameters
    ----------
    folder : Path
        where it is written
    part : Part
        what the stage fitted
    stage : str
        its name
    digest : str
        of everything its outcome depends on
    lineage : iterable of str
        keys of the trials it saw
    pictures : iterable of str, optional
        ids of the stimuli it saw; None where nobody recorded them
    seconds : float
        wall time of the fit
    peak_bytes : int, optional
        memory that the fit took beyond what was held before; None where it is not known
    notes : iterable of str, default ()
        what happened on the way, such as memory that ran out

    Raises
    ------
    ModelError
        When the part holds NaN: a broken fit is never stored as a finished one.
    """
    from safetensors.numpy import save

    tensors, meta = part.state()
    tensors = {k: np.asarray(v, order="C") for k, v in tensors.items()}

    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"stage '{stage}' produced NaN or infinite values in '{name}'; it is not saved. Check the data."
            )

    data = save(tensors)
    with atomic.folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(data)
        _write_lines(temporary / LINEAGE, lineage)
        if pictures is not None:
            _write_lines(temporary / PICTURES, pictures)

        record = {
            "stage": stage,
            "part": name_of(type(part)),
            "digest": digest,
            "weights_sha256": hashlib.sha256(data).hexdigest(),
            "tensors": {k: [str(v.dtype), list(v.shape)] for k, v in tensors.items()},
            "meta": meta,
            "seconds": round(seconds, 3),
            "peak_bytes": peak_bytes,
            "notes": list(notes),
            "phosphene": __version__,
        }

        (temporary / STAGE).write_text(json.dumps(record, indent=2, default=_plain) + "\n", encoding="utf-8")


def _write_lines(file: Path, texts: Iterable[str]) -> None:
    file.write_text("".join(f"{text}\n" for text in sorted(texts)), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()

    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


@reads("folder", ModelError)
def load_part(folder: Path, kind: type[P]) -> P:
    """Read one stage folder back.

    Raises
    ------
    ModelError
        Missing, of another class, or damaged (its hash no longer matches).
    """
    record = read_json(folder / STAGE)
    expected = name_of(kind)
    if record.get("part") != expected:
        raise ModelError(
            f"{folder} holds a {record.get('part')}, but a {expected} was expected; it belongs to another recipe."
        )

    try:
        actual = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read ({error.strerror}); fit again.") from error

    tensors = read_safetensors(folder / WEIGHTS)
    if actual != record.get("weights_sha256"):
        raise ModelError(
            f"{folder / WEIGHTS} is not what was written (SHA-256 {actual[:12]}..., recorded "
            f"{str(record.get('weights_sha256'))[:12]}...). Delete {folder} and fit again; only this stage is recomputed."
        )

    return kind.from_state(tensors, record["meta"])


@reads("folder", ModelError)
def read_lineage(folder: Path) -> frozenset[str]:
    """Keys of the trials a stage was fitted on."""
    file = folder / LINEAGE
    if file.is_file():
        return frozenset(file.read_text(encoding="utf-8").splitlines())

    return frozenset()


@reads("folder", ModelError)
def read_picture_lineage(folder: Path) -> frozenset[str] | None:
    """Ids of the stimuli a stage was fitted on; None for stages of earlier versions, which recorded none."""
    file = folder / PICTURES
    if file.is_file():
        return frozenset(file.read_text(encoding="utf-8").splitlines())

    return None


@dataclass
class StageStore:
    """Finished stages of one fit, kept in a folder; in memory only where `folder` is None.

    Parameters
    ----------
    folder : Path, optional
        holds one folder per stage
    pool : Path, optional
        finished stages of other runs, one folder per stage and digest; a stage that lies there is copied, one that is fitted
        is added
    writes : bool, default True
        whether this process is the one that stores what is fitted; others of the same training only read
    announce : callable, optional
        called with (stage, "reused" | "fitted", seconds) as each stage is there
    """

    folder: Path | None = None
    announce: Callable[[str, str, float], None] = lambda *_: None
    reused: list[str] = field(default_factory=list)
    pool: Path | None = None
    writes: bool = True

    def get(
        self,
        stage: str,
        kind: type[P],
        digest: str,
        lineage: Iterable[str],
        fit: Callable[[], P],
        pictures: Iterable[str] | None = None,
    ) -> P:
        """The finished stage of this digest, or a fresh one from `fit`, stored before it is returned.

        A damaged stage is reported and fitted again. What is returned has always been through
        ``state`` / ``from_state``, so that a resumed run equals an uninterrupted one bit by bit.

        Parameters
        ----------
        stage : str
            its name
        kind : type of Part
            class of what it fits
        digest : str
            of everything its outcome depends on
        lineage : iterable of str
            keys of the trials it sees
        fit : callable
            fits it; called only where no finished stage has this digest
        pictures : iterable of str, optional
            ids of the stimuli it sees

        Returns
        -------
        Part
        """
        if self.folder is not None and self.writes:
            self._from_pool(stage, digest)

        if self.folder is not None and (self.folder / stage / STAGE).is_file():
            try:
                if read_json(self.folder / stage / STAGE).get("digest") == digest:
                    part = load_part(self.folder / stage, kind)
                    self.reused.append(stage)
                    self.announce(stage, "reused", 0.0)
                    return part
            except ModelError as error:
                warnings.warn(f"stage '{stage}' is fitted again: {error}", PhospheneWarning, stacklevel=2)

        start = time.perf_counter()
        with collecting() as notes, Peak() as peak:
            part = fit()

        seconds = time.perf_counter() - start
        if self.folder is None or not self.writes:
            tensors, meta = part.state()
            tensors = {k: np.asarray(v, order="C") for k, v in tensors.items()}  # memory order moves the last bits
            part = kind.from_state(tensors, json.loads(json.dumps(meta, default=_plain)))
        else:
            took = {"seconds": seconds, "peak_bytes": peak.bytes, "notes": notes}
            seen = {"lineage": lineage, "pictures": pictures}
            save_part(self.folder / stage, part, stage=stage, digest=digest, **seen, **took)
            part = load_part(self.folder / stage, kind)

            if self.pool is not None:
                _copy(self.folder / stage, self._pooled(stage, digest))

        self.announce(stage, "fitted", seconds)
        return part

    def _pooled(self, stage: str, digest: str) -> Path:
        assert self.pool is not None
        return self.pool / f"{stage}-{digest[:32]}"

    def _from_pool(self, stage: str, digest: str) -> None:
        """Copy a stage that another run has finished, where this one has none of that digest."""
        assert self.folder is not None
        if self.pool is None or not (self._pooled(stage, digest) / STAGE).is_file():
            return

        record = self.folder / stage / STAGE
        if record.is_file() and read_json(record).get("digest") == digest:
            return

        _copy(self._pooled(stage, digest), self.folder / stage)


def _copy(source: Path, target: Path) -> None:
    with atomic.folder(target) as temporary:
        for file in source.iterdir():
            shutil.copy2(file, temporary / file.name)
