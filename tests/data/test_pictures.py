"""Picture files of every kind a folder of stimuli may hold."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from phosphene.data.pictures import (
    BACKGROUND,
    PictureFolder,
    list_pictures,
    match_pictures,
    open_pictures,
    read_picture,
)
from phosphene.errors import DataError, PhospheneWarning


@pytest.fixture
def colour() -> np.ndarray:
    """Smooth in both directions and different in each channel, so that no turn or swap goes unseen."""
    y, x = np.mgrid[0:24, 0:36]
    return np.stack([x * 7, y * 10, (x + y) * 4], axis=-1).astype(np.uint8)


def encoded(array, kind="PNG", mode=None, **options) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(out, format=kind, **options)
    return out.getvalue()


@pytest.mark.fault(28)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_give_the_pixels_that_were_saved(colour, kind):
    array = colour if kind != "GIF" else np.repeat(colour[..., :1] // 16 * 16, 3, axis=-1)  # few enough colours
    assert np.array_equal(read_picture(encoded(array, kind)).pixels, array)


@pytest.mark.fault(28)
def test_grey_stays_one_channel_and_becomes_three_on_request(colour):
    grey = colour[..., 0]
    assert np.array_equal(read_picture(encoded(grey)).pixels[..., 0], grey)
    assert np.array_equal(read_picture(encoded(grey), channels=3).pixels, np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.fault(28)
def test_black_and_white_becomes_0_and_255(colour):
    mask = colour[..., 0] > 100
    assert np.array_equal(read_picture(encoded(mask)).pixels[..., 0], mask * 255)


@pytest.mark.fault(28)
def test_transparency_is_laid_over_the_stated_grey(colour):
    alpha = np.full((24, 36, 1), 255, np.uint8)
    alpha[:12] = 0
    picture = read_picture(encoded(np.concatenate([colour, alpha], axis=-1)))
    assert np.array_equal(picture.pixels[12:], colour[12:])
    assert (picture.pixels[:12] == BACKGROUND).all()
    assert "transparency" in picture.notes[0]


@pytest.mark.fault(28)
def test_cmyk_comes_out_as_the_colours_it_was_made_from(colour):
    picture = read_picture(encoded(colour, "JPEG", "CMYK", quality=100, subsampling=0))
    assert picture.notes == ("CMYK converted to RGB",)
    # JPEG at quality 100 rounds in another colour space: a few grey levels.
    assert np.abs(picture.pixels.astype(int) - colour).max() <= 6


@pytest.mark.fault(28)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_order_and_end_at_255(kind):
    values = np.linspace(0, 65535, 24 * 36).reshape(24, 36).astype(np.uint16)
    picture = read_picture(encoded(values, kind))
    assert np.array_equal(picture.pixels[..., 0], np.round(values / 257))
    assert picture.pixels.max() == 255
    assert "16-bit" in picture.notes[0]


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("orientation", "undo"), [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a))]
)
def test_the_exif_orientation_is_applied(colour, orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(encoded(colour, "PNG", exif=exif))
    assert np.array_equal(picture.pixels, undo(colour))
    assert "EXIF" in picture.notes[0]


@pytest.mark.fault(28)
def test_an_animation_gives_its_first_frame_and_says_so():
    frames = [Image.fromarray(np.full((8, 8), v, np.uint8)) for v in (40, 200, 90)]
    out = io.BytesIO()
    frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:])
    picture = read_picture(out.getvalue())
    assert (picture.pixels == 40).all()
    assert picture.notes == ("first of 3 frames taken",)


@pytest.mark.fault(29)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_an_error_that_names_the_file(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    path = tmp_path / f"bad.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="bad"):
        read_picture(path)


@pytest.mark.fault(29)
def test_an_empty_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png has 0 bytes"):
        read_picture(tmp_path / "empty.png")


def test_a_missing_file_and_no_picture_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_picture(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text\.png is no picture"):
        read_picture(tmp_path / "text.png")


def png_header(width, height) -> bytes:
    """The start of a PNG that announces any size."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    )  # fmt: skip


@pytest.mark.fault(30)
@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(DataError, match=r"bomb\.png unpacks to an enormous picture"):
        read_picture(path)


