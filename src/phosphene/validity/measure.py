"""M6, M10 and M11: how the numbers were made."""

from __future__ import annotations

import numpy as np

from phosphene.metrics.golden import changed
from phosphene.metrics.identification import similarity, two_way
from phosphene.types.identity import few
from phosphene.validity.base import Answer, Evidence, as_floats

ENOUGH_SAMPLES = 3
FID_PICTURES = 2048
FID_FEATURES = 2048
"""The sets and the features that published FIDs are made of: fewer of either give another number."""
_MOST_ITEMS = 300
_PERMUTATIONS = 500
_NUMBERS = 200


def generator_noise(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """M6: variance between samples of one trial beside that between trials, and the score of each sample."""
    drawn = evidence.samples.drawn
    true = evidence.samples.true
    n, count = drawn.shape[:2]
    if count == 1 and not evidence.is_random:
        return "not applicable", float("nan"), "Nothing is drawn at random: a trial always gives the same picture."

    if count == 1:
        return "flag", float("nan"), (
            f"One sample is drawn for each trial, so nobody can tell luck from skill: draw {ENOUGH_SAMPLES} or more "
            "(--set recipe.sampling.samples=3)."
        )  # fmt: skip

    rows = np.sort(rng.permutation(n)[:_MOST_ITEMS])
    few = np.stack([as_floats(drawn[row]).reshape(count, -1) for row in rows])  # (items, samples, pixels)
    within = float(few.var(axis=1, ddof=1).mean())

    if len(few) > 1:
        between = max(0.0, float(few.mean(axis=1).var(axis=0, ddof=1).mean()) - within / count)
    else:
        between = 0.0

    if within + between > 0:
        share = within / (within + between)
    else:
        share = 0.0

    p = _follows(few, rng)
    two = [
        float(np.nanmean(two_way(similarity(few[:, s], as_floats(true[rows]).reshape(len(rows), -1)))))
        for s in range(count)
    ]

    said = (
        f"{100 * share:.0f} % of the variance of pictures is between {count} samples of one trial, the rest between trials; "
        f"two-way identification by pixels is {np.mean(two):.3f} on average over samples ({min(two):.3f} to {max(two):.3f})"
    )

    if within == 0:
        return "flag", share, f"{said}. All samples of a trial are the same, though they should be drawn anew."

    if not p < 0.01:
        return "fail", share, (
            f"{said}. Samples of one trial are no more alike than samples of different trials (p = {p:.2g}): the generator "
            "does not follow the brain."
        )  # fmt: skip

    if count < ENOUGH_SAMPLES:
        return "flag", share, f"{said}. Draw {ENOUGH_SAMPLES} samples or more."

    if share > 0.5:
        return (
            "flag",
            share,
            f"{said}. Samples differ more than trials do: read the mean over samples, not one picture.",
        )

    return "pass", share, f"{said}."


def _follows(few: np.ndarray, rng: np.random.Generator) -> float:
    """How often samples dealt to trials at random have means as far apart as the true ones."""
    n, count, width = few.shape
    if n < 3:
        return 1.0

    if width > _NUMBERS:
        few = few @ (rng.standard_normal((width, _NUMBERS), dtype=np.float32) / np.float32(np.sqrt(_NUMBERS)))

    flat = (few - few.mean(axis=(0, 1))).reshape(n * count, -1)
    of = np.repeat(np.arange(n), count)

    def apart(order: np.ndarray) -> float:
        return float(np.square(flat[order].reshape(n, count, -1).sum(axis=1)).sum())

    found = apart(np.arange(len(of)))
    dealt = np.array([apart(rng.permutation(len(of))) for _ in range(_PERMUTATIONS)])

    return float((1 + (dealt >= found * (1 - 1e-9)).sum()) / (_PERMUTATIONS + 1))


def metric_identity(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """M10: metrics that no longer give their golden values."""
    moved = changed(evidence.golden)
    if moved:
        shown = [f"{metric} {kept:.6g} kept, {now:.6g} now" for metric, (kept, now) in moved.items()]
        return "fail", len(moved), (
            f"{len(moved)} of {len(evidence.golden)} metrics no longer give their golden values ({few(shown)}; "
            f"{_versions()}). Their scores cannot stand beside published or older ones."
        )  # fmt: skip

    return "pass", 0, f"All {len(evidence.golden)} metrics give their golden values on 64 pictures ({_versions()})."


def _versions() -> str:
    import scipy
    import sklearn

    return f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}"


def fid_of_few(evidence: Evidence, rng: np.random.Generator) -> tuple[Answer, float, str]:
    """M11: FID of too few pictures, or of other features than those of published ones."""
    rows = evidence.scores[(evidence.scores["input"] == "brain") & evidence.scores["metric"].str.startswith("fid.")]
    if not len(rows):
        return "not applicable", float("nan"), "No FID was computed."

    said = []
    for _, row in rows.iterrows():
        eye = row["metric"].rsplit(".", 1)[1]
        said += [
            f"{row['metric']} ({why})" for why in [why_not_comparable(row["n"], evidence.n_features.get(eye))] if why
        ]

    smallest = float(rows["n"].min())
    if not said:
        return "pass", smallest, f"FID of {smallest:.0f} pictures or more, with {FID_FEATURES} features."

    return "flag", smallest, f"Not comparable with a published FID: {few(said)}. {_instead(evidence)}"


def why_not_comparable(n: float, n_features: int | None) -> str:
    """Why an FID of so many pictures and features is another number than published ones; empty when it is not.

    >>> why_not_comparable(50, 64)
    '50 pictures, 64 features'
    """
    if n < FID_PICTURES:
        parts = [f"{n:.0f} pictures"]
    else:
        parts = []

    if n_features is not None and n_features < FID_FEATURES:
        parts += [f"{n_features} features"]
    else:
        parts += []

    return ", ".join(parts)


def _instead(evidence: Evidence) -> str:
    kid = evidence.scores[(evidence.scores["input"] == "brain") & evidence.scores["metric"].str.startswith("kid.")]
    if not len(kid):
        return "Read KID instead, which few pictures do not bias."

    values = [f"{r['metric']} {r['value']:.3g} [{r['ci_low']:.3g}, {r['ci_high']:.3g}]" for _, r in kid.iterrows()]
    return f"Read KID instead, which few pictures do not bias: {few(values)}."
