"""What each network of the zoo is worth, on scenes it was not trained on, and a grid of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score
from torch import Tensor

from phosphene.lab.scene_prompts import place_texts, thing_texts
from phosphene.lab.zoo import from_network, to_network

if TYPE_CHECKING:
    from phosphene.lab.zoo.classifier import SceneClassifier
    from phosphene.lab.zoo.material import Scenes

__all__ = [
    "Scores",
    "block_slices",
    "classifier",
    "clip",
    "embed_images",
    "embed_texts",
    "kl",
    "mae",
    "picture_grid",
    "picture_scores",
    "prompts",
    "vq",
]

Scores = dict[str, float]
"""What a card says a network is worth: words to a number."""

_BLOCK = 250


def block_slices(scenes: Scenes) -> Iterator[slice]:
    """Slices of scenes that go through a network at once."""
    for start in range(0, len(scenes), _BLOCK):
        yield slice(start, min(len(scenes), start + _BLOCK))


def picture_scores(truth: np.ndarray, decoded: np.ndarray) -> Scores:
    """PSNR (dB, mean over pictures) and SSIM (windows of 7 px, mean over channels) of pictures.

    Parameters
    ----------
    truth, decoded : ndarray of shape (n, h, w, 3), float
        0-1.

    Returns
    -------
    dict of {str: float}
        ``psnr`` and ``ssim``, this one of the first 500.
    """
    error = ((truth - decoded) ** 2).mean((1, 2, 3))  # (n,)
    psnr = -10 * np.log10(np.maximum(error, 1e-12))
    ssim = [_ssim(a, b) for a, b in zip(truth[:500], decoded[:500], strict=True)]
    return {"psnr": float(psnr.mean()), "ssim": float(np.mean(ssim))}


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity with a uniform window of 7 px and sample covariances (Wang et al. 2004)."""
    a = a.astype(np.float64)
    b = b.astype(np.float64)
    n = 49  # pixels of a window

    def mean(x: np.ndarray) -> np.ndarray:
        # Windows that reach beyond the edge are left out.
        return uniform_filter(x, size=(7, 7, 1))[3:-3, 3:-3]  # pyright: ignore[reportArgumentType]  scipy takes one per axis

    mean_a = mean(a)
    mean_b = mean(b)
    unbiased = n / (n - 1)
    var_a = unbiased * (mean(a * a) - mean_a * mean_a)
    var_b = unbiased * (mean(b * b) - mean_b * mean_b)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)

    c1 = 0.01**2  # (K1 L)^2 and (K2 L)^2 of the paper, for pictures 0-1
    c2 = 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )

    return float(similarity.mean())


def picture_grid(*rows: np.ndarray, columns: int = 16, zoom: int = 3) -> np.ndarray:
    """Pictures in bands: one line of each row of `rows` under the other.

    Parameters
    ----------
    *rows : ndarray of shape (n, h, w, 3), float
        0-1; what is to be compared stands in one column.
    columns : int, default 16
        Pictures in a line; there are three bands.
    zoom : int, default 3
        Pixels for a pixel.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
    """
    bands = []
    for start in range(0, 3 * columns, columns):
        for row in rows:
            bands.append(np.concatenate(list(row[start : start + columns]), axis=1))
    picture = (np.concatenate(bands) * 255).round().astype(np.uint8)
    return picture.repeat(zoom, 0).repeat(zoom, 1)


