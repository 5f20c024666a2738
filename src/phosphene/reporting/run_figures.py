"""Figures of one run: which can be drawn from what is there, with a caption and a text for who cannot see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phosphene.io import atomic
from phosphene.io.folder import SEEN
from phosphene.io.reading import open_npy
from phosphene.reporting import figures
from phosphene.reporting.contents import Contents, PictureGroup
from phosphene.reporting.image_grid import ImageTile, data_uri, picture_file, stack
from phosphene.reporting.near_copies import MAX_PAIRS
from phosphene.reporting.tables import IDENTIFICATION, family
from phosphene.reporting.words import input_words, number, redact, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENCODING = ("voxels", "ceiling", "rois", "flatmap")
_MOST_SPACES = 3

Drawn = tuple["Figure", str, str]


def draw_all(c: Contents, scores: Mapping[str, Any]) -> dict[str, Drawn]:
    """Name to (figure, alternative text, caption); a part of the run that is damaged is noted and left out."""
    out: dict[str, Drawn] = {}

    def draw(name: str, make: Callable[[], Figure], alt: str, caption: str) -> None:
        out[name] = (make(), alt, caption)

    identified = [r for r in scores["flat"] if family(r["words"].name) == IDENTIFICATION and r["brain"]]
    if identified:
        titles = {r["words"].name: redact(r["words"].title) for r in identified[:14]}
        draw(
            "identification", lambda: figures.identification(c.scores, titles),
            "Identification scores with intervals, chance and controls; the numbers stand in the score table.",
            "Which picture was it? Filled: decoded from the brain, with 95 % interval. Open: controls. Dashed: chance.",
        )  # fmt: skip

    for space, matrix in _similarities(c):
        n = len(matrix)
        if "category" in c.index() and n == c.n_pictures:
            category = c.index()["category"].tolist()
        else:
            category = None

        if not (category and len({str(x) for x in category if str(x) not in ("", "nan")}) > 1):
            category = None

        own, rest = _diagonal(matrix)
        draw(
            f"similarity.{space}", lambda m=matrix, g=category, s=space: figures.similarity(m, g, redact(s)),
            f"Similarity matrix in the space {space}, {n} decoded by {matrix.shape[1]} seen pictures.",
            f"Each row is a decoded picture, each column a seen one, in the space {space}. The diagonal is the right "
            f"pair: mean {number(own)} there, {number(rest)} elsewhere."
            + (" Sorted by category." if category else ""),
        )  # fmt: skip

    if not c.retrieval.empty:
        draw(
            "retrieval", lambda: figures.retrieval(c.retrieval.assign(space=c.retrieval["space"].map(lambda s: redact(str(s))))),
            "Retrieval accuracy against gallery size, with chance.",
            "How often the right one is found among N, for every N. A retrieval score without N says nothing.",
        )  # fmt: skip

    if not c.voxels.empty:
        _encoding_figures(c, draw)

    return out


def _encoding_figures(c: Contents, draw: Callable[..., None]) -> None:
    r = c.voxels["r"].to_numpy(float)
    if "ceiling_r" in c.voxels:
        ceiling = c.voxels["ceiling_r"].to_numpy(float)
    else:
        ceiling = None

    if not (ceiling is not None and np.isfinite(ceiling).any()):
        ceiling = None

    known = r[np.isfinite(r)]
    if known.size:
        middle = number(np.median(known))
    else:
        middle = "–"

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

    if not c.rois.empty:
        table = c.rois.assign(roi=c.rois["roi"].map(redact))
        more = len(table) - figures.MOST_ROIS
        draw(
            "rois", lambda: figures.roi_bars(table, "r, median and quartiles over voxels"),
            "Encoding accuracy per ROI: " + ", ".join(f"{x.roi} {number(x.value)}" for x in table.head(8).itertuples()),
            "Median over the voxels of each ROI; the line spans the quartiles."
            + (" The tick is the median noise ceiling." if table["ceiling"].notna().any() else "")
            + (f" {more} more ROIs are not drawn." if more > 0 else ""),
        )  # fmt: skip

    if {"u", "v"} <= set(c.voxels):
        u, v = (pd.to_numeric(c.voxels[k], errors="coerce").to_numpy(float) for k in ("u", "v"))
        draw(
            "flatmap", lambda: figures.flat_map(u, v, r),
            "Encoding accuracy of every voxel on the flattened cortex.",
            "Every voxel at its place on the flattened cortex, coloured by r.",
        )  # fmt: skip


def near_copies(c: Contents) -> dict[str, Any] | None:
    """Thumbnails of the pairs that S2 found, with a caption; None where it found none."""
    where = ("evaluation", c.split, "near_duplicates")
    file = c.run.evaluation(c.split) / f"{where[-1]}.png"
    if not file.is_file():
        return None

    try:
        shown = picture_file(file, "Test pictures, and below each its near copy in training.", sharp=True)
    except (OSError, ValueError, SyntaxError) as error:
        c.note_damage(f"{'/'.join(where)}.png", str(error))
        return None

    pairs = c.table(["test", "train", "bits", "cosine"], *where[:2], f"{where[-1]}.csv")
    n = len(pairs)

    return {
        "picture": shown,
        "caption": f"S2: test pictures, and below each its near copy in training ({whole(n)} pair{'s' if n != 1 else ''}"
        f"{f', the nearest {MAX_PAIRS} drawn' if n > MAX_PAIRS else ''}). Which is which: {'/'.join(where)}.csv.",
    }


def _similarities(c: Contents) -> list[tuple[str, np.ndarray]]:
    folder = c.run.evaluation(c.split)
    found = []

    for file in sorted(folder.glob("similarity.*.npy")) if folder.is_dir() else []:
        if len(found) == _MOST_SPACES:
            break

        try:
            matrix = open_npy(file)
        except (OSError, ValueError) as error:
            c.note_damage(f"evaluation/{c.split}/{file.name}", str(error))
            continue

        if matrix.ndim == 2 and matrix.size:
            found.append((file.name.removeprefix("similarity.").removesuffix(".npy"), matrix))

    return found


def _diagonal(matrix: np.ndarray) -> tuple[float, float]:
    """Mean on the diagonal and elsewhere, over at most 2,000 rows; NaN where undefined."""
    n = min(*matrix.shape, 2000)
    part = np.asarray(matrix[:n, :n], dtype=np.float64)
    own = np.diagonal(part)
    total = np.nansum(part) - np.nansum(own)
    count = np.isfinite(part).sum() - np.isfinite(own).sum()

    if np.isfinite(own).any():
        mean = float(np.nansum(own) / np.isfinite(own).sum())
    else:
        mean = float("nan")

    return mean, float(total / count) if count else float("nan")


def figure_values(figure: Figure, alt: str, caption: str) -> dict[str, Any]:
    """Picture (an SVG data URI) and caption for the template."""
    width, height = (round(s * 96) for s in figure.get_size_inches())
    uri = data_uri(figures.svg(figure).encode(), "svg+xml")
    return {"picture": ImageTile(uri, width, height, alt, False), "caption": caption}


def save_all(c: Contents, groups: Sequence[PictureGroup], drawn: Mapping[str, Drawn], folder: Path) -> None:
    """Write every figure, and a strip of pictures, as PNG."""
    for name, (figure, _, _) in drawn.items():
        safe = "".join(x if x.isalnum() or x in ".-_" else "_" for x in name)[:120]
        atomic.write_bytes(folder / f"{safe}.png", figures.png(figure))

    if groups:
        sources = [n for n in ("shuffled", "noise") if n in c.inputs]
        rows = groups[-1].rows
        stacks = {s: stack(c, s, rows) for s in (SEEN, "brain", *sources)}
        if stacks["brain"] is not None:
            controls = {input_words(s)[0]: stacks[s] for s in sources if stacks[s] is not None}
            strip = figures.picture_rows(stacks[SEEN], stacks["brain"], controls)
            atomic.write_bytes(folder / "pictures.png", figures.png(strip))
