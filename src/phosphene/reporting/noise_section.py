"""How much comes from the first stage (``phosphene.analysis.noise``), in sentences and figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phosphene.analysis.noise import LATENT, NONE, PURE, NoiseFindings, arm_of
from phosphene.metrics.metric import PICTURES
from phosphene.reporting import drawing
from phosphene.reporting.flatmap import short
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.reporting.rows import rows_at
from phosphene.types.identity import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["noise_measure_words", "present_noise"]

_MEASURES = {
    "pixcorr": "PixCorr",
    "ssim.2d": "SSIM",
    "ssim.columns": "SSIM (columns)",
    "two_way.pixels": "Two-way (pixels)",
}
_HEADS = {"two_way": "Two-way", "cosine": "Cosine", "distance": "Distance"}
_NETWORKS = {
    "clip_lab": "lab CLIP",
    "scenes": "lab classifier",
    "alexnet2": "AlexNet(2)",
    "alexnet5": "AlexNet(5)",
    "inception": "Inception",
    "clip_vit_l14": "CLIP",
    "efficientnet_b1": "EffNet-B1",
    "swav": "SwAV",
    "imagenet_lite0": "EffNet-Lite0",
}
_OF_THE_LAB = "Seen by a network of the lab: not to be compared with published scores, which are of other networks."


def present_noise(found: NoiseFindings) -> Presentation:
    """Turn the findings into sentences and figures.

    Parameters
    ----------
    found : NoiseFindings
        what the analysis found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    arms = {NONE: "as decoded"}
    for amplitude in found.amplitudes:
        arms[arm_of(amplitude)] = f"noise {amplitude:g}"

    arms |= {PURE: "pure noise", LATENT: "no first stage"}
    measures = {metric: noise_measure_words(metric) for metric in found.baseline}

    return Presentation(
        sentences=_sentences(found),
        inputs=arms,
        measures=measures,
        figures=_figures(found, arms, measures),
        notes={metric: _OF_THE_LAB for metric in measures if metric.endswith((".clip_lab", ".scenes"))},
    )


def noise_measure_words(measure: str) -> str:
    """A metric for people.

    Parameters
    ----------
    measure : str
        name of a metric

    Returns
    -------
    str
        its title

    Examples
    --------
    >>> noise_measure_words("two_way.pictures.clip_lab"), measure_words("pixcorr")
    ('Two-way (lab CLIP)', 'PixCorr')
    """
    if measure in _MEASURES:
        return _MEASURES[measure]

    head, _, space = measure.partition(".")
    network = space.removeprefix(PICTURES)

    return f"{_HEADS.get(head, head)} ({_NETWORKS.get(network, network)})"


# -- sentences ---------------------------------------------------------------------------------------------------------


def _sentences(found: NoiseFindings) -> list[str]:
    shares = found.tables["shares"]
    differences = found.tables["differences"]
    measured = rows_at(shares, (shares["without"] == LATENT) & np.isfinite(shares["share"]))

    sentences = [_verdict(measured)]
    if len(measured):
        sentences.append(_shares_lost(measured))

    sentences += _changes(found, differences)
    sentences.append(_second_stage_input(found))

    folds = f"{found.n_folds} fold"
    if found.n_folds > 1:
        folds += "s"

    sentences.append(
        f"{found.n} test pictures of {folds}, the same in every column and "
        "compared picture by picture with the same subject's own unspoilt ones; intervals of differences are 95 % each, "
        f"{len(differences)} of them."
    )

    return sentences


def _verdict(measured: pd.DataFrame) -> str:
    low = measured["ci_low"].to_numpy(float)
    high = measured["ci_high"].to_numpy(float)
    groups = {
        "over half of": low > 0.5,
        "under half of": (low > 0) & (high < 0.5),
        "a part of": (low > 0) & (low <= 0.5) & (high >= 0.5),
        "nothing measurable of": (low <= 0) & (high >= 0),
        "less than nothing, for it is better without, of": high < 0,
    }
    parts = []

    for words, is_member in groups.items():
        if is_member.any():
            parts.append(f"{words} {listed([noise_measure_words(m) for m in measured.loc[is_member, 'measure']])}")

    if not parts:
        return "No score of the decoded pictures is clear of chance, so there is nothing to divide between the stages."

    return f"Of what is above chance, the first stage carries {'; '.join(parts)}."


def _shares_lost(measured: pd.DataFrame) -> str:
    parts = []
    for row in measured.sort_values("share", ascending=False).to_dict("records"):
        bounds = f"[{_percent(row['ci_low'])}, {_percent(row['ci_high'])}]"
        parts.append(f"{noise_measure_words(row['measure'])} {_percent(row['share'])} % {bounds}")

    return f"Share lost when the second stage draws without any first picture: {', '.join(parts)}."


