"""Decoded pictures beside those that were seen, paired by name, each with one or several samples.

A folder pairs by the names of its files: the path below the folder without its ending. Of ``SEEN/a.png`` a decoded picture is
``DECODED/a.png``, and its samples are ``DECODED/a_0.png``, ``a_1.png`` and so on, ``DECODED/a/0.png`` ..., or
``DECODED/sample0/a.png`` ... A tensor pairs by the names it brings, or row by row in the order of the seen pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from phosphene.data.picture_arrays import (
    NamedTensor,
    as_picture_samples,
    check_choices,
    is_tensor_file,
    overshoot,
    read_tensor,
)
from phosphene.data.pictures import PictureFolder, list_pictures, read_picture
from phosphene.errors import ConfigError, DataError
from phosphene.io import memory
from phosphene.io.atomic import checked_path
from phosphene.io.inside import refuse_data_links
from phosphene.types import Images, Rows
from phosphene.types.tensors import tensor_values

KERNEL = "bicubic"
"""Of all resizing here, by Pillow, which smooths before it makes smaller: as published scores resize."""

_EXAMPLES = 3  # names in a message
_SAMPLE_ENDS = (re.compile(r"(.+)[_. -](\d+)"), re.compile(r"(.+)[_. -][A-Za-z]+[_-]?(\d+)"))
"""What a name and a number of its sample look like, the plainer first: ``a_0``, ``a_sample0`` or ``a_sample_0``."""


@dataclass(frozen=True)
class PictureTreatment:
    """How pictures from elsewhere are read; the same for those seen, decoded, and of controls and training.

    Attributes
    ----------
    size : tuple of (int, int) or None
        (height, width) that all are brought to; None leaves them as they are
    layout : {"NHWC", "NCHW"} or None
        of tensors; None where their shapes say it
    value_range : {"0-1", "0-255", "-1-1"} or None
        of tensors; None for 0 and 255 of 8-bit integers, and 0 and 1 of floats
    """

    size: tuple[int, int] | None = None
    layout: str | None = None
    value_range: str | None = None

    def __post_init__(self) -> None:
        check_choices(self.layout, self.value_range)


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures in memory, under the names of their items.

    Parameters
    ----------
    names : tuple of str
        one per item, all different
    pixels : ndarray of shape (n, n_samples, height, width, channels)
        uint8 of 0-255, or float32 of 0-1
    source : str
        where they came from
    by_name : bool
        whether the names are their own; False where rows are numbered
    aliases : mapping of str to int, optional
        other names of the same items
    notes : tuple of str, default ()
        what was done to them
    """

    names: tuple[str, ...]
    pixels: np.ndarray
    source: str
    by_name: bool
    aliases: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every picture."""
        height, width, channels = self.pixels.shape[2:]
        return height, width, channels

    @property
    def n_samples(self) -> int:
        """Pictures of each item."""
        return self.pixels.shape[1]

    def floats(self) -> np.ndarray:
        """(n, n_samples, height, width, channels) float32, 0-1."""
        return as_unit_floats(self.pixels)

    def take(self, rows: Sequence[int]) -> PictureSet:
        """Some items, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        names = tuple(self.names[row] for row in rows)
        return replace(self, names=names, pixels=self.pixels[index], aliases=None)


@dataclass(frozen=True)
class NamedFiles:
    """Picture files of a folder by name, none of which is read yet.

    Attributes
    ----------
    folder : Path
        that holds them
    files : dict of str to Path
        path below the folder without its ending, to the file; in natural order
    """

    folder: Path
    files: dict[str, Path]


PictureSource = str | Path | np.ndarray | Images | Sequence[Any]
"""A folder of pictures, a file of tensors, or pictures in memory."""


# -- one set -----------------------------------------------------------------------------------------------------------