@torch.no_grad()
def _reconstructed(scenes: Scenes, through: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Scenes, and what comes of them through a network, (n, 32, 32, 3) 0-1 each."""
    decoded = []
    for rows in block_slices(scenes):
        decoded.append(from_network(through(to_network(scenes.pixels[rows]))))
    return np.asarray(scenes.pixels, dtype=np.float32) / 255, np.concatenate(decoded)


def _latents(scenes: Scenes, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """What an encoder makes of all scenes."""
    return torch.cat([encode(to_network(scenes.pixels[rows])) for rows in block_slices(scenes)])


@torch.no_grad()
def vq(network: Any, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score reconstruction, codes used, and their perplexity.

    Parameters
    ----------
    network : VQModel
        Of diffusers, trained.
    scenes : Scenes
        It was not trained on.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes and reconstructions.
    more : dict
        ``scaling_factor``, which brings latents to variance 1.
    """
    truth, decoded = _reconstructed(scenes, lambda x: network(x).sample)
    latents = _latents(scenes, lambda x: network.encode(x).latents)
    _, _, (_, _, codes) = network.quantize(latents)

    codes = codes.flatten()
    share = np.bincount(codes.numpy(), minlength=network.config.num_vq_embeddings) / len(codes)
    used = share[share > 0]
    scores = {
        **picture_scores(truth, decoded),
        "codes used": float(len(used)),
        "perplexity of codes": float(np.exp(-(used * np.log(used)).sum())),
    }

    return scores, picture_grid(truth, decoded), {"scaling_factor": 1 / float(latents.std())}


@torch.no_grad()
def kl(network: Any, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score reconstruction from the mean latent.

    Parameters
    ----------
    network : AutoencoderKL
        Of diffusers, trained.
    scenes : Scenes
        It was not trained on.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes and reconstructions.
    more : dict
        ``scaling_factor``, which brings latents to variance 1.
    """

    def mean_latents(x: Tensor) -> Tensor:
        return network.encode(x).latent_dist.mean

    truth, decoded = _reconstructed(scenes, lambda x: network.decode(mean_latents(x)).sample)
    latents = _latents(scenes, mean_latents)
    scores = {**picture_scores(truth, decoded), "standard deviation of latents": float(latents.std())}

    return scores, picture_grid(truth, decoded), {"scaling_factor": 1 / float(latents.std())}


@torch.no_grad()
def mae(network: Any, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score hidden patches (75 %) beside filling in the mean colour of the visible ones, and linear probes.

    Parameters
    ----------
    network : ViTMAEForPreTraining
        Of transformers, trained.
    scenes : Scenes
        It was not trained on.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        Scenes, what is visible of them, and the same filled in.
    more : dict
        Empty.
    """
    generator = torch.Generator().manual_seed(0)
    errors = []
    errors_of_mean = []
    visible = []
    filled = []
    size = network.config.patch_size
    n_patches = network.vit.embeddings.patch_embeddings.num_patches

    for rows in block_slices(scenes):
        x = to_network(scenes.pixels[rows])
        output = network(x, noise=torch.rand(len(x), n_patches, generator=generator))
        hidden = network.unpatchify(
            output.mask[..., None].expand(-1, -1, size**2 * 3)
        )  # (n, 3, 32, 32), 1 where hidden
        y = network.unpatchify(output.logits)

        mean = (x * (1 - hidden)).sum((2, 3), keepdim=True) / (1 - hidden).sum((2, 3), keepdim=True)  # (n, 3, 1, 1)
        weight = hidden.sum((1, 2, 3)) * 4  # pictures of -1..1 to 0..1: squared errors shrink by 4
        errors.append((hidden * (y - x) ** 2).sum((1, 2, 3)) / weight)
        errors_of_mean.append((hidden * (mean - x) ** 2).sum((1, 2, 3)) / weight)

        visible.append(from_network(x * (1 - hidden)))
        filled.append(from_network(x * (1 - hidden) + y * hidden))

    truth = np.asarray(scenes.pixels, dtype=np.float32) / 255
    scores = {
        "psnr of hidden patches": _decibel(errors),
        "psnr of filling in the mean colour": _decibel(errors_of_mean),
    }
    scores |= _probe(network, scenes)

    return scores, picture_grid(truth, np.concatenate(visible), np.concatenate(filled)), {}


def _decibel(errors: list[Tensor]) -> float:
    """Mean PSNR of squared errors of pictures 0-1."""
    return float((-10 * torch.log10(torch.cat(errors))).mean())


def _probe(network: Any, scenes: Scenes) -> Scores:
    """Ridge from mean-pooled tokens of whole pictures to category and place, fitted on one half, scored on the other."""
    # Nothing is hidden from the probe. The embeddings hold a copy of the configuration.
    ratio = network.config.mask_ratio
    network.config.mask_ratio = 0.0
    network.vit.embeddings.config.mask_ratio = 0.0
    z = _latents(scenes, lambda x: network.vit(x).last_hidden_state[:, 1:].mean(1))  # (n, width)
    network.config.mask_ratio = ratio
    network.vit.embeddings.config.mask_ratio = ratio

    z = ((z - z.mean(0)) / z.std(0)).double()
    half = len(z) // 2
    train = z[:half]
    gram = train.T @ train + 10 * torch.eye(train.shape[1]).double()  # (width, width)
    scores = {}
    for name, target, n_classes in (
        ("category", scenes.category, len(scenes.categories)),
        ("place", scenes.place, len(scenes.places)),
    ):
        y = torch.nn.functional.one_hot(torch.from_numpy(target[:half]), n_classes).double()
        weights = torch.linalg.solve(gram, train.T @ (y - y.mean(0)))  # (width, n_classes)
        predicted = (z[half:] @ weights + y.mean(0)).argmax(1).numpy()
        scores[f"linear probe, {name}"] = float((predicted == target[half:]).mean())
        scores[f"chance, {name}"] = 1 / n_classes

    return scores


@torch.no_grad()
def classifier(network: SceneClassifier, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score accuracy of category and place, and mean area under the curve of the labels.

    Parameters
    ----------
    network : SceneClassifier
        Trained.
    scenes : Scenes
        It was not trained on.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        A line for each category, of the scenes the network is surest of.
    more : dict
        Empty.
    """
    blocks = []
    for rows in block_slices(scenes):
        blocks.append(network(to_network(scenes.pixels[rows])))

    logits = {}
    for head in blocks[0]:
        logits[head] = torch.cat([block[head] for block in blocks]).numpy()  # (n, n_outputs)

    top = np.argsort(-logits["category"], axis=1)[:, :3]  # (n, 3)
    # One area for each label; scikit-learn's types know only the names of averages.
    areas = np.asarray(roc_auc_score(scenes.labels, logits["labels"], average=None))  # pyright: ignore[reportArgumentType]
    scores = {
        "category accuracy": float((top[:, 0] == scenes.category).mean()),
        "category in the top 3": float((top == scenes.category[:, None]).any(1).mean()),
        "chance, category": 1 / len(scenes.categories),
        "place accuracy": float((logits["place"].argmax(1) == scenes.place).mean()),
        "chance, place": 1 / len(scenes.places),
        "mean AUC of labels": float(roc_auc_score(scenes.labels, logits["labels"], average="macro")),
        "lowest AUC of a label": float(areas.min()),
    }

    lines = []
    for column in range(len(scenes.categories)):
        surest = np.argsort(-logits["category"][:, column])[:16]
        lines.append(np.concatenate(list(np.asarray(scenes.pixels[surest]) / 255), axis=1))
    grid = (np.concatenate(lines) * 255).round().astype(np.uint8)
    return scores, grid.repeat(3, 0).repeat(3, 1), {}


def prompts(scenes: Scenes) -> dict[str, dict[str, list[str]]]:
    """Texts that stand for each category and each place in zero-shot classification."""
    return {"category": thing_texts(scenes.categories), "place": place_texts(scenes.places)}


def clip(network: Any, scenes: Scenes, tokenizer: Any) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Score zero-shot category and place, and retrieval among 100 by each scene's fullest caption.

    Parameters
    ----------
    network : CLIPModel
        Of transformers, trained.
    scenes : Scenes
        It was not trained on.
    tokenizer : CLIPTokenizer
        Of the network.

    Returns
    -------
    scores : dict of {str: float}
        For the card.
    grid : ndarray of shape (height, width, 3), uint8
        A line for each of twelve captions, of the pictures that fit it best.
    more : dict
        The prompts, and these captions.
    """
    images = embed_images(network, scenes.pixels)  # (n, d)
    scores: Scores = {}
    for what, target in (("category", scenes.category), ("place", scenes.place)):
        texts_by_name = prompts(scenes)[what]
        means_of_texts = []
        for texts in texts_by_name.values():
            means_of_texts.append(embed_texts(network, tokenizer, texts).mean(0))

        means = np.stack(means_of_texts)
        means /= np.linalg.norm(means, axis=1, keepdims=True)  # (n_names, d)
        scores[f"zero-shot {what}"] = float(((images @ means.T).argmax(1) == target).mean())
        scores[f"chance, {what}"] = 1 / len(means)

    every_caption = []
    for captions in scenes.captions:
        every_caption += captions
    embedded = embed_texts(network, tokenizer, every_caption).reshape(len(images), -1, images.shape[1])  # (n, 5, d)
    fit = np.einsum("id,ikd->ik", images, embedded)  # (n, 5)
    best_is_good = np.take_along_axis(scenes.good, fit.argmax(1)[:, None], 1)
    scores["best-fitting caption is a good one"] = float(best_is_good.mean())
    scores["chance, good caption"] = float(scenes.good.mean())

    fullest = []
    for captions, good in zip(scenes.captions, scenes.good, strict=True):
        candidates = [caption for caption, is_good in zip(captions, good, strict=True) if is_good]
        fullest.append(max(candidates, key=len))
    texts = embed_texts(network, tokenizer, fullest)  # (n, d)
    n = len(images) // 100 * 100
    image_blocks = images[:n].reshape(-1, 100, images.shape[1])
    text_blocks = texts[:n].reshape(-1, 100, images.shape[1])
    similarity = np.einsum("bid,bjd->bij", image_blocks, text_blocks)  # (n_blocks, 100, 100)

    for direction, block in (("text of picture", similarity), ("picture of text", similarity.transpose(0, 2, 1))):
        own = np.diagonal(block, axis1=1, axis2=2)[..., None]
        better = (block > own).sum(2)
        scores[f"retrieval of the {direction}, top 1 of 100"] = float((better == 0).mean())
        scores[f"retrieval of the {direction}, top 5 of 100"] = float((better < 5).mean())

    scores["chance, top 1"] = 0.01
    scores["chance, top 5"] = 0.05

    # Twelve texts, and of the other pictures those that fit each best.
    asked = fullest[-12:]
    others = len(images) - 12
    best = np.argsort(-texts[-12:] @ images[:others].T, axis=1)[:, :16]
    lines = []
    for row in best:
        lines.append(np.concatenate(list(scenes.pixels[row]), axis=1))

    grid = np.concatenate(lines)
    more = {"prompts": prompts(scenes), "texts of the picture, line by line": asked}

    return scores, grid.repeat(3, 0).repeat(3, 1), more


@torch.no_grad()
def embed_images(network: Any, pixels: np.ndarray) -> np.ndarray:
    """CLIP latents of pictures.

    Parameters
    ----------
    network : CLIPModel
        Of transformers.
    pixels : ndarray of shape (n, 32, 32, 3), uint8
        RGB, 0-255.

    Returns
    -------
    ndarray of shape (n, d), float32
        Of unit length.
    """
    blocks = []
    for start in range(0, len(pixels), 500):
        blocks.append(network.get_image_features(to_network(pixels[start : start + 500])).pooler_output)
    return torch.nn.functional.normalize(torch.cat(blocks), dim=-1).numpy()


@torch.no_grad()
def embed_texts(network: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """CLIP latents of texts.

    Parameters
    ----------
    network : CLIPModel
        Of transformers.
    tokenizer : CLIPTokenizer
        Of the network.
    texts : list of str
        n texts.

    Returns
    -------
    ndarray of shape (n, d), float32
        Of unit length.
    """
    blocks = []
    for start in range(0, len(texts), 500):
        tokens = tokenizer(texts[start : start + 500], padding=True, truncation=True, return_tensors="pt")
        blocks.append(network.get_text_features(**tokens).pooler_output)
    return torch.nn.functional.normalize(torch.cat(blocks), dim=-1).numpy()
