"""The metrics that come with phosphene, as data: all that is known of each stands here and nowhere else.

The name says variant and feature space: ``ssim.2d``, ``nway50_top1.pixels``. Spaces of decoded latents go by their own
name, ``two_way.clip_lab``; features that a network extracts from the decoded pictures go by ``pictures.`` and the
network's name, ``two_way.pictures.clip_lab``. The two differ, and the second is what publications call "CLIP two-way". A
score made from the class probabilities of a network is named after the network alone: ``category.scenes``,
``nway16_top1_class.scenes``.

References
----------
Wang et al. 2004 (SSIM); Heusel et al. 2017 (FID); Binkowski et al. 2018 (KID).
"""

from __future__ import annotations

import math

from phosphene.metrics.array_metrics import (
    n_way_identification,
    pixel_correlation,
    share_of_ceiling,
    squared_error,
    structural_similarity,
    two_way_identification,
    two_way_within_class,
    voxel_correlation,
)
from phosphene.metrics.feature_metrics import (
    category,
    cosine,
    distance,
    fid,
    has_training_mean,
    has_untested_categories,
    kid,
    n_way_classes,
    zero_shot,
)
from phosphene.metrics.metric import Metric
from phosphene.metrics.ssim import SIGMA

_PAIRING = "mean over all pairings of the same pictures"
_SSIM = (
    f"grey, Gaussian window sigma {SIGMA} of 11 taps, data range 1, population covariance, centres inside the picture"
)
_RANKED = "Pearson r over features; truths ranked for each decoded item; ties one half"
_RANKED_BACKWARD = "Pearson r over features; decoded items ranked for each truth; ties one half"

_PIXELS = (
    Metric(
        name="pixcorr",
        over="images",
        title="PixCorr",
        definition="Pearson r over pixels and channels of each picture, plain mean over pictures",
        better="higher",
        bounds=(-1.0, 1.0),
        chance=_PAIRING,
        compute=pixel_correlation,
        family="Pictures",
        heading="Pixel correlation",
        reading="How alike the decoded and the seen picture are, pixel by pixel, whatever their brightness and contrast. r is "
        "computed per picture and averaged plainly over pictures; a picture without variance counts as r = 0.",
    ),
    Metric(
        name="mse",
        over="images",
        title="MSE",
        definition="mean squared difference, pixels from 0 to 1",
        better="lower",
        bounds=(0.0, math.inf),
        chance=_PAIRING,
        compute=squared_error,
        family="Pictures",
        heading="Mean squared error",
        reading="How far the pixels are off; pixels run from 0 to 1.",
        digits=4,
    ),
    Metric(
        name="ssim.2d",
        over="images",
        title="SSIM",
        definition=f"{_SSIM}; windows over rows and columns",
        better="higher",
        bounds=(-1.0, 1.0),
        chance=_PAIRING,
        compute=structural_similarity("2d"),
        family="Pictures",
        heading="SSIM",
        reading="Structural similarity (Wang et al. 2004): local brightness, contrast and pattern. The window and the data "
        "range matter: conventions in use differ by more than 0.2 on the same pictures, so compare only equal ones.",
        published_as="ssim",
        protocol={"ssim_variant": "2d"},
    ),
    Metric(
        name="ssim.columns",
        over="images",
        title="SSIM, column-wise legacy",
        definition=f"{_SSIM}; one-dimensional windows along each column, as older scripts compute by accident",
        better="higher",
        bounds=(-1.0, 1.0),
        chance=_PAIRING,
        compute=structural_similarity("columns"),
        family="Pictures",
        heading="SSIM, column-wise",
        reading="What scripts computed that passed a grey picture as multichannel. Kept only to compare with publications that "
        "used it.",
        published_as="ssim",
        protocol={"ssim_variant": "columns"},
    ),
)

_TWO_WAY = (
    Metric(
        name="two_way.{space}",
        over="everywhere",
        title="two-way identification",
        definition=_RANKED,
        better="higher",
        bounds=(0.0, 1.0),
        chance="1/2",
        compute=two_way_identification,
        heading="Two-way · {space}",
        reading="How often a decoded picture resembles the seen one more than another test picture, over all pairs.",
    ),
    Metric(
        name="two_way_within_class.{space}",
        over="everywhere",
        title="two-way identification inside a class",
        definition=f"{_RANKED}; distractors of the truth's own class only",
        better="higher",
        bounds=(0.0, 1.0),
        chance="1/2",
        compute=two_way_within_class,
        heading="Two-way, inside a class · {space}",
        reading="As two-way, but the distractor has the category of the truth: who knows only the category scores chance.",
    ),
)


