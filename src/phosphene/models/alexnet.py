"""AlexNet with one tower (Krizhevsky 2014), up to the layer that is compared.

Five convolutions with pooling between them, then three fully connected layers. Identification in brain decoding compares
activations after the second and after the fifth convolution, "AlexNet(2)" and "AlexNet(5)" (Ozcelik and VanRullen 2023).
Names of weights are torchvision's, so that its public file loads as it is.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["AlexNet"]


class AlexNet(nn.Module):
    """Activations after one of the layers.

    ::

        (n, 3, 224, 224) -> features[4], after the second convolution -> (n, 192, 27, 27)
                         -> features[11], after the fifth             -> (n, 256, 13, 13)

    Parameters
    ----------
    last : int, default 11
        number of the last layer of ``features`` that is computed: 4 after the second convolution, 11 after the fifth

    Attributes
    ----------
    heads : tuple of str
        layers behind the features, which the public file holds and nothing here needs

    References
    ----------
    Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
    """

    heads = ("classifier",)

    def __init__(self, last: int = 11):
        super().__init__()
        self.last = last
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, 1000),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, 224, 224), normalised, to the activations of the layer, flat."""
        activations = self.features[: self.last + 1](x)  # (n, channels, rows, columns)
        return activations.flatten(1)