def open_picture_source(source: Any, what: str) -> NamedFiles | NamedTensor:
    """Where pictures are, without reading files of a folder.

    Parameters
    ----------
    source : str, Path, ndarray, Tensor, Images, NamedTensor or sequence of pictures
        a folder, a file of tensors, or pictures in memory
    what : str
        they are, for messages, such as "the decoded pictures"

    Returns
    -------
    NamedFiles or NamedTensor
        by kind of source

    Raises
    ------
    DataError
        When there is nothing there, or two files have one name.
    ConfigError
        For a path that nobody can have meant.
    """
    if isinstance(source, NamedTensor):
        return source

    if isinstance(source, Images):
        return NamedTensor(source.pixels, tuple(str(i) for i in source.ids), what)

    if not isinstance(source, str | Path):
        return NamedTensor(_stacked(source, what), None, what)

    if is_tensor_file(source):
        return read_tensor(source)

    path = checked_path(source)
    if path.is_file():
        raise DataError(
            f"{what}: {path} is a file of no known kind; give a folder of pictures, or a .npy, .npz, .pt or .safetensors file."
        )

    refuse_data_links(path, False)
    return _named_files(path)


def _stacked(source: Any, what: str) -> np.ndarray:
    """Pictures in memory as one array."""
    if isinstance(source, list | tuple):
        pictures = [tensor_values(one) for one in source]
        shapes = Counter(picture.shape for picture in pictures)
        if len(shapes) > 1:
            listed = ", ".join(f"{shape} ({n})" for shape, n in shapes.most_common(_EXAMPLES))
            raise DataError(f"{what} have {len(shapes)} shapes: {listed}; bring them to one.")

        if not pictures:
            raise DataError(f"{what} are none: an empty list was given.")

        return np.stack(pictures)

    return tensor_values(source)


def _named_files(folder: Path) -> NamedFiles:
    files: dict[str, Path] = {}
    for path in list_pictures(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise DataError(
                f"{files[name].name} and {path.name} in {path.parent} have one name but for their endings; remove one of them."
            )

        files[name] = path

    ordered = sorted(files, key=natural_key)
    return NamedFiles(folder, {name: files[name] for name in ordered})


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """By what names are sorted as people count: ``a2`` before ``a10``."""
    key = []
    for part in re.split(r"(\d+)", name):
        if part.isdigit():
            key.append((0, int(part), part))
        else:
            key.append((1, 0, part))

    return key


def read_seen(source: Any, treatment: PictureTreatment, *, what: str = "the seen pictures") -> PictureSet:
    """Pictures of which there is one each: those that were seen, or of training.

    Parameters
    ----------
    source : PictureSource
        see `open_picture_source`
    treatment : PictureTreatment
        how to read them
    what : str, default "the seen pictures"
        they are, for messages

    Returns
    -------
    PictureSet
        with one sample of each

    Raises
    ------
    DataError
        With what is wrong with them, in one sentence.
    """
    opened = open_picture_source(source, what)
    if isinstance(opened, NamedFiles):
        names = tuple(opened.files)
        pixels, notes = _read_files(list(opened.files.values()), opened.folder, what, treatment)
        return PictureSet(names, pixels[:, None], str(opened.folder), True, notes=notes)

    pixels, notes = _from_tensor(opened, what, treatment)
    if pixels.shape[1] != 1:
        raise DataError(f"{what} have {pixels.shape[1]} samples of each, but there is one picture that was seen.")

    names = opened.names
    if names is None:
        width = len(str(len(pixels) - 1))
        names = tuple(f"{row:0{width}d}" for row in range(len(pixels)))

    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise DataError(
            f"{what}: {len(repeated)} names stand at several rows, first '{repeated[0]}'; give each item one name."
        )

    return PictureSet(names, pixels, opened.source, opened.names is not None, notes=notes)


def _from_tensor(opened: NamedTensor, what: str, treatment: PictureTreatment) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n, samples, height, width, channels) and what was done to them."""
    named = what
    if opened.source != what:
        named = f"{what} in {opened.source}"

    pixels = as_picture_samples(opened.values, named, layout=treatment.layout, value_range=treatment.value_range)
    notes = []
    if treatment.value_range in (None, "0-1"):
        share = overshoot(opened.values)
        if share:
            notes.append(f"{100 * share:.2g} % of values lay outside 0 to 1 and were clipped")

    if treatment.size is not None and pixels.shape[2:4] != treatment.size:
        notes.append(_resize_note(pixels.shape[2:4], treatment.size))
        pixels = _resized_array(pixels, treatment.size)

    return pixels, tuple(notes)


def _resize_note(size: tuple[int, ...], wanted: tuple[int, int]) -> str:
    note = f"{size[0]} x {size[1]} brought to {wanted[0]} x {wanted[1]} by Pillow's {KERNEL} filter, 8 bits"
    if size[0] * wanted[1] != size[1] * wanted[0]:
        note += ", cropped at the centre"

    return note


def _resized_array(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures of another size, 8 bits, as `read_picture` gives those of files."""
    from PIL import Image

    n, n_samples, height, width, channels = pixels.shape
    flat = as_bytes(pixels).reshape(n * n_samples, height, width, channels)
    out = np.empty((len(flat), *size, channels), dtype=np.uint8)
    scale = min(width / size[1], height / size[0])
    left = (width - size[1] * scale) / 2
    top = (height - size[0] * scale) / 2
    box = (left, top, left + size[1] * scale, top + size[0] * scale)

    for picture, small in zip(flat, out, strict=True):
        if channels == 1:
            picture = picture[:, :, 0]

        resized = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling[KERNEL.upper()], box=box)
        small[:] = np.asarray(resized).reshape(*size, channels)

    return out.reshape(n, n_samples, *size, channels)


