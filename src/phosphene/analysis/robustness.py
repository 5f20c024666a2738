"""Robustness: how many voxels can be lost (masked) before the score falls?

A share of the voxels, from none to all, is set to its mean over the training stimuli, and the run decodes what is left. Voxels
go in random order, several times over, and with the most informative ones first. Scored are latents and pictures decoded from
the rest, and readers of categories (see ``categories``) on the voxels and on the latents decoded from them.

With every voxel lost the input is constant, and an honest score is at chance: that end of each curve is a control.

Paper: Lin et al. 2022 (Mind Reader), section A.6: readers on voxels stay level until nine in ten are lost, readers on mapped
latents sink steadily and end clearly above those on voxels, which a constant input cannot give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from phosphene.analysis.base import COLUMNS, Analysis, Drawing, Findings, chosen_folds
from phosphene.analysis.categories import BRAIN
from phosphene.analysis.labels import LabelReader, Material, mean_area, prepare
from phosphene.errors import DataError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.identification import comparisons, similarity
from phosphene.metrics.metric import PICTURES, Decoded, Score
from phosphene.metrics.perceptual import extract_features, feature_extractors_for, feature_views
from phosphene.metrics.registry import score
from phosphene.metrics.statistics import Statistic, bootstrap, mean_of_items, mean_of_pairs
from phosphene.recipes.base import Recipe
from phosphene.reporting import drawing
from phosphene.run import Run
from phosphene.types import Trials

RANDOM = "random"
INFORMED = "informed"
INPUTS = {RANDOM: "random voxels", INFORMED: "most informative first"}
FALL = 0.1
"""Share of what a score has above chance whose loss counts as a fall."""
_METRICS = ("pixcorr", "ssim.2d", "two_way.pixels", f"two_way.{PICTURES}*")
_COLOURS = {RANDOM: drawing.BRAIN, INFORMED: drawing.CEILING}
_SHOWN = 8
_DRAWS = 500  # of bootstraps

Share = Annotated[float, Field(ge=0, le=1)]


class RobustnessOptions(Config):
    """How much is lost, and how often."""

    fractions: tuple[Share, ...] = Field(
        (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1), description="shares of voxels that are lost"
    )
    draws: int = Field(5, ge=1, le=100, description="random orders in which voxels are lost")
    pictures: tuple[Share, ...] = Field(
        (0, 0.2, 0.4, 0.6, 0.8, 0.9, 1),
        description="shares at which pictures are decoded as well, in one random order; () for none",
    )
    n_pictures: int = Field(60, ge=3, description="most test stimuli whose pictures are decoded")
    fold: int = Field(0, ge=0, description="fold of the run")

    @field_validator("fractions", "pictures")
    @classmethod
    def _both_ends(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values and (list(values) != sorted(set(values)) or values[0] != 0 or values[-1] != 1):
            raise ValueError(f"shares should rise from 0 to 1, each named once, but are {values}")

        return values


@dataclass
class Curve:
    """A score against the share of voxels lost.

    Attributes
    ----------
    fractions : sequence of float
        ascending
    statistics : list of Statistic
        of draw counts over stimuli, one per fraction
    chance : float
        chance level, and stimuli behind each value
    n : int
        see `chance`
    """

    fractions: Sequence[float]
    statistics: list[Statistic]
    chance: float
    n: int

    def lost(self) -> Statistic:
        """Share of voxels that can be lost before the score falls by FALL of what it has above chance."""

        def statistic(counts: np.ndarray) -> np.ndarray:
            values = np.stack([s(counts) for s in self.statistics], axis=1)
            return crossing(np.asarray(self.fractions, dtype=float), values, self.chance)

        return statistic


@dataclass
class _Read:
    """Everything that was read off masked responses: order to share to one array per random order."""

    latents: dict[str, dict[str, dict[float, list[np.ndarray]]]] = field(default_factory=dict)
    labels: dict[str, dict[str, dict[float, list[np.ndarray]]]] = field(default_factory=dict)
    pictures: dict[str, dict[float, np.ndarray]] = field(default_factory=dict)

    @staticmethod
    def add(where: dict[str, Any], name: str, order: str, share: float, value: np.ndarray) -> None:
        where.setdefault(name, {}).setdefault(order, {}).setdefault(share, []).append(value)


class Robustness(Analysis[RobustnessOptions]):
    """See the top of this file."""

    name = "robustness"
    title = "How many voxels can be lost"
    options_class = RobustnessOptions

    def run(self, opened: Run, progress: Progress) -> Findings:
        """Mask voxels, decode, score."""
        chosen_folds(opened, self.options.fold)
        try:
            material = prepare(opened, self.options.fold, self.rng("folds"))
        except DataError:  # no labels, or too few test stimuli with any: latents and pictures are scored all the same
            material = None

        if material:
            recipe = material.recipe
        else:
            recipe = opened.recipe(self.options.fold)

        train, test = (t.average_repeats() for t in opened.sides(self.options.fold))
        weights, meaning = _importance(recipe, material)
        read = self._read(recipe, material, train, test, weights, progress)
        curves = self._curves(opened, recipe, material, test, read)
        words = {m: _words(m) for m in curves}
        curve = self._curve_table(curves)
        table = self._table(curves)
        table["measure"] = table["measure"].astype(str)

        return Findings(
            self._sentences(curves, table, words, test, weights, meaning),
            table,
            {k: v for k, v in INPUTS.items() if k in set(table["input"])},
            {f"{what}.{m}": f"{w}: {said}" for m, w in words.items() for what, said in _COLUMNS.items()},
            figures=self._figures(opened, curves, curve, table, words, recipe, test, read),
            tables={"curve": curve},
            notes={
                f"lost.{m}": f"Share of all voxels that can be lost before the score falls by {100 * FALL:.0f} % of what it has "
                "above chance; between the shares tried, on a straight line."
                for m in words
            },
        )

    # -- masking ---------------------------------------------------------------------------------------------------

    def _read(
        self,
        recipe: Recipe,
        material: Material | None,
        train: Trials,
        test: Trials,
        weights: np.ndarray | None,
        progress: Progress,
    ) -> _Read:
        readers: dict[str, LabelReader] = {}
        if material is not None:
            readers[BRAIN] = LabelReader().fit(material.voxels(train), material.train_labels)
            decoded = recipe.latents(train)
            readers |= {
                f"mapped.{s}": LabelReader().fit(np.asarray(decoded[s]), material.train_labels) for s in material.spaces
            }

        mean = train.betas.mean(axis=0, dtype=np.float64).astype(np.float32)
        read = _Read()
        few = test.take(np.arange(min(len(test), self.options.n_pictures)))

        for order, draw, voxels in progress.each(list(self._orders(test.n_voxels, weights)), "losing voxels"):
            for share in sorted({*self.options.fractions, *self.options.pictures}):
                masked = test.with_betas(mask(test.betas, mean, voxels, share), lost=share)
                if share in self.options.fractions:
                    latents = recipe.latents(masked)
                    for space, array in latents.arrays.items():
                        if np.ndim(array) == 2:
                            read.add(read.latents, space, order, share, np.asarray(array))

                    for name, reader in readers.items():
                        if name == BRAIN:
                            given = material.voxels(masked)
                        else:
                            given = latents[name.removeprefix("mapped.")]

                        read.add(read.labels, name, order, share, reader.read(np.asarray(given)))

                if draw == 0 and share in self.options.pictures:
                    shown = recipe.decode(masked.take(np.arange(len(few)))).clipped()
                    read.pictures.setdefault(order, {})[share] = shown

        return read

    def _orders(self, n_voxels: int, weights: np.ndarray | None) -> Iterator[tuple[str, int, np.ndarray]]:
        """In which voxels are lost, random ones first; a larger share loses all that a smaller one does."""
        for draw in range(self.options.draws):
            yield RANDOM, draw, self.rng("order", draw).permutation(n_voxels)

        if weights is not None:
            shuffled = self.rng("ties").permutation(n_voxels)
            yield INFORMED, 0, shuffled[np.argsort(-weights[shuffled], kind="stable")]

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _curves(
        self, opened: Run, recipe: Recipe, material: Material | None, test: Trials, read: _Read
    ) -> dict[str, dict[str, Curve]]:
        """Measure to order to curve."""
        shown = opened.stimuli.select(test.stimuli)
        n = len(test)
        true = recipe.true_latents(shown)
        out: dict[str, dict[str, Curve]] = {}

        for space, orders in read.latents.items():
            out[f"two_way.{space}"] = {
                order: Curve(
                    self.options.fractions, [_two_way(x, np.asarray(true[space])) for x in shares.values()], 0.5, n
                )
                for order, shares in orders.items()
            }

        for name, orders in read.labels.items():
            out[f"auc.{name}"] = {
                order: Curve(
                    self.options.fractions,
                    [mean_area(np.stack(x), material.test_labels) for x in shares.values()], 0.5, n,
                )
                for order, shares in orders.items()
            }  # fmt: skip

        for order, shares in read.pictures.items():
            for metric, scores in self._scored(opened, shares).items():
                values = [mean_of_items(s.per_item) for s in scores]
                curve = Curve(self.options.pictures, values, scores[0].chance, scores[0].n)
                out.setdefault(f"picture.{metric}", {})[order] = curve

        return out

    def _scored(self, opened: Run, shares: Mapping[float, np.ndarray]) -> dict[str, list[Score]]:
        first = next(iter(shares.values()))
        test = opened.sides(self.options.fold)[1].average_repeats()
        shown = opened.stimuli.select(test.stimuli[: len(first)])
        true = shown.resized(first.shape[1:3])
        seen = [extract_features(eye, true) for eye in feature_extractors_for(opened.dataset.name)]
        out: dict[str, list[Score]] = {}

        for pixels in shares.values():
            decoded = Decoded(shown.ids, pixels, true, feature_views=feature_views(seen, pixels))
            for s in score(decoded, metrics=_METRICS, seed=self.seed, n_draws=100, n_permutations=1).scores:
                out.setdefault(s.metric, []).append(s)

        return out

    def _curve_table(self, curves: Mapping[str, Mapping[str, Curve]]) -> pd.DataFrame:
        rows = [
            (order, measure, share, *bootstrap(s, c.n, rng=self.rng(measure, order, share), n_draws=_DRAWS), c.chance, c.n)
            for measure, orders in curves.items()
            for order, c in orders.items()
            for share, s in zip(c.fractions, c.statistics, strict=True)
        ]  # fmt: skip

        return pd.DataFrame(rows, columns=["input", "measure", "lost", "value", "ci_low", "ci_high", "chance", "n"])

    def _table(self, curves: Mapping[str, Mapping[str, Curve]]) -> pd.DataFrame:
        rows: list[tuple] = []
        for measure, orders in curves.items():
            for order, c in orders.items():
                for what, s in {"full": c.statistics[0], "none": c.statistics[-1], "lost": c.lost()}.items():
                    interval = bootstrap(s, c.n, rng=self.rng(measure, order, what), n_draws=_DRAWS)
                    rows.append((order, f"{what}.{measure}", *interval, c.n))

        return pd.DataFrame(rows, columns=list(COLUMNS))

    # -- words -----------------------------------------------------------------------------------------------------

    def _sentences(
        self,
        curves: Mapping[str, Mapping[str, Curve]],
        table: pd.DataFrame,
        words: Mapping[str, str],
        test: Trials,
        weights: np.ndarray | None,
        meaning: str,
    ) -> list[str]:
        rows = table.set_index(["input", "measure"])

        def lost(order: str, measure: str) -> str:
            r = rows.loc[(order, f"lost.{measure}")]
            return f"{100 * r['value']:.0f} % [{100 * r['ci_low']:.0f}, {100 * r['ci_high']:.0f}]"

        def stands(measure: str) -> bool:
            r = rows.loc[(RANDOM, f"full.{measure}")]
            return bool(r["ci_low"] > curves[measure][RANDOM].chance)

        standing = [m for m in curves if stands(m)]
        head = next((m for m in standing if m.startswith(("two_way.", "auc."))), next(iter(standing), None))

        if head is None:
            sentences = ["No score is clear of chance with every voxel there, so there is nothing to lose."]
        else:
            if INFORMED in curves[head]:
                informed = f", and {lost(INFORMED, head)} when the most informative go first"
            else:
                informed = ""

            sentences = [
                f"Of {test.n_voxels} voxels, {lost(RANDOM, head)} can be lost at random before the score ({_low(words[head])}) "
                f"falls by {100 * FALL:.0f} % of what it is above chance{informed}."
            ]

            others = [f"{_low(words[m])} {lost(RANDOM, m)}" for m in standing if m != head]
            if others:
                sentences.append(f"At random, for the other scores: {'; '.join(others)}.")

        weak = [_low(words[m]) for m in curves if m not in standing]
        if head is not None and weak:
            sentences.append(f"Not clear of chance to begin with: {'; '.join(weak)}.")

        ends = [
            f"{_low(words[m])} {rows.loc[(RANDOM, f'none.{m}'), 'value']:.3f} (chance {c[RANDOM].chance:.3f})"
            for m, c in curves.items()
        ]

        sentences.append(f"Control, every voxel lost: {'; '.join(ends)}.")
        if weights is None:
            unused = 0
        else:
            unused = int((weights == 0).sum())

        sentences.append(
            f"Lost voxels are set to their mean over training stimuli; {len(test)} test stimuli; {self.options.draws} random "
            f"orders, averaged. {meaning}" + (f" {unused} voxels count nothing and go last." if unused else "")
        )

        return sentences

    # -- figures ---------------------------------------------------------------------------------------------------

    def _figures(
        self,
        opened: Run,
        curves: Mapping[str, Mapping[str, Curve]],
        curve: pd.DataFrame,
        table: pd.DataFrame,
        words: Mapping[str, str],
        recipe: Recipe,
        test: Trials,
        read: _Read,
    ) -> dict[str, Drawing]:
        chance = {m: next(iter(c.values())).chance for m, c in curves.items()}
        figures = {
            "curves": Drawing(
                _panels(curve, table, words, chance),
                "Each score against the share of voxels lost, at random and most informative first; numbers in curve.csv.",
                "Scores against the share of voxels lost, with 95 % intervals over stimuli. Chance is dashed; a ring "
                f"marks where a score has lost {100 * FALL:.0f} % of what it was above chance.",
            )
        }

        if read.pictures:
            rows = {f"{100 * f:g} % lost": p[:_SHOWN] for f, p in read.pictures[RANDOM].items()}
            first, *others = rows
            seen = opened.stimuli.select(test.stimuli[:_SHOWN]).resized(rows[first].shape[1:3])
            plate = drawing.plate(seen, rows[first], {k: rows[k] for k in others}, labels=("seen", first), width=9.0)
            figures["pictures"] = Drawing(
                plate,
                "Rows of pictures: seen, and decoded with more and more voxels lost.",
                "The first test pictures, decoded with more and more voxels lost at random. The last row is drawn from no "
                "response at all: whatever it shows, the decoder brings along.",
            )

        return figures


def mask(betas: np.ndarray, mean: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Responses with the first of the voxels set to their mean.

    Parameters
    ----------
    betas : ndarray of shape (n, n_voxels)
    mean : ndarray of shape (n_voxels,)
        over training stimuli
    order : ndarray of shape (n_voxels,)
        in which voxels are lost
    share : float
        0-1, of voxels

    Examples
    --------
    >>> mask(np.ones((1, 4)), np.zeros(4), np.array([3, 0, 1, 2]), 0.5)
    array([[0., 1., 1., 0.]])
    """
    gone = order[: round(share * len(order))]
    out = np.array(betas)
    out[:, gone] = mean[gone]
    return out


