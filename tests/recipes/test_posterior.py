import numpy as np
import pandas as pd
import pytest

from phosphene.errors import ConfigError
from phosphene.features.warps import WarpConfig
from phosphene.io.stages import StageStore
from phosphene.metrics.pixel import mse, pixcorr
from phosphene.recipes.linear import Linear, LinearConfig, PixelsConfig
from phosphene.recipes.posterior import ChoiceConfig, Posterior, PosteriorConfig, PriorConfig
from phosphene.types import Stimuli, Trials

SIZE = 14
QUICK = PosteriorConfig(
    prior=PriorConfig(n_pictures=400, n_components=20, warp=WarpConfig()),
    choice=ChoiceConfig(n_folds=3, correlations=(0.1,), trusts=(0.1, 0.5), spreads=(0.0, 0.1)),
)


def bars(n_train=60, n_test=30, n_voxels=60, noise=2.0, seed=0):
    """Pictures of one bright bar each, which no Gaussian describes, and a cortex that is linear in their pixels."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    angle, place = rng.uniform(-0.6, 0.6, n)[:, None, None], rng.uniform(-3, 3, n)[:, None, None]
    across = np.cos(angle) * x + np.sin(angle) * y - place
    pictures = np.rint(255 * np.exp(-(across**2) / 2)).astype(np.uint8)[..., None]
    signal = (pictures.reshape(n, -1) / 255.0) @ rng.standard_normal((SIZE * SIZE, n_voxels))
    signal = (signal - signal.mean(0)) / signal.std(0)
    betas = (signal + noise * rng.standard_normal(signal.shape) + 3).astype(np.float32)
    ids = [f"p{i:03d}" for i in range(n)]
    trials = Trials(betas, pd.DataFrame({"stimulus": ids}), subject="s")
    return Stimuli(ids, pictures), trials.take(np.arange(n_train)), trials.take(np.arange(n_train, n))


def identification(decoded, true):
    a, b = (x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(1, keepdims=True) for x in (decoded, true))
    r = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return (r < np.diag(r)[:, None]).sum(1).mean() / (len(r) - 1)


def test_where_pictures_are_not_gaussian_it_decodes_better_than_the_linear_recipe():
    stimuli, train, test = bars()
    true = stimuli.select(test.stimuli).floats()
    ours = Posterior(QUICK).fit(train, stimuli).decode(test).pixels
    linear = Linear(LinearConfig(pixels=PixelsConfig(n_components=20))).fit(train, stimuli).decode(test).pixels
    assert pixcorr(ours, true).mean() > pixcorr(linear, true).mean() + 0.03
    assert mse(ours, true).mean() < mse(linear, true).mean()
    assert (ours.min() >= 0) and (ours.max() <= 1)


def test_pictures_shuffled_over_the_training_trials_leave_chance():
    scores = []
    for seed in range(3):
        stimuli, train, test = bars(seed=seed)
        wrong = np.random.default_rng(seed).permutation(train.stimuli)
        shuffled = Trials(train.betas, train.table.assign(stimulus=wrong), subject="s")
        decoded = Posterior(QUICK, seed=seed).fit(shuffled, stimuli).decode(test).pixels
        scores.append(identification(decoded, stimuli.select(test.stimuli).floats()))
    # The standard error over seeds is about 0.06; with the right pictures the same scores exceed 0.8.
    assert abs(np.mean(scores) - 0.5) < 0.2


def test_nothing_of_the_test_trials_or_pictures_enters_the_fit():
    stimuli, train, test = bars()
    every = Posterior(QUICK).fit(train, stimuli)
    pictures = stimuli.images[:].copy()
    hidden = np.isin(stimuli.ids.astype(str), test.stimuli.astype(str))
    pictures[hidden] = np.random.default_rng(9).integers(0, 256, pictures[hidden].shape)
    other = Posterior(QUICK).fit(train, Stimuli(list(stimuli.ids), pictures))
    for name in (stage.name for stage in Posterior.stages):
        for a, b in zip(*(getattr(m, f"{name}_").state()[0].values() for m in (every, other)), strict=True):
            np.testing.assert_array_equal(a, b)
    # Each row is decoded by itself: the company it is decoded in, or its order, is nothing to it.
    whole = every.decode(test).pixels
    alone = np.concatenate([every.decode(test.take(np.array([i]))).pixels for i in range(5)])
    np.testing.assert_allclose(alone, whole[:5], atol=1e-4)  # sums of another length in float32


def test_the_inner_folds_choose_without_the_fold_they_score(monkeypatch):
    """What is fitted for an inner fold is bit by bit what the training trials outside that fold give by themselves."""
    stimuli, train, _ = bars(n_train=30)
    seen = []
    fit = Posterior.fit

    def spy(self, trials, *args, **more):
        out = fit(self, trials, *args, **more)
        seen.append((frozenset(trials.stimuli), frozenset(f"{i}" for i in out.prior_.pictures_[: len(trials)].sum(1))))
        return out

    monkeypatch.setattr(Posterior, "fit", spy)
    model = Posterior(QUICK).fit(train, stimuli)
    fold = model.inner_folds(train)
    inner, pictures = zip(*seen[:-1], strict=True)
    assert set(inner) == {frozenset(train.stimuli[fold != k]) for k in np.unique(fold)}
    sums = {s: str(v) for s, v in zip(stimuli.ids, stimuli.images[:].reshape(len(stimuli), -1).sum(1), strict=True)}
    for ids, there in zip(inner, pictures, strict=True):
        assert there == {sums[i] for i in ids}


@pytest.mark.parametrize("score", ["mse", "pixcorr", "ssim", "pixcorr+ssim"])
def test_every_score_chooses_among_what_was_to_be_tried(score):
    stimuli, train, _ = bars(n_train=30)
    config = QUICK.model_copy(update={"choice": QUICK.choice.model_copy(update={"score": score})})
    chosen = Posterior(config).fit(train, stimuli).decoder_.chosen_
    assert chosen["trust"] in QUICK.choice.trusts and chosen["spread"] in QUICK.choice.spreads
    assert chosen["n_tried"] == 4 and np.isfinite(chosen["held_out_score"])


def small(side):
    stimuli, train, test = bars(n_train=30)
    return Stimuli(list(stimuli.ids), stimuli.images[:, :side, :side].copy()), train, test


def test_pictures_too_small_for_ssim_are_chosen_by_correlation_alone():
    stimuli, train, test = small(10)  # as small as those of Miyawaki 2008
    model = Posterior(QUICK).fit(train, stimuli)
    alone = QUICK.model_copy(update={"choice": QUICK.choice.model_copy(update={"score": "pixcorr"})})
    other = Posterior(alone).fit(train, stimuli)
    assert model.decoder_.chosen_ == other.decoder_.chosen_
    assert model.decoder_.chosen_["score"] == "pixcorr"
    np.testing.assert_array_equal(model.decode(test).pixels, other.decode(test).pixels)


def test_choosing_small_pictures_by_ssim_is_refused_before_anything_is_fitted(tmp_path):
    stimuli, train, _ = small(10)
    by_ssim = QUICK.model_copy(update={"choice": QUICK.choice.model_copy(update={"score": "ssim"})})
    with pytest.raises(ConfigError, match=r"score=ssim needs pictures of at least 11 pixels.* are 10 x 10.*pixcorr"):
        Posterior(by_ssim).fit(train, stimuli, StageStore(tmp_path / "stages"))
    assert not (tmp_path / "stages").exists()
    wide = by_ssim.model_copy(update={"prior": by_ssim.prior.model_copy(update={"size": (11, 11)})})
    assert Posterior(wide).fit(train, stimuli).decoder_.chosen_["score"] == "ssim"


def test_saving_and_loading_changes_no_bit(tmp_path):
    stimuli, train, test = bars(n_train=30)
    model = Posterior(QUICK).fit(train, stimuli)
    model.save(tmp_path)
    back = Posterior.load(tmp_path)
    np.testing.assert_array_equal(back.decode(test).pixels, model.decode(test).pixels)
    np.testing.assert_array_equal(back.encode(stimuli).betas, model.encode(stimuli).betas)
    assert back.lineage_ == train.member_keys()
