"""Checks S2-S4 and S6-S9: each must catch a planted fault, and stay quiet where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phosphene.data.clusters import directions, number_of_clusters, spherical_kmeans
from phosphene.errors import DataError
from phosphene.metrics import similarity
from phosphene.validity import (
    Evidence,
    Likeness,
    difference_hashes,
    near_pairs,
    nearest_in_training,
    run_checks,
    thumbnails,
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def verdict(check_id, **evidence):
    return run_checks(Evidence(**evidence), only=[check_id])[0]


# -- S2: near duplicates -----------------------------------------------------------------------------------------------


def smooth_pictures(rng, n, side=32):
    """Pictures of a few low frequencies: all different, none empty."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = np.stack([np.cos(np.pi * (i * x + j * y)) for i in range(5) for j in range(5)])
    raw = np.tensordot(rng.standard_normal((n, 25)), waves, axes=1)
    low, high = raw.min(axis=(1, 2), keepdims=True), raw.max(axis=(1, 2), keepdims=True)
    return np.rint(255 * (raw - low) / (high - low)).astype(np.uint8)[..., None]


def likeness(pictures, ids, features=None):
    features = thumbnails(pictures) if features is None else features
    return Likeness(np.asarray(ids), difference_hashes(pictures), features, "pixels")


def a_little_changed(rng, picture):
    """Brighter, less contrast, a little noise: other bytes, the same picture."""
    return np.clip(0.8 * picture.astype(float) + 25 + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def test_s2_catches_changed_copies_and_names_them(rng):
    pictures = smooth_pictures(rng, 200)
    pictures[150], pictures[151] = a_little_changed(rng, pictures[3]), a_little_changed(rng, pictures[77])
    ids = [f"p{i}" for i in range(200)]
    given = {"splits": [(ids[:150], ids[150:])], "likeness": likeness(pictures, ids)}
    noise = similarity(rng.standard_normal((50, 30)), rng.standard_normal((50, 30)))
    found = verdict("S2", **given, similarity=noise, test_ids=np.array(ids[150:]))
    assert found.verdict == "flag"
    assert found.value == 2
    assert "p150 ~ p3" in found.reason
    assert "p151 ~ p77" in found.reason
    assert "without" in found.reason
    pairs = near_pairs(Evidence(**given), rng)
    assert set(zip(pairs["test"], pairs["train"], strict=True)) == {("p150", "p3"), ("p151", "p77")}


def test_s2_passes_pictures_that_are_all_different(rng):
    pictures, ids = smooth_pictures(rng, 200), [f"p{i}" for i in range(200)]
    found = verdict("S2", splits=[(ids[:150], ids[150:])], likeness=likeness(pictures, ids))
    assert (found.verdict, found.value) == ("pass", 0)


def test_s2_still_finds_copies_where_training_has_copies_of_its_own(rng):
    """Ten copies inside training put the 99.9th percentile at 1 unless they are left out of it."""
    pictures = smooth_pictures(rng, 200)
    pictures[100:110] = [a_little_changed(rng, p) for p in pictures[:10]]
    pictures[150] = a_little_changed(rng, pictures[50])
    ids = [f"p{i}" for i in range(200)]
    found = verdict("S2", splits=[(ids[:150], ids[150:])], likeness=likeness(pictures, ids))
    assert (found.verdict, found.value) == ("flag", 1)


def test_s2_does_not_take_empty_pictures_for_copies(rng):
    """One dot each, in different corners of an area: the hashes agree, what is seen does not."""
    pictures = np.zeros((120, 32, 32, 1), np.uint8)
    features = rng.standard_normal((120, 40))
    ids = [f"p{i}" for i in range(120)]
    found = verdict("S2", splits=[(ids[:100], ids[100:])], likeness=likeness(pictures, ids, features))
    assert found.verdict == "pass"


def test_hashes_stay_under_light_and_size_and_tell_pictures_apart(rng):
    pictures = smooth_pictures(rng, 60)
    hashes = difference_hashes(pictures)
    larger = difference_hashes(np.repeat(np.repeat(pictures, 3, axis=1), 3, axis=2) / np.float32(255))
    assert np.bitwise_count(hashes ^ larger).max() <= 1  # areas of the same edges; rounding may tip a tie
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])[np.triu_indices(60, 1)]
    assert apart.min() > 4


# -- S3 and S4: overlap in meaning -------------------------------------------------------------------------------------


def clustered(rng, n_clusters, per_cluster, d=12, spread=0.25):
    centres = np.linalg.qr(rng.standard_normal((d, d)))[0][:n_clusters]
    cluster = np.repeat(np.arange(n_clusters), per_cluster)
    return centres[cluster] + spread * rng.standard_normal((len(cluster), d)) / np.sqrt(d), cluster


