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

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analysis.base import COLUMNS, Analysis, Drawing, Findings, chosen_folds
from phosphene.analysis.reliability import conduct_of
from phosphene.data.pictures import PictureFolder, list_pictures
from phosphene.errors import DataError, PhospheneError
from phosphene.io.config import Config
from phosphene.io.progress import Progress
from phosphene.metrics.identification import comparisons, similarity
from phosphene.metrics.metric import PICTURES
from phosphene.metrics.perceptual import feature_extractors_for
from phosphene.metrics.pixel import pixcorr
from phosphene.metrics.registry import kind_of
from phosphene.metrics.ssim import WINDOW, ssim_2d
from phosphene.metrics.statistics import bootstrap, mean_of_items, mean_of_pairs
from phosphene.metrics.voxelwise import pearson_per_voxel
from phosphene.recipes.base import Recipe
from phosphene.reporting import drawing
from phosphene.run import Run
from phosphene.types import Stimuli, Trials
from phosphene.validity.leakage import TOLERANCE

INPUTS = {
    "cycle": "cycle",
    "noisy": "cycle, real noise",
    "brain": "measured brain",
    "wrong": "wrong picture encoded",
    "shuffled": "shuffled pairing",
    "mean": "mean picture",
}
"""Inputs in the order shown; ``brain`` only for pictures that were shown to the person."""
_SHOWN = 10


class CycleOptions(Config):
    """What goes round."""

    images: str | None = Field(None, description="folder of novel pictures; the test pictures by default")
    n: int | None = Field(None, ge=3, description="most pictures of each fold; all, at most 200")
    fold: int | None = Field(
        None, ge=0, description="one fold only; all by default, the first for a folder of pictures"
    )


@dataclass
class _Went:
    """What came out, over folds."""

    ids: list[str] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    pixels: dict[str, list[np.ndarray]] = field(default_factory=lambda: {k: [] for k in INPUTS})
    predicted: list[np.ndarray] = field(default_factory=list)
    measured: list[np.ndarray] = field(default_factory=list)
    spread: list[tuple[float, float]] = field(default_factory=list)
    has_company: bool = False