def crossing(shares: np.ndarray, values: np.ndarray, chance: float, fall: float = FALL) -> np.ndarray:
    """Where curves first fall below (1 - fall) of their beginning above chance, on straight lines between points.

    Parameters
    ----------
    shares : ndarray of shape (k,)
        ascending
    values : ndarray of shape (n, k)
        a curve per row
    chance : float
        of the score
    fall : float, optional
        0-1

    Returns
    -------
    ndarray of shape (n,)
        NaN for curves that begin at chance or below; the last share for those that never fall

    Examples
    --------
    >>> crossing(np.array([0, 0.5, 1.0]), np.array([[1.0, 0.75, 0.5]]), 0.5)
    array([0.1])
    """
    level = chance + (1 - fall) * (values[:, 0] - chance)
    below = values < level[:, None]
    at = below.argmax(axis=1)
    rows = np.arange(len(values))
    before = np.maximum(at - 1, 0)
    high = values[rows, before]
    low = values[rows, at]
    step = np.divide(high - level, high - low, out=np.zeros(len(rows)), where=high > low)
    found = shares[before] + step * (shares[at] - shares[before])
    found = np.where(below.any(axis=1), found, shares[-1])

    return np.where(values[:, 0] > chance, found, np.nan)


def _two_way(decoded: Sequence[np.ndarray], true: np.ndarray) -> Statistic:
    """Two-way identification, its comparisons averaged over random orders."""
    pairs = [comparisons(similarity(x, true)) for x in decoded]
    return mean_of_pairs(np.mean([w for w, _ in pairs], axis=0), pairs[0][1])


