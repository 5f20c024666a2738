"""What decoding aims at in one space of features: the training side and the test side of a fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phosphene.errors import DataError

PICTURES = "pixels"
"""Name of the space of small copies of the pictures themselves."""


@dataclass(frozen=True, eq=False)
class DecodingTarget:
    """Training and test items of a fold in one space.

    Parameters
    ----------
    space : str
        its name; ``pixels`` for small copies of the pictures
    train : ndarray of shape (n_train, d)
        true features of training stimuli, all of them or a sample
    true : ndarray of shape (n_test, d)
        true features of test stimuli
    predicted : ndarray of shape (n_test, d)
        what was decoded for them
    n_training : int, optional
        number of training stimuli, those left out of `train` included; as many as `train` by default
    labels, test_labels : ndarray, optional
        (n_train,), (n_test,) categories, or None
    betas, test_betas : ndarray, optional
        (n_train, n_voxels), (n_test, n_voxels) mean responses to the same stimuli, or None
    """

    space: str
    train: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    n_training: int | None = None
    labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    betas: np.ndarray | None = None
    test_betas: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("train", "true", "predicted"):
            x = np.asarray(getattr(self, name))
            object.__setattr__(self, name, x.reshape(len(x), -1))  # (n, d); the only way to set a frozen field

        widths = {self.train.shape[1], self.true.shape[1], self.predicted.shape[1]}
        if len(widths) > 1 or len(self.true) != len(self.predicted):
            raise DataError(
                f"a target needs one width and as many decoded as true items, but {self.space} has {self.train.shape}, "
                f"{self.true.shape} and {self.predicted.shape}."
            )

    @property
    def n_train(self) -> int:
        """Training stimuli, all of them."""
        if self.n_training is None:
            return len(self.train)
        return self.n_training

    @property
    def is_sampled(self) -> bool:
        """Whether some training stimuli were left out to save time."""
        return self.n_train > len(self.train)

    def centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features relative to the training mean, which is what a decoder knows without any response.

        Returns
        -------
        train : ndarray of shape (n_train, d), float64
            training features
        true : ndarray of shape (n_test, d), float64
            true features of test stimuli; rows with NaN stay NaN
        predicted : ndarray of shape (n_test, d), float64
            what was decoded for them; rows with NaN stay NaN
        """
        mean = self.train.mean(axis=0, dtype=np.float64)  # (d,)
        return self.train - mean, self.true - mean, self.predicted - mean
