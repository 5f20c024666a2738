"""Which file of a BIDS folder belongs to which image, by the standard's rule of inheritance.

A file belongs to an image when it has the suffix that is asked for, lies in a folder above the image (or beside it), and says
nothing in its name that the image's name does not say. The nearest folder wins, and in one folder the file that says most. Two
that say as much about the same thing are a fault of the data set and are named: taking either would be a guess.

References
----------
Gorgolewski et al. 2016, "The brain imaging data structure"; the inheritance principle of its specification.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from phosphene.errors import DataError

_NUMBERS = ("run", "echo", "split", "chunk")  # entities that are numbers: run-1 and run-01 are the same


@dataclass(frozen=True)
class BidsName:
    """The parts of a file's name.

    Attributes
    ----------
    path : Path
        the file
    entities : mapping of str to str
        such as ``{"sub": "01", "task": "scenes"}``, in the order of the name
    suffix : str
        such as ``bold``
    ending : str
        such as ``.nii.gz``
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str
    ending: str

    @classmethod
    def of(cls, path: Path) -> BidsName:
        """Take a name apart; what is no entity and not the last part is left out.

        Parameters
        ----------
        path : Path
            of a file, which need not be there

        Returns
        -------
        BidsName
            with the suffix "" where the name has none

        Examples
        --------
        >>> name = BidsName.of(Path("sub-01_task-see_run-2_bold.nii.gz"))
        >>> name.entities["run"], name.suffix, name.ending
        ('2', 'bold', '.nii.gz')
        """
        stem, dot, ending = path.name.partition(".")
        *parts, last = stem.split("_")
        suffix = last
        if "-" in last:
            parts.append(last)
            suffix = ""

        entities = dict(part.split("-", 1) for part in parts if "-" in part)
        return cls(path, entities, suffix, f"{dot}{ending}")

    def applies_to(self, other: BidsName, ignoring: Collection[str] = ()) -> bool:
        """Whether all that this name says is said by another's as well.

        Parameters
        ----------
        other : BidsName
            such as that of an image
        ignoring : collection of str, optional
            entities that play no part
        """
        for key, value in self.entities.items():
            if key not in ignoring and not _same(key, value, other.entities.get(key)):
                return False

        return True


def _same(entity: str, ours: str, theirs: str | None) -> bool:
    if theirs is None:
        return False

    if entity in _NUMBERS and ours.isdigit() and theirs.isdigit():
        return int(ours) == int(theirs)

    return ours == theirs


