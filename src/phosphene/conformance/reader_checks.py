"""`check_reader`: what every reader of a data set must do."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.conformance.checklist import Checklist, finite, must
from phosphene.data import registry
from phosphene.data.findings import Finding
from phosphene.data.reader import Reader, ReaderOptions
from phosphene.errors import PhospheneError
from phosphene.io.config import resolve_layers
from phosphene.types import ROI, Dataset, Trials

_MANY = 20_000


def check_reader(
    reader: str | Reader,
    root: Path | str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    seconds: float = 120.0,
    megabytes: float = 2000.0,
    waived: Mapping[str, str] | None = None,
) -> None:
    """Check a reader on data of its layout, as small as the layout allows.

    Parameters
    ----------
    reader : str or Reader
        it, or the name it is registered by
    root : Path or str, optional
        folder that holds the data set's folder, or a file; None for a reader that needs no file
    options : mapping of str to Any, optional
        of the reader
    seconds, megabytes : float, optional
        processor time and memory that opening may take
    waived : mapping of str to str, optional
        claims known to fail, and why

    Raises
    ------
    NonConforming
        With everything that does not hold.
    """
    if isinstance(reader, str):
        name = reader
    else:
        name = type(reader).__name__

    checked: Any
    if isinstance(reader, str):
        checked = registry.reader(reader)
    else:
        checked = reader

    checks = Checklist(f"the reader {name}", waived)
    root = Path(root or ".")
    checks.documented(type(checked))
    checks.light(type(checked).__module__)

    with checks.claim("facts", "texts title, citation, licence, url and files, a title at least"):
        for fact in ("title", "citation", "licence", "url", "files"):
            must(isinstance(getattr(checked, fact, None), str), f"{fact} is {getattr(checked, fact, None)!r}")

        must(checked.title, "the title is empty")

    chosen: Any = None
    with checks.claim("options", "a ReaderOptions class that needs no value and refuses unknown ones"):
        must(issubclass(checked.options, ReaderOptions), f"it is {checked.options.__name__}")
        checked.options()
        chosen = resolve_layers(checked.options, [("options", dict(options or {}))])[0]

    if chosen is None:
        checks.conclude()
        return

    checks.refuses(
        "options",
        "an unknown option",
        lambda: resolve_layers(checked.options, [("o", {"no_such_option": 1})]),
        "option",
    )

    path: Path | None = None
    with checks.claim("find", "the data to be found"):
        path = checked.find(root)

    if checked.files:
        _check_absent(checks, checked, chosen)

    if path is None:
        checks.conclude()
        return

    dataset: Dataset | None = None
    if checked.files:
        before = _listing(root)
    else:
        before = {}

    with checks.claim("load", "load to give a Dataset of the subjects that subjects() names"):
        with checks.bounded(seconds, megabytes), checks.untouched_randomness():
            loaded = checked.load(path, chosen)

        must(isinstance(loaded, Dataset), f"it gave a {type(loaded).__name__}")
        dataset = loaded
        named = checked.subjects(path, chosen)
        must(list(loaded) == list(named), f"load gives {list(loaded)}, subjects() {list(named)}")

    if dataset is None:
        checks.conclude()
        return

    subjects = list(dataset)
    for subject in subjects[:2]:
        _check_trials(checks, dataset, dataset.trials(subject))

    _check_dataset(checks, dataset)
    with checks.claim("one subject", "one subject alone to be the same as among all"):
        alone = checked.load(path, chosen, subjects[-1])
        must(list(alone) == [subjects[-1]], f"{list(alone)} came")
        must(alone.trials().digest() == dataset.trials(subjects[-1]).digest(), "trials differ")

    with checks.claim("repeat", "the same bits when loaded twice"):
        again = checked.load(path, chosen)
        must(again.stimuli.digest() == dataset.stimuli.digest(), "stimuli differ")
        must(again.trials().digest() == dataset.trials().digest(), "trials differ")

    stranger = "no-such-person"
    checks.refuses(
        "subject", "an unknown subject", lambda: checked.load(path, chosen, stranger).trials(stranger), stranger
    )

    with checks.claim("check", "check to give a list of findings, each problem with a next step"):
        findings = checked.check(path, chosen)
        must(all(isinstance(f, Finding) for f in findings), "it holds something else")
        mute = [str(f) for f in findings if f.level == "problem" and not f.next_step]
        must(not mute, f"there is none for: {'; '.join(mute)[:200]}")

    with checks.claim("read only", "nothing to be written among the data"):
        if checked.files:
            after = _listing(root)
        else:
            after = {}

        changed = sorted(set(after.items()) ^ set(before.items()))
        must(not changed, f"{', '.join(name for name, _ in changed[:3])} are new or changed")

    checks.conclude()


def _check_absent(checks: Checklist, reader: Any, options: Any) -> None:
    with tempfile.TemporaryDirectory() as empty:

        def load() -> Any:
            return reader.load(reader.find(Path(empty)), options)

        checks.refuses("absent", "an empty folder", load, Path(empty).name)
        with checks.claim("absent", "check of an empty folder to give findings, or an error of phosphene.errors"):
            try:
                list(reader.check(Path(empty), options))
            except PhospheneError as error:
                must(len(str(error)) > 20, f"the message is short: {error}")


def _check_trials(checks: Checklist, dataset: Dataset, trials: Trials) -> None:
    who = trials.subject
    with checks.claim("betas", "betas of (trials, voxels), float32, finite or NaN where a voxel was not measured"):
        betas = trials.read(slice(0, 200))
        must(betas.dtype == np.float32, f"those of {who} are {betas.dtype}")
        must(len(trials) and trials.n_voxels, f"{who} has {len(trials)} trials of {trials.n_voxels} voxels")
        must(not np.isinf(betas).any(), f"those of {who} hold infinite values")
        must(np.isfinite(betas).mean() > 0.5, f"more than half of those of {who} are NaN")

    with checks.claim("stimuli", "every trial's stimulus to be among the stimuli"):
        unknown = set(trials.stimuli) - set(dataset.stimuli.ids)
        must(not unknown, f"{len(unknown)} shown to {who} are not, such as {sorted(unknown)[:2]}")

    with checks.claim("table", "whole numbers for session, run and repeat, and repeats that count from 0"):
        for column in ("session", "run", "repeat"):
            must(trials.table[column].dtype.kind in "iu", f"{column} of {who} is {trials.table[column].dtype}")

        repeats = trials.table.groupby("stimulus")["repeat"]
        starts_at_0 = np.all(repeats.min() == 0)
        is_counted = np.all(repeats.nunique() == repeats.size())
        must(starts_at_0 and is_counted, f"not so for {who}")

    with checks.claim("voxels", "ROI columns of true and false, ceilings from 0 to 1, coordinates in mm"):
        for roi in trials.rois:
            must(trials.voxels[ROI + roi].dtype == bool, f"{roi} is {trials.voxels[ROI + roi].dtype}")

        ceiling = trials.noise_ceiling
        if ceiling is not None:
            known = np.append(ceiling[np.isfinite(ceiling)], 0.0)
            must(((known >= 0) & (known <= 1)).all(), f"ceilings go from {known.min():.2g} to {known.max():.2g}")

        for axis in {"x", "y", "z"} & set(trials.voxels.columns):
            finite(trials.voxels[axis].to_numpy(dtype=float), axis)


def _check_dataset(checks: Checklist, dataset: Dataset) -> None:
    with checks.claim("pictures", "pictures of uint8 where there are any, and some of them present"):
        if dataset.stimuli.images is not None:
            available = dataset.stimuli.available()
            must(len(available), "every picture is missing")
            pixels = available.pixels(slice(0, 3))
            must(pixels.dtype == np.uint8, f"they are {pixels.dtype}")
            must(pixels.max() > 1, "no pixel is above 1: floats of 0-1 were taken for 0-255")

    with checks.claim("splits", "every split to leave trials on both sides, and no stimulus on both"):
        for split in dataset.splits.values():
            for subject in list(dataset)[:2]:
                train, test = split.apply(dataset.trials(subject))
                both = set(train.stimuli) & set(test.stimuli)
                must(split.unit == "trial" or not both, f"{sorted(both)[:2]} of '{split.name}' stand on both")

    with checks.claim("about", "the data set to carry its facts (phosphene.data.reader.about)"):
        must(dataset.about.get("title"), f"about holds {sorted(dataset.about)}")


def _listing(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file, of the first twenty thousand."""
    if root.is_file():
        files = [root]
    else:
        files = sorted(root.rglob("*"))[:_MANY]

    listing: dict[str, tuple[int, int]] = {}
    for file in files:
        if file.is_file():
            status = file.stat()
            listing[str(file)] = (status.st_size, status.st_mtime_ns)

    return listing