def _changes(found: NoiseFindings, differences: pd.DataFrame) -> list[str]:
    """From which amplitude on a score is worse, and whether any is better for a little noise."""
    arms = [arm_of(amplitude) for amplitude in found.amplitudes]
    worse = []
    better = []

    for measure, rows in differences.groupby("measure", sort=False):
        words = noise_measure_words(str(measure))
        rows = rows.set_index("input").reindex(arms)
        hurt = [a for a in found.amplitudes if rows.loc[arm_of(a), "ci_high"] < 0]
        helped = [a for a in found.amplitudes if rows.loc[arm_of(a), "ci_low"] > 0]

        if hurt:
            worse.append(f"{words} from {hurt[0]:g}")

        if helped:
            best = rows.loc[arm_of(helped[0])]
            better.append(
                f"{words} at {helped[0]:g} by {best['difference']:.3f} [{best['ci_low']:.3f}, {best['ci_high']:.3f}]"
            )

    sentences = ["No amplitude of additive noise makes a score worse beyond doubt.", "No score is better for noise."]
    if worse:
        sentences[0] = f"Additive noise makes a score worse: {', '.join(worse)}."

    if better:
        sentences[1] = f"Better with noise than without: {', '.join(better)}."

    return sentences


def _second_stage_input(found: NoiseFindings) -> str:
    given = found.tables["second_stage_input"]
    parts = []

    for row in rows_at(given, given["input"] == NONE).to_dict("records"):
        if np.isfinite(row["value"]):
            refined = found.baseline[row["measure"]].value
            parts.append(f"{noise_measure_words(row['measure'])} {row['value']:.3f} (refined {refined:.3f})")

    return f"What the second stage is given, scored itself: {', '.join(parts)}."


def _percent(share: float) -> int:
    return round(100 * share)  # an int has no minus zero


# -- figures -----------------------------------------------------------------------------------------------------------


def _figures(found: NoiseFindings, arms: Mapping[str, str], measures: Mapping[str, str]) -> dict[str, Drawing]:
    return {
        "pictures": Drawing(
            _pictures(found, arms),
            "Pairs of rows for each of some stimuli: above, what the second stage is given with more and more noise; "
            "below, what it makes of it; the picture seen on the left.",
            "The first test pictures. Above, what the second stage is given; below, what it makes of it.",
        ),
        "amplitude": Drawing(
            _curves(found, arms, measures),
            "Each score against the amplitude of noise on the first picture; the numbers stand in the table.",
            "Scores of the decoded pictures (blue) and of what the second stage was given (brown), with 95 % intervals "
            "over pictures. The band is the unspoilt baseline, chance is dashed.",
        ),
    }


def _curves(found: NoiseFindings, arms: Mapping[str, str], measures: Mapping[str, str]) -> Figure:
    """Every measure against the amplitude: of what was decoded, and of what the second stage was given."""
    table = found.table
    given = found.tables["second_stage_input"]

    # Additive noise stands at equal steps; pure noise and no first picture stand apart on the right.
    additive = [arm for arm in arms if arm not in (PURE, LATENT)]
    place = {arm: float(i) for i, arm in enumerate(additive)}
    place |= {PURE: len(additive) + 0.5, LATENT: len(additive) + 1.9}
    ticks = {arm: words.removeprefix("noise ") for arm, words in arms.items()}
    ticks |= {NONE: "0", PURE: "pure", LATENT: "none"}

    n_columns = min(4, len(measures))
    n_rows = -(-len(measures) // n_columns)

    with drawing.style():
        figure = drawing.empty(0.3 + 2.35 * n_columns, 0.35 + 1.75 * n_rows)
        panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()

        for axes in panels[len(measures) :]:
            axes.set_visible(False)

        for i, (axes, measure) in enumerate(zip(panels, measures, strict=False)):
            base = table[(table["measure"] == measure) & (table["input"] == NONE)].iloc[0]
            axes.axhspan(base["ci_low"], base["ci_high"], color=drawing.BRAIN, alpha=0.13, linewidth=0)

            if np.isfinite(found.chance[measure]):
                axes.axhline(
                    found.chance[measure], color=drawing.MUTED, linewidth=1, linestyle=drawing.DASHED, zorder=0
                )

            for part, colour, label in (
                (given, drawing.CONTROL, "given to the second stage"),
                (table, drawing.BRAIN, "decoded"),
            ):
                _line(axes, part[part["measure"] == measure].set_index("input"), place, additive, colour, label)

            axes.set_title(short(measures[measure], 34))
            axes.set_xticks(list(place.values()), [ticks[arm] for arm in place], fontsize=7)
            axes.set_xlim(-0.4, place[LATENT] + 0.4)
            axes.locator_params(axis="y", nbins=5)
            axes.grid(axis="y")
            axes.set_axisbelow(True)

            if i >= len(measures) - n_columns:
                axes.set_xlabel("noise on the first picture")

        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=2)

    return figure