class BidsFolder:
    """A BIDS folder together with others that say more about its images, such as the raw study of a derivative.

    Parameters
    ----------
    root : Path
        folder that holds the images
    studies : sequence of Path, optional
        folders that hold the same subjects and say what the first does not, nearest first
    """

    def __init__(self, root: Path, studies: tuple[Path, ...] = ()) -> None:
        self.root = root
        self.studies = studies
        self._names: dict[Path, list[BidsName]] = {}

    def sidecar(self, image: Path) -> dict[str, Any]:
        """What the JSON files of an image say together, from the most general to its own.

        Parameters
        ----------
        image : Path
            below `root`

        Returns
        -------
        dict of str to Any
            such as ``RepetitionTime``; the most specific file wins

        Raises
        ------
        DataError
            For a file that is no JSON object, and for two equally specific ones that disagree.
        """
        name = BidsName.of(image)
        told: dict[str, Any] = {}
        for root in (*reversed(self.studies), self.root):
            for folder in self._levels(root, image):
                told |= self._merged(folder, name)

        return told

    def _merged(self, folder: Path, name: BidsName) -> dict[str, Any]:
        """What the JSON files of one folder say about an image, those that say least of it first."""
        # Older fMRIPrep writes *_bold.dtseries.json beside *_bold.dtseries.nii.
        endings = dict.fromkeys((".json", f"{name.ending.removesuffix('.gz').rpartition('.')[0]}.json"))
        found = self._applicable(folder, name, (name.suffix, "bold"), tuple(endings))
        told: dict[str, Any] = {}
        by: dict[str, BidsName] = {}

        for file in sorted(found, key=lambda one: len(one.entities)):
            for key, value in _json(file.path).items():
                earlier = by.get(key)
                if earlier is not None and len(earlier.entities) == len(file.entities) and told[key] != value:
                    raise DataError(
                        f"{earlier.path} and {file.path.name} both belong to {name.path.name}, equally closely, and disagree "
                        f"about {key} ({told[key]} and {value}). Keep one."
                    )

                told[key] = value
                by[key] = file

        return told

    def table(
        self, image: Path, suffixes: tuple[str, ...], ignoring: Collection[str] = (), desc: Collection[str] = ()
    ) -> Path | None:
        """The table that belongs to an image: the nearest, and there the one that says most.

        Parameters
        ----------
        image : Path
            below `root`
        suffixes : tuple of str
            such as ``("events",)``
        ignoring : collection of str, optional
            entities of tables that play no part
        desc : collection of str, optional
            values of the entity ``desc`` of which a table must have one, where it has that entity at all

        Returns
        -------
        Path or None
            None where none belongs to it

        Raises
        ------
        DataError
            For two equally specific ones.
        """
        name = BidsName.of(image)
        roots = (self.root, *self.studies)
        levels = [list(self._levels(root, image)) for root in roots]
        depth = max(len(one) for one in levels)

        for level in reversed(range(depth)):
            for folders in levels:
                if level >= len(folders):
                    continue

                found = self._applicable(folders[level], name, suffixes, (".tsv", ".tsv.gz"), ignoring)
                found = [one for one in found if not desc or one.entities.get("desc", desc) in (*desc, desc)]
                if not found:
                    continue

                most = max(len(one.entities) for one in found)
                closest = [one for one in found if len(one.entities) == most]
                if len(closest) > 1:
                    listed = " and ".join(one.path.name for one in closest[:3])
                    raise DataError(f"{listed} in {folders[level]} belong to {image.name} equally closely. Keep one.")

                return closest[0].path

        return None

    def _levels(self, root: Path, image: Path) -> Iterator[Path]:
        """Folders of a root that are above the image, or would be: the root, the subject's, the session's, the image's own."""
        folder = root
        yield folder
        for part in image.parent.relative_to(self.root).parts:
            folder = folder / part
            yield folder

    def _applicable(
        self,
        folder: Path,
        name: BidsName,
        suffixes: tuple[str, ...],
        endings: tuple[str, ...],
        ignoring: Collection[str] = (),
    ) -> list[BidsName]:
        """Files of one folder that belong to an image."""
        found = []
        for file in self._in(folder):
            if file.suffix in suffixes and file.ending in endings and file.applies_to(name, ignoring):
                found.append(file)

        return found

    def _in(self, folder: Path) -> list[BidsName]:
        """Names of the files in a folder, in order, read once."""
        if folder not in self._names:
            names = []
            if folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if not path.name.startswith((".", "~")):
                        names.append(BidsName.of(path))

            self._names[folder] = names

        return self._names[folder]