def _n_way(n: int, k: int) -> Metric:
    return Metric(
        name=f"nway{n}_top{k}.{{space}}",
        over="space",
        title=f"{n}-way top-{k} identification",
        definition=f"{_RANKED}; exact mean over all draws of distractors",
        better="higher",
        bounds=(0.0, 1.0),
        chance=f"{k}/{n}",
        compute=n_way_identification(n, k),
        heading=f"{n}-way, top {k} · {{space}}",
        reading=f"How likely the seen picture stands, by similarity, among the top {k} of {n}.",
    )


def _retrieval(n: int | None) -> Metric:
    """Top-1 in a gallery of n true items; of all of them for None."""
    size = n or "all"
    return Metric(
        name=f"retrieval{n or '_all'}.{{space}}",
        over="space",
        title=f"forward retrieval, top-1 among {size}",
        definition=f"{_RANKED}; exact mean over all galleries",
        better="higher",
        bounds=(0.0, 1.0),
        chance=f"1/{n or 'N'}",
        compute=n_way_identification(n or 0, 1),
        heading=f"Retrieval among {size} · {{space}}",
        reading=f"How likely the seen picture is the most similar one in a gallery of {size} seen pictures.",
    )


def _backward_retrieval(n: int | None) -> Metric:
    """Top-1 in a gallery of n decoded items; of all of them for None."""
    size = n or "all"
    return Metric(
        name=f"retrieval{n or '_all'}_backward.{{space}}",
        over="space",
        title=f"backward retrieval, top-1 among {size}",
        definition=f"{_RANKED_BACKWARD}; exact mean over all galleries",
        better="higher",
        bounds=(0.0, 1.0),
        chance=f"1/{n or 'N'}",
        compute=n_way_identification(n or 0, 1, "decoded"),
        heading=f"Backward retrieval among {size} · {{space}}",
        reading=f"How likely the decoded picture is the most similar one to the seen in a gallery of {size} decoded pictures.",
    )


_GALLERIES = (
    _n_way(10, 1),
    _n_way(50, 1),
    _n_way(50, 5),
    _retrieval(300),
    _retrieval(None),
    _backward_retrieval(300),
    _backward_retrieval(None),
)


def _n_way_class(k: int) -> Metric:
    return Metric(
        name=f"nway{{n}}_top{k}_class.{{space}}",
        over="classes",
        title=f"n-way top-{k} classification",
        definition="exact mean over all draws of the classifier's other classes, n of 50 or of all where there are fewer; "
        "truth is its own answer to the true picture; ties one half",
        better="higher",
        bounds=(0.0, 1.0),
        chance=f"{k}/n",
        compute=n_way_classes(k),
        heading=f"{{n}}-way class, top {k} · {{space}}",
        reading=f"How likely a classifier ranks the class it gives the seen picture among the {k} best of {{n}} for the "
        "decoded one. Its own answer is taken for the truth, right or wrong.",
    )


_FEATURES = (
    Metric(
        name="cosine.{space}",
        over="seen",
        title="cosine similarity",
        definition="cosine between the features of a decoded picture and of its truth, not centred",
        better="higher",
        bounds=(-1.0, 1.0),
        chance=_PAIRING,
        compute=cosine,
        family="Pictures",
        heading="Cosine · {space}",
        reading="How alike a network finds the decoded and the seen picture. Called CLIP distance in some papers, though "
        "higher is better. Pictures of one kind are alike to any network, so only what stands above chance counts.",
    ),
    Metric(
        name="distance.{space}",
        over="seen",
        title="correlation distance",
        definition="1 - Pearson r over the features of a decoded picture and of its truth, plain mean over pictures",
        better="lower",
        bounds=(0.0, math.inf),
        chance=_PAIRING,
        compute=distance,
        family="Pictures",
        heading="Distance · {space}",
        reading="1 - r between network features of the decoded and seen picture.",
    ),
    _n_way_class(1),
    _n_way_class(5),
    Metric(
        name="category.{space}",
        over="category",
        title="category accuracy",
        definition="true category read off the decoded picture, for pixels by a classifier fitted on training pictures, "
        "otherwise by the frozen network named",
        better="higher",
        bounds=(0.0, 1.0),
        chance="expected agreement of shuffled labels",
        compute=category,
        heading="Category · {space}",
        reading="How often a classifier reads the right category off the decoded picture.",
    ),
)

