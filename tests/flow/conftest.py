from __future__ import annotations

import numpy as np
import pytest

from phosphene.training.checkpoint import ModulePart


def write_pair_file(path, *, n_train=60, n_test=12, n_voxels=50, size=8, repeat_across=0, seed=0):
    """A file with the keys of digits69: a linear brain seeing two classes of pictures."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    label = np.tile([1, 2], n)[:n]
    basis = rng.standard_normal((6, size * size))
    latents = rng.standard_normal((n, 6)) + 1.5 * (label[:, None] - 1.5)
    pictures = np.clip(128 + 15 * latents @ basis, 0, 255).astype(np.uint8)
    if repeat_across:
        pictures[n_train : n_train + repeat_across] = pictures[:repeat_across]
    signal = (pictures / 255.0) @ rng.standard_normal((size * size, n_voxels))
    betas = signal + 0.4 * signal.std() * rng.standard_normal(signal.shape)
    np.savez(
        path,
        fmriTrn=betas[:n_train], fmriTest=betas[n_train:],
        stimTrn=pictures[:n_train], stimTest=pictures[n_train:],
        labelTrn=label[:n_train, None], labelTest=label[n_train:, None],
    )  # fmt: skip
    return path


class LayerPart(ModulePart):
    """One linear layer, to four numbers: the trained part of a plug-in."""

    @classmethod
    def build(cls, config):
        """As configured."""
        from torch import nn

        return nn.Linear(config["n_in"], 4)

    @classmethod
    def fresh(cls, n_in):
        """An untrained one."""
        config = {"n_in": n_in}
        return cls(cls.build(config), config)


@pytest.fixture
def pair_file(tmp_path):
    return write_pair_file(tmp_path / "pairs.npz")
