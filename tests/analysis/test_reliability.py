"""Who draws convincing pictures from noise is found out; who does not is left in peace."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from phosphene import flow
from phosphene.analysis.image_stats import ImageStatsReader, effective_number
from phosphene.analysis.reliability import Reliability, ReliabilityOptions, auc
from phosphene.errors import ConfigError
from phosphene.flow import analyse
from phosphene.lab import zoo
from phosphene.types import Stimuli
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file

# More test pictures than "small" has: with 30, an AUC of 0.5 comes out over 2/3 about once in fifty.
LAB = {"data.name": "insilico", "data.options": {"n_train": 200, "n_test": 60, "n_voxels": 100}}


def values(opened) -> pd.Series:
    return opened.folder.table("analysis", "reliability", "table.csv").set_index(["input", "measure"])["value"]


@pytest.mark.usefixtures("networks")
def test_a_linear_decoder_is_not_exposed_and_true_pictures_are_more_confident_than_its_noise(linear):
    answer = analyse(linear, "reliability")
    assert answer.summary.startswith("Not exposed")
    assert "gives the same picture as in its batch" in answer.summary
    found = values(linear)
    for noise in ("gaussian", "independent", "far"):
        assert found[noise, "auc_true"] > 2 / 3
    assert found["mean", "likeness"] == pytest.approx(1, abs=1e-5)  # the same input, the same picture; float32
    assert found["brain", "likeness"] < 0.9


@pytest.mark.usefixtures("networks")
def test_a_decoder_that_ignores_the_brain_is_exposed(tmp_path):
    opened = fitted("deaf", tmp_path / "run", LAB)
    answer = analyse(opened, "reliability")
    assert answer.summary.startswith("Exposed: ")
    assert "no evidence of decoding" in answer.summary.splitlines()[0]
    found = values(opened)
    assert found["gaussian", "nearest"] == pytest.approx(1, abs=1e-5)  # they are training pictures
    # As diverse as the true ones, which is what makes such pictures convincing.
    assert found["gaussian", "categories"] > 0.7 * found["true", "categories"]


@pytest.mark.fault(127)
@pytest.mark.parametrize("kind", ["deaf", "dice"])
def test_it_is_exposed_without_networks_too(tmp_path, kind):
    opened = fitted(kind, tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz", n_test=40))})
    summary = analyse(opened, "reliability").summary
    assert summary.startswith("Exposed: ")
    assert "do not apply" in summary
    assert ("entropy" in set(opened.folder.table("analysis", "reliability", "table.csv")["measure"])) is False
    if kind == "dice":
        assert "as chance has it" in summary
        assert "'dice' draws its pictures by chance" in summary


def test_a_mere_prior_is_exposed_even_when_its_pictures_fool_nobody(tmp_path):
    opened = fitted("haze", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz", n_test=40))})
    verdict = analyse(opened, "reliability").summary.splitlines()[0]
    found = opened.folder.table("analysis", "reliability", "table.csv").set_index(["input", "measure"])
    assert found["value"]["gaussian", "auc_true"] > 2 / 3  # clearly less confident than true pictures
    assert found["ci_low"]["brain", "match"] < 0.5 < found["ci_high"]["brain", "match"]
    assert verdict.startswith("Exposed: pictures decoded from the brain show no more of what was seen")


def test_a_linear_decoder_of_real_digits_is_not_exposed_without_networks(shared_data, tmp_path):
    data = {"data.name": "digits69", "data.root": str(shared_data / "digits69")}
    opened = fitted("linear", tmp_path / "run", data)
    assert analyse(opened, "reliability").summary.startswith("Not exposed")
    found = values(opened)
    assert found["brain", "categories"] == pytest.approx(2, abs=0.05)  # sixes and nines
    assert found["far", "auc_brain"] > 0.9


def test_where_pictures_are_gaussian_themselves_matched_noise_passes_for_them_and_only_that(tmp_path):
    # These pictures are a linear map of Gaussian causes; so is what a linear decoder makes of Gaussian noise.
    opened = fitted("linear", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz", n_test=40))})
    verdict = analyse(opened, "reliability").summary.splitlines()[0]
    assert verdict.startswith("Exposed: matched noise gives pictures about as confident")


def test_a_decoder_that_looks_at_its_batch_is_named(tmp_path):
    opened = fitted("crowd", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})
    assert "'crowd' is not inductive" in analyse(opened, "reliability").summary


def test_a_decoder_that_refuses_a_response_alone_is_named_and_does_not_stop_the_analysis(tmp_path):
    file = write_pair_file(tmp_path / "pairs.npz", n_train=30, n_test=15, n_voxels=144, size=12)
    opened = fitted("herd", tmp_path / "run", {"data.name": str(file)})
    assert "'herd' is not inductive: it refuses a response that comes alone" in analyse(opened, "reliability").summary


def test_folds_are_decoded_each_by_its_own_recipe_and_counted(tmp_path):
    data = {"data.name": str(write_pair_file(tmp_path / "pairs.npz")), "split": "kfold:3"}
    opened = fitted("linear", tmp_path / "run", data)
    assert "all 3 folds: 72 test responses" in analyse(opened, "reliability").summary
    pictures = opened.folder.table("analysis", "reliability", "pictures.csv")
    brain = pictures[pictures["input"] == "brain"]
    assert sorted(brain["stimulus"]) == sorted(opened.stimuli.ids)
    assert set(brain["fold"]) == {0, 1, 2}
    assert "a single fold: 24 test" in analyse(opened, "reliability", {"fold": 1}).summary
    record = json.loads((opened.folder.path / "analysis/reliability/analysis.json").read_text())
    assert record["options"] == {"n": None, "far": 3.0, "fold": 1}


# -- what is handed in -------------------------------------------------------------------------------------------------


def test_noise_has_the_moments_of_training_and_knows_nothing_of_the_test(linear):
    train, test = (t.average_repeats() for t in linear.sides(0))
    given = Reliability(seed=3)._responses(train, test, 0)
    betas = train.betas
    mean, spread = betas.mean(axis=0), betas.std(axis=0)
    np.testing.assert_allclose(given["mean"].betas[0], mean, atol=1e-5)  # float32 against float64 sums
    assert not given["zeros"].betas.any()
    # 30 x 400 independent draws: their pooled spread is known to 1 / sqrt(24,000), 0.7 %; five of these.
    for name, size in (("independent", 1), ("far", 3)):
        z = (given[name].betas - mean) / spread
        assert z.std() == pytest.approx(size, rel=0.035)
        assert abs(z.mean()) < 5 * size / np.sqrt(z.size)
    # Matched noise lies in the span of the centred training responses: what is left outside is rounding.
    basis = np.linalg.svd(betas - mean, full_matrices=False)[2][:-1]
    noise = given["gaussian"].betas - mean
    assert np.linalg.norm(noise - noise @ basis.T @ basis) < 1e-3 * np.linalg.norm(noise)
    other = Reliability(seed=3)._responses(train, test.with_betas(test.betas * 7 + 1), 0)
    for name in ("gaussian", "independent", "far"):
        np.testing.assert_array_equal(given[name].betas, other[name].betas)


def test_the_same_seed_gives_the_same_files_and_another_one_other_noise(tmp_path):
    opened = fitted("linear", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})

    def files(seed):
        analyse(opened, "reliability", seed=seed)
        return {p.name: p.read_bytes() for p in (opened.folder.path / "analysis/reliability").iterdir()}

    first = files(1)
    assert set(first) == {
        "analysis.json", "looks.png", "looks.svg", "pictures.csv", "pictures.png", "pictures.svg", "summary.txt",
        "table.csv",
    }  # fmt: skip
    assert files(1) == first
    assert files(2)["table.csv"] != first["table.csv"]


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_auc_agrees_with_sklearn_ties_included():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, 40) / 4 + 0.5, rng.integers(0, 8, 25) / 4
    found = auc(a, b, np.random.default_rng(1))
    assert found.value == pytest.approx(roc_auc_score([1] * 40 + [0] * 25, [*a, *b]), abs=1e-12)
    assert found.low < found.value < found.high
    assert auc(b, a, np.random.default_rng(1)).value == pytest.approx(1 - found.value, abs=1e-12)


def test_effective_number_is_the_number_of_equally_frequent_categories_and_less_otherwise():
    assert effective_number(np.array(list("abcd" * 3))) == 4
    share = np.array([0.75, 0.25])
    assert effective_number(np.array(list("aaab"))) == pytest.approx(np.exp(-(share * np.log(share)).sum()), abs=1e-12)


def test_likeness_is_one_for_a_copy_and_sinks_with_contrast_as_its_formula_says():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    training = Stimuli(np.arange(12).astype(str), pixels)
    reader = ImageStatsReader("photographs", training)
    assert not reader.source.has_classifier
    mean = training.floats().mean(axis=0)
    faint = mean + 0.3 * (training.floats() - mean)
    np.testing.assert_allclose(reader.measure(training.floats()).confidence, 1, atol=1e-5)
    np.testing.assert_allclose(reader.measure(faint).confidence, 2 * 0.3 / (1 + 0.3**2), atol=1e-5)
    np.testing.assert_allclose(reader.measure(faint).nearest, 1, atol=1e-5)  # a cosine does not see contrast


@pytest.mark.usefixtures("networks")
def test_confidence_and_entropy_are_those_of_the_classifier(linear):
    reader = ImageStatsReader("insilico-nsd", linear.stimuli.select(linear.stimuli.ids[:20]))
    pixels = linear.stimuli.select(linear.stimuli.ids[:9]).floats()
    p = zoo.load("classifier").probabilities(zoo.to_network(pixels)).numpy().astype(float)
    found = reader.measure(pixels)
    np.testing.assert_allclose(found.confidence, p.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.entropy, -(p * np.log2(p)).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.nearest, 1, atol=1e-5)  # they are among the training pictures


def test_pictures_that_are_no_numbers_are_counted_and_do_not_stop_the_analysis(tmp_path):
    opened = fitted("broken", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})
    summary = analyse(opened, "reliability").summary
    assert "no numbers: 1 from brain, 1 from matched noise" in summary
    assert np.isfinite(values(opened)["brain", "confidence"])


def test_a_fold_that_is_not_there_is_named(linear):
    with pytest.raises(ConfigError, match="no fold 1: this run has 1"):
        analyse(linear, "reliability", {"fold": 1})


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="greater than 1"):
        ReliabilityOptions(far=0.5)


def test_a_run_that_is_not_fitted_says_so(tmp_path):
    config, _ = flow.configure("linear", [("test", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})])
    opened = flow.Run(flow.fit(config, tmp_path / "run").folder, config)
    (opened.folder.path / "recipe.json").unlink()
    with pytest.raises(Exception, match="not fitted to the end"):
        analyse(opened, "reliability")
    assert not (opened.folder.path / "analysis").exists()
