"""Phase two of CAD: an autoencoder of responses and one of pictures, each hidden in part, help each other out.

Sun et al. 2023, NeurIPS, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities",
section 3.2, "cross modality guidance" by cross-attention. ::

    response, 3/4 hidden -> 24 blocks -> 3 cross blocks, looking at the picture's tokens  -> decoder -> hidden patches
    picture,  1/2 hidden -> 12 blocks -> 3 cross blocks, looking at the response's tokens -> decoder -> hidden patches

    loss = 0.25 * error of the response + 1.5 * error of the picture

The picture's error reaches the brain encoder through the tokens its cross blocks look at: so what helps to see the picture
gets into the encoder. It alone is used afterwards (`CrossModalPart.brain`). The picture side is any
``ViTMAEForPreTraining`` of transformers; the paper's is ``facebook/vit-mae-base``.

Where the paper and the authors' code differ:

- What of the picture side stays as it was: its decoder (paper, the default) or its encoder (code); see `frozen`. In the
  code the decoder's position codes are trained as well.
- The tokens looked at come from whole inputs (code, the default) or from what is left of them (paper); `mask_support`.
- Queries come from the own tokens, keys and values from the other side's, as in the code. The paper's equations 4 and 5 have
  it the other way round; the result would then have the other side's number of tokens and could not be added.
- A cross block is the code's, of which there are three, not the single attention of the paper.

The network is in ``cross_modal_network.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from phosphene.brain.patch_mae import PatchMaeConfig, PatchMaePart
from phosphene.brain.roi_mae import subject_batches
from phosphene.errors import DataError
from phosphene.run.config import Config
from phosphene.train.checkpoint import ModulePart

if TYPE_CHECKING:
    from phosphene.brain.cross_modal_network import CrossModal


class CrossModalConfig(Config):
    """How the two autoencoders are bound together; the defaults are the best row of table 2."""

    kind: Literal["cross_modal"] = "cross_modal"
    brain_weight: float = Field(0.25, ge=0, description="gamma_F, of the error of hidden response patches; table 2")
    picture_weight: float = Field(1.5, ge=0, description="gamma_I, of the error of hidden picture patches; table 2")
    brain_mask: float = Field(0.75, gt=0, lt=1, description="share of response patches hidden; table 2")
    picture_mask: float = Field(0.5, gt=0, lt=1, description="share of picture patches hidden; table 2")
    decoder_depth: int | None = Field(
        6, ge=1, description="decoder blocks kept of both autoencoders, the first ones; table 2. All when null"
    )
    cross_blocks: int = Field(3, ge=1, description="on each side; 3 in the authors' code, 1 attention in the paper")
    frozen: Literal["decoder", "encoder"] = Field(
        "decoder", description="half of the picture autoencoder that is not trained: decoder (paper), encoder (code)"
    )
    mask_support: bool = Field(
        False, description="whether the tokens looked at come from hidden inputs (paper) or whole ones (authors' code)"
    )
    sparsify: float = Field(
        0.0, ge=0, lt=1, description="share of voxels zeroed in training; none in the authors' code"
    )

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if not self.brain_weight + self.picture_weight:
            raise ValueError("with brain_weight and picture_weight both 0 there is nothing to train on")
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab", "code"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``; ``lab`` has one cross block and keeps decoders; ``code`` freezes as
        the authors' code does."""
        if name == "code":
            return {"frozen": "encoder"}
        return {} if name == "paper" else {"decoder_depth": None, "cross_blocks": 1}


def paired_batches(
    betas: Mapping[str, np.ndarray], shown: Mapping[str, np.ndarray], pictures: Any
) -> tuple[Callable[[np.ndarray], dict[str, Any]], int]:
    """What :func:`phosphene.train.train` needs to train on responses with the pictures they belong to.

    Parameters
    ----------
    betas : by subject, each (n_trials, n_voxels of that subject), arrays or memory maps
    shown : by the same subjects, (n_trials,) whole numbers: the row of `pictures` that was on in each trial
    pictures : (m, 3, height, width), as the picture autoencoder takes them: array, memory map, or rows of a store

    Returns
    -------
    fetch : rows of all subjects counted through, to what :func:`phosphene.brain.subject_batches` gives, with ``"pictures":
        (n, 3, height, width)`` in the order of the rows
    n_items : rows in all

    Raises
    ------
    DataError
        When subjects or trials of the two do not match, or a picture is not there.
    """
    if set(betas) != set(shown):
        raise DataError(f"responses are of subjects {', '.join(betas)}, but pictures of {', '.join(shown)}.")
    for name, rows in betas.items():
        of = np.asarray(shown[name])
        if of.shape != (len(rows),) or of.dtype.kind not in "iu":
            raise DataError(
                f"each of the {len(rows)} trials of subject {name} needs the row of its picture, but {of.dtype} of shape "
                f"{of.shape} came."
            )
        if len(of) and not (of.min() >= 0 and of.max() < len(pictures)):
            raise DataError(
                f"trials of subject {name} name pictures {of.min()} to {of.max()}, but there are rows 0 to {len(pictures) - 1}."
            )
    fetch, n = subject_batches(betas)
    numbers = np.concatenate([np.asarray(shown[name], dtype=np.int64) for name in betas]) if betas else np.zeros(0, int)

    def paired(rows: np.ndarray) -> dict[str, Any]:
        import torch

        values = np.array(pictures[numbers[np.asarray(rows)]], dtype=np.float32)
        return {**fetch(rows), "pictures": torch.from_numpy(values)}

    return paired, n


class CrossModalPart(ModulePart):
    """Both trained autoencoders as a part of a run, working on arrays.

    Parameters
    ----------
    module : a :class:`phosphene.brain.CrossModal`
    config : as `of` makes it
    """

    module: CrossModal

    @classmethod
    def of(cls, network: CrossModal) -> Self:
        """The part that holds this network."""
        return cls(
            network,
            {
                "network": network.config.model_dump(mode="json"),
                "brain": PatchMaePart.of(network.brain).config,
                "picture": network.picture_settings(),
            },
        )

    @classmethod
    def build(cls, config: dict[str, Any]) -> CrossModal:
        """A network of this configuration without values yet."""
        import torch
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        from phosphene.brain.cross_modal_network import CrossModal
        from phosphene.brain.patch_mae_network import PatchMae
        from phosphene.run.config import validate

        values = validate(CrossModalConfig, config["network"], "the saved network")
        brain = validate(PatchMaeConfig, config["brain"]["network"], "the saved autoencoder")
        subjects = {name: int(n) for name, n in config["brain"]["subjects"]}
        with torch.device("meta"):
            network = CrossModal(
                values, PatchMae(brain, subjects), ViTMAEForPreTraining(ViTMAEConfig(**config["picture"]))
            )
        return network.to_empty(device="cpu")

    @property
    def brain(self) -> PatchMaePart:
        """The tuned brain autoencoder, which shares the weights: all that decoding needs."""
        return PatchMaePart.of(self.module.brain)

    def to_tokens(
        self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64, *, class_token: bool = False
    ) -> np.ndarray:
        """Brain to tokens of the tuned encoder: (n, n_voxels) to (n, patches, width) float32; see `PatchMaePart`."""
        return self.brain.to_tokens(betas, subject, batch_size, class_token=class_token)

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to the tuned encoder's class token: (n, n_voxels) to (n, width) float32."""
        return self.brain.to_latent(betas, subject, batch_size)
