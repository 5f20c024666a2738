"""Feature extractors for photographs: the public networks by which decoded natural pictures are scored in the literature.

Each is there when its weights are; see ``phosphene.models.backbones`` for where they are looked for. What each
is good for is part of it: published scores use AlexNet, Inception and CLIP for two-way identification, EfficientNet-B1 and
SwAV for a distance, and the 64 features of FID's network for FID.

>>> [x.name for x in feature_extractors_for("nsd")]                                       # doctest: +SKIP
['alexnet2', 'alexnet5', 'inception', 'clip_vit_l14', 'efficientnet_b1', 'swav']

References
----------
Ozcelik and VanRullen 2023 (the set of eight scores); Qian et al. 2024 (FID).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phosphene.metrics.pixel import as_pictures
from phosphene.metrics.resize import eight_bits, resized
from phosphene.models.backbones import PUBLIC, PublicFile, load_backbone, weights_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

_SIDE = 224  # pixels, for every network, whatever it was trained with: so are the published scores
_BATCH = 32
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pictures, per channel of 0-1."""
_LITE = (127 / 255,) * 3, (128 / 255,) * 3
_IDENTIFICATION = ("two_way", "two_way_within_class")
_CLIP = "clip-vit-large-patch14"


def normalised(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Pictures as a network takes them, (x / 255 - mean) / std.

    Parameters
    ----------
    pixels : ndarray of shape (n, height, width, 3), uint8
        0 to 255
    mean, std : tuple of float
        of each channel, on the scale of 0 to 1

    Returns
    -------
    Tensor of shape (n, 3, height, width)
        float32
    """
    import torch

    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (n, 3, height, width)
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


class _PublicExtractor:
    """A ``phosphene.metrics.perceptual.FeatureExtractor`` that takes 8-bit pictures in small batches.

    Parameters
    ----------
    name : str
        for names of metrics
    metrics : tuple of str
        heads of the names of metrics that its features serve
    folder : str or Path, optional
        of public weights; by default the one that PHOSPHENE_WEIGHTS names
    """

    classes: tuple[str, ...] = ()

    def __init__(self, name: str, metrics: tuple[str, ...], folder: str | Path | None = None) -> None:
        self.name = name
        self.metrics = metrics
        self.folder = folder

    @property
    def is_here(self) -> bool:
        """Whether its weights are on this machine."""
        raise NotImplementedError

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """One row per picture. Float32 in one piece: 982 pictures through AlexNet's second layer take 0.55 GB."""
        return self._batches(self._compute, pixels)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """None: it is only asked for features."""
        return np.empty((len(pixels), 0), dtype=np.float32)

    def _compute(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8 to (n, d) float32."""
        raise NotImplementedError

    def _batches(self, see: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
        pixels = as_pictures(pixels)
        grey = np.full((1, *pixels.shape[1:3], 3), 128, dtype=np.uint8)  # says how many numbers there are
        out = np.full((len(pixels), see(grey).shape[1]), np.nan, dtype=np.float32)
        for start in range(0, len(pixels), _BATCH):
            batch = np.asarray(pixels[start : start + _BATCH])
            finite = np.flatnonzero(np.isfinite(batch).all(axis=(1, 2, 3)))
            if len(finite):
                out[start + finite] = see(eight_bits(batch[finite]))

        return out


class NetworkExtractor(_PublicExtractor):
    """Features of one of ``phosphene.models.backbones``.

    Parameters
    ----------
    name : str
        see the base
    metrics : tuple of str
        see the base
    folder : str or Path, optional
        see the base
    build : callable
        makes the network, importing it
    scale : tuple of (tuple of float, tuple of float) or None, optional
        mean and standard deviation the network expects, per channel of 0-1; None shows the pictures as they are, with
        values 0-255, at their own size
    weights : PublicFile, optional
        its file; by default the one of ``PUBLIC`` under ``name``
    """

    def __init__(
        self,
        name: str,
        metrics: tuple[str, ...],
        build: Callable[[], nn.Module],
        scale: tuple[tuple[float, ...], tuple[float, ...]] | None = IMAGENET,
        *,
        weights: PublicFile | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(name, metrics, folder)
        self.build = build
        self.scale = scale
        self.weights = weights or PUBLIC[name]

    @property
    def is_here(self) -> bool:
        """Whether the file of weights is on this machine."""
        return self.weights.find(self.folder) is not None

    def _compute(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(self._network, pixels)

    def _run(self, network: Callable[[Tensor], Tensor], pixels: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            if self.scale is None:
                return network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
            return network(normalised(resized(pixels, _SIDE), *self.scale)).numpy()

    @cached_property
    def _network(self) -> Any:
        return load_backbone(self.build, self.weights, self.folder)


class ClassifierExtractor(NetworkExtractor):
    """The same with the 1000 classes of ImageNet, named by their number in the usual order."""

    classes = tuple(f"imagenet {i}" for i in range(1000))

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities of the classes, (n, 1000) float32."""
        return self._batches(lambda x: self._run(self._network.probabilities, x), pixels)


class ClipExtractor(_PublicExtractor):
    """OpenAI's CLIP ViT-L/14, its projected vector as it is: 768 numbers.

    Looked for as a folder ``clip-vit-large-patch14`` (config.json, model.safetensors) among the public weights.
    """

    @property
    def is_here(self) -> bool:
        """Whether the checkpoint is on this machine."""
        folder = weights_folder(self.folder)
        return folder is not None and (folder / _CLIP / "config.json").is_file()

    def _compute(self, pixels: np.ndarray) -> np.ndarray:
        # At this size nothing is left to resize there: bilinear here, as published, instead of CLIP's own bicubic.
        return self._clip.images(resized(pixels, _SIDE))

    @cached_property
    def _clip(self):
        from phosphene.errors import NotAvailable
        from phosphene.features.clip import ClipFeatures

        folder = weights_folder(self.folder)
        if folder is None or not self.is_here:
            raise NotAvailable(
                f"there is no folder {_CLIP} with config.json and model.safetensors among the public weights. Copy it from "
                "the hub (openai/clip-vit-large-patch14) into the folder that PHOSPHENE_WEIGHTS names."
            )

        return ClipFeatures(folder / _CLIP, normalise="none", batch=_BATCH)


def _alexnet(last: int) -> nn.Module:
    from phosphene.models.alexnet import AlexNet

    return AlexNet(last)


def _swav() -> nn.Module:
    from phosphene.models.resnet import ResNet50

    return ResNet50(has_classes=False)


def _backbone(name: str) -> nn.Module:
    from phosphene.models import backbones

    return getattr(backbones, name)()


_ALEXNET = partial(NetworkExtractor, metrics=_IDENTIFICATION, weights=PUBLIC["alexnet"])
PUBLIC_EXTRACTORS: Mapping[str, Callable[..., _PublicExtractor]] = {
    "alexnet2": partial(_ALEXNET, "alexnet2", build=partial(_alexnet, 4)),
    "alexnet5": partial(_ALEXNET, "alexnet5", build=partial(_alexnet, 11)),
    "inception": partial(NetworkExtractor, "inception", _IDENTIFICATION, partial(_backbone, "InceptionV3")),
    "clip_vit_l14": partial(ClipExtractor, "clip_vit_l14", _IDENTIFICATION),
    "efficientnet_b1": partial(
        NetworkExtractor, "efficientnet_b1", ("distance",), partial(_backbone, "EfficientNetB1")
    ),
    "swav": partial(NetworkExtractor, "swav", ("distance",), _swav),
    "inception64": partial(NetworkExtractor, "inception64", ("fid", "kid"), partial(_backbone, "FidInception"), None),
    "imagenet_lite0": partial(
        ClassifierExtractor,
        "imagenet_lite0",
        ("two_way", "cosine", "kid"),
        partial(_backbone, "EfficientNetLite0"),
        _LITE,
    ),
}
"""Name of an extractor to what makes it; takes ``folder=``."""