@pytest.mark.parametrize("k", [3, 6])
def test_the_gap_statistic_finds_planted_clusters_and_none_in_a_cloud(rng, k):
    features, cluster = clustered(rng, k, 40)
    points = directions(features)
    assert number_of_clusters(points, rng) == k
    found = spherical_kmeans(points, k, rng).members
    pairs = {(a, b) for a, b in zip(cluster, found, strict=True)}
    assert len(pairs) == k  # one name each
    assert number_of_clusters(directions(rng.standard_normal((150, 12))), rng) == 1
    with pytest.raises(DataError, match="cannot be put into"):
        spherical_kmeans(points[:3], 4, rng)


def seen(features, split, similarity=None):
    ids = np.array([f"p{i}" for i in range(len(features))])
    given = Likeness(ids, np.arange(len(ids), dtype=np.uint64), features, "net")
    test_ids = np.concatenate([ids[test] for _, test in split])
    splits = [(ids[train], ids[test]) for train, test in split]
    return {"splits": splits, "likeness": given, "similarity": similarity, "test_ids": test_ids}


def test_s3_flags_clusters_shared_with_training_and_passes_clusters_held_out(rng):
    features, cluster = clustered(rng, 5, 40)
    order = rng.permutation(200)
    inside = verdict("S3", **seen(features, [(order[:150], order[150:])]))
    assert inside.verdict == "flag"
    assert inside.value == 1
    assert "cluster:5" in inside.reason
    outside = verdict("S3", **seen(features, [(np.flatnonzero(cluster != 2), np.flatnonzero(cluster == 2))]))
    assert outside.verdict == "pass"
    assert outside.value == 0


def test_s3_catches_a_score_that_rises_with_nearness(rng):
    """A decoder that draws the nearest training picture does well where there is one."""
    features = rng.standard_normal((260, 30))
    features[200:230] = features[:30] + 0.3 * rng.standard_normal((30, 30))
    split = [(np.arange(200), np.arange(200, 260))]
    noise = np.where(np.arange(60) < 30, 0.3, 8.0)[:, None] * rng.standard_normal((60, 30))
    leaning = similarity(features[200:] + noise, features[200:])
    found = verdict("S3", **seen(features, split, leaning))
    assert found.verdict == "flag"
    assert "better where training is nearer" in found.reason
    features = rng.standard_normal((260, 30))
    even = similarity(features[200:] + 3 * rng.standard_normal((60, 30)), features[200:])
    assert verdict("S3", **seen(features, split, even)).verdict == "pass"


def test_s3_nearest_is_the_nearest_of_the_own_fold(rng):
    features = rng.standard_normal((30, 6))
    split = [(np.arange(10, 30), np.arange(10)), (np.r_[0:10, 20:30], np.arange(10, 20))]
    given = seen(features, split)
    table = nearest_in_training(Evidence(**given)).set_index("stimulus")
    x = features - features.mean(axis=0)
    cosine = x @ x.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    for train, test in split:
        for t in test:
            assert table.loc[f"p{t}", "nearest"] == f"p{train[cosine[t, train].argmax()]}"
            assert table.loc[f"p{t}", "cosine"] == pytest.approx(cosine[t, train].max(), abs=1e-5)  # float32


def test_s3_says_when_there_are_too_few():
    assert verdict("S3", **seen(np.eye(12), [(np.arange(8), np.arange(8, 12))])).verdict == "not applicable"


def test_s4_reports_what_is_left_and_the_drop(rng):
    ids = np.array([f"p{i}" for i in range(80)])
    splits = [(ids[40:], ids[:40]), (ids[:40], ids[40:])]
    true = rng.standard_normal((80, 20))
    given = {"splits": splits, "test_ids": ids, "held_out": "clusters of pictures"}
    usual = pd.DataFrame([{"input": "brain", "metric": "two_way.pixels", "value": 0.98}])
    good = verdict("S4", **given, similarity=similarity(true + rng.standard_normal((80, 20)), true), usual_scores=usual)
    assert good.verdict == "pass"
    assert f"a drop of {0.98 - good.value:.3f}" in good.reason
    # Who only knows the cluster is at chance inside it, however good over all.
    side = np.repeat([-3.0, 3.0], 40)[:, None]
    blind = similarity(side + rng.standard_normal((80, 20)), side + rng.standard_normal((80, 20)), "neg_mse")
    nothing = verdict("S4", **given, similarity=blind)
    assert nothing.verdict == "flag"
    assert nothing.value == pytest.approx(0.5, abs=0.15)  # 80 items, sd 0.03
    assert "cluster:K" in verdict("S4", splits=splits, test_ids=ids, similarity=blind, held_out="").reason


# -- S6: sessions ------------------------------------------------------------------------------------------------------


