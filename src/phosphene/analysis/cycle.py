"""Cycle: picture to brain to picture, with what shows that a good cycle proves nothing about a brain.

    picture -> encode -> predicted response -> decode -> picture

The predicted response is the recipe's own: it may carry the picture in a form that no brain has, and a cycle that closes
perfectly shows only that encode and decode are each other's inverse. So three things stand beside it: how well predicted
responses match measured ones; the cycle with as much noise added as predicted and measured responses really differ by;
and the measured responses themselves. Nothing is fitted here, and no moment is taken from the novel pictures; a recipe that
takes them, such as LEA with the moments of its authors' code, is named.

Paper: Qian et al. 2024 (LEA), section 4.4, "image-fMRI-image reconstruction", and Lin et al. 2022 (Mind Reader), section A.8,
"encoding-decoding cycle"; noise and controls are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.interface import COLUMNS, Analysis, Findings, chosen_folds
from phosphene.analysis.reliability import conduct_of
from phosphene.data.pictures import PictureFolder, list_pictures
from phosphene.errors import DataError, PhospheneError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.identification import comparisons, similarity
from phosphene.metrics.metric import PICTURES
from phosphene.metrics.perceptual import FeatureExtractor, feature_extractors_for
from phosphene.metrics.pixel import pixcorr
from phosphene.metrics.registry import kind_of
from phosphene.metrics.ssim import WINDOW, ssim_2d
from phosphene.metrics.statistics import Statistic, bootstrap, mean_of_items, mean_of_pairs
from phosphene.metrics.voxelwise import pearson_per_voxel
from phosphene.recipes.base import Recipe
from phosphene.run import Run
from phosphene.types import Stimuli, Trials
from phosphene.validity.behaviour import TOLERANCE

ARMS = ("cycle", "noisy", "brain", "wrong", "shuffled", "mean")
"""Inputs in the order shown: the cycle; with noise added; measured responses, only for pictures that were shown to the person;
another picture encoded; the cycle's pictures paired anew; the mean training picture."""
N_PICTURED = 10


