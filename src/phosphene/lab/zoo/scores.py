"""What each network of the zoo is worth, on scenes it was not trained on, and a grid of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from phosphene.lab.prompts import place_texts, thing_texts
from phosphene.lab.zoo import from_network, to_network
from phosphene.lab.zoo.material import Scenes

Scores = dict[str, float]
_BLOCK = 250


def block_slices(scenes: Scenes) -> Any:
    """Slices of scenes that go through a network at once."""
    for start in range(0, len(scenes), _BLOCK):
        yield slice(start, min(len(scenes), start + _BLOCK))


def pictures(truth: np.ndarray, decoded: np.ndarray) -> Scores:
    """PSNR (dB, mean over pictures) and SSIM (windows of 7 px, mean over channels) of pictures, 0-1."""
    error = ((truth - decoded) ** 2).mean((1, 2, 3))
    return {
        "psnr": float((-10 * np.log10(np.maximum(error, 1e-12))).mean()),
        "ssim": float(np.mean([_ssim(a, b) for a, b in zip(truth[:500], decoded[:500], strict=True)])),
    }


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity with a uniform window of 7 px and sample covariances (Wang et al. 2004)."""
    from scipy.ndimage import uniform_filter

    a = a.astype(np.float64)
    b = b.astype(np.float64)
    n = 49

    def mean(x: np.ndarray) -> np.ndarray:
        return uniform_filter(x, (7, 7, 1))[3:-3, 3:-3]

    ma = mean(a)
    mb = mean(b)
    va, vb, both = (
        n / (n - 1) * (mean(x * y) - mx * my) for x, y, mx, my in ((a, a, ma, ma), (b, b, mb, mb), (a, b, ma, mb))
    )

    c1 = 0.01**2
    c2 = 0.03**2

    return float((((2 * ma * mb + c1) * (2 * both + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def picture_grid(*rows: np.ndarray, columns: int = 16, zoom: int = 3) -> np.ndarray:
    """Pictures (n, h, w, 3), 0-1, in bands: one line of each row of `rows` under the other. uint8."""
    bands = []
    for start in range(0, 3 * columns, columns):
        for row in rows:
            bands.append(np.concatenate(list(row[start : start + columns]), axis=1))

    picture = (np.concatenate(bands) * 255).round().astype(np.uint8)
    return picture.repeat(zoom, 0).repeat(zoom, 1)


@torch.no_grad()
def _reconstructed(scenes: Scenes, through: Callable[[torch.Tensor], torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    decoded = np.concatenate([from_network(through(to_network(scenes.pixels[s]))) for s in block_slices(scenes)])
    return np.asarray(scenes.pixels, dtype=np.float32) / 255, decoded


@torch.no_grad()
def vq(network: nn.Module, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Reconstruction, codes used, and their perplexity."""
    truth, decoded = _reconstructed(scenes, lambda x: network(x).sample)
    latents = torch.cat([network.encode(to_network(scenes.pixels[s])).latents for s in block_slices(scenes)])
    codes = network.quantize(latents)[2][2].flatten()
    share = np.bincount(codes.numpy(), minlength=network.config.num_vq_embeddings) / len(codes)
    used = share[share > 0]
    scores = {
        **pictures(truth, decoded),
        "codes used": float(len(used)),
        "perplexity of codes": float(np.exp(-(used * np.log(used)).sum())),
    }

    return scores, picture_grid(truth, decoded), {"scaling_factor": 1 / float(latents.std())}


@torch.no_grad()
def kl(network: nn.Module, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Reconstruction from the mean latent."""
    truth, decoded = _reconstructed(scenes, lambda x: network.decode(network.encode(x).latent_dist.mean).sample)
    latents = torch.cat([network.encode(to_network(scenes.pixels[s])).latent_dist.mean for s in block_slices(scenes)])
    scores = {**pictures(truth, decoded), "standard deviation of latents": float(latents.std())}
    return scores, picture_grid(truth, decoded), {"scaling_factor": 1 / float(latents.std())}


@torch.no_grad()
def mae(network: nn.Module, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Hidden patches (75 %) against the truth, beside filling in the mean colour of the visible ones; linear probes."""
    generator = torch.Generator().manual_seed(0)
    error = []
    plain = []
    shown = []
    filled = []
    size = network.config.patch_size
    n_patches = network.vit.embeddings.patch_embeddings.num_patches

    for s in block_slices(scenes):
        x = to_network(scenes.pixels[s])
        out = network(x, noise=torch.rand(len(x), n_patches, generator=generator))
        hidden = network.unpatchify(out.mask[..., None].expand(-1, -1, size**2 * 3))
        y = network.unpatchify(out.logits)
        mean = (x * (1 - hidden)).sum((2, 3), keepdim=True) / (1 - hidden).sum((2, 3), keepdim=True)
        weight = hidden.sum((1, 2, 3)) * 4  # pictures of -1..1 to 0..1: squared errors shrink by 4
        error.append((hidden * (y - x) ** 2).sum((1, 2, 3)) / weight)
        plain.append((hidden * (mean - x) ** 2).sum((1, 2, 3)) / weight)
        shown.append(from_network(x * (1 - hidden)))
        filled.append(from_network(x * (1 - hidden) + y * hidden))

    decibel = [float((-10 * torch.log10(torch.cat(e))).mean()) for e in (error, plain)]
    truth = np.asarray(scenes.pixels, dtype=np.float32) / 255
    scores = {"psnr of hidden patches": decibel[0], "psnr of filling in the mean colour": decibel[1]}
    scores |= _probe(network, scenes)

    return scores, picture_grid(truth, np.concatenate(shown), np.concatenate(filled)), {}


def _probe(network: nn.Module, scenes: Scenes) -> Scores:
    """Ridge from mean-pooled tokens of whole pictures to category and place, fitted on one half, scored on the other."""
    ratio = network.config.mask_ratio
    network.config.mask_ratio = 0.0
    network.vit.embeddings.config.mask_ratio = 0.0
    z = torch.cat(
        [network.vit(to_network(scenes.pixels[s])).last_hidden_state[:, 1:].mean(1) for s in block_slices(scenes)]
    )

    network.config.mask_ratio = network.vit.embeddings.config.mask_ratio = ratio
    z = ((z - z.mean(0)) / z.std(0)).double()
    half = len(z) // 2
    out = {}

    for name, target, n in (
        ("category", scenes.category, len(scenes.categories)),
        ("place", scenes.place, len(scenes.places)),
    ):
        a = z[:half]
        y = torch.nn.functional.one_hot(torch.from_numpy(target[:half]), n).double()
        w = torch.linalg.solve(a.T @ a + 10 * torch.eye(a.shape[1]).double(), a.T @ (y - y.mean(0)))
        hit = ((z[half:] @ w + y.mean(0)).argmax(1).numpy() == target[half:]).mean()
        out[f"linear probe, {name}"] = float(hit)
        out[f"chance, {name}"] = 1 / n

    return out


@torch.no_grad()
def classifier(network: nn.Module, scenes: Scenes) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Accuracy of category and place, mean area under the curve of the labels."""
    from sklearn.metrics import roc_auc_score

    blocks = [network(to_network(scenes.pixels[s])) for s in block_slices(scenes)]
    out = {k: torch.cat([b[k] for b in blocks]).numpy() for k in blocks[0]}
    top = np.argsort(-out["category"], axis=1)[:, :3]
    scores = {
        "category accuracy": float((top[:, 0] == scenes.category).mean()),
        "category in the top 3": float((top == scenes.category[:, None]).any(1).mean()),
        "chance, category": 1 / len(scenes.categories),
        "place accuracy": float((out["place"].argmax(1) == scenes.place).mean()),
        "chance, place": 1 / len(scenes.places),
        "mean AUC of labels": float(roc_auc_score(scenes.labels, out["labels"], average="macro")),
        "lowest AUC of a label": float(min(roc_auc_score(scenes.labels, out["labels"], average=None))),
    }

    # One line a category, for the first three: what the network is surest of.
    sure = [
        np.asarray(scenes.pixels[np.argsort(-out["category"][:, c])[:16]]) / 255 for c in range(len(scenes.categories))
    ]

    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in sure])
    return scores, (grid * 255).round().astype(np.uint8).repeat(3, 0).repeat(3, 1), {}


def prompts(scenes: Scenes) -> dict[str, dict[str, list[str]]]:
    """Texts that stand for each category and each place in zero-shot classification."""
    return {"category": thing_texts(scenes.categories), "place": place_texts(scenes.places)}


def clip(network: nn.Module, scenes: Scenes, tokenizer: Any) -> tuple[Scores, np.ndarray, dict[str, Any]]:
    """Zero-shot category and place from text templates; retrieval among 100, by each scene's fullest caption."""
    images = embed_images(network, scenes.pixels)
    scores: Scores = {}

    for what, target in (("category", scenes.category), ("place", scenes.place)):
        texts_by_name = prompts(scenes)[what]
        means = np.stack([embed_texts(network, tokenizer, texts).mean(0) for texts in texts_by_name.values()])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        scores[f"zero-shot {what}"] = float(((images @ means.T).argmax(1) == target).mean())
        scores[f"chance, {what}"] = 1 / len(means)

    flat = embed_texts(network, tokenizer, [c for captions in scenes.captions for c in captions])
    fit = np.einsum("id,ikd->ik", images, flat.reshape(len(images), -1, images.shape[1]))
    scores["best-fitting caption is a good one"] = float(
        np.take_along_axis(scenes.good, fit.argmax(1)[:, None], 1).mean()
    )

    scores["chance, good caption"] = float(scenes.good.mean())
    full = [
        max((c for c, g in zip(cs, good, strict=True) if g), key=len)
        for cs, good in zip(scenes.captions, scenes.good, strict=True)
    ]

    texts = embed_texts(network, tokenizer, full)
    n = len(images) // 100 * 100
    blocks = np.einsum(
        "bid,bjd->bij", images[:n].reshape(-1, 100, images.shape[1]), texts[:n].reshape(-1, 100, images.shape[1])
    )

    for direction, b in (("text of picture", blocks), ("picture of text", blocks.transpose(0, 2, 1))):
        own = np.diagonal(b, axis1=1, axis2=2)[..., None]
        better = (b > own).sum(2)
        scores[f"retrieval of the {direction}, top 1 of 100"] = float((better == 0).mean())
        scores[f"retrieval of the {direction}, top 5 of 100"] = float((better < 5).mean())

    scores["chance, top 1"] = 0.01
    scores["chance, top 5"] = 0.05

    # Twelve texts, and of the other pictures those that fit each best.
    asked = full[-12:]
    rest = len(images) - 12
    best = np.argsort(-texts[-12:] @ images[:rest].T, axis=1)[:, :16]
    grid = np.concatenate([np.concatenate(list(scenes.pixels[row]), axis=1) for row in best])
    found = {"prompts": prompts(scenes), "texts of the picture, line by line": asked}

    return scores, grid.repeat(3, 0).repeat(3, 1), found


@torch.no_grad()
def embed_images(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """(n, d) float32 of unit length."""
    blocks = [
        network.get_image_features(to_network(pixels[i : i + 500])).pooler_output for i in range(0, len(pixels), 500)
    ]

    return torch.nn.functional.normalize(torch.cat(blocks), dim=-1).numpy()


@torch.no_grad()
def embed_texts(network: nn.Module, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """(n, d) float32 of unit length."""
    out = []
    for start in range(0, len(texts), 500):
        tokens = tokenizer(texts[start : start + 500], padding=True, truncation=True, return_tensors="pt")
        out.append(network.get_text_features(**tokens).pooler_output)

    return torch.nn.functional.normalize(torch.cat(out), dim=-1).numpy()
