import numpy as np
import pandas as pd
import pytest

from phosphene.align.decoders import HeldOut, fit_encoding, invert, reliable_voxels
from phosphene.errors import DataError, ModelError
from phosphene.recipes.linear import CurveConfig, InverseConfig, Linear, LinearConfig, RidgeConfig
from phosphene.types import Stimuli, Trials

SIZE = 6


def linear_brain(n_train=120, n_test=30, n_voxels=80, noise=0.3, seed=0):
    """A cortex that is a linear function of four picture components, plus white noise: the truth is known."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    basis = rng.standard_normal((4, SIZE * SIZE))
    latents = rng.standard_normal((n, 4))
    pictures = np.clip(128 + 25 * latents @ basis, 0, 255).astype(np.uint8).reshape(n, SIZE, SIZE, 1)
    pixels = pictures.reshape(n, -1) / 255.0
    tuning = rng.standard_normal((SIZE * SIZE, n_voxels)) * (np.arange(n_voxels) < n_voxels // 2)
    signal = (pixels - pixels.mean(0)) @ tuning
    betas = signal + noise * signal[:, : n_voxels // 2].std() * rng.standard_normal(signal.shape)
    ids = [f"p{i:03d}" for i in range(n)]
    trials = Trials(betas.astype(np.float32) + 3, pd.DataFrame({"stimulus": ids}), subject="s")
    return Stimuli(ids, pictures), trials.take(np.arange(n_train)), trials.take(np.arange(n_train, n))


def identification(decoded, true):
    a, b = (x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(1, keepdims=True) for x in (decoded, true))
    r = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return (r < np.diag(r)[:, None]).sum(1).mean() / (len(r) - 1)


DECODERS = [InverseConfig(), *(RidgeConfig(voxels=v) for v in ("all", "reliable", "weighted"))]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: getattr(d, "voxels", d.kind))
def test_every_decoder_finds_the_picture_of_a_linear_brain(decoder):
    stimuli, train, test = linear_brain()
    model = Linear(LinearConfig(decoder=decoder)).fit(train, stimuli)
    decoded = model.decode(test).pixels
    assert identification(decoded, stimuli.select(test.stimuli).floats()) > 0.97
    assert (decoded.min() >= 0) and (decoded.max() <= 1)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: getattr(d, "voxels", d.kind))
def test_pictures_shuffled_over_the_training_trials_leave_chance(decoder):
    scores = []
    for seed in range(5):
        stimuli, train, test = linear_brain(n_train=60, seed=seed)
        wrong = np.random.default_rng(seed).permutation(train.stimuli)
        shuffled = Trials(train.betas, train.table.assign(stimulus=wrong), subject="s")
        try:
            model = Linear(LinearConfig(decoder=decoder, curve=CurveConfig(kind="none"))).fit(shuffled, stimuli)
        except DataError as error:  # rightly: no voxel is predicted from the wrong pictures
            assert "misaligned" in str(error)
            continue
        scores.append(identification(model.decode(test).pixels, stimuli.select(test.stimuli).floats()))
    # Standard error of the mean over seeds is below 0.05: neighbouring scores of 30 test items are correlated.
    assert not scores or abs(np.mean(scores) - 0.5) < 0.15


def test_encoding_reaches_the_known_signal_and_voxels_without_signal_get_none():
    stimuli, train, test = linear_brain()
    model = Linear().fit(train, stimuli)
    predicted = model.encode(stimuli.select(test.stimuli)).betas
    r = [np.corrcoef(predicted[:, v], test.betas[:, v])[0, 1] for v in range(40)]
    assert np.mean(r) > 0.9 * np.sqrt(1 / (1 + 0.3**2))
    np.testing.assert_allclose(predicted.mean(), test.betas.mean(), atol=0.1)  # units of the betas come back
    np.testing.assert_array_less(model.voxel_weights()[40:].mean(), 0.1 * model.voxel_weights()[:40].mean())


def test_leave_one_out_errors_equal_those_of_refitting():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((15, 4)).astype(np.float32)
    betas = (latents @ rng.standard_normal((4, 3)) + rng.standard_normal((15, 3))).astype(np.float32)
    held_out = HeldOut(fit_encoding(latents, betas, [2.0]), latents, betas)
    for i in range(15):
        keep = np.arange(15) != i
        x, y = latents[keep], betas[keep]
        w = np.linalg.solve((x - x.mean(0)).T @ (x - x.mean(0)) + 2.0 * np.eye(4), (x - x.mean(0)).T @ (y - y.mean(0)))
        expected = betas[i] - ((latents[i] - x.mean(0)) @ w + y.mean(0))
        np.testing.assert_allclose(held_out.residuals_[i], expected, rtol=1e-4, atol=1e-5)  # float32 predictions


def test_inverting_the_model_equals_the_textbook_formula():
    """The Woodbury short cut against the formula written out with the full noise covariance."""
    rng = np.random.default_rng(1)
    latents = rng.standard_normal((40, 3)).astype(np.float32)
    latents -= latents.mean(0)
    betas = (latents @ rng.standard_normal((3, 12)) + rng.standard_normal((40, 12))).astype(np.float32)
    encoding = fit_encoding(latents, betas, [1.0])
    decoder = invert(betas, latents, encoding, rng=rng, correlations=[0.3], trusts=[0.7], alphas=[1.0])
    held_out = HeldOut(encoding, latents, betas)
    used = reliable_voxels(held_out.r2_)
    w, e = encoding.coef_[:, used].astype(float), held_out.residuals_[:, used].astype(float)
    noise = 0.7 * np.diag((e**2).mean(0)) + 0.3 * e.T @ e / 40
    precision = 0.7 * w @ np.linalg.inv(noise) @ w.T
    expected = np.linalg.solve(precision + np.diag(1 / latents.var(0)), 0.7 * w @ np.linalg.inv(noise)).T
    np.testing.assert_allclose(decoder.weights_[used], expected, rtol=1e-3, atol=1e-5)  # float32 weights
    assert (decoder.weights_[~used] == 0).all()


def test_saving_and_loading_changes_no_bit(tmp_path):
    stimuli, train, test = linear_brain()
    model = Linear(LinearConfig(decoder=InverseConfig())).fit(train, stimuli)
    model.save(tmp_path)
    back = Linear.load(tmp_path)
    np.testing.assert_array_equal(back.decode(test).pixels, model.decode(test).pixels)
    np.testing.assert_array_equal(back.encode(stimuli).betas, model.encode(stimuli).betas)
    assert back.lineage_ == train.member_keys()


def test_a_prediction_does_not_depend_on_the_other_test_rows():
    stimuli, train, test = linear_brain()
    model = Linear().fit(train, stimuli)
    whole = model.decode(test).pixels
    alone = np.concatenate([model.decode(test.take(np.array([i]))).pixels for i in range(len(test))])
    np.testing.assert_allclose(alone, whole, atol=1e-5)  # sums of another length differ in the last bits


def test_repeats_are_averaged_and_weigh_each_picture_once():
    stimuli, train, test = linear_brain()
    twice = np.sort(np.concatenate([np.arange(len(train))] * 2))
    doubled = Trials(train.betas[twice], pd.DataFrame({"stimulus": train.stimuli[twice]}), subject="s")
    a, b = Linear().fit(train, stimuli), Linear().fit(doubled, stimuli)
    # The spread used for standardising counts every trial; nothing else may differ.
    np.testing.assert_allclose(a.decode(test).pixels, b.decode(test).pixels, atol=2e-3)


@pytest.mark.fault(71)
def test_betas_of_another_mask_or_person_are_refused():
    stimuli, train, test = linear_brain()
    model = Linear(LinearConfig(curve=CurveConfig(kind="none"))).fit(train, stimuli)
    with pytest.raises(ModelError, match="has 10 voxels but this model was fitted on 80"):
        model.decode(test.take_voxels(np.arange(10)))
    other = Trials(test.betas, test.table, subject="t")
    with pytest.raises(ModelError, match="subject t but this model was fitted on s"):
        model.decode(other)


def test_a_recipe_of_another_kind_is_not_loaded(tmp_path):
    stimuli, train, _ = linear_brain(n_train=20)
    Linear(LinearConfig(curve=CurveConfig(kind="none"))).fit(train, stimuli).save(tmp_path)
    text = (tmp_path / "recipe.json").read_text()
    (tmp_path / "recipe.json").write_text(text.replace('"kind": "linear"', '"kind": "lea"', 1))
    with pytest.raises(ModelError, match="holds the recipe 'lea', not 'linear'"):
        Linear.load(tmp_path)


def test_decoding_before_fitting_says_so():
    _, _, test = linear_brain()
    with pytest.raises(ModelError, match="not fitted yet"):
        Linear().decode(test)


@pytest.mark.fault(16)
def test_one_voxel_is_enough_to_run():
    stimuli, train, test = linear_brain()
    one = np.array([0])
    model = Linear().fit(train.take_voxels(one), stimuli)
    assert model.decode(test.take_voxels(one)).pixels.shape == (30, SIZE, SIZE, 1)


@pytest.mark.fault(17)
def test_pictures_that_vary_along_one_component_are_enough_to_run():
    rng = np.random.default_rng(0)
    level = rng.integers(0, 256, 30)
    pictures = np.broadcast_to(level[:, None, None, None], (30, 4, 4, 1)).astype(np.uint8)
    ids = [str(i) for i in range(30)]
    betas = (level[:, None] / 50 + rng.standard_normal((30, 5))).astype(np.float32)
    model = Linear().fit(Trials(betas, pd.DataFrame({"stimulus": ids})), Stimuli(ids, pictures))
    assert model.pixels_.components_.shape[0] == 1


def test_a_brain_that_says_nothing_of_the_pictures_is_called_so():
    stimuli, train, _ = linear_brain(n_train=40, n_voxels=4)
    rng = np.random.default_rng(3)
    noise = Trials(rng.standard_normal((40, 4)).astype(np.float32), train.table, subject="s")
    model = Linear(LinearConfig(decoder=RidgeConfig(voxels="all"), curve=CurveConfig(kind="none"))).fit(noise, stimuli)
    assert model.decode(noise).pixels.std(axis=0).max() < 0.1  # close to the mean picture whatever comes in
