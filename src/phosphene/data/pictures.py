"""Picture files of any kind as uint8 arrays of one size.

What is done, always the same: the orientation stored in the file is applied, transparency is laid over mid grey (127),
16-bit values are divided by 257, CMYK becomes RGB, an animation gives its first frame. Resizing crops the centre to
the wanted aspect and uses Pillow's antialiased Lanczos kernel.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.io import memory

MAX_PIXELS = 64_000_000
"""Pictures with more pixels than this are refused before they are unpacked."""

BACKGROUND = 127
"""Grey value that transparent pixels are laid over, as in most scanner displays."""

# Decoders that are safe on foreign files; EPS, for one, would start another program.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_ENDINGS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
    ".webp": "WEBP", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM",
}  # fmt: skip
# First bytes of the same kinds, for files without an ending; RIFF stands for WebP, and for sound, which fails later.
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"P5", b"P6")
_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db"}

Aspect = Literal["crop", "stretch"]
Kernel = Literal["lanczos", "bicubic", "bilinear", "box", "nearest"]


@dataclass(frozen=True)
class PictureFile:
    """One picture and what was unusual about its file.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 1 or 3), uint8
        0-255, RGB
    notes : tuple of str, default ()
        such as "CMYK converted to RGB"; empty for a plain file
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def read_picture(
    file: str | Path | bytes,
    size: tuple[int, int] | None = None,
    *,
    channels: int | None = None,
    aspect: Aspect = "crop",
    kernel: Kernel = "lanczos",
    max_pixels: int = MAX_PIXELS,
) -> PictureFile:
    """Read one picture.

    Parameters
    ----------
    file : str, Path or bytes
        path or the bytes of a PNG, JPEG, GIF, BMP, TIFF, WebP or PPM file; the content decides, not the ending
    size : tuple of (int, int), optional
        (height, width) of the result; that of the file by default
    channels : int, optional
        1 (grey) or 3 (RGB); what the file has by default
    aspect : {"crop", "stretch"}, default "crop"
        "crop" cuts the centre out to the wanted aspect, "stretch" changes the aspect
    kernel : {"lanczos", "bicubic", "bilinear", "box", "nearest"}, default "lanczos"
        of the resizing, antialiased when shrinking
    max_pixels : int, optional
        larger pictures are refused unread

    Returns
    -------
    PictureFile
        (height, width, 1 or 3) uint8, and what was unusual about the file

    Raises
    ------
    DataError
        Missing, empty, truncated, no picture, too large, or of a kind without a stated conversion.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    notes: list[str] = []
    ending = ""
    if isinstance(file, bytes):
        name = "the picture"
        data = file
    else:
        name = str(file)
        ending = Path(file).suffix.lower()
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}).") from error

    if not data:
        raise DataError(f"{name} has 0 bytes. Copy it again, or remove it to mark the picture as missing.")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows, and is stricter
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)

        _refuse_bomb(picture.size, max_pixels, name)  # opening read the header alone; pixels are unpacked below
        if not isinstance(file, bytes) and picture.format not in (_ENDINGS.get(ending), "MPO"):  # MPO: phones' JPEG
            notes.append(f"is a {picture.format} file in spite of its name")

        n_frames = getattr(picture, "n_frames", 1)
        if n_frames > 1:
            notes.append(f"first of {n_frames} frames taken")
            picture.seek(0)

        picture.load()
        if picture.getexif().get(0x0112, 1) != 1:
            notes.append("turned as its EXIF orientation says")
            picture = ImageOps.exif_transpose(picture)

        picture = _plain(picture, notes, name)
    except MemoryError as error:
        raise memory.exhausted(f"unpacking {name}", error) from error
    except Image.DecompressionBombError as error:
        raise DataError(_bomb(name, str(error), max_pixels)) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is no picture (it begins with {data[:8]!r}); {', '.join(_FORMATS)} files can be read. Replace it, or "
            "remove it to mark the picture as missing."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        if memory.is_exhausted(error):
            raise memory.exhausted(f"unpacking {name}", error) from error
        raise DataError(
            f"{name} is truncated or damaged ({error}; {len(data)} bytes). Copy it again, or remove it to mark the "
            "picture as missing."
        ) from error

    if channels is not None:
        picture = picture.convert({1: "L", 3: "RGB"}[channels])

    if size is not None and (picture.height, picture.width) != tuple(size):
        picture = _resized(picture, size, aspect, kernel)

    pixels = np.asarray(picture, dtype=np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]  # (height, width, 1)

    return PictureFile(pixels, tuple(notes))


def _refuse_bomb(size: tuple[int, int], max_pixels: int, name: str) -> None:
    if size[0] * size[1] > max_pixels:
        raise DataError(_bomb(name, f"{size[0]} x {size[1]} pixels", max_pixels))


def _bomb(name: str, what: str, max_pixels: int) -> str:
    return (
        f"{name} unpacks to an enormous picture ({what}; at most {max_pixels / 1e6:g} million pixels are read). It is "
        "damaged or made to exhaust the memory; replace it, or shrink it in a picture editor."
    )


def _plain(picture: Any, notes: list[str], name: str) -> Any:
    """The picture in mode L or RGB. Pillow's own conversions clip 16 bits at 255 and drop transparency."""
    from PIL import Image

    if picture.mode in ("L", "RGB"):
        if "transparency" not in picture.info:
            return picture
        picture = picture.convert("RGBA")

    if picture.mode == "1":
        return picture.convert("L")

    if picture.mode.startswith("I"):  # 16-bit grey, in files of either byte order
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(
                f"{name} holds grey values from {values.min()} to {values.max()}, beyond 16 bits; save it as 8 or "
                "16 bit."
            )

        notes.append("16-bit values divided by 257")
        return Image.fromarray(np.round(values.astype(np.float64) / 257).astype(np.uint8))

    if picture.mode == "F":
        raise DataError(f"{name} holds floating-point values of no stated range; save it as an 8 or 16 bit picture.")

    if picture.mode in ("P", "PA"):
        if picture.mode == "P" and "transparency" not in picture.info:
            return picture.convert("RGB")

        picture = picture.convert("RGBA")

    if picture.mode in ("LA", "La", "RGBA", "RGBa"):
        if picture.mode in ("La", "RGBa"):  # grey and colour already multiplied by their opacity
            picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])

        if picture.mode == "LA":
            mode = "L"
        else:
            mode = "RGB"

        if picture.getchannel("A").getextrema()[0] < 255:
            notes.append(f"transparency laid over grey {BACKGROUND}")
            ground = Image.new("RGBA", picture.size, (BACKGROUND,) * 3 + (255,))
            picture = Image.alpha_composite(ground, picture.convert("RGBA"))

        return picture.convert(mode)

    notes.append(f"{picture.mode} converted to RGB")
    return picture.convert("RGB")