def scanned(rng, *, by_session, n=120, n_sessions=4):
    """Stimuli shown once; with `by_session` each session shows another kind of picture."""
    kind = np.arange(n) % n_sessions
    session = kind if by_session else rng.permutation(kind)
    ids = np.array([f"p{i}" for i in range(n)])
    features = 3 * np.eye(n_sessions, 16)[kind] + rng.standard_normal((n, 16))
    table = pd.DataFrame({"stimulus": ids, "session": session, "run": 0})
    order = rng.permutation(n)
    responses = rng.standard_normal((n, 40)) + 1.5 * rng.standard_normal((n_sessions, 40))[session]
    return {
        "trials": table, "sides": [(order[: n - 30], order[n - 30 :])], "responses": responses,
        "likeness": Likeness(ids, np.arange(n, dtype=np.uint64), features, "net"),
    }  # fmt: skip


def test_s6_catches_sessions_that_tell_what_was_shown(rng):
    found = verdict("S6", **scanned(rng, by_session=True))
    assert found.verdict == "flag"
    assert "may read the session" in found.reason
    assert "named right in" in found.reason


def test_s6_is_quiet_when_pictures_were_dealt_to_sessions_at_random(rng):
    flags = sum(verdict("S6", **scanned(rng, by_session=False)).verdict == "flag" for _ in range(8))
    assert flags <= 1  # at a level of 0.005 one in 200


def test_s6_needs_sessions_on_both_sides(rng):
    given = scanned(rng, by_session=True)
    assert set(verdict("S6", **{**given, "trials": given["trials"].assign(session=0)}).details) >= {"time"}
    session = given["trials"]["session"].to_numpy()
    apart = [(np.flatnonzero(session < 3), np.flatnonzero(session == 3))]
    found = verdict("S6", **{**given, "sides": apart})
    assert "session" not in found.details


def test_s6_catches_time_where_no_run_is_declared(rng):
    given = scanned(rng, by_session=True)
    order = np.argsort(given["trials"]["session"].to_numpy(), kind="stable")  # like stimuli follow each other
    given["trials"] = given["trials"].iloc[order].assign(session=0).reset_index(drop=True)
    given["responses"] = given["responses"][order]
    found = verdict("S6", **given)
    assert found.verdict == "flag"
    assert "The time of a trial already tells what was shown" in found.reason


def test_s6_catches_runs_inside_one_session(rng):
    given = scanned(rng, by_session=True)
    table = given["trials"].assign(run=given["trials"]["session"], session=0)
    found = verdict("S6", **{**given, "trials": table})
    assert found.verdict == "flag"
    assert "read the run" in found.reason


# -- S7, S8, S9: sources -----------------------------------------------------------------------------------------------


def test_s7_catches_shared_pictures_that_align_people():
    splits = [(range(100), range(100, 120))]
    assert verdict("S7", splits=splits, anchors={"hyperalignment": range(50)}).verdict == "pass"
    found = verdict("S7", splits=splits, anchors={"hyperalignment": range(90, 110)})
    assert (found.verdict, found.value) == ("fail", 10)
    assert verdict("S7", splits=splits, anchors={}).verdict == "not applicable"


def test_s8_tells_seen_from_maybe_seen_from_unseen():
    def judged(corpora, pictures=("ImageNet",)):
        return verdict("S8", generators={"net": corpora}, corpora=pictures)

    assert "probably seen" in judged(("ImageNet", "LAION")).reason
    assert judged(("ImageNet",)).verdict == "flag"
    assert "may have seen" in judged(("LAION",)).reason
    assert "not known" in judged(None).reason
    assert judged(("faces",)).verdict == "pass"
    assert judged(("ImageNet",), None).verdict == "not applicable"
    assert verdict("S8", generators={}).verdict == "pass"


def test_s9_counts_with_reasons_and_finds_one_back_repeats():
    table = pd.DataFrame({
        "stimulus": ["a", "b", "b", "c", "d", "e", "a", "f", "g", "h", "i", "k"],
        "session": 0, "run": [0] * 6 + [1] * 6,
    })  # fmt: skip
    train, test = np.r_[0, 3:12], np.array([1, 2])
    found = verdict("S9", left_out={"whose picture is missing": 1}, trials=table, sides=[(train, test)])
    assert (found.verdict, found.value) == ("flag", 1)
    assert "1 one-back repeats and 2 first trials" in found.reason
    assert "one-back repeats are among the test trials" in found.reason
    clean = verdict("S9", left_out={"whose picture is missing": 1}, trials=table, sides=[(np.r_[0:3], np.r_[3:12])])
    assert clean.verdict == "pass"
    assert "1 whose picture is missing" in clean.reason
    many = verdict("S9", left_out={"whose picture is missing": 9}, trials=table, sides=[(np.r_[0:3], np.r_[3:12])])
    assert many.verdict == "flag"
    nameless = verdict("S9", left_out={"": 1}, trials=table, sides=[(np.r_[0:3], np.r_[3:12])])
    assert "without a reason" in nameless.reason