@lru_cache(maxsize=4096)
def _json_text(path: Path, state: tuple[int, int]) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} should be a JSON object; reading it gave: {error}") from error

    if not isinstance(told, dict):
        raise DataError(f"{path} should be a JSON object, but holds a {type(told).__name__}.")

    return told


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; those of a study are read once while they stay as they are."""
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error

    return _json_text(path, (state.st_size, state.st_mtime_ns))


def studies_of(root: Path, subject: str, study: Path | None = None) -> tuple[Path, ...]:
    """Folders that say what a derivative does not: its study, above it or beside it.

    Parameters
    ----------
    root : Path
        folder with the images
    subject : str
        folder of the subject, such as ``sub-01``
    study : Path, optional
        the study, where it is known

    Returns
    -------
    tuple of Path
        nearest first; empty where `root` is the study itself

    Raises
    ------
    DataError
        When `study` has no such subject, or several folders beside `root` could be the study.
    """
    if study is not None:
        if not (study / subject).is_dir():
            raise DataError(f"{study} has no folder {subject}, so it is not the study of {root}.")

        return (study,)

    root = root.resolve()
    above = [folder for folder in root.parents[:3] if (folder / subject).is_dir()]
    if above or _has_events(root / subject) or _has_events(root, deep=False):
        return tuple(above)

    beside = []
    for folder in sorted(root.parent.iterdir()):
        has_subject = folder != root and not folder.name.startswith(".") and (folder / subject).is_dir()
        if has_subject and (_has_events(folder / subject) or _has_events(folder, deep=False)):
            beside.append(folder)

    if len(beside) > 1:
        raise DataError(
            f"{root} has no events, and {' and '.join(folder.name for folder in beside[:4])} beside it have some for {subject}. "
            "Say which is its study with --study FOLDER (in Python study=)."
        )

    return tuple(beside)


def _has_events(folder: Path, *, deep: bool = True) -> bool:
    pattern = "*_events.tsv"
    if deep:
        pattern = "**/*_events.tsv"

    return folder.is_dir() and next(folder.glob(pattern), None) is not None


@dataclass(frozen=True)
class ImageTiming:
    """When the volumes of an image were taken.

    Attributes
    ----------
    tr_s : float or None
        seconds between volumes as the JSON files say; None where they do not
    start_s : float
        seconds from the beginning of the first volume to the time its values stand for
    notes : tuple of str
        what should be known of it
    """

    tr_s: float | None
    start_s: float = 0.0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any], name: str) -> ImageTiming:
        """Timing from what the JSON files of an image say together.

        Parameters
        ----------
        told : mapping of str to Any
            of `BidsFolder.sidecar`
        name : str
            of the image, for messages

        Returns
        -------
        ImageTiming
            with the reference of slice timing in ``start_s``

        Raises
        ------
        DataError
            For volumes at uneven times, and for values that are no numbers.
        """
        tr_s = _number(told, "RepetitionTime", name)
        times = told.get("VolumeTiming")
        if times is not None:
            tr_s = _even(times, tr_s, name)

        key = "StartTime"
        start_s = _number(told, key, name) or 0.0
        if times is not None:
            key = "VolumeTiming"
            start_s += float(times[0])

        notes: tuple[str, ...] = ()
        if start_s:
            notes = (
                f"volumes stand for {start_s:g} s after their beginning ({key} of the JSON); onsets were moved by as much",
            )
        elif told.get("SliceTimingCorrected") is True and "StartTime" not in told:
            notes = (
                "slice times were corrected, but nothing says to which time (StartTime): the beginning of a volume is assumed. "
                "If it was the middle, move the onsets: --shift -TR/2 in seconds",
            )

        return cls(tr_s, start_s, notes)


def _number(told: Mapping[str, Any], key: str, name: str) -> float | None:
    value = told.get(key)
    if value is None:
        return None

    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{key} in the JSON of {name} should be a number of seconds, but is {value!r}.")

    return float(value)


def _even(times: Any, tr_s: float | None, name: str) -> float:
    """Seconds between volumes whose times are listed; refused where they are not even."""
    if not isinstance(times, list) or len(times) < 2 or not all(isinstance(t, (int, float)) for t in times):
        raise DataError(
            f"VolumeTiming in the JSON of {name} should list the seconds at which volumes begin, but is {times!r}."
        )

    gaps = [b - a for a, b in pairwise(times)]
    if max(gaps) - min(gaps) > 0.01 * max(gaps):
        raise DataError(
            f"the volumes of {name} were taken at uneven times (VolumeTiming: {min(gaps):g} to {max(gaps):g} s apart), as in "
            "clustered scanning. Betas need even ones: resample the series to one repetition time, and take VolumeTiming out of "
            "its JSON."
        )

    gap = sum(gaps) / len(gaps)
    if tr_s is not None and abs(tr_s - gap) > 0.01 * gap:
        raise DataError(
            f"the JSON of {name} says RepetitionTime {tr_s:g}, but its VolumeTiming has {gap:g} s between volumes. Keep one."
        )

    return gap