def _resized(picture: Any, size: tuple[int, int], aspect: Aspect, kernel: Kernel) -> Any:
    from PIL import Image

    height, width = (int(s) for s in size)
    if height < 1 or width < 1:
        raise ConfigError(f"a picture size of at least 1 x 1 is needed, but {height} x {width} was given.")
    box = None
    if aspect == "crop":
        scale = min(picture.width / width, picture.height / height)
        left = (picture.width - width * scale) / 2
        top = (picture.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)

    return picture.resize((width, height), Image.Resampling[kernel.upper()], box=box)


def is_litter(path: Path) -> bool:
    """Whether this is what operating systems and editors leave behind: .DS_Store, Thumbs.db, lock files.

    Parameters
    ----------
    path : Path
        relative to the folder that is searched, so that a hidden folder above it does not count
    """
    for part in path.parts:
        if part.startswith((".", "~$")) or part.lower() in _LITTER or part.endswith((".lock", ".tmp", "~")):
            return True

    return False


def list_pictures(folder: str | Path) -> list[Path]:
    """Every picture file below a folder, sorted; the content decides where the ending says nothing.

    Parameters
    ----------
    folder : str or Path
        searched with its subfolders

    Returns
    -------
    list of Path
        in the same order on every machine

    Raises
    ------
    DataError
        The folder is missing or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"the folder of pictures {folder} is {'a file' if folder.exists() else 'not there'}.")

    pictures = []
    for path in sorted(folder.rglob("*")):
        if is_litter(path.relative_to(folder)) or not path.is_file():
            continue
        if path.suffix.lower() in _ENDINGS or _looks_like_picture(path):
            pictures.append(path)

    if not pictures:
        raise DataError(f"{folder} holds no picture ({', '.join(_FORMATS)}). Give the folder that holds the files.")

    return pictures


def _looks_like_picture(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(8).startswith(_MAGIC)


def match_pictures(folder: str | Path, ids: Iterable[str]) -> dict[str, Path]:
    """Which file shows which stimulus.

    Parameters
    ----------
    folder : str or Path
        searched with its subfolders
    ids : iterable of str
        stimulus ids: a path below the folder, a file name, or a file name without its ending

    Returns
    -------
    dict of {str: Path}
        id to path, for the ids that have a file

    Raises
    ------
    DataError
        When two files could be meant, or no id has a file.
    """
    folder = Path(folder)
    places: dict[str, list[Path]] = {}
    files = list_pictures(folder)

    for path in files:
        # Each once: for a file without an ending directly in the folder, the three are one and it must not count thrice.
        for key in dict.fromkeys(_spellings(path.relative_to(folder).as_posix())):
            places.setdefault(key, []).append(path)

    out = {}
    ids = list(ids)
    for name in ids:
        candidates = []
        for spelling in _spellings(name):
            candidates = candidates or places.get(spelling, [])

        if len(candidates) > 1:
            listed = " or ".join(str(path.relative_to(folder)) for path in candidates[:3])
            raise DataError(
                f"stimulus '{name}' could be {listed} in {folder}. Write the path below that folder in the column "
                "'stimulus', or remove one of the files."
            )

        if candidates:
            out[name] = candidates[0]

    if not out:
        raise DataError(
            f"none of the {len(ids)} stimuli has a picture in {folder}: ids look like '{ids[0] if ids else ''}', files "
            f"like '{files[0].relative_to(folder)}'. The column 'stimulus' must hold file names, with or without ending."
        )

    return out


def _spellings(name: str) -> list[str]:
    """A path below the folder of pictures, the file's name, and both without an ending; the exact ones before all others.

    Tables and folders differ in capitals, in separators, in the ending, and in whether the folder itself is named.
    """
    exact = [name, name.rsplit("/", 1)[-1]]
    exact += [_without_ending(one) for one in exact]
    plain = name.replace("\\", "/").removeprefix("./").lower().removeprefix("stimuli/")
    loose = [plain, _without_ending(plain), plain.rsplit("/", 1)[-1]]
    loose.append(_without_ending(loose[-1]))

    return list(dict.fromkeys([*exact, *(f"/{one}" for one in loose)]))  # a slash: no exact name begins so


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    if dot and f".{ending.lower()}" in _ENDINGS:
        return stem

    return name


@dataclass(frozen=True)
class PictureFolder:
    """Pictures in files, read when asked for; rows of a Stimuli.

    Parameters
    ----------
    paths : sequence of (Path or None)
        one per stimulus; None where the picture is missing (its row is zero)
    shape : tuple of (int, int, int, int)
        (n, height, width, channels) as they come out
    aspect : {"crop", "stretch"}, default "crop"
        see `read_picture`
    kernel : {"lanczos", "bicubic", "bilinear", "box", "nearest"}, default "lanczos"
        see `read_picture`
    """

    paths: Sequence[Path | None]
    shape: tuple[int, int, int, int]
    aspect: Aspect = "crop"
    kernel: Kernel = "lanczos"

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = np.atleast_1d(np.arange(len(self.paths))[rows])
        out = np.zeros((len(index), *self.shape[1:]), dtype=np.uint8)
        for i, row in enumerate(index):
            path = self.paths[row]
            if path is not None:
                out[i] = read_picture(
                    path, self.shape[1:3], channels=self.shape[3], aspect=self.aspect, kernel=self.kernel
                ).pixels

        if np.ndim(rows) or isinstance(rows, slice):
            return out
        return out[0]


def open_pictures(
    files: Mapping[str, Path], ids: Sequence[str], size: tuple[int, int] | None = None
) -> tuple[PictureFolder, np.ndarray, dict[str, tuple[str, ...]]]:
    """Read every picture once to see that it can be read, and fix one size for all.

    Parameters
    ----------
    files : mapping of {str: Path}
        id to path, as `match_pictures` gives
    ids : sequence of str
        stimuli in the order of the rows
    size : tuple of (int, int), optional
        (height, width) of all; that of the files when more than half of them agree, else a square of the smallest side

    Returns
    -------
    tuple of (PictureFolder, ndarray, dict of {str: tuple of str})
        (pictures, present, notes): rows, (n,) bool which are there, and what was unusual about each file

    Raises
    ------
    DataError
        Naming the file that cannot be read.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    notes: dict[str, tuple[str, ...]] = {}
    grey = True

    for name, path in files.items():
        picture = read_picture(path)
        height, width, _ = picture.pixels.shape
        sizes[height, width] += 1
        grey = grey and picture.pixels.shape[2] == 1
        if picture.notes:
            notes[name] = picture.notes

    if size is None:
        size, most = sizes.most_common(1)[0]
        if len(sizes) > 1:
            if 2 * most <= len(files):  # no size has a majority: the smallest side, so that nothing is enlarged
                side = min(min(s) for s in sizes)
                size = (side, side)

            common = ", ".join(f"{h} x {w} ({n} files)" for (h, w), n in sizes.most_common(3))
            warnings.warn(
                f"the pictures have {len(sizes)} sizes ({common}); all are cropped at the centre and resized to "
                f"{size[0]} x {size[1]}. Choose the size yourself with --size SIDE (in Python size=(height, width)).",
                PhospheneWarning,
                stacklevel=3,
            )

    assert size is not None
    paths = [files.get(i) for i in ids]
    present = np.asarray([path is not None for path in paths])  # (n,)
    if grey:
        n_channels = 1
    else:
        n_channels = 3

    shape = (len(ids), size[0], size[1], n_channels)
    return PictureFolder(paths, shape), present, notes