def _read_files(
    paths: Sequence[Path], folder: Path, what: str, treatment: PictureTreatment
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n, height, width, channels) uint8, and what was done to them; all channels are those of the most colourful one."""
    pictures = []
    sizes: Counter[tuple[int, int]] = Counter()
    first_of: dict[tuple[int, int], Path] = {}
    for path in paths:
        pixels = read_picture(path).pixels
        size = (pixels.shape[0], pixels.shape[1])
        sizes[size] += 1
        first_of.setdefault(size, path)
        if treatment.size is not None and size != treatment.size:
            pixels = _resized_array(pixels[None, None], treatment.size)[0, 0]

        pictures.append(pixels)
        if len(pictures) == 1:
            memory.require_memory(
                pixels.size * len(paths),
                f"{what[:1].upper()}{what[1:]} in {folder}",
                "Bring them to a smaller size with --size.",
            )

    if treatment.size is None and len(sizes) > 1:
        raise DataError(
            f"{what} in {folder} have {len(sizes)} sizes ({_sizes_listed(sizes, first_of)}), but scores compare pictures of one; "
            "bring all to one with --size SIDE (in Python size=)."
        )

    notes = tuple(_resize_note(size, treatment.size) for size in sizes if treatment.size not in (None, size))
    n_channels = max(picture.shape[2] for picture in pictures)
    pixels = np.stack([np.broadcast_to(picture, (*picture.shape[:2], n_channels)) for picture in pictures])

    return pixels, notes


def _sizes_listed(sizes: Counter[tuple[int, int]], first_of: Mapping[tuple[int, int], Path]) -> str:
    parts = []
    for size, n in sizes.most_common(_EXAMPLES):
        parts.append(f"{size[0]} x {size[1]} of {n}, such as {first_of[size].name}")

    return "; ".join(parts)


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pictures as uint8, 0-255, rounded."""
    if pixels.dtype == np.uint8:
        return pixels

    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def as_unit_floats(pixels: np.ndarray) -> np.ndarray:
    """Pictures as float32, 0-1."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)

    return pixels.astype(np.float32, copy=False)


# -- pairs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PicturePairs:
    """What was decoded of each item, and what is without a partner.

    Attributes
    ----------
    rows : tuple of int
        items of the seen set that have decoded pictures
    decoded : PictureSet
        of these items, in the same order
    without : tuple of str
        seen items without a decoded picture
    unseen : tuple of str
        decoded pictures without a seen one
    """

    rows: tuple[int, ...]
    decoded: PictureSet
    without: tuple[str, ...]
    unseen: tuple[str, ...]


def read_decoded(
    source: Any,
    seen: PictureSet,
    treatment: PictureTreatment,
    *,
    what: str = "the decoded pictures",
    common: bool = False,
) -> PicturePairs:
    """Pictures that belong to seen ones, with all their samples.

    Parameters
    ----------
    source : PictureSource
        see `open_picture_source`
    seen : PictureSet
        the truths
    treatment : PictureTreatment
        how to read them
    what : str, default "the decoded pictures"
        they are, for messages
    common : bool, default False
        leave out what has no partner, instead of refusing all

    Returns
    -------
    PicturePairs
        in the order of `seen`

    Raises
    ------
    DataError
        Where names do not pair, with counts and examples, or with another sentence on what is wrong.
    """
    opened = open_picture_source(source, what)
    if isinstance(opened, NamedFiles):
        by_item, unseen = _files_by_item(opened, seen)
        where = f"{what} in {opened.folder}"
        rows, without = _paired_rows(by_item, seen, where, unseen, opened.files, common)
        n_samples = _samples_of_each({row: len(by_item[row]) for row in rows}, seen, where)
        paths = [path for row in rows for path in by_item[row]]
        flat, notes = _read_files(paths, opened.folder, what, treatment)
        pixels = flat.reshape(len(rows), n_samples, *flat.shape[1:])
        decoded = PictureSet(_names(seen, rows), pixels, str(opened.folder), True, notes=notes)
        return PicturePairs(tuple(rows), decoded, without, unseen)

    return _paired_tensor(opened, seen, treatment, what, common)


def _names(seen: PictureSet, rows: Iterable[int]) -> tuple[str, ...]:
    return tuple(seen.names[row] for row in rows)


def _places(seen: PictureSet) -> dict[str, int]:
    """Every name by which a seen item may be called, to its row: its own, those it is known by, and that of its file."""
    places = {name: row for row, name in enumerate(seen.names)}
    for name, row in (seen.aliases or {}).items():
        places.setdefault(name, row)

    # A name without its folders, or without its ending, where that is the name of one item only.
    shorter: dict[str, set[int]] = {}
    for name, row in list(places.items()):
        for short in (name.rpartition("/")[2], name.rpartition(".")[0]):
            if short:
                shorter.setdefault(short, set()).add(row)

    for name, rows in shorter.items():
        if len(rows) == 1:
            places.setdefault(name, next(iter(rows)))

    return places


def _files_by_item(opened: NamedFiles, seen: PictureSet) -> tuple[dict[int, list[Path]], tuple[str, ...]]:
    """Files of each seen item, in the order of their samples, and names that belong to none."""
    places = _places(seen)
    found: dict[int, list[tuple[list[tuple[int, int, str]], Path]]] = {}
    unseen = []
    for name, path in opened.files.items():
        row, sample = _item_of(name, places)
        if row is None:
            unseen.append(name)
        else:
            found.setdefault(row, []).append((natural_key(sample), path))

    by_item = {}
    for row, files in found.items():
        by_item[row] = [path for _, path in sorted(files, key=lambda file: (file[0], str(file[1])))]

    return by_item, tuple(unseen)


def _item_of(name: str, places: Mapping[str, int]) -> tuple[int | None, str]:
    """Row of the seen item that a file belongs to, and what its sample is called; None for the row of no item."""
    if name in places:
        return places[name], ""

    folder, _, last = name.rpartition("/")
    if last in places:
        return places[last], folder

    for parent in (folder, folder.rpartition("/")[2]):
        if parent in places:
            return places[parent], last

    for candidate in (name, last):
        for pattern in _SAMPLE_ENDS:
            match = pattern.fullmatch(candidate)
            if match is not None and match[1] in places:
                return places[match[1]], match[2]

    return None, ""


def _paired_rows(
    by_item: Mapping[int, Any],
    seen: PictureSet,
    where: str,
    unseen: Sequence[str],
    all_names: Iterable[str],
    common: bool,
) -> tuple[list[int], tuple[str, ...]]:
    """Rows of seen items that have a partner, and the names of those without. Raises DataError where there are any."""
    rows = sorted(by_item)
    paired = set(rows)
    without = tuple(name for row, name in enumerate(seen.names) if row not in paired)

    if not rows:
        ours = ", ".join(f"'{name}'" for name in seen.names[:_EXAMPLES])
        theirs = ", ".join(f"'{name}'" for name in list(all_names)[:_EXAMPLES])
        raise DataError(
            f"no name of {where} is that of a seen picture: seen ones are called {ours} ..., decoded ones {theirs} ...; give "
            "both the same names, without regard to their endings."
        )

    if common or not (without or unseen):
        return rows, without

    parts = []
    if without:
        parts.append(f"{len(without)} of {len(seen)} seen pictures have none ({_quoted(without)})")

    if unseen:
        parts.append(f"{len(unseen)} belong to no seen picture ({_quoted(unseen)})")

    raise DataError(
        f"of {where} {' and '.join(parts)}; add or remove these, or score only what pairs with --common (in Python common=True)."
    )


def _quoted(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:_EXAMPLES])
    if len(names) > _EXAMPLES:
        listed += " ..."

    return listed


def _samples_of_each(counts: Mapping[int, int], seen: PictureSet, where: str) -> int:
    """How many pictures each item has. Raises DataError where items differ in that."""
    numbers = Counter(counts.values())
    if len(numbers) == 1:
        return next(iter(numbers))

    usual, _ = numbers.most_common(1)[0]
    odd = next(row for row, n in counts.items() if n != usual)
    raise DataError(
        f"{where} are {min(numbers)} to {max(numbers)} of each seen picture ('{seen.names[odd]}' has {counts[odd]}, most have "
        f"{usual}); give as many samples of each."
    )


def _paired_tensor(
    opened: NamedTensor, seen: PictureSet, treatment: PictureTreatment, what: str, common: bool
) -> PicturePairs:
    """Rows of a tensor beside seen items: by the names it brings, else in their order."""
    pixels, notes = _from_tensor(opened, what, treatment)
    where = what
    if opened.source != what:
        where = f"{what} in {opened.source}"

    if opened.names is None:
        _require_order(pixels, seen, where)
        decoded = PictureSet(seen.names, pixels, opened.source, False, notes=notes)
        return PicturePairs(tuple(range(len(seen))), decoded, (), ())

    places = _places(seen)
    by_item: dict[int, list[int]] = {}
    unseen = []
    for at, name in enumerate(opened.names):
        row = places.get(name)
        if row is None:
            unseen.append(name)
        else:
            by_item.setdefault(row, []).append(at)

    rows, without = _paired_rows(by_item, seen, where, unseen, opened.names, common)
    n_rows = _samples_of_each({row: len(by_item[row]) for row in rows}, seen, where)
    order = np.asarray([by_item[row] for row in rows])  # (n, rows of each)
    pixels = pixels[order].reshape(len(rows), n_rows * pixels.shape[1], *pixels.shape[2:])
    decoded = PictureSet(_names(seen, rows), pixels, opened.source, True, notes=notes)

    return PicturePairs(tuple(rows), decoded, without, tuple(unseen))


def _require_order(pixels: np.ndarray, seen: PictureSet, where: str) -> None:
    """Raise DataError where rows without names cannot stand for the seen pictures in their order."""
    if len(pixels) != len(seen):
        raise DataError(
            f"{len(seen)} pictures were seen but {where} are {len(pixels)}, without names to pair them by; give one row for each "
            "seen picture, in their order, or an .npz file with an array 'ids' of names."
        )

    # Two programs that list a folder agree on its order only where all names are of one length.
    if seen.by_name and list(seen.names) != sorted(seen.names):
        raise DataError(
            f"{where} have no names, and the seen pictures have two orders: as text '{sorted(seen.names)[1]}' comes second, by "
            f"their numbers '{seen.names[1]}'; give an .npz file with an array 'ids' of names, so that rows cannot be mixed up."
        )


# -- what scores need --------------------------------------------------------------------------------------------------


def check_pictures(seen: PictureSet, decoded: PictureSet, what: str = "decoded") -> None:
    """Refuse pictures of which scores would say nothing.

    Parameters
    ----------
    seen, decoded : PictureSet
        in one order
    what : str, default "decoded"
        the second set, in a word

    Raises
    ------
    DataError
        For a single item, sizes that differ, or constant pictures, in one sentence.
    """
    if len(seen) < 2:
        raise DataError(f"there is 1 {what} picture, and nothing can be told apart in one; give 2 or more, better 50.")

    height, width, _ = seen.image_shape
    other_height, other_width, _ = decoded.image_shape
    if (height, width) != (other_height, other_width):
        raise DataError(
            f"seen pictures are {height} x {width} and {what} ones {other_height} x {other_width}, but scores compare "
            f"pictures of one size; bring both to one with --size {_shown_size(height, width)} or --size "
            f"{_shown_size(other_height, other_width)} (in Python size=)."
        )

    flat = _is_constant(seen.pixels)[:, 0]
    if flat.any():
        raise DataError(
            f"{int(flat.sum())} of {len(seen)} seen pictures are of one colour all over, first "
            f"'{seen.names[int(flat.argmax())]}': nothing can be compared with them; leave them out on both sides."
        )

    if _is_constant(decoded.pixels).all():
        raise DataError(
            f"all {what} pictures are of one colour all over, such as '{decoded.names[0]}'; nothing was drawn in them, or they "
            "were saved wrongly."
        )


def _shown_size(height: int, width: int) -> str:
    if height == width:
        return str(height)

    return f"{height}x{width}"


def _is_constant(pixels: np.ndarray) -> np.ndarray:
    """(n, n_samples) bool: pictures in which all pixels are the same in each channel."""
    return np.ptp(pixels, axis=(2, 3)).max(axis=-1) == 0


def with_channels(pictures: PictureSet, channels: int) -> PictureSet:
    """The same pictures with three channels where they have one and others three."""
    if pictures.image_shape[2] == channels:
        return pictures

    if channels != 3:
        raise ConfigError(f"pictures of {pictures.image_shape[2]} channels cannot be brought to {channels}.")

    notes = (*pictures.notes, "grey repeated in three channels")
    return replace(pictures, pixels=np.repeat(pictures.pixels, 3, axis=-1), notes=notes)


# -- training pictures -------------------------------------------------------------------------------------------------

_KEPT_UP_TO = 2**29  # bytes of training pictures that are kept in memory rather than read again


@dataclass(frozen=True)
class StackedPictures:
    """Pictures of two sources, one after the other; rows of a Stimuli.

    Parameters
    ----------
    first, second : Rows
        (n, height, width, channels) and (m, height, width, channels) uint8
    """

    first: Rows
    second: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(n + m, height, width, channels)."""
        return (self.first.shape[0] + self.second.shape[0], *self.first.shape[1:])

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = np.atleast_1d(np.arange(self.shape[0])[rows])
        n_first = self.first.shape[0]
        is_first = index < n_first
        out = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
        out[is_first] = self.first[index[is_first]]
        out[~is_first] = self.second[index[~is_first] - n_first]

        if np.ndim(rows) or isinstance(rows, slice):
            return out
        return out[0]


