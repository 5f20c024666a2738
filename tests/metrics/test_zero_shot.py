"""Zero-shot classification: by hand, with a real text tower, and at chance for what knows nothing."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.stats import binom

from phosphene.errors import DataError, NotAvailable
from phosphene.metrics import Decoded, compute_scores
from phosphene.metrics.zero_shot import (
    IMAGENET_TEMPLATES,
    SINGLE_TEMPLATE,
    TEMPLATES,
    Candidates,
    binomial_p,
    candidates_from,
    confusion,
    share_in_top,
    templates_for,
)

FAST = {"n_draws": 200, "n_permutations": 1000}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def items(rng, per_category=1, k=20, d=30, noise=0.3, trained=()):
    """Latents around k directions, and these directions as candidates."""
    directions = rng.standard_normal((k, d))
    names = [f"category {i}" for i in range(k)]
    labels = np.repeat(names, per_category).astype(object)
    true = np.repeat(directions, per_category, axis=0)
    latents = true / np.linalg.norm(true, axis=1, keepdims=True) + noise * rng.standard_normal(true.shape) / np.sqrt(d)
    return latents, true, labels, Candidates(tuple(names), directions, frozenset(trained))


def scored(latents, true, labels, candidates, **more):
    ids = np.arange(len(latents))
    decoded = Decoded(ids, latents={"clip": (latents, true)}, labels=labels, texts={"clip": candidates}, **more)
    return compute_scores(decoded, metrics=["zero_shot*"], **FAST)


def test_embedding_is_the_mean_of_unit_texts_at_length_one():
    vectors = {"a cat": [3.0, 0], "one cat": [0, 0.5], "a sign": [0, 2], "one sign": [0, 9]}
    found = candidates_from(
        lambda texts: np.array([vectors[t] for t in texts]),
        ["cat", "word"],
        templates=("a {}", "one {}"),
        nouns={"word": "sign"},
        trained=["cat"],
    )
    np.testing.assert_allclose(found.embeddings, [[np.sqrt(0.5)] * 2, [0, 1]])  # lengths of the texts do not count
    assert found.names == ("cat", "word")  # whatever a text calls them
    assert found.familiarity() == "1 of the 2 candidate categories were shown in training"
    assert len(TEMPLATES) > 1
    assert SINGLE_TEMPLATE == ("a photo of a {}",)


def test_public_networks_are_asked_with_the_eighty_sentences_of_clip():
    assert len(IMAGENET_TEMPLATES) == len(set(IMAGENET_TEMPLATES)) == 80
    assert all(t.count("{}") == 1 and t.endswith(".") for t in IMAGENET_TEMPLATES)
    some = (
        "a photo of the hard to see {}.",
        "itap of my {}.",
        "a origami {}.",
        "the {} in a video game.",
        "art of a {}.",
    )
    assert set(some) < set(IMAGENET_TEMPLATES)
    assert sum("photo" in t for t in IMAGENET_TEMPLATES) == 43
    assert sum("the" in t.split() for t in IMAGENET_TEMPLATES) == 38
    # Of the published list, sorted, one a line.
    assert hashlib.sha256("\n".join(sorted(IMAGENET_TEMPLATES)).encode()).hexdigest()[:16] == "a8a4822f2921936e"
    assert templates_for("clip_vit_h_14_laion2b_s32b_b79k") == IMAGENET_TEMPLATES
    assert templates_for("clip_lab") == TEMPLATES


def test_accuracy_is_the_share_of_nearest_names(rng):
    latents, true, labels, candidates = items(rng, noise=4.0)
    found = scored(latents, true, labels, candidates)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (latents, candidates.embeddings)]
    order = np.argsort(-(unit[0] @ unit[1].T), axis=1)
    top1 = (order[:, 0] == np.arange(20)).mean()
    top5 = (order[:, :5] == np.arange(20)[:, None]).any(axis=1).mean()
    assert 0.2 < top1 < top5 < 1
    assert found["zero_shot_top1.clip"].value == pytest.approx(top1)
    assert found["zero_shot_top5.clip"].value == pytest.approx(top5)
    assert found["zero_shot_top1.clip"].chance == 1 / 20
    assert found["zero_shot_top5.clip"].chance == 5 / 20


def test_p_of_equally_frequent_categories_is_the_binomial_tail(rng):
    latents, true, labels, candidates = items(rng, noise=4)
    found = scored(latents, true, labels, candidates)["zero_shot_top1.clip"]
    n_right = round(found.value * 20)
    assert 0 < n_right < 20
    assert found.p == pytest.approx(binom.sf(n_right - 1, 20, 1 / 20))
    assert found.note.endswith("p is binomial")
    assert binomial_p(0, 20, 0.05) == 1
    assert found.ci_low <= found.value <= found.ci_high


def test_always_naming_the_commonest_category_is_chance(rng):
    """Uneven categories: 1/k would call this decoder good."""
    _, true, labels, candidates = items(rng, per_category=5, k=4)
    keep = np.r_[:5, 5:8, 10:12, 15:16]
    same = np.repeat(candidates.embeddings[:1], len(keep), axis=0)
    found = scored(same, true[keep], labels[keep], candidates)["zero_shot_top1.clip"]
    assert found.value == pytest.approx(5 / 11)
    assert found.chance == pytest.approx(5 / 11)
    assert found.p == 1
    assert "naming the commonest category alone gives 0.455" in found.note


def test_shuffled_pairs_score_at_chance(rng):
    p, values = [], []
    for _ in range(20):
        latents, true, labels, candidates = items(rng, k=12, noise=0.1)
        found = scored(latents[rng.permutation(12)], true, labels, candidates)["zero_shot_top1.clip"]
        p.append(found.p)
        values.append(found.value)
    assert np.mean(values) == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 12 / 12 / 20))  # matches are Poisson(1) of 12
    assert np.mean(np.array(p) < 0.05) < 0.25


def test_categories_that_were_not_tested_are_candidates_only_when_asked(rng):
    latents, true, labels, candidates = items(rng, k=20, noise=3.0, trained=["category 12", "category 15"])
    few = scored(latents[:10], true[:10], labels[:10], candidates)
    assert few["zero_shot_top1.clip"].chance == 1 / 10
    assert few["zero_shot_all_top1.clip"].value <= few["zero_shot_top1.clip"].value
    assert "none of the 10 candidate categories was shown in training" in few["zero_shot_top1.clip"].note
    assert "2 of the 20 candidate categories were shown" in few["zero_shot_all_top1.clip"].note
    whole = scored(latents, true, labels, candidates)
    assert "zero_shot_all_top1.clip" not in {s.metric for s in whole.scores}


@pytest.mark.fault(123)
def test_latents_without_direction_count_as_chance_and_are_listed(rng):
    latents, true, labels, candidates = items(rng, k=10, noise=0.0)
    latents[3], latents[7] = 0, np.nan
    found = scored(latents, true, labels, candidates)["zero_shot_top1.clip"]
    assert found.n == 10
    np.testing.assert_allclose(found.per_item[[3, 7]], 0.1)
    assert found.value == pytest.approx(0.82)
    assert "3, 7" in found.note


def test_ties_share_the_places(rng):
    cosines = np.array([[0.5, 0.5, 0.1], [0.9, 0.2, 0.2]])
    np.testing.assert_allclose(share_in_top(cosines, 1), [[0.5, 0.5, 0], [1, 0, 0]])
    np.testing.assert_allclose(share_in_top(cosines, 2), [[1, 1, 0], [1, 0.5, 0.5]])


def test_confusion_counts_what_was_called_what(rng):
    candidates = Candidates(("cat", "dog"), np.eye(2))
    latents = np.array([[1.0, 0], [0.9, 0.1], [0.2, 1], [0, 0]])
    table = confusion(candidates, latents, ["cat", "dog", "dog", "dog"])
    assert table.to_dict("split")["data"] == [["cat", "cat", 1], ["dog", "", 1], ["dog", "cat", 1], ["dog", "dog", 1]]


def test_reasons_are_given_where_nothing_can_be_said(rng):
    latents, true, labels, candidates = items(rng, k=4)
    few = scored(latents, true, labels, candidates)
    reasons = {s.metric: s.reason for s in few.skipped}
    assert reasons == {"zero_shot_top5.clip": "it needs 10 candidate categories but there are 4"}
    other = scored(latents, true, labels, Candidates(("x", "y"), np.eye(2)))
    assert "'category 0' has no text embedding" in other.skipped[0].reason
    short = scored(latents, true, labels, Candidates(candidates.names, candidates.embeddings[:, :3]))
    assert short.skipped[0].reason == "a latent has 30 numbers but a text 3"
    with pytest.raises(DataError, match="no direction"):
        candidates_from(lambda texts: np.zeros((len(texts), 2)), ["cat"])
    with pytest.raises(DataError, match="twice"):
        Candidates(("a", "a"), np.eye(2))
    with pytest.raises(DataError, match="no text embedding, first 'z'"):
        candidates.among(["z"])


def test_the_lab_clip_names_scenes_it_never_saw():
    """True pictures through the picture tower, categories through the text tower."""
    from phosphene.features.clip import ClipFeatures
    from phosphene.lab import scenes
    from phosphene.lab.scene_prompts import NOUNS

    clip = ClipFeatures("lab")
    try:
        candidates = candidates_from(clip.texts, scenes.THINGS, nouns=NOUNS, trained=scenes.THINGS)
    except NotAvailable:
        pytest.skip("the lab's CLIP has no weights here")
    numbers = np.arange(120)
    labels = np.array([s.main for s in scenes.describe_many(91, numbers)], dtype=object)
    latents = clip.images(scenes.render_many(91, numbers, 32))
    found = scored(latents, latents, labels, candidates)["zero_shot_top1.clip"]
    assert found.value > 3 * found.chance
    assert found.p < 0.01
    assert "all 16 candidate categories were shown in training" in found.note


def test_a_decoder_that_shrinks_to_the_mean_is_read_right_once_centred():
    """Categories lie around a mean far from zero, in pictures and in texts; the decoder gives a tenth of what differs."""
    rng = np.random.default_rng(0)
    names = tuple("abcd")
    kinds = rng.standard_normal((4, 32))
    texts = 5 * rng.standard_normal(32) + kinds
    picture_mean = 5 * rng.standard_normal(32)
    labels = np.tile(np.arange(4), 25)
    decoded = picture_mean + 0.1 * kinds[labels] + 0.02 * rng.standard_normal((100, 32))
    candidates = Candidates(names, texts, centre=picture_mean)
    plain = (candidates.similarity(decoded).argmax(1) == labels).mean()
    centred = (candidates.centred(decoded).argmax(1) == labels).mean()
    assert plain < 0.5
    assert centred > 0.9
    shuffled = rng.permutation(labels)
    assert abs((candidates.centred(decoded).argmax(1) == shuffled).mean() - 0.25) < 0.15


def test_centring_does_not_look_at_other_test_items():
    rng = np.random.default_rng(1)
    candidates = Candidates(tuple("abc"), rng.standard_normal((3, 8)), centre=rng.standard_normal(8))
    latents = rng.standard_normal((10, 8))
    # Float32 sums of another number of rows.
    np.testing.assert_allclose(candidates.centred(latents)[:1], candidates.centred(latents[:1]), rtol=1e-5)


def test_centring_without_a_training_mean_is_refused():
    with pytest.raises(DataError, match="centre"):
        Candidates(("a", "b"), np.eye(2)).centred(np.eye(2))