class CycleOptions(Config):
    """What goes round."""

    images: str | None = Field(default=None, description="folder of novel pictures; the test pictures by default")
    n: int | None = Field(default=None, ge=3, description="most pictures of each fold; all, at most 200")
    fold: int | None = Field(
        default=None, ge=0, description="one fold only; all by default, the first for a folder of pictures"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class CycleFindings(Findings):
    """What comes back of a picture that is encoded and decoded.

    Attributes
    ----------
    measure : str
        two-way identification that the verdict is about: in the lab's CLIP where it knows the pictures, else by pixels
    chance : mapping of str to float
        measure to chance, where it has one
    true : ndarray of shape (at most 10, h, w, c)
        the first input pictures, 0-1
    pictures : mapping of str to ndarray
        arm to what came back of them
    response_r : ndarray of shape (n_voxels,)
        correlation between predicted and measured responses over test pictures, NaN where undefined
    predicted_variance, measured_variance : float
        over test pictures, mean over voxels, summed over folds
    gain : float or None
        how much better the cycle is than the measured responses, where the intervals lie apart
    depends_on_batch : bool
        whether what comes back of a picture changes with the pictures that go round with it
    n : int
        pictures that went round
    is_folder : bool
        whether they are pictures of a folder rather than test pictures
    recipe : str
        kind of the recipe
    n_folds, n_folds_of_run : int
        folds taken, and folds there are
    """

    measure: str
    chance: Mapping[str, float]
    true: np.ndarray
    pictures: Mapping[str, np.ndarray]
    response_r: np.ndarray
    predicted_variance: float
    measured_variance: float
    gain: float | None
    depends_on_batch: bool
    n: int
    is_folder: bool
    recipe: str
    n_folds: int
    n_folds_of_run: int

    @property
    def facts(self) -> Mapping[str, bool]:
        """A cycle goes round in a circle, whatever it scores; whether a picture's outcome is its own."""
        return {"is_circular": True, "is_inductive": not self.depends_on_batch}


@dataclass
class _Outcome:
    """What came out, over folds."""

    true: list[np.ndarray] = field(default_factory=list)
    pixels: dict[str, list[np.ndarray]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    predicted: list[np.ndarray] = field(default_factory=list)
    measured: list[np.ndarray] = field(default_factory=list)
    variance: list[tuple[float, float]] = field(default_factory=list)
    depends_on_batch: bool = False


class Cycle(Analysis[CycleOptions]):
    """Encode pictures, decode the predicted responses, and compare with the measured ones and with controls."""

    name = "cycle"
    title = "Picture to brain to picture"
    options_class = CycleOptions
    needs = ("decode", "encode")

    def run(self, opened: Run, progress: Progress) -> CycleFindings:
        """Encode novel pictures, decode the predictions, score against the pictures.

        Parameters
        ----------
        opened : Run
            a fitted run
        progress : Progress
            where progress is shown

        Returns
        -------
        CycleFindings
            tables, and the facts that sentences and figures are made of
        """
        fold = self.options.fold
        if fold is None and self.options.images is not None:
            fold = 0  # novel pictures are novel to every fold, and one way round is enough

        folds = chosen_folds(opened, fold)
        outcome = _Outcome()

        for fold in progress.each(folds, "going round", unit="fold"):
            self._go_round(opened, fold, outcome)

        predicted = np.concatenate(outcome.predicted)  # (n_test, n_voxels)
        measured = np.concatenate(outcome.measured)
        response_r = pearson_per_voxel(predicted, measured)  # (n_voxels,)
        table = self._table(opened, outcome, response_r)
        rows = table.set_index(["input", "measure"])
        predicted_variance, measured_variance = np.sum(outcome.variance, axis=0)
        true = np.concatenate(outcome.true)

        # Pixels are always compared; the lab's CLIP, where it knows the pictures, sees what is in them.
        measure = "two_way.pixels"
        if ("cycle", "two_way.pictures.clip_lab") in rows.index:
            measure = "two_way.pictures.clip_lab"

        chance = {}
        for name in table["measure"]:
            if kind_of(name) == "two_way":
                chance[name] = 0.5

        pictures = {}
        for arm, parts in outcome.pixels.items():
            if parts:
                pictures[arm] = np.concatenate(parts)[:N_PICTURED]

        return CycleFindings(
            table=table,
            tables={"voxels": pd.DataFrame({"pearson": response_r})},
            measure=measure,
            chance=chance,
            true=true[:N_PICTURED],
            pictures=pictures,
            response_r=response_r,
            predicted_variance=float(predicted_variance),
            measured_variance=float(measured_variance),
            gain=_gain(rows, measure),
            depends_on_batch=outcome.depends_on_batch,
            n=len(true),
            is_folder=self.options.images is not None,
            recipe=opened.config.recipe.kind,
            n_folds=len(folds),
            n_folds_of_run=len(opened.folds),
        )

    # -- going round -----------------------------------------------------------------------------------------------

    def _go_round(self, opened: Run, fold: int, outcome: _Outcome) -> None:
        """Encode and decode the pictures of a fold in every arm."""
        recipe = opened.recipe(fold)
        train, test = opened.sides(fold)
        test = test.average_repeats()
        test_pictures = opened.stimuli.select(test.stimuli)

        brain: Trials | None
        if self.options.images is None:
            novel = test_pictures
            brain = test
        else:
            novel = self._novel_pictures(opened, train, self.options.images)
            brain = None

        most = self.options.n or 200
        if len(novel) > most:
            chosen = np.sort(self.rng("kept", fold).permutation(len(novel))[:most])
            novel = novel.select(novel.ids[chosen])
            if brain is not None:
                brain = brain.take(chosen)

        if len(novel) < 3:
            raise DataError(f"the cycle needs three pictures or more, but there are {len(novel)}.")

        encoded = recipe.encode(novel)
        residual = test.betas - recipe.encode(test_pictures).betas  # (n_test, n_voxels)
        self._add_responses(outcome, recipe, test_pictures, train, test, len(opened.folds))
        rng = self.rng("noise", fold)

        # Random mixtures of centred residuals have exactly their covariance: noise that voxels share stays shared.
        centred = residual - residual.mean(axis=0)
        mix = rng.standard_normal((len(novel), len(centred)), dtype=np.float32) / np.sqrt(len(centred) - 1)
        noise = (mix @ centred).astype(np.float32)  # (n, n_voxels)

        # A ring in random order: every picture gets the next one, and none its own.
        order = rng.permutation(len(novel))
        other = np.empty(len(novel), dtype=int)
        other[order] = np.roll(order, -1)

        arms: dict[str, Trials | None] = {
            "cycle": encoded,
            "noisy": encoded.with_betas(encoded.betas + noise),
            "brain": brain,
            "wrong": recipe.encode(novel.select(novel.ids[other])),
        }

        for arm, trials in arms.items():
            if trials is None:
                continue

            images = recipe.decode(trials)
            outcome.pixels[arm].append(images.clipped())
            if arm == "cycle":
                outcome.depends_on_batch |= _depends_on_batch(recipe, novel, trials, images.pixels)

        size = recipe.image_shape_[:2]
        cycled = outcome.pixels["cycle"][-1]
        outcome.pixels["shuffled"].append(cycled[rng.permutation(len(novel))])
        mean = opened.stimuli.select(train.stimulus_ids).resized(size).mean(axis=0, dtype=np.float64)  # (h, w, c)
        outcome.pixels["mean"].append(np.repeat(mean[None].astype(np.float32), len(novel), axis=0))
        outcome.true.append(novel.resized(size))

    def _add_responses(
        self, outcome: _Outcome, recipe: Recipe, pictures: Stimuli, train: Trials, test: Trials, n_folds: int
    ) -> None:
        """Add predicted and measured responses to the test pictures."""
        predicted = recipe.encode(pictures).betas  # (n_test, n_voxels)

        # Folds have other means, which move against what was left out; see flow.encode.
        base: np.ndarray | np.float32 = np.float32(0)
        if n_folds > 1:
            base = train.average_repeats().betas.mean(axis=0)

        outcome.predicted.append(predicted - base)
        outcome.measured.append(test.betas - base)
        outcome.variance.append((float(predicted.var(axis=0).mean()), float(test.betas.var(axis=0).mean())))

    def _novel_pictures(self, opened: Run, train: Trials, images: str) -> Stimuli:
        """Pictures of a folder; refused when one of them trained the recipe."""
        folder = Path(images)
        files = list_pictures(folder)
        shape = (len(files), *opened.stimuli.image_shape)
        ids = [file.relative_to(folder).as_posix() for file in files]
        novel = Stimuli(np.asarray(ids, dtype=object), PictureFolder(files, shape)[:])

        paired = opened.stimuli.select(train.stimulus_ids)
        trained = dict(zip(paired.pixel_digests(), paired.ids, strict=True))
        copies = []

        for name, digest in zip(novel.ids, novel.pixel_digests(), strict=True):
            if digest in trained:
                copies.append((name, trained[digest]))

        if copies:
            raise DataError(
                f"{len(copies)} of {len(novel)} pictures in {folder} trained this recipe, first '{copies[0][0]}' (stimulus "
                f"'{copies[0][1]}'). The cycle wants novel pictures; take these out."
            )

        return novel

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, opened: Run, outcome: _Outcome, response_r: np.ndarray) -> pd.DataFrame:
        """Every score of every arm, with intervals over pictures; and of the responses, over voxels."""
        # Folds are scored together: a gallery of all pictures, each decoded by a recipe that never saw it.
        true = np.concatenate(outcome.true)  # (n, h, w, c)
        extractors = feature_extractors_for(opened.dataset.name)
        true_features = _features(true, extractors)
        rows: list[tuple] = []

        for arm, parts in outcome.pixels.items():
            if not parts:
                continue

            pixels = np.concatenate(parts)
            features = _features(pixels, extractors)
            statistics = _statistics(pixels, true, features, true_features)

            for measure, statistic in statistics.items():
                interval = bootstrap(statistic, len(true), rng=self.rng(arm, measure))
                rows.append((arm, measure, *interval, len(true)))

        interval = bootstrap(mean_of_items(response_r), len(response_r), rng=self.rng("voxels"))
        rows.append(("cycle", "response_r", *interval, int(np.isfinite(response_r).sum())))

        return pd.DataFrame(rows, columns=list(COLUMNS))


def _features(pixels: np.ndarray, extractors: Sequence[FeatureExtractor]) -> dict[str, np.ndarray]:
    """(n, d) features of pictures in every space, pixels first."""
    features = {"pixels": pixels.reshape(len(pixels), -1)}
    for extractor in extractors:
        features[extractor.name] = extractor.features(pixels)

    return features


def _statistics(
    pixels: np.ndarray, true: np.ndarray, features: Mapping[str, np.ndarray], true_features: Mapping[str, np.ndarray]
) -> dict[str, Statistic]:
    """Scores of pictures against the input pictures, as statistics of what a bootstrap draws."""
    # What is not defined (a constant picture has no correlation) counts as chance, here 0.
    statistics = {"pixcorr": mean_of_items(np.nan_to_num(pixcorr(pixels, true)))}
    if min(true.shape[1:3]) >= WINDOW:
        statistics["ssim.2d"] = mean_of_items(np.nan_to_num(ssim_2d(pixels, true)))

    if "clip_lab" in features:
        statistics["clip_cosine"] = mean_of_items(_cosine(features["clip_lab"], true_features["clip_lab"]))

    for space, rows in features.items():
        wins, counted = comparisons(similarity(rows, true_features[space]))
        if space == "pixels":
            name = space
        else:
            name = PICTURES + space

        statistics[f"two_way.{name}"] = mean_of_pairs(wins, counted)

    return statistics


def _gain(rows: pd.DataFrame, measure: str) -> float | None:
    """How much better the cycle is than measured responses; None where the intervals meet or nothing was measured."""
    if ("brain", measure) not in rows.index:
        return None

    cycle = rows.loc[("cycle", measure)]
    brain = rows.loc[("brain", measure)]
    if cycle["ci_low"] > brain["ci_high"]:
        return float(cycle["value"] - brain["value"])

    return None


def _depends_on_batch(recipe: Recipe, novel: Stimuli, encoded: Trials, decoded: np.ndarray) -> bool:
    """Whether a picture's response, or its way back, changes with the pictures that go round with it."""
    row = len(novel) // 2  # the middle one, as the first or last of a batch may be a case of its own
    try:
        alone = recipe.encode(novel.select(novel.ids[[row]])).betas[0]  # (n_voxels,)
    except PhospheneError:
        return True

    gap = np.abs(alone - encoded.betas[row]).max()
    size = np.abs(encoded.betas).max()

    return bool(gap > TOLERANCE * max(size, 1e-12)) or conduct_of(recipe, encoded, decoded) in ("batch", "company")


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(size, 1e-12)
