"""Categories are read off what holds them, at the area other libraries give, and not off shuffled labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from phosphene.analysis.categories import Categories
from phosphene.analysis.labels import LabelReader, area, labels_of, mean_area, prepare
from phosphene.errors import ConfigError, DataError
from phosphene.flow import analyse
from phosphene.types import Stimuli
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file


def planted(n=300, n_features=40, seed=0):
    """Rows of which labels 0 and 1 are linear functions; label 2 has nothing to do with them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n_features))
    x[:, -1] = 3.0  # a dead voxel
    drive = x[:, :3] + 0.1 * rng.standard_normal((n, 3))
    drive[:, 2] = rng.standard_normal(n)
    return x, drive > 0.8


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_area_agrees_with_sklearn_ties_included_and_draws_are_weights():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, (50, 4)) / 4, rng.random((50, 4)) < 0.3
    expected = [roc_auc_score(labels[:, j], scores[:, j]) for j in range(4)]
    assert [area(s, y) for s, y in zip(scores.T, labels.T, strict=True)] == pytest.approx(expected, abs=1e-12)
    counts = rng.multinomial(50, np.full(50, 1 / 50), 3)
    weighted = [np.mean([roc_auc_score(labels[:, j], scores[:, j], sample_weight=c) for j in range(4)]) for c in counts]
    np.testing.assert_allclose(mean_area(scores, labels)(counts), weighted, atol=1e-12)


def test_a_draw_without_a_label_leaves_that_label_out():
    scores, labels = np.array([[1.0, 5], [2, 6], [3, 7]]), np.array([[0, 1], [1, 0], [1, 1]], dtype=bool)
    # Without stimulus 1 the second label is everywhere; the first is read perfectly.
    assert mean_area(scores, labels)(np.array([[1.0, 0, 1]]))[0] == 1
    assert np.isnan(mean_area(scores, labels)(np.array([[0.0, 0, 1]]))[0])
    assert np.isnan(area(scores[:, 0], np.ones(3, dtype=bool)))


def test_areas_of_several_readings_are_averaged():
    rng = np.random.default_rng(1)
    readings, labels = rng.standard_normal((3, 20, 2)), rng.random((20, 2)) < 0.4
    ones = np.ones((1, 20))
    each = [mean_area(r, labels)(ones)[0] for r in readings]
    assert mean_area(readings, labels)(ones)[0] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_a_label_that_is_there_is_read_and_one_that_is_not_is_at_chance(kind):
    x, labels = planted()
    folds = np.arange(200) % 3
    read = LabelReader(kind).fit(x[:200], labels[:200], folds).read(x[200:])
    found = [area(read[:, j], labels[200:, j]) for j in range(3)]
    assert min(found[:2]) > 0.9
    # Standard error of an area under chance with about 21 of 100: sqrt(101 / (12 * 21 * 79)) = 0.071; four of these.
    assert found[2] == pytest.approx(0.5, abs=0.29)


def test_the_logistic_reader_is_sklearns_at_the_penalty_it_chose():
    x, labels = planted(n=120)
    folds = np.arange(120) % 3
    reader = LabelReader("logistic").fit(x, labels[:, :1], folds)
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 1e-12, x.std(axis=0), np.inf)
    fits = [LogisticRegression(C=c / 40, max_iter=500).fit(z, labels[:, 0]) for c in np.logspace(-2, 1, 7)]
    assert min(np.abs(f.decision_function(z) - reader.read(x)[:, 0]).max() for f in fits) < 1e-6


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(linear):
    return linear, analyse(linear, "categories", {"n_null": 8}).summary


def values(opened, name="table", key=("input", "measure"), value="value"):
    return opened.folder.table("analysis", "categories", f"{name}.csv").set_index(list(key))[value]


def test_voxels_of_the_lab_tell_categories_and_shuffled_labels_do_not(asked):
    opened, summary = asked
    found = values(opened)
    inputs = dict.fromkeys(k for k, _ in found.index)
    assert list(inputs) == ["brain", "mapped.pixel_pca", "true.pixel_pca"]
    assert found["brain", "auc"] > 0.6
    for name in inputs:
        # The mean over labels of eight fits; a single fit of some 20 labels scatters by about 0.04.
        assert found[name, "auc_null"] == pytest.approx(0.5, abs=0.1)
    assert summary.startswith("Voxels tell ")
    assert "with shuffled labels" in summary


def test_each_label_is_filed_with_its_interval_and_number_of_stimuli(asked):
    each = asked[0].folder.table("analysis", "categories", "labels.csv")
    stimuli = asked[0].stimuli.select(asked[0].sides(0)[1].stimulus_ids)
    assert (each["ci_low"] <= each["auc"]).all()
    assert (each["auc"] <= each["ci_high"]).all()
    for row in each[each["input"] == "brain"].itertuples():
        assert row.n_with == stimuli.labels[row.label].sum() >= 3
        assert row.group == ("things" if row.label in set(asked[0].stimuli.category) else "stuff")
    mean = each[each["input"] == "brain"]["auc"].mean()
    assert values(asked[0])["brain", "auc"] == pytest.approx(mean, abs=1e-9)


def test_readers_never_see_a_test_stimulus(linear):
    m = prepare(linear, 0, np.random.default_rng(0))
    assert not set(m.train.stimuli) & set(m.test.stimuli)
    np.testing.assert_allclose(m.voxels(linear.sides(0)[0]).mean(axis=0), 0, atol=1e-4)  # moments of training, float32


def test_two_categories_are_the_same_question_twice(tmp_path):
    opened = fitted("linear", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz", n_test=30))})
    analyse(opened, "categories", {"n_null": 2})
    auc = values(opened, "labels", ("label", "input"), "auc")
    np.testing.assert_allclose(auc[1], auc[2], atol=1e-12)
    assert auc[1, "brain"] > 0.9


def test_what_cannot_be_read_is_said(linear, tmp_path):
    with pytest.raises(ConfigError, match="no fold 3"):
        analyse(linear, "categories", {"fold": 3})
    with pytest.raises(DataError, match="none of 26 labels has 25 test stimuli"):
        analyse(linear, "categories", {"min_positives": 25})
    opened = fitted("linear", tmp_path / "run", {"data.name": str(unlabelled(tmp_path))})
    with pytest.raises(DataError, match="neither labels nor categories"):
        analyse(opened, "categories")


def unlabelled(folder):
    file = write_pair_file(folder / "labelled.npz", n_test=20, size=12)
    with np.load(file) as content:
        np.savez(folder / "pairs.npz", **{k: content[k] for k in content.files if not k.startswith("label")})
    return folder / "pairs.npz"


def test_labels_come_before_categories():
    ids, images = np.array(["a", "b"]), np.zeros((2, 4, 4, 1), np.uint8)
    table = pd.DataFrame({"x": [True, False]})
    assert list(labels_of(Stimuli(ids, images, labels=table, category=["u", "v"])).columns) == ["x"]
    assert labels_of(Stimuli(ids, images, category=["u", "v"])).to_numpy().tolist() == [[True, False], [False, True]]
    assert labels_of(Stimuli(ids, images)) is None


def test_the_same_seed_gives_the_same_numbers(asked):
    first = asked[0].folder.table("analysis", "categories", "table.csv")
    analyse(asked[0], "categories", {"n_null": 8})
    pd.testing.assert_frame_equal(first, asked[0].folder.table("analysis", "categories", "table.csv"))
    assert Categories(seed=1).rng("null", "brain").random() != Categories(seed=2).rng("null", "brain").random()