def _line(
    axes: Axes, rows: pd.DataFrame, place: Mapping[str, float], additive: list[str], colour: str, label: str
) -> None:
    # The intervals of the two lines stand side by side.
    if colour == drawing.BRAIN:
        aside = 0.09
    else:
        aside = -0.09

    x = {arm: place[arm] + aside for arm in place if arm in rows.index}

    for arm in x:
        if np.isfinite(rows.loc[arm, "ci_low"]):
            axes.vlines(x[arm], rows.loc[arm, "ci_low"], rows.loc[arm, "ci_high"], color=colour, linewidth=1.2)

    joined = [arm for arm in additive if arm in x]
    axes.plot([x[arm] for arm in joined], rows.loc[joined, "value"], "-", color=colour, linewidth=1.4, label=label)
    axes.plot(list(x.values()), rows.loc[list(x), "value"], "o", color=colour, markersize=3.8, clip_on=False)


def _pictures(found: NoiseFindings, arms: Mapping[str, str]) -> Figure:
    """Pictures seen, and for every arm what the second stage was given and what it made of it."""
    true = found.true
    height, width = true.shape[1:3]
    zoom = max(1, round(96 / max(height, width)))
    gap = max(1, round(0.06 * height * zoom))
    blank = np.zeros_like(true[0])
    rows = []

    for i in range(len(true)):
        given = [true[i]]
        refined = [blank]
        for arm in arms:
            refined.append(found.refined[arm][i])
            if arm in found.given:
                given.append(found.given[arm][i])
            else:
                given.append(blank)

        rows.append(np.stack(given))
        rows.append(np.stack(refined))

    picture = drawing.mosaic([drawing.enlarged(row, zoom) for row in rows], gap)
    step_y = height * zoom + gap
    step_x = width * zoom + gap

    # Cells with nothing in them are left open: what was given without a first picture, and what was decoded of the truth.
    for r in range(len(rows)):
        column = 0 if r % 2 else 1 + list(arms).index(LATENT)
        top = r * step_y
        left = column * step_x
        picture[top : top + height * zoom, left : left + width * zoom, 3] = 0

    captions = ["seen", *arms.values()]
    vertical = (step_y, height * zoom)
    horizontal = (step_x, width * zoom)
    return _labelled(picture, len(rows), captions, vertical, horizontal, is_enlarged=zoom > 1)


def _labelled(
    picture: np.ndarray,
    n_rows: int,
    captions: list[str],
    vertical: tuple[int, int],
    horizontal: tuple[int, int],
    *,
    is_enlarged: bool,
) -> Figure:
    """The mosaic with a word on the left of every row and above every column; (step, size) of a picture in pixels."""
    total_width = 9.0
    left = 0.7
    top = 0.24
    inches = total_width - left - 0.02
    tall = inches * picture.shape[0] / picture.shape[1]
    total_height = tall + top + 0.02

    # Enlarged pixels keep their edges; large pictures are drawn as they are.
    if is_enlarged:
        interpolation = "nearest"
    else:
        interpolation = "none"

    with drawing.style():
        figure = drawing.empty(total_width, total_height)
        figure.set_layout_engine("none")
        axes = figure.add_axes((left / total_width, 0.02 / total_height, inches / total_width, tall / total_height))
        axes.imshow(picture, interpolation=interpolation, aspect="auto")
        axes.set_axis_off()

        for r in range(n_rows):
            y = 1 - (r * vertical[0] + vertical[1] / 2) / picture.shape[0]
            is_decoded = r % 2 == 1
            axes.text(
                -0.08 / inches,
                y,
                "decoded" if is_decoded else "given",
                transform=axes.transAxes,
                ha="right",
                va="center",
                color=drawing.INK if is_decoded else drawing.MUTED,
                fontweight="bold" if is_decoded else "normal",
            )

        for c, caption in enumerate(captions):
            x = (c * horizontal[0] + horizontal[1] / 2) / picture.shape[1]
            axes.text(
                x, 1 + 0.05 / tall, caption, transform=axes.transAxes, ha="center", va="bottom", color=drawing.MUTED
            )

    return figure