_SETS = (
    Metric(
        name="fid.{space}",
        over="seen",
        title="FID",
        definition="squared Frechet distance of Gaussians fitted to the features of all decoded and all true pictures, "
        "covariances with n - 1; biased upwards for few pictures",
        better="lower",
        bounds=(0.0, math.inf),
        chance="none: pairs play no part",
        compute=fid,
        family="Pictures",
        items="sets",
        heading="FID · {space}",
        reading="How far the decoded pictures as a set are from the seen ones as a set; who decoded what plays no part. Of few "
        "pictures it is mostly bias: even two perfect sets are far apart (how far stands in the note). Compare it only with "
        "the same number of pictures, the same network and the same data.",
    ),
    Metric(
        name="kid.{space}",
        over="seen",
        title="KID",
        definition="unbiased squared MMD with kernel (x.y/d + 1)^3, exact over all pairs but those of a picture with itself or "
        "its truth",
        better="lower",
        chance="none: pairs play no part; 0 for sets of one distribution",
        compute=kid,
        family="Pictures",
        items="sets",
        heading="KID · {space}",
        reading="Distance between the set of decoded and the set of seen pictures, as FID, but without its bias: 0 is expected "
        "where both are of one kind.",
    ),
)


def _zero_shot(k: int) -> Metric:
    return Metric(
        name=f"zero_shot_top{k}.{{space}}",
        over="texts",
        title=f"zero-shot classification, top-{k}",
        definition="cosine of decoded latents with text embeddings of the categories among the test stimuli",
        better="higher",
        bounds=(0.0, 1.0),
        chance=f"{k}/categories where all are equally frequent, otherwise the agreement of shuffled pairs",
        compute=zero_shot(k),
        heading=f"Zero-shot, top {k} · {{space}}",
        reading=f"How often the true category is among the {k} whose name, as text, is nearest to what was decoded. "
        "Candidates are the categories of the test pictures.",
    )


_TEXTS = (
    _zero_shot(1),
    _zero_shot(5),
    Metric(
        name="zero_shot_centred_top1.{space}",
        over="texts",
        title="zero-shot classification, centred",
        definition="the same with latents relative to the mean of the training pictures' and categories relative to each "
        "other",
        better="higher",
        bounds=(0.0, 1.0),
        chance="1/categories where all are equally frequent, otherwise the agreement of shuffled pairs",
        compute=zero_shot(1, centred=True),
        applies=has_training_mean,
        heading="Zero-shot, centred, top 1 · {space}",
        reading="The same after taking away what all training pictures share, and what all candidate names share: decoders "
        "shrink towards the training mean, which would otherwise be named for everything.",
    ),
    Metric(
        name="zero_shot_all_top1.{space}",
        over="texts",
        title="zero-shot classification among all categories",
        definition="cosine of decoded latents with text embeddings of every category of the data set, tested or not",
        better="higher",
        bounds=(0.0, 1.0),
        chance="the agreement of shuffled pairs",
        compute=zero_shot(1, everything=True),
        applies=has_untested_categories,
        heading="Zero-shot among all, top 1 · {space}",
        reading="The same with every category of the data set as a candidate, also those that were never tested.",
    ),
)

_VOXELS = (
    Metric(
        name="pearson.voxels",
        over="voxels",
        title="encoding accuracy",
        definition="Pearson r over stimuli, mean over voxels",
        better="higher",
        bounds=(-1.0, 1.0),
        chance="0",
        compute=voxel_correlation,
        family="Encoding",
        items="voxels",
        heading="Encoding, r per voxel",
        reading="How well the predicted responses of a voxel follow the measured ones over test pictures.",
    ),
    Metric(
        name="pearson.fraction_of_ceiling",
        over="voxels",
        title="encoding accuracy as a fraction of the ceiling",
        definition="sum of r over sum of sqrt(noise ceiling), voxels with a ceiling above 0; not clipped at 1",
        better="higher",
        chance="0",
        compute=share_of_ceiling,
        family="Encoding",
        items="voxels",
        heading="Encoding, share of ceiling",
        reading="The same over what a perfect model could reach given the noise. Values above 1 are shown, not clipped.",
    ),
)

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*_PIXELS, *_TWO_WAY, *_GALLERIES, *_FEATURES, *_SETS, *_TEXTS, *_VOXELS)
}
"""Name, with ``{space}`` where a feature space goes, to metric, in the order of ``scores.csv``."""