def open_training(source: Any, shape: tuple[int, int, int], treatment: PictureTreatment) -> tuple[list[str], Rows]:
    """Names of training pictures, and the pictures at the size of those that are tested; of a large folder read when asked for.

    Parameters
    ----------
    source : PictureSource
        see `open_picture_source`
    shape : tuple of (int, int, int)
        (height, width, channels) wanted
    treatment : PictureTreatment
        of tensors

    Returns
    -------
    tuple of (list of str, Rows)
        n names, and (n, height, width, channels) uint8

    Raises
    ------
    DataError
        With what is wrong with them.
    """
    height, width, channels = shape
    what = "the training pictures"
    opened = open_picture_source(source, what)
    if isinstance(opened, NamedFiles):
        paths = list(opened.files.values())
        folder = PictureFolder(paths, (len(paths), height, width, channels), kernel=KERNEL)
        read_picture(paths[0])
        if len(paths) * height * width * channels <= _KEPT_UP_TO:
            return list(opened.files), folder[:]

        return list(opened.files), folder

    pixels, _ = _from_tensor(opened, what, replace(treatment, size=(height, width)))
    flat = as_bytes(pixels).reshape(-1, height, width, pixels.shape[-1])
    if flat.shape[-1] != channels:
        grey_or_colour = np.asarray(flat, dtype=np.float32).mean(axis=-1, keepdims=True)
        flat = np.round(np.broadcast_to(grey_or_colour, (*flat.shape[:3], channels))).astype(np.uint8)

    names = opened.names
    if names is None or len(names) != len(flat):
        names = tuple(f"{row}" for row in range(len(flat)))

    return list(names), flat
