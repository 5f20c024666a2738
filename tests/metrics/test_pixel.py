"""PixCorr, MSE and SSIM against scipy, scikit-image, torchmetrics and closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr
from skimage.metrics import mean_squared_error, structural_similarity

from phosphene.errors import DataError
from phosphene.metrics import grey, mse, pixcorr, pixcorr_variants, ssim_2d, ssim_columns, ssim_pairs

REFERENCE = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def smooth_pictures(n: int, height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((n, height, width, channels))
    smooth = gaussian_filter(noise, (0, 2, 2, 0))
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


@pytest.fixture(scope="module")
def pairs():
    true = smooth_pictures(6, 40, 33, 3)
    return np.clip(0.5 * true + 0.5 * smooth_pictures(6, 40, 33, 3, seed=1), 0, 1), true


def test_pixcorr_is_scipys_pearson_of_the_flattened_pictures(pairs):
    decoded, true = pairs
    expected = [
        pearsonr(d.ravel().astype(float), t.ravel().astype(float)).statistic for d, t in zip(*pairs, strict=True)
    ]
    np.testing.assert_allclose(pixcorr(decoded, true), expected, rtol=1e-12)


def test_pixcorr_ignores_brightness_and_contrast(pairs):
    decoded, true = pairs
    np.testing.assert_allclose(pixcorr(0.3 * decoded + 0.2, true), pixcorr(decoded, true), atol=1e-6)  # float32 input


@pytest.mark.fault(123)
def test_constant_picture_has_no_correlation_and_no_warning():
    true = smooth_pictures(3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = pixcorr(np.full_like(true, 0.1), true)
    assert np.isnan(r).all()


def test_averages_of_r_differ_as_named():
    true = smooth_pictures(20, 16, 16)
    mean_picture = np.broadcast_to(true.mean(axis=0), true.shape)
    tilted = true + 0  # every picture shares a strong mean picture
    tilted = np.clip(0.2 * tilted + 0.8 * mean_picture, 0, 1)
    found = pixcorr_variants(np.clip(mean_picture, 0, 1), tilted)
    assert found["mean"] > 0.7  # the mean picture looks good picture by picture
    assert found["per_pixel"] == 0  # and explains nothing across pictures
    x = np.array([[0.1, 0.5, 0.9], [0.9, 0.4, 0.3]]).reshape(2, 1, 3, 1)
    y = np.array([[0.2, 0.5, 0.7], [0.1, 0.8, 0.3]]).reshape(2, 1, 3, 1)
    r = [pearsonr(a.ravel(), b.ravel()).statistic for a, b in zip(x, y, strict=True)]
    found = pixcorr_variants(x, y)
    assert found["fisher"] == pytest.approx(np.tanh(np.mean(np.arctanh(r))))
    assert found["pooled"] == pytest.approx(pearsonr(x.ravel(), y.ravel()).statistic)


def test_mse_is_scikit_images(pairs):
    expected = [mean_squared_error(d.astype(float), t.astype(float)) for d, t in zip(*pairs, strict=True)]
    np.testing.assert_allclose(mse(*pairs), expected, rtol=1e-12)


def test_grey_is_scikit_images_luminance(pairs):
    from skimage.color import rgb2gray

    np.testing.assert_allclose(grey(pairs[0]), rgb2gray(pairs[0]), atol=1e-6)


@pytest.mark.parametrize("shape", [(28, 28), (11, 30), (64, 57)])
@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_2d_is_scikit_images(shape, data_range):
    true, decoded = smooth_pictures(3, *shape), smooth_pictures(3, *shape, seed=4)
    kwargs = REFERENCE | {"data_range": data_range}
    expected = [
        structural_similarity(d[..., 0].astype(float), t[..., 0].astype(float), **kwargs)
        for d, t in zip(decoded, true, strict=True)
    ]
    np.testing.assert_allclose(ssim_2d(decoded, true, data_range), expected, atol=1e-12)


def test_ssim_columns_takes_each_image_column_for_a_channel():
    true, decoded = smooth_pictures(3, 30, 41), smooth_pictures(3, 30, 41, seed=4)
    expected = [
        structural_similarity(d[..., 0].astype(float), t[..., 0].astype(float), channel_axis=-1, **REFERENCE)
        for d, t in zip(decoded, true, strict=True)
    ]
    np.testing.assert_allclose(ssim_columns(decoded, true), expected, atol=1e-12)


def test_ssim_agrees_with_torchmetrics_inside_the_picture():
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.image import structural_similarity_index_measure

    true, decoded = smooth_pictures(2, 40, 40), smooth_pictures(2, 40, 40, seed=4)
    _, full = structural_similarity_index_measure(
        torch.from_numpy(decoded[..., 0][:, None].astype(float)), torch.from_numpy(true[..., 0][:, None].astype(float)),
        data_range=1.0, sigma=1.5, kernel_size=11, return_full_image=True,
    )  # fmt: skip
    inside = full[:, 0, 5:-5, 5:-5].mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(ssim_2d(decoded, true), inside, atol=1e-6)  # torchmetrics builds its window in float32


@pytest.mark.parametrize("variant", ["2d", "columns"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (90, 300, 3), (215, 40, 1)])
def test_all_pairs_of_ssim_equal_pair_by_pair(variant, shape):
    decoded, true = smooth_pictures(4, *shape), smooth_pictures(9, *shape, seed=4)
    single = ssim_2d if variant == "2d" else ssim_columns
    expected = np.stack([single(np.repeat(decoded[i : i + 1], 9, axis=0), true) for i in range(4)])
    # (the tall ones are scored in strips, the last one lower)
    # float32: a difference of squares near 1e-7 over the constant 9e-4 that keeps flat regions finite
    np.testing.assert_allclose(ssim_pairs(decoded, true, variant), expected, atol=2e-5)


def test_ssim_of_a_picture_with_itself_is_one():
    pictures = smooth_pictures(3, 20, 20)
    np.testing.assert_allclose(ssim_2d(pictures, pictures), 1, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(ssim_pairs(pictures, pictures)), 1, atol=1e-5)


def test_column_and_2d_ssim_differ_on_blurred_pictures():
    true = smooth_pictures(3, 60, 60)
    blurred = gaussian_filter(true, (0, 6, 6, 0))
    assert np.all(np.abs(ssim_2d(blurred, true) - ssim_columns(blurred, true)) > 0.01)


def test_pictures_too_small_for_the_window_are_refused():
    with pytest.raises(DataError, match="10 x 20"):
        ssim_2d(np.zeros((1, 10, 20, 1)), np.zeros((1, 10, 20, 1)))


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (np.full((2, 4, 4, 1), 255.0), "divide by 255"),
        (np.full((2, 4, 4, 1), -0.5), "clip"),
        (np.zeros((2, 4, 4, 4)), "without transparency"),
        (np.zeros((2, 4, 4, 1), complex), "real numbers"),
    ],
)
def test_pictures_of_another_range_or_shape_are_refused(pictures, words):
    with pytest.raises(DataError, match=words):
        pixcorr(pictures, pictures)


@pytest.mark.parametrize("metric", [pixcorr, mse, ssim_2d, ssim_columns])
def test_metrics_take_tensors_bytes_and_channels_in_front(metric):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    decoded, true = rng.integers(0, 256, (2, 4, 16, 20, 3), dtype=np.uint8)
    expected = metric(decoded / 255.0, true / 255.0)
    tensors = [torch.from_numpy(x).permute(0, 3, 1, 2) for x in (decoded, true)]
    floats = [(x / 255).requires_grad_() for x in tensors]
    for ours, theirs in ((decoded, true), tensors, floats, (decoded, floats[1])):
        np.testing.assert_allclose(metric(ours, theirs), expected, rtol=1e-4, atol=1e-6)


def test_pictures_of_two_sizes_are_refused_with_both_sizes():
    with pytest.raises(DataError, match=r"\(2, 4, 4, 1\).*\(2, 5, 4, 1\)"):
        mse(np.zeros((2, 4, 4, 1)), np.zeros((2, 5, 4, 1)))
