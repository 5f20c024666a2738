"""The networks that published scores look through, in plain PyTorch, key for key as their public weights.

network                    features                       weights
AlexNet                    ``features[4]``, ``[11]``      ImageNet
InceptionV3                average pool, 2048             ImageNet, layout of torchvision
EfficientNetB1             average pool, 1280             ImageNet, first version
ResNet50                   average pool, 2048             SwAV, CC BY-NC 4.0
FidInception               first max-pool, 64             those of FID
EfficientNetLite0          average pool, 1280; classes    ImageNet, Apache-2.0, in the extra ``[imagenet]``

Nothing is downloaded. ``weights`` finds files in a folder by their published names, checks the beginning of their SHA-256
that the names carry, and reads them without running anything in them. The eyes made of all this are in
``phosphene.evaluate.photographs``.
"""

from __future__ import annotations

from phosphene._lazy import attach

_WHERE = {
    "AlexNet": "alexnet",
    "EfficientNetB1": "efficientnet",
    "EfficientNetLite0": "efficientnet",
    "FidInception": "inception",
    "InceptionV3": "inception",
    "ResNet50": "resnet",
    "PUBLIC": "weights",
    "PublicFile": "weights",
    "load": "weights",
}

__getattr__, __dir__, __all__ = attach(__name__, _WHERE)
