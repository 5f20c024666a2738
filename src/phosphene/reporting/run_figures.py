"""Figures of one run: which can be drawn from what is there, with a caption and a text for who cannot see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phosphene.io import atomic
from phosphene.io.reading import open_npy
from phosphene.io.run_folder import SEEN
from phosphene.reporting import drawing, figures
from phosphene.reporting.contents import Contents, PictureGroup
from phosphene.reporting.image_grid import ImageTile, data_uri, picture_file, stack
from phosphene.reporting.near_copies import MAX_PAIRS
from phosphene.reporting.plain_words import input_words, number, redact, whole
from phosphene.reporting.tables import IDENTIFICATION, family

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENCODING = ("voxels", "ceiling", "rois", "flatmap")
_MAX_SPACES = 3

Drawn = tuple["Figure", str, str]
"""A figure, a text for who cannot see it, and its caption."""


def draw_all(contents: Contents, scores: Mapping[str, Any]) -> dict[str, Drawn]:
    """Name to (figure, alternative text, caption); a part of the run that is damaged is noted and left out."""
    out: dict[str, Drawn] = {}

    def draw(name: str, make: Callable[[], Figure], alt: str, caption: str) -> None:
        out[name] = (make(), alt, caption)

    identified = [r for r in scores["flat"] if family(r["words"].name) == IDENTIFICATION and r["brain"]]
    if identified:
        titles = {r["words"].name: redact(r["words"].title) for r in identified[:14]}
        draw(
            "identification", lambda: figures.identification(contents.scores, titles),
            "Identification scores with intervals, chance and controls; the numbers stand in the score table.",
            "Which picture was it? Filled: decoded from the brain, with 95 % interval. Open: controls. Dashed: chance.",
        )  # fmt: skip

    for space, matrix in _similarities(contents):
        n = len(matrix)
        category = _categories(contents, n)
        diagonal, rest = _diagonal(matrix)
        draw(
            f"similarity.{space}", lambda m=matrix, g=category, s=space: figures.similarity_figure(m, g, redact(s)),
            f"Similarity matrix in the space {space}, {n} decoded by {matrix.shape[1]} seen pictures.",
            f"Each row is a decoded picture, each column a seen one, in the space {space}. The diagonal is the right "
            f"pair: mean {number(diagonal)} there, {number(rest)} elsewhere."
            + (" Sorted by category." if category else ""),
        )  # fmt: skip

    if not contents.retrieval.empty:
        spaces = contents.retrieval["space"].map(lambda space: redact(str(space)))
        retrieval = contents.retrieval.assign(space=spaces)
        draw(
            "retrieval",
            lambda: figures.retrieval(retrieval),
            "Retrieval accuracy against gallery size, with chance.",
            "How often the right one is found among N, for every N. A retrieval score without N says nothing.",
        )

    if not contents.voxels.empty:
        _encoding_figures(contents, draw)

    return out


def _categories(contents: Contents, n: int) -> list[Any] | None:
    """(n,) categories to sort a matrix by; None unless there are two or more of them, for as many pictures."""
    index = contents.index()
    if "category" not in index or n != contents.n_pictures:
        return None

    categories = index["category"].tolist()
    names = {str(category) for category in categories} - {"", "nan"}
    if len(names) > 1:
        return categories

    return None


def _encoding_figures(contents: Contents, draw: Callable[..., None]) -> None:
    r = contents.voxels["r"].to_numpy(float)
    ceiling = None
    if "ceiling_r" in contents.voxels and np.isfinite(contents.voxels["ceiling_r"].to_numpy(float)).any():
        ceiling = contents.voxels["ceiling_r"].to_numpy(float)

    finite = r[np.isfinite(r)]
    middle = "–"
    if finite.size:
        middle = number(np.median(finite))

    draw(
        "voxels", lambda: figures.voxel_histogram(r, ceiling),
        f"Histogram of encoding accuracy over {len(r)} voxels, median r {middle}.",
        f"Predicted against measured responses to test pictures, per voxel: median r {middle}."
        + ("" if ceiling is not None else " No picture was repeated, so the noise ceiling is unknown."),
    )  # fmt: skip

    if ceiling is not None:
        draw(
            "ceiling", lambda: figures.against_ceiling(r, ceiling),
            "Encoding accuracy of every voxel against its noise ceiling.",
            "Every voxel against the r that a perfect model could reach given the noise.",
        )  # fmt: skip

    if not contents.rois.empty:
        table = contents.rois.assign(roi=contents.rois["roi"].map(redact))
        more = len(table) - figures.MOST_ROIS
        first_rois = ", ".join(f"{row['roi']} {number(row['value'])}" for row in table.head(8).to_dict("records"))
        draw(
            "rois", lambda: figures.roi_bars(table, "r, median and quartiles over voxels"),
            "Encoding accuracy per ROI: " + first_rois,
            "Median over the voxels of each ROI; the line spans the quartiles."
            + (" The tick is the median noise ceiling." if len(table["ceiling"].dropna()) else "")
            + (f" {more} more ROIs are not drawn." if more > 0 else ""),
        )  # fmt: skip

    if {"u", "v"} <= set(contents.voxels):
        u = np.asarray(pd.to_numeric(contents.voxels["u"], errors="coerce"), dtype=float)
        v = np.asarray(pd.to_numeric(contents.voxels["v"], errors="coerce"), dtype=float)
        draw(
            "flatmap", lambda: figures.flat_map(u, v, r),
            "Encoding accuracy of every voxel on the flattened cortex.",
            "Every voxel at its place on the flattened cortex, coloured by r.",
        )  # fmt: skip


def near_copies(contents: Contents) -> dict[str, Any] | None:
    """Thumbnails of the pairs that S2 found, with a caption; None where it found none."""
    where = ("evaluation", contents.split, "near_duplicates")
    file = contents.run.evaluation(contents.split) / f"{where[-1]}.png"
    if not file.is_file():
        return None

    try:
        tile = picture_file(file, "Test pictures, and below each its near copy in training.", sharp=True)
    except (OSError, ValueError, SyntaxError) as error:
        contents.note_damage(f"{'/'.join(where)}.png", str(error))
        return None

    pairs = contents.table(["test", "train", "bits", "cosine"], *where[:2], f"{where[-1]}.csv")
    n = len(pairs)

    return {
        "picture": tile,
        "caption": f"S2: test pictures, and below each its near copy in training ({whole(n)} pair{'s' if n != 1 else ''}"
        f"{f', the nearest {MAX_PAIRS} drawn' if n > MAX_PAIRS else ''}). Which is which: {'/'.join(where)}.csv.",
    }


def _similarities(contents: Contents) -> list[tuple[str, np.ndarray]]:
    folder = contents.run.evaluation(contents.split)
    found = []

    for file in sorted(folder.glob("similarity.*.npy")) if folder.is_dir() else []:
        if len(found) == _MAX_SPACES:
            break

        try:
            matrix = open_npy(file)
        except (OSError, ValueError) as error:
            contents.note_damage(f"evaluation/{contents.split}/{file.name}", str(error))
            continue

        if matrix.ndim == 2 and matrix.size:
            found.append((file.name.removeprefix("similarity.").removesuffix(".npy"), matrix))

    return found


def _diagonal(matrix: np.ndarray) -> tuple[float, float]:
    """Mean on the diagonal and elsewhere, over at most 2,000 rows; NaN where undefined."""
    n = min(*matrix.shape, 2000)
    part = np.asarray(matrix[:n, :n], dtype=np.float64)
    diagonal = np.diagonal(part)
    n_diagonal = np.isfinite(diagonal).sum()
    n_rest = np.isfinite(part).sum() - n_diagonal
    on_diagonal = float("nan")
    elsewhere = float("nan")

    if n_diagonal:
        on_diagonal = float(np.nansum(diagonal) / n_diagonal)

    if n_rest:
        elsewhere = float((np.nansum(part) - np.nansum(diagonal)) / n_rest)

    return on_diagonal, elsewhere


def figure_values(figure: Figure, alt: str, caption: str) -> dict[str, Any]:
    """Picture (an SVG data URI) and caption for the template."""
    width, height = (round(s * 96) for s in figure.get_size_inches())
    uri = data_uri(drawing.svg(figure).encode(), "svg+xml")
    return {"picture": ImageTile(uri, width, height, alt, False), "caption": caption}


def save_all(contents: Contents, groups: Sequence[PictureGroup], drawn: Mapping[str, Drawn], folder: Path) -> None:
    """Write every figure, and a strip of pictures, as PNG."""
    for name, (figure, _, _) in drawn.items():
        safe = "".join(x if x.isalnum() or x in ".-_" else "_" for x in name)[:120]
        atomic.write_bytes(folder / f"{safe}.png", drawing.png(figure))

    if groups:
        sources = [n for n in ("shuffled", "noise") if n in contents.inputs]
        rows = groups[-1].rows
        stacks = {s: stack(contents, s, rows) for s in (SEEN, "brain", *sources)}
        if stacks["brain"] is not None:
            controls = {}
            for source in sources:
                pictures = stacks[source]
                if pictures is not None:
                    controls[input_words(source)[0]] = pictures

            strip = drawing.picture_rows(stacks[SEEN], stacks["brain"], controls)
            atomic.write_bytes(folder / "pictures.png", drawing.png(strip))