class Cycle(Analysis[CycleOptions]):
    """See the top of this file."""

    name = "cycle"
    title = "Picture to brain to picture"
    options_class = CycleOptions
    needs = ("decode", "encode")

    def run(self, opened: Run, progress: Progress) -> Findings:
        """Encode novel pictures, decode the predictions, score against the pictures."""
        if self.options.images is None:
            first = None
        else:
            first = 0

        folds = chosen_folds(opened, first if self.options.fold is None else self.options.fold)
        went = _Went()

        for fold in progress.each(folds, "going round", unit="fold"):
            self._fold(opened, fold, went)

        table, chance = self._table(opened, went)
        inputs = {k: v for k, v in INPUTS.items() if k in set(table["input"])}
        r = pearson_per_voxel(np.concatenate(went.predicted), np.concatenate(went.measured))

        return Findings(
            self._sentences(opened, went, table, r, len(folds)),
            table,
            inputs,
            _measures(table),
            figures=self._figures(went, table, inputs, chance),
            tables={"voxels": pd.DataFrame({"pearson": r})},
            facts={"is_circular": True, "is_inductive": not went.has_company},
            notes={
                "response_r": "Correlation over test pictures between predicted and measured responses, mean over voxels; "
                "the only row that is about the brain.",
                "clip_cosine": "Cosine between what the lab's CLIP sees in the input picture and in the outcome.",
            },
        )

    # -- going round -----------------------------------------------------------------------------------------------

    def _fold(self, opened: Run, fold: int, went: _Went) -> None:
        recipe = opened.recipe(fold)
        train, test = opened.sides(fold)
        test = test.average_repeats()
        shown = opened.stimuli.select(test.stimuli)

        if self.options.images is None:
            novel = shown
            brain = test
        else:
            novel = self._given(opened, train)
            brain = None

        if len(novel) > (self.options.n or 200):
            kept = np.sort(self.rng("kept", fold).permutation(len(novel))[: self.options.n or 200])
            novel = novel.select(novel.ids[kept])

            if brain is None:
                brain = None
            else:
                brain = brain.take(kept)

        if len(novel) < 3:
            raise DataError(f"the cycle needs three pictures or more, but there are {len(novel)}.")

        encoded = recipe.encode(novel)
        residual = test.betas - recipe.encode(shown).betas
        self._remember_responses(went, recipe, shown, train, test, len(opened.folds))
        rng = self.rng("noise", fold)

        # Random mixtures of centred residuals have exactly their covariance: noise that voxels share stays shared.
        centred = residual - residual.mean(axis=0)
        mix = rng.standard_normal((len(novel), len(centred)), dtype=np.float32) / np.sqrt(len(centred) - 1)
        order = rng.permutation(len(novel))
        other = np.empty(len(novel), dtype=int)
        other[order] = np.roll(order, -1)  # nobody keeps its own
        arms: dict[str, Trials | None] = {
            "cycle": encoded,
            "noisy": encoded.with_betas(encoded.betas + (mix @ centred).astype(np.float32)),
            "brain": brain,
            "wrong": recipe.encode(novel.select(novel.ids[other])),
        }

        size = recipe.image_shape_[:2]
        for name, trials in arms.items():
            if trials is not None:
                images = recipe.decode(trials)
                went.pixels[name].append(images.clipped())
                if name == "cycle":
                    went.has_company |= _hangs_on_company(recipe, novel, trials, images.pixels)

        went.pixels["shuffled"].append(went.pixels["cycle"][-1][rng.permutation(len(novel))])
        mean = opened.stimuli.select(train.stimulus_ids).resized(size).mean(axis=0, dtype=np.float64)
        went.pixels["mean"].append(np.repeat(mean[None].astype(np.float32), len(novel), axis=0))
        went.true.append(novel.resized(size))
        went.ids += list(novel.ids)
        went.folds += [fold] * len(novel)

    def _remember_responses(
        self, went: _Went, recipe: Recipe, shown: Stimuli, train: Trials, test: Trials, n_folds: int
    ) -> None:
        predicted = recipe.encode(shown).betas
        # Folds have other means, which move against what was left out; see flow.encode.
        if n_folds == 1:
            base = np.float32(0)
        else:
            base = train.average_repeats().betas.mean(axis=0)

        went.predicted.append(predicted - base)
        went.measured.append(test.betas - base)
        went.spread.append((float(predicted.var(axis=0).mean()), float(test.betas.var(axis=0).mean())))

    def _given(self, opened: Run, train: Trials) -> Stimuli:
        """Pictures of a folder; refused when one of them trained the recipe."""
        folder = Path(str(self.options.images))
        files = list_pictures(folder)
        shape = (len(files), *opened.stimuli.image_shape)
        ids = [f.relative_to(folder).as_posix() for f in files]
        novel = Stimuli(np.asarray(ids, dtype=object), PictureFolder(files, shape)[:])
        paired = opened.stimuli.select(train.stimulus_ids)
        known = dict(zip(paired.pixel_digests(), paired.ids, strict=True))
        found = [(i, known[d]) for i, d in zip(novel.ids, novel.pixel_digests(), strict=True) if d in known]

        if found:
            raise DataError(
                f"{len(found)} of {len(novel)} pictures in {folder} trained this recipe, first '{found[0][0]}' (stimulus "
                f"'{found[0][1]}'). The cycle wants novel pictures; take these out."
            )

        return novel

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, opened: Run, went: _Went) -> tuple[pd.DataFrame, dict[str, float]]:
        true = np.concatenate(went.true)
        eyes = feature_extractors_for(opened.dataset.name)
        seen = {"pixels": true.reshape(len(true), -1), **{eye.name: eye.features(true) for eye in eyes}}
        rows: list[tuple] = []

        for name, parts in went.pixels.items():
            if not parts:
                continue

            pixels = np.concatenate(parts)
            features = {"pixels": pixels.reshape(len(pixels), -1), **{eye.name: eye.features(pixels) for eye in eyes}}

            # What is not defined (a constant picture has no correlation) counts as chance, here 0.
            items = {"pixcorr": np.nan_to_num(pixcorr(pixels, true))}
            if min(true.shape[1:3]) >= WINDOW:
                items["ssim.2d"] = np.nan_to_num(ssim_2d(pixels, true))

            if "clip_lab" in features:
                items["clip_cosine"] = _cosine(features["clip_lab"], seen["clip_lab"])

            statistics = {measure: mean_of_items(values) for measure, values in items.items()}
            for space, found in features.items():
                wins, counted = comparisons(similarity(found, seen[space]))
                if space == "pixels":
                    where = space
                else:
                    where = PICTURES + space

                statistics[f"two_way.{where}"] = mean_of_pairs(wins, counted)

            for measure, statistic in statistics.items():
                interval = bootstrap(statistic, len(true), rng=self.rng(name, measure))
                rows.append((name, measure, *interval, len(true)))

        r = pearson_per_voxel(np.concatenate(went.predicted), np.concatenate(went.measured))
        interval = bootstrap(mean_of_items(r), len(r), rng=self.rng("voxels"))
        rows.append(("cycle", "response_r", *interval, int(np.isfinite(r).sum())))
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        chance = {measure: 0.5 for measure in set(table["measure"]) if kind_of(measure) == "two_way"}

        return table, chance

    # -- words -----------------------------------------------------------------------------------------------------

    def _sentences(self, opened: Run, went: _Went, table: pd.DataFrame, r: np.ndarray, n_folds: int) -> list[str]:
        rows = table.set_index(["input", "measure"])
        measure = next(m for m in ("two_way.pictures.clip_lab", "two_way.pixels") if ("cycle", m) in rows.index)

        if "clip" in measure:
            where = "in the lab's CLIP"
        else:
            where = "by pixels"

        def say(name: str) -> str:
            row = rows.loc[(name, measure)]
            if np.isfinite(row["ci_low"]):
                bounds = f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            else:
                bounds = ""

            return f"{row['value']:.3f}{bounds}"

        predicted, measured = np.sum(went.spread, axis=0)
        if measured > 0:
            share = f"{100 * predicted / measured:.0f} %"
        else:
            share = "an unknown share"

        sentences = [
            f"The cycle says nothing about the brain: pictures come back from predicted responses with two-way "
            f"identification {say('cycle')} {where} (chance 0.5), and could if the predictions were of no brain at all.",
            f"What is about the brain: predicted responses match measured ones with r = {np.nanmean(r):.3f} (mean over "
            f"{int(np.isfinite(r).sum())} voxels) and have {share} of their variance.",
            f"With as much noise added as predicted and measured responses differ by, the cycle gives {say('noisy')}"
            + (f"; measured responses to the same pictures give {say('brain')}." if went.pixels["brain"] else "."),
        ]

        if went.pixels["brain"]:
            ours = rows.loc[("cycle", measure)]
            theirs = rows.loc[("brain", measure)]
            if ours["ci_low"] > theirs["ci_high"]:
                sentences.append(
                    f"The cycle is {ours['value'] - theirs['value']:.3f} better than the brain it imitates: predictions are "
                    "free of noise, and made by the recipe's own maps."
                )

        sentences.append(
            f"Controls: pairing shuffled {say('shuffled')}, a wrong picture encoded {say('wrong')}, the mean training "
            f"picture {say('mean')}."
        )

        if went.has_company:
            sentences.append(
                f"The recipe '{opened.config.recipe.kind}' is not inductive: what comes back of a picture depends on which "
                "others go round with it, so a novel picture is measured by its company and no score here is its own."
            )

        if self.options.images is None:
            source = "test pictures"
        else:
            source = "pictures of the folder given"

        if n_folds > 1:
            which = f"all {n_folds} folds"
        elif len(opened.folds) == 1:
            which = "the only fold"
        else:
            which = "one fold"

        sentences.append(f"{len(went.ids)} {source}, none of them paired in training; recipe of {which}.")
        return sentences

    def _figures(
        self, went: _Went, table: pd.DataFrame, inputs: dict[str, str], chance: dict[str, float]
    ) -> dict[str, Drawing]:
        stacks = {inputs[k]: np.concatenate(v)[:_SHOWN] for k, v in went.pixels.items() if v and k != "shuffled"}
        cycle, *others = stacks
        plate = drawing.plate(
            np.concatenate(went.true)[:_SHOWN], stacks[cycle], {k: stacks[k] for k in others},
            labels=("input picture", cycle), width=9.0,
        )  # fmt: skip

        measures = {k: v for k, v in _measures(table).items() if k != "response_r"}
        return {
            "pictures": Drawing(
                plate,
                "Rows of pictures: the input, what comes back from predicted responses, with real noise, from measured "
                "responses, and controls.",
                "Round trip of the first pictures. Compare the second row, which never met a brain, with the measured one.",
            ),
            "scores": Drawing(
                drawing.scores(table, inputs, measures, chance),
                "Scores of the cycle and its controls with intervals; the numbers stand in the table.",
                "Scores against the input picture, with 95 % intervals over pictures; chance dashed.",
            ),
        }


def _hangs_on_company(recipe: Recipe, novel: Stimuli, encoded: Trials, decoded: np.ndarray) -> bool:
    """Whether a picture's response, or its way back, changes with the pictures that go round with it."""
    row = len(novel) // 2
    try:
        alone = recipe.encode(novel.select(novel.ids[[row]])).betas[0]
    except PhospheneError:
        return True

    gap = np.abs(alone - encoded.betas[row]).max()
    size = np.abs(encoded.betas).max()

    return bool(gap > TOLERANCE * max(size, 1e-12)) or conduct_of(recipe, encoded, decoded) in ("batch", "company")


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(size, 1e-12)


def _measures(table: pd.DataFrame) -> dict[str, str]:
    words = {
        "pixcorr": "Pixel correlation",
        "ssim.2d": "SSIM",
        "two_way.pixels": "Two-way, pixels",
        "two_way.pictures.clip_lab": "Two-way, CLIP",
        "two_way.pictures.scenes": "Two-way, classifier",
        "clip_cosine": "CLIP cosine",
        "response_r": "Response r (predicted, measured)",
    }

    there = list(dict.fromkeys(table["measure"]))
    return {m: words.get(m, m) for m in (*(w for w in words if w in there), *(t for t in there if t not in words))}
