"""Reliability: does the decoder make confident pictures from noise?

A decoder with a strong image prior draws a convincing picture whatever it is given. Its pictures from noise are then as
confident as those from a brain, and say nothing by themselves; a decoder that is nothing but such a prior shows no more of
the picture seen when it is given the brain than when it is given noise. Everything is fitted on training data: the recipe is
handed noise in place of test responses, and nothing here is matched to the batch of noise. A recipe that does so by itself,
such as LEA with the moments of its authors' code, is named.

Paper: Qian et al. 2024 (LEA), section 4.4, "random noise as fake fMRI signals". Its figure 6b gives pictures only;
the numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pydantic import Field

from phosphene.analyse import drawing
from phosphene.analyse._looks import Look, Looks, effective_number
from phosphene.analyse.base import COLUMNS, Analysis, Drawing, Found, chosen_folds
from phosphene.errors import PhospheneError
from phosphene.evaluate.identification import comparisons
from phosphene.evaluate.statistics import Interval, bootstrap, mean_of_items, mean_of_pairs
from phosphene.evaluate.ties import grain_of, outcomes
from phosphene.evaluate.validity.fitting import TOLERANCE
from phosphene.flow.opened import Opened
from phosphene.recipes.base import Recipe
from phosphene.run.config import Config
from phosphene.run.progress import Progress
from phosphene.types import Trials
from phosphene.types.identity import listed

INPUTS = {
    "true": "true pictures",
    "brain": "brain",
    "gaussian": "matched noise",
    "independent": "independent noise",
    "far": "noise, {scale:g} times as large",
    "zeros": "zeros",
    "mean": "mean response",
}
"""Inputs in the order shown; ``true`` is not decoded. Matched noise has the mean and covariance of the training responses,
independent noise the mean and spread of each voxel, far noise a larger spread, so that it lies where no brain does."""
NOISES = ("gaussian", "independent", "far")
PASSES = 2 / 3
"""Noise passes for something when that is the more confident one in fewer than this share of comparisons."""
SAME = 0.5
"""Largest share of the difference between pictures that may remain when the input stays the same."""
_PLATE = 10


class ReliabilityOptions(Config):
    """What is decoded."""

    n: int | None = Field(None, ge=2, description="test responses of each fold, and noise inputs; all, at most 200")
    far: float = Field(3.0, gt=1, le=100, description="spread of far noise, in standard deviations of each voxel")
    fold: int | None = Field(None, ge=0, description="one fold only; all by default")


@dataclass
class _Seen:
    """Pictures of one input, over folds."""

    pixels: list[np.ndarray] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    latents: list[np.ndarray] = field(default_factory=list)
    stimuli: list[str] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    n_undefined: int = 0

    def values(self, name: str) -> np.ndarray:
        """One value per picture."""
        return np.concatenate([getattr(look, name) for look in self.looks])

    @property
    def labels(self) -> np.ndarray | None:
        """Category read off each picture."""
        return None if any(x.labels is None for x in self.looks) else np.concatenate([x.labels for x in self.looks])

    def cosines(self, of: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(n, n) cosines between pictures of one fold, and which entries those are."""
        fold = np.asarray(self.folds)
        counted = (fold[:, None] == fold) & ~np.eye(len(fold), dtype=bool)
        cosine = np.zeros(counted.shape)
        start = 0
        for rows in of:
            unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            stop = start + len(rows)
            cosine[start:stop, start:stop] = unit @ unit.T
            start = stop
        return np.where(counted, cosine, 0), counted