def _importance(recipe: Recipe, material: Material | None) -> tuple[np.ndarray | None, str]:
    """(n_voxels,) how informative each voxel is, and where that is from."""
    weights = recipe.voxel_weights()
    if weights is not None:
        return np.asarray(weights, dtype=float), "Informative is what the recipe itself weights most."
    if material is None:
        return None, "Which voxels are informative is not known: the recipe weights none and there are no labels."

    reader = LabelReader().fit(material.voxels(material.train), material.train_labels)
    return np.linalg.norm(reader.weights_, axis=1), "Informative is what readers of categories weight most in training."


# -- drawing -----------------------------------------------------------------------------------------------------------


def _panels(curve: pd.DataFrame, table: pd.DataFrame, words: Mapping[str, str], chance: Mapping[str, float]) -> Any:
    columns = min(4, len(words))
    rows = -(-len(words) // columns)
    lost = table.set_index(["input", "measure"])["value"]

    with drawing.style():
        figure = drawing.empty(0.3 + 2.35 * columns, 0.4 + 1.9 * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()

        for axes in panels[len(words) :]:
            axes.set_visible(False)

        for i, (axes, (measure, title)) in enumerate(zip(panels, words.items(), strict=False)):
            for order, colour in _COLOURS.items():
                part = curve[(curve["measure"] == measure) & (curve["input"] == order)]
                if part.empty:
                    continue

                x = 100 * part["lost"]
                axes.fill_between(x, part["ci_low"], part["ci_high"], color=colour, alpha=0.16, linewidth=0)
                axes.plot(x, part["value"], "-o", color=colour, linewidth=1.5, markersize=2.6, label=INPUTS[order])
                at = lost.get((order, f"lost.{measure}"), np.nan)

                if np.isfinite(at):
                    y = np.interp(100 * at, x, part["value"])
                    axes.plot(100 * at, y, "o", color=colour, markersize=8, markerfacecolor="none", clip_on=False)

            if np.isfinite(chance[measure]):
                axes.axhline(chance[measure], color=drawing.MUTED, linewidth=1, linestyle=(0, (2, 1.5)), zorder=0)

            axes.set_title(drawing.short(title, 34))
            axes.set_xlim(-2, 102)
            axes.locator_params(axis="y", nbins=5)
            axes.grid(axis="y")
            axes.set_axisbelow(True)

            if i >= len(words) - columns:
                axes.set_xlabel("voxels lost, %")

        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)

    return figure


_COLUMNS = {"full": "every voxel", "none": "no voxel", "lost": "share that can be lost"}
_EYES = {"clip_lab": "lab CLIP", "scenes": "classifier"}


def _words(measure: str) -> str:
    """A measure for people.

    Examples
    --------
    >>> _words("auc.mapped.clip_lab"), _words("picture.two_way.pictures.scenes")
    ('Categories, from clip_lab', 'Pictures two-way, classifier')
    """
    kind, _, rest = measure.partition(".")
    if kind == "two_way":
        return f"Two-way, {rest}"

    if kind == "auc":
        if rest == BRAIN:
            return "Categories, from voxels"

        return f"Categories, from {rest.removeprefix('mapped.')}"

    known = {"pixcorr": "Pictures, PixCorr", "ssim.2d": "Pictures, SSIM", "two_way.pixels": "Pictures two-way, pixels"}
    eye = rest.removeprefix(f"two_way.{PICTURES}")

    return known.get(rest) or f"Pictures two-way, {_EYES.get(eye, eye)}"


def _low(words: str) -> str:
    return words[:1].lower() + words[1:]


__all__ = ["Curve", "Robustness", "RobustnessOptions", "crossing", "mask"]
