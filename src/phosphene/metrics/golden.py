"""Golden values: every metric on a few drawn pictures, kept in ``golden.json`` and computed again at each evaluation.

A metric is only comparable with a published or an older number while it still is the same metric. Eight scenes of the lab,
each turned and mirrored to make 64 items, stand for the test set; a mixture of each with a shifted copy and with another item
stands for what was decoded. Nothing is drawn at random, so that only a changed metric, or a changed library under it, can
move a value. After a change that is meant, and that the changelog names, write the values anew::

    golden_file().write_text(json.dumps(golden_values(), indent=1) + "\\n")
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from phosphene.metrics.category import PictureClassifier
from phosphene.metrics.metric import OF_FEATURES, Decoded, Encoded, FeatureView
from phosphene.metrics.registry import compute_scores
from phosphene.metrics.zero_shot import Candidates

RELATIVE = 1e-3
ABSOLUTE = 1e-6
"""How far a value may move: rounding and a pixel painted one level brighter on another processor stay below, another
variant of a metric does not."""
_SPACE = "golden"


def golden_file() -> Path:
    """Where the kept values are."""
    return Path(str(files("phosphene.metrics") / "golden.json"))


def golden_reference() -> dict[str, float]:
    """Metric to its kept value."""
    return {k: float(v) for k, v in json.loads(golden_file().read_text(encoding="utf-8")).items()}


def golden_scenes() -> np.ndarray:
    """The eight pictures that all items are made of: scenes that the in-silico lab drew once, kept as a file.

    Returns
    -------
    ndarray of shape (8, 32, 32, 3), uint8
        RGB, 0-255
    """
    with np.load(golden_file().with_name("golden_scenes.npz")) as file:
        return file["pictures"]


def golden_values() -> dict[str, float]:
    """Metric to its value as computed now, in the order of the table of metrics."""
    found = compute_scores(*_items(), n_draws=100, n_permutations=1)
    return {s.metric: float(s.value) for s in found.scores}


def changed_metrics(
    now: Mapping[str, float], kept: Mapping[str, float] | None = None
) -> dict[str, tuple[float, float]]:
    """Metrics that no longer give their golden value.

    Parameters
    ----------
    now : Mapping[str, float]
        of `golden_values`
    kept : Mapping[str, float], optional
        what they should be; `golden_reference` by default

    Returns
    -------
    dict[str, tuple[float, float]]
        metric to (kept, now); NaN where a metric is missing on that side

    Examples
    --------
    >>> changed_metrics({"mse": 0.021}, {"mse": 0.02})
    {'mse': (0.02, 0.021)}
    """
    kept = golden_reference() if kept is None else kept
    none = float("nan")
    return {
        metric: (kept.get(metric, none), now.get(metric, none))
        for metric in dict.fromkeys((*kept, *now))
        if not np.isclose(now.get(metric, none), kept.get(metric, none), rtol=RELATIVE, atol=ABSOLUTE)
    }


@lru_cache(maxsize=1)
def _items() -> tuple[Decoded, Encoded]:
    """64 items with everything a metric can ask for: latents, views, texts, labels, a classifier, responses."""
    scenes = golden_scenes().astype(np.float32) / 255
    turned = [np.rot90(side, quarter, axes=(1, 2)) for side in (scenes, scenes[:, :, ::-1]) for quarter in range(4)]
    true = np.ascontiguousarray(np.stack(turned, axis=1).reshape(-1, *scenes.shape[1:]))
    n = len(true)

    # From nearly nothing to nearly all of the truth, so that no score is at its end.
    share = np.linspace(0.1, 0.7, n, dtype=np.float32)[np.argsort(np.arange(n) * 23 % n)].reshape(-1, 1, 1, 1)
    moved = np.roll(true, (2, 1), axis=(1, 2))
    decoded = share * (0.7 * true + 0.3 * moved) + (1 - share) * np.roll(true, 9, axis=0)

    # Not the truths alone: turned copies of a scene have no spread at all in some directions, and a classifier divides by it.
    shown = 0.8 * np.roll(true, 1, axis=1) + 0.2 * np.roll(true, 13, axis=0)[:, ::-1]
    labels = np.asarray([f"class {i // 4:02d}" for i in range(n)], dtype=object)
    names = tuple(sorted(set(labels)))
    ours, theirs = (_small(x) for x in (decoded, true))
    kinds = theirs.reshape(len(names), 4, -1).mean(axis=1)  # what a class looks like
    seen = FeatureView(ours, theirs, _softmax(ours, kinds), _softmax(theirs, kinds), names, (*OF_FEATURES, "distance"))

    # Two more names than are tested, so that "among all" is another question than "among those tested".
    texts = Candidates((*names, "x", "y"), np.concatenate([kinds, kinds[:2, ::-1]]), centre=theirs.mean(axis=0))
    ceiling = np.linspace(0.2, 0.9, 24)
    return (
        Decoded(
            np.arange(n),
            decoded,
            true,
            latents={_SPACE: (ours, theirs)},
            labels=labels,
            classifier=PictureClassifier(20).fit(shown, labels),
            feature_views={_SPACE: seen},
            texts={_SPACE: texts},
        ),
        Encoded(np.arange(n), ours[:, :24], theirs[:, :24] + np.roll(theirs[:, :24], 3, axis=0), ceiling),
    )


def _small(pictures: np.ndarray) -> np.ndarray:
    """(n, side, side, 3) to (n, 192): means of areas, of order 1."""
    n = len(pictures)
    side = pictures.shape[1] // 8
    return 4 * pictures.reshape(n, 8, side, 8, side, 3).mean(axis=(2, 4)).reshape(n, -1)


def _softmax(features: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """(n, classes) by distance to what each class looks like."""
    far = np.square(features[:, None] - kinds[None]).mean(axis=2)
    likely = np.exp(-far / far.mean())
    return (likely / likely.sum(axis=1, keepdims=True)).astype(np.float32)