def _match(ours: _Seen, true: _Seen) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) outcomes of comparing a picture with its own truth and with another of its fold, and which entries count."""
    n = len(ours.folds)
    wins, counted, start = np.zeros((n, n)), np.zeros((n, n), dtype=bool), 0
    for look, truth in zip(ours.looks, true.looks, strict=True):
        here = slice(start, start := start + len(look.features))
        # A picture of noise is paired with a true one by its place, which is no pairing.
        wins[here, here], counted[here, here] = comparisons(look.features @ truth.features.T)
    return wins, counted


class Reliability(Analysis[ReliabilityOptions]):
    """See the top of this file."""

    name = "reliability"
    title = "Pictures from noise"
    options_class = ReliabilityOptions

    def run(self, opened: Opened, progress: Progress) -> Found:
        """Decode noise beside the brain and compare how the pictures look."""
        folds = chosen_folds(opened, self.options.fold)
        seen: dict[str, _Seen] = {name: _Seen() for name in INPUTS}
        conduct: list[str] = []
        for fold in progress.each(folds, "decoding noise", unit="fold"):
            looks = self._fold(opened, fold, seen, conduct)
        table = self._table(seen, looks)
        words = {k: v.format(scale=self.options.far) for k, v in INPUTS.items()}
        return Found(
            self._sentences(opened, seen, table, looks, sorted(set(conduct)), len(folds)),
            table,
            words,
            _measures(table, looks),
            figures=self._figures(seen, table, words, looks),
            tables={"pictures": _per_picture(seen)},
            notes=_notes(looks),
        )

    # -- decoding --------------------------------------------------------------------------------------------------

    def _fold(self, opened: Opened, fold: int, seen: dict[str, _Seen], conduct: list[str]) -> Looks:
        recipe = opened.recipe(fold)
        train, test = opened.sides(fold)
        train, test = train.average_repeats(), test.average_repeats()
        n = min(len(test), self.options.n or 200)
        test = test.take(np.sort(self.rng("test", fold).permutation(len(test))[:n])) if n < len(test) else test
        stimuli, size = opened.stimuli.select(test.stimuli), recipe.image_shape_[:2]
        looks = Looks(opened.dataset.name, opened.stimuli.select(train.stimuli))

        def add(name: str, pixels: np.ndarray, latents: np.ndarray | None) -> None:
            there = seen[name]
            there.n_undefined += int((~np.isfinite(pixels)).any(axis=(1, 2, 3)).sum())
            pixels = _numbers(pixels)
            there.pixels.append(pixels)
            there.looks.append(looks.look(pixels))
            there.stimuli += list(stimuli.ids[: len(pixels)])
            there.folds += [fold] * len(pixels)
            if latents is not None:
                there.latents.append(latents)

        add("true", stimuli.resized(size), _first(recipe.true_latents(stimuli).arrays))
        for name, given in self._inputs(train, test, fold).items():
            images = recipe.decode(given)
            add(name, images.clipped(), _first(recipe.latents(given).arrays))
            if name == "gaussian":
                conduct.append(conduct_of(recipe, given, images.pixels))
        return looks

    def _inputs(self, train: Trials, test: Trials, fold: int) -> dict[str, Trials]:
        """What is decoded. Every moment is of the training responses, repeats averaged."""
        betas, rng = train.betas, self.rng("noise", fold)
        mean = betas.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = betas.std(axis=0, dtype=np.float64).astype(np.float32)
        n, few = len(test), min(len(test), _PLATE)
        # Random mixtures of centred training rows have exactly their covariance, which is never formed.
        mix = rng.standard_normal((n, len(betas)), dtype=np.float32) / np.float32(np.sqrt(max(1, len(betas) - 1)))
        draw = (mean + spread * rng.standard_normal((n, len(mean)), dtype=np.float32) for _ in range(2))
        independent, far = draw
        rows = {
            "brain": test.betas,
            "gaussian": mix @ (betas - mean) + mean,
            "independent": independent,
            "far": mean + np.float32(self.options.far) * (far - mean),
            "zeros": np.zeros((few, len(mean)), np.float32),
            "mean": np.repeat(mean[None], few, axis=0),
        }
        return {
            k: test if k == "brain" else test.take(np.arange(len(v))).with_betas(v, control=k) for k, v in rows.items()
        }

    # -- numbers ---------------------------------------------------------------------------------------------------

    def _table(self, seen: dict[str, _Seen], looks: Looks) -> pd.DataFrame:
        rows: list[tuple] = []
        for name, s in seen.items():
            n = len(s.folds)

            def add(measure: str, interval: Interval, n: int = n, name: str = name) -> None:
                rows.append((name, measure, *interval, n))

            for measure in ("confidence", "entropy", "nearest", "contrast", "sharpness"):
                values = s.values(measure)
                if np.isfinite(values).any():
                    add(measure, bootstrap(mean_of_items(values), n, rng=self.rng(name, measure)))
            for measure, of in (("likeness", [x.features for x in s.looks]), ("latent_likeness", s.latents)):
                if of and n > 1:
                    cosine, counted = s.cosines(of)
                    add(measure, bootstrap(mean_of_pairs(cosine, counted), n, rng=self.rng(name, measure)))
            if name in (*NOISES, "brain") and n > 1:
                add("match", bootstrap(mean_of_pairs(*_match(s, seen["true"])), n, rng=self.rng(name, "match")))
            if s.labels is not None:
                add("distinct", _bare(len(set(s.labels)) / n))
                add("categories", _bare(effective_number(s.labels)))
            for other in ("brain", "true"):
                if name in (*NOISES, "brain") and name != other:
                    better, worse = seen[other].values("confidence"), s.values("confidence")
                    add(f"auc_{other}", auc(better, worse, self.rng(name, other)))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    # -- words -----------------------------------------------------------------------------------------------------

    def _sentences(
        self,
        opened: Opened,
        seen: dict[str, _Seen],
        table: pd.DataFrame,
        looks: Looks,
        conduct: list[str],
        n_folds: int,
    ) -> list[str]:
        value = table.set_index(["input", "measure"])["value"]
        brain_likeness = value.get(("brain", "likeness"), np.nan)
        remains = (1 - value.get(("mean", "likeness"), np.nan)) / max(1 - brain_likeness, 1e-9)
        match = table[table["measure"] == "match"].set_index("input")
        sentences = [*_verdict(value, match, remains, self.options.far)]
        if "brain" in match.index:
            brain = match.loc["brain"]
            noises = ", ".join(f"{match.loc[k, 'value']:.2f}" for k in NOISES)
            sentences.append(
                f"How often a picture decoded from the brain is more like the picture seen than like another: "
                f"{brain['value']:.2f} [{brain['ci_low']:.2f}, {brain['ci_high']:.2f}] (chance 0.5; the three noises, which were "
                f"shown nothing: {noises})."
            )
        if np.isfinite(remains) and remains > 0.01:
            sentences.append(
                f"Given the same response again and again, {100 * min(remains, 9.99):.0f} % of the difference between "
                "decoded pictures remains: that part is drawn by chance, not by the brain."
            )
        if ("brain", "categories") in value:
            sentences.append(
                f"Categories read off the pictures, as an effective number: {value['true', 'categories']:.1f} in the true "
                f"pictures, {value['brain', 'categories']:.1f} decoded from the brain, "
                f"{value['gaussian', 'categories']:.1f} from matched noise."
            )
        sentences.append(
            f"Mean cosine between two pictures in {looks.space}: {value['true', 'likeness']:.2f} for true pictures, "
            f"{brain_likeness:.2f} decoded from the brain, {value['gaussian', 'likeness']:.2f} from matched noise."
            if np.isfinite(brain_likeness)
            else "A single picture per fold: how diverse pictures are is not known."
        )
        undefined = {k: s.n_undefined for k, s in seen.items() if s.n_undefined}
        if undefined:
            words = ", ".join(f"{n} from {INPUTS[k].format(scale=self.options.far)}" for k, n in undefined.items())
            sentences.append(f"Pictures that hold values which are no numbers: {words}. These values are read as grey.")
        sentences += [_CONDUCT[c].format(recipe=opened.config.recipe.kind) for c in conduct]
        which = "all " + str(n_folds) if n_folds > 1 else "the only" if len(opened.folds) == 1 else "a single"
        sentences.append(
            f"Decoded with the recipe of {which} fold{'s' if n_folds > 1 else ''}: {len(seen['brain'].folds)} test "
            f"responses and as many of each noise. Confidence is {looks.confidence_words}."
            + ("" if looks.by_networks else " The lab's networks do not apply to these pictures or are not installed.")
        )
        return sentences

    def _figures(
        self, seen: dict[str, _Seen], table: pd.DataFrame, words: dict[str, str], looks: Looks
    ) -> dict[str, Drawing]:
        stacks = {words[k]: np.concatenate(s.pixels)[:_PLATE] for k, s in seen.items()}
        true, brain, *others = stacks
        plate = drawing.plate(
            stacks[true], stacks[brain], {k: stacks[k] for k in others}, labels=(true, "decoded from brain"), width=9.0
        )
        measures = _measures(table, looks)
        shown = {m: measures[m] for m in ("confidence", "nearest", "likeness", "contrast") if m in measures}
        return {
            "pictures": Drawing(
                plate,
                "Rows of pictures: true, decoded from the brain, and decoded from each kind of noise.",
                "The first test pictures, what was decoded from the brain, and what the same recipe draws from noise. A "
                "row of convincing pictures below the second one is the prior at work.",
            ),
            "looks": Drawing(
                drawing.scores(table, words, shown),
                "Confidence, nearness to training pictures, likeness among themselves and contrast of the pictures of "
                "every input; the numbers stand in the table.",
                "How the pictures of each input look, with 95 % intervals over pictures.",
            ),
        }


# -- the rule ----------------------------------------------------------------------------------------------------------


def auc(better: np.ndarray, worse: np.ndarray, rng: np.random.Generator, n_draws: int = 2000) -> Interval:
    """Share of pairs in which the first is larger, ties within rounding one half: the exact Mann-Whitney statistic over n m.

    Parameters
    ----------
    better, worse : (n,) and (m,) values
    rng : of the bootstrap, which draws both sides independently; percentile interval

    Returns
    -------
    Interval

    Examples
    --------
    >>> auc(np.array([2.0, 3]), np.array([1.0, 2]), np.random.default_rng(0)).value
    0.875
    """
    better, worse = (np.asarray(x, dtype=np.float64)[np.isfinite(x)] for x in (better, worse))
    if not len(better) or not len(worse):
        return _bare(float("nan"))
    wins = outcomes(better[:, None], worse, grain_of(np.concatenate([better, worse])))
    rows = rng.multinomial(len(better), np.full(len(better), 1 / len(better)), n_draws) / len(better)
    columns = rng.multinomial(len(worse), np.full(len(worse), 1 / len(worse)), n_draws) / len(worse)
    low, high = np.quantile(((rows @ wins) * columns).sum(axis=1), [0.025, 0.975])
    return Interval(float(wins.mean()), float(low), float(high))


def _verdict(value: pd.Series, match: pd.DataFrame, remains: float, far: float) -> list[str]:
    words = {"gaussian": "matched noise", "independent": "independent noise", "far": f"noise {far:g} times as large"}
    passing = [k for k in NOISES if value[k, "auc_true"] < PASSES and value[k, "auc_brain"] < PASSES]
    alike = [k for k in NOISES if value[k, "auc_brain"] < PASSES]
    rule = (
        f"Rule: a decoder is exposed when a true picture and a brain-decoded one are each the more confident in fewer "
        f"than two of three comparisons with one decoded from noise, when over {100 * SAME:.0f} % of the difference "
        "between its pictures remains while the response stays the same, or when its pictures from the brain are no more "
        "like what was seen than chance has it."
    )
    if remains > SAME:
        verdict = (
            "Exposed: the pictures differ as chance has it and not as the brain does. They alone are no evidence of "
            "decoding."
        )
    elif "brain" in match.index and not match.loc["brain", "ci_low"] > 0.5:
        verdict = (
            "Exposed: pictures decoded from the brain show no more of what was seen than pictures from noise do, as far as "
            f"{int(match.loc['brain', 'n'])} of them can tell. They are the prior's, and no evidence of decoding."
        )
    elif passing:
        verdict = (
            f"Exposed: {listed([words[k] for k in passing])} gives pictures about as confident as the brain's and as true ones. "
            "However good they look, the pictures alone are no evidence of decoding; only scores against controls are."
        )
    elif alike:
        verdict = (
            f"Not exposed, but looks say nothing: pictures from {listed([words[k] for k in alike])} are about as confident "
            "as those from the brain, or more, and less so than true ones. Only scores against controls can tell."
        )
    else:
        verdict = "Not exposed: pictures decoded from the brain are clearly more confident than any decoded from noise."
    numbers = "; ".join(
        f"{words[k]} {value[k, 'auc_brain']:.2f} (true pictures {value[k, 'auc_true']:.2f})" for k in NOISES
    )
    return [verdict, f"How often the brain's picture is the more confident one of two, against {numbers}.", rule]


_CONDUCT = {
    "inductive": "A noise response decoded alone gives the same picture as in its batch.",
    "random": "The recipe '{recipe}' draws its pictures by chance: the same noise response decoded twice gives two "
    "pictures, so whether a picture depends on the other rows of its batch cannot be told.",
    "batch": "The recipe '{recipe}' is not inductive: a noise response decoded alone gives another picture than in its "
    "batch, so what is decoded depends on the other rows.",
    "company": "The recipe '{recipe}' is not inductive: it refuses a response that comes alone. A batch of noise was measured by "
    "itself here, which can make its pictures as plausible as those of a batch from the brain.",
}


def conduct_of(recipe: Recipe, given: Trials, together: np.ndarray) -> str:
    """Whether a row's picture depends on the rows decoded with it.

    Parameters
    ----------
    recipe : fitted
    given : responses, at least one
    together : (n, height, width, channels), what was decoded from them

    Returns
    -------
    ``inductive``, ``random`` (it cannot be told), ``batch``, or ``company`` (a row alone is refused)
    """
    row = len(given) // 2
    try:
        alone = [recipe.decode(given.take(np.array([row]))).pixels[0] for _ in range(2)]
    except PhospheneError:
        return "company"
    together, alone = _numbers(together), [_numbers(x) for x in alone]
    size = max(float(np.abs(together).max()), 1e-12)
    if np.abs(alone[0] - alone[1]).max() > TOLERANCE * size:
        return "random"
    return "inductive" if np.abs(alone[0] - together[row]).max() <= TOLERANCE * size else "batch"


# -- small things ------------------------------------------------------------------------------------------------------


def _measures(table: pd.DataFrame, looks: Looks) -> dict[str, str]:
    words = {
        "confidence": "Confidence",
        "entropy": "Entropy (bits)",
        "nearest": "Cosine to nearest training",
        "match": "More like what was seen",
        "likeness": "Cosine to each other",
        "latent_likeness": "Cosine of latents to each other",
        "distinct": "Distinct categories, share",
        "categories": "Effective categories",
        "contrast": "Contrast",
        "sharpness": "Sharpness",
        "auc_brain": "Brain the more confident",
        "auc_true": "True the more confident",
    }
    return {k: v for k, v in words.items() if k in set(table["measure"])}


def _notes(looks: Looks) -> dict[str, str]:
    some = f" ({looks.n_training} of them, evenly spaced)" if looks.is_thinned else ""
    return {
        "confidence": f"{looks.confidence_words}.",
        "nearest": f"To the most similar training picture{some}, in {looks.space}; 1 is a copy.",
        "match": f"Two-way identification of the picture seen in {looks.space}; chance is 0.5, which is where noise belongs.",
        "likeness": f"Mean over pairs of pictures in {looks.space}; 1 when all are alike.",
        "categories": "exp(entropy) of the categories read off the pictures. No interval: drawing again only loses categories.",
        "auc_brain": "Share of pairs in which the picture from the brain is more confident than the one of this column; "
        "0.5 is chance.",
        "auc_true": "The same for true pictures.",
    }


def _per_picture(seen: dict[str, _Seen]) -> pd.DataFrame:
    parts = []
    for name, s in seen.items():
        columns = {k: s.values(k) for k in ("confidence", "entropy", "nearest", "contrast", "sharpness")}
        labels = np.full(len(s.folds), "") if s.labels is None else s.labels
        parts.append(pd.DataFrame({"input": name, "fold": s.folds, "stimulus": s.stimuli, "label": labels, **columns}))
    table = pd.concat(parts, ignore_index=True)
    table.loc[~table["input"].isin(["true", "brain"]), "stimulus"] = ""
    return table


def _first(arrays) -> np.ndarray | None:
    """The first latents, a flat row each; None where a recipe gives none."""
    found = next(iter(arrays.values()), None)
    return None if found is None or not len(found) else np.asarray(found, np.float64).reshape(len(found), -1)


def _numbers(pixels: np.ndarray) -> np.ndarray:
    """Pictures with grey where a value is no number."""
    return np.nan_to_num(pixels, nan=0.5, posinf=1.0, neginf=0.0)


def _bare(value: float) -> Interval:
    return Interval(value, float("nan"), float("nan"))