@pytest.mark.fault(31)
def test_the_content_decides_and_a_wrong_ending_is_noted(tmp_path, colour):
    (tmp_path / "a.jpg").write_bytes(encoded(colour, "PNG"))
    (tmp_path / "b.data").write_bytes(encoded(colour, "PNG"))
    picture = read_picture(tmp_path / "a.jpg")
    assert np.array_equal(picture.pixels, colour)
    assert picture.notes == ("is a PNG file in spite of its name",)
    assert [p.name for p in list_pictures(tmp_path)] == ["a.jpg", "b.data"]


@pytest.mark.fault(54)
def test_litter_is_no_picture(tmp_path, colour):
    for name in (".DS_Store", "Thumbs.db", "._a.png", "a.png.lock", "~$a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="holds no picture"):
        list_pictures(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(colour))
    assert [p.name for p in list_pictures(tmp_path)] == ["a.png"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="not there"):
        list_pictures(tmp_path / "no")


def test_ids_match_with_or_without_ending_or_with_their_folder(tmp_path, colour):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).write_bytes(encoded(colour))
    found = match_pictures(tmp_path, ["a", "b.png", "sub/c.png", "d"])
    assert {k: v.name for k, v in found.items()} == {"a": "a.png", "b.png": "b.png", "sub/c.png": "c.png"}
    (tmp_path / "sub" / "a.png").write_bytes(encoded(colour))
    with pytest.raises(DataError, match=r"'a' could be a\.png or sub/a\.png"):
        match_pictures(tmp_path, ["a"])
    with pytest.raises(DataError, match="none of the 1 stimuli"):
        match_pictures(tmp_path, ["x"])


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = read_picture(encoded(stripes), (16, 16)).pixels
    # Stripes finer than a pixel must turn grey (127.5), not into black or white as by picking pixels.
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 12


def test_resizing_crops_the_centre_and_keeps_the_aspect():
    wide = np.zeros((20, 40), np.uint8)
    wide[:, 10:30] = 200  # exactly the central square
    cropped = read_picture(encoded(wide), (10, 10)).pixels.astype(int)
    assert np.abs(cropped[:, 2:-2] - 200).max() <= 3  # Lanczos rings by about 1 % two pixels from an edge
    stretched = read_picture(encoded(wide), (10, 10), aspect="stretch").pixels[..., 0]
    assert stretched[:, 0].max() < 20
    assert stretched[:, 5].min() > 180


def test_a_folder_of_pictures_gives_any_rows_and_zeros_for_holes(tmp_path, colour):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(colour + np.uint8(i)))
    pictures = PictureFolder([tmp_path / "0.png", None, tmp_path / "2.png"], (3, 24, 36, 3))
    assert np.array_equal(pictures[np.array([2, 0])], np.stack([colour + np.uint8(2), colour]))
    assert not pictures[1:2].any()
    assert pictures[:].shape == pictures.shape


@pytest.mark.fault(27)
def test_one_odd_picture_does_not_change_the_size_of_the_others(tmp_path):
    rng, whole = np.random.default_rng(0), []
    for i, (height, width) in enumerate([(12, 9), (12, 9), (6, 20)]):
        whole.append(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        Image.fromarray(whole[-1]).save(tmp_path / f"{i}.png")
    with pytest.warns(PhospheneWarning, match="2 sizes .*resized to 12 x 9"):
        rows, _, _ = open_pictures({str(i): tmp_path / f"{i}.png" for i in range(3)}, ["0", "1", "2"])
    assert rows.shape == (3, 12, 9, 3)
    assert np.array_equal(rows[:2], np.stack(whole[:2]))


def test_pictures_of_several_sizes_are_brought_to_one_and_missing_ones_marked(tmp_path, colour):
    (tmp_path / "a.png").write_bytes(encoded(colour))
    (tmp_path / "b.png").write_bytes(encoded(colour[:20, :30, 0]))
    ids = ["a", "b", "c"]
    with pytest.warns(PhospheneWarning, match="2 sizes"):
        pictures, present, _ = open_pictures(match_pictures(tmp_path, ids), ids)
    assert pictures.shape == (3, 20, 20, 3)
    assert list(present) == [True, True, False]
    pictures, _, _ = open_pictures(match_pictures(tmp_path, ids), ids, (8, 9))
    assert pictures[:].shape == (3, 8, 9, 3)