def pictures_of(
    folder: str | Path, ids: Sequence[str], side: int | None = None
) -> tuple[PictureFolder, np.ndarray | None]:
    """Square pictures of a study that showed every id, some of which may be missing.

    Parameters
    ----------
    folder : str or Path
        of the pictures, see `match_pictures`
    ids : sequence of str
        stimuli in the order of the rows
    side : int, optional
        pixels; the shorter side of the first picture by default

    Returns
    -------
    tuple of (PictureFolder, ndarray or None)
        (pictures, present): rows, and (n,) bool which are there, None where all are

    Raises
    ------
    DataError
        As `match_pictures`.
    """
    files = match_pictures(folder, ids)
    present = np.asarray([i in files for i in ids])
    if not present.all():
        warnings.warn(
            f"{int((~present).sum())} of {len(ids)} pictures are missing in {folder}, first '{ids[int(present.argmin())]}'; "
            "their trials are kept but cannot train or test pictures.",
            PhospheneWarning,
            stacklevel=4,
        )

    if side is None:
        first = read_picture(next(iter(files.values())))
        side = int(min(first.pixels.shape[:2]))

    pictures = PictureFolder([files.get(i) for i in ids], (len(ids), side, side, 3))
    if present.all():
        return pictures, None

    return pictures, present
