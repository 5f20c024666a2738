"""DC-MAE, CAD's phase one, double-contrastive: responses are told apart by what two maskings of each leave of it.

Sun et al. 2023, NeurIPS, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities",
section 3.2. The network is MinD-Vis' (``patch_mae.py``); what is new is what it is trained on, the cross-contrastive (1) and
the self-contrastive loss (2), each an InfoNCE. ::

    v  response, 20 % of its voxels zeroed          t  the same, whole
    z1 = decode(encode(v, mask 1))                  z2 = decode(encode(v, mask 2))          rows, made length one

    L_C(i) = -log  e^{z1_i z2_i / tau} / (e^{z1_i z2_i / tau} + sum_{j != i} e^{z1_i z1_j / tau})         (1)
    L_S(i) = -log  e^{z1_i t_i  / tau} / (e^{z1_i t_i  / tau} + sum_{j != i} e^{z1_i z1_j / tau})         (2)
    L      = gamma_C L_C + gamma_S L_S                                                                    (3)

Where the paper and the authors' code differ, the defaults follow the paper; ``preset("code")`` follows the code:

- Negatives are other responses' first views. In the code they are what the positives of the others are: their second
  views in (1), their whole responses in (2) (`negatives`).
- The weights are the paper's. In the code factors of a half hide in defaults; the ratio of 1 to 0.5 becomes 1 to 1.
- The code zeroes no voxel at all; see ``patch_mae.py``.

The paper writes plain products and gives no temperature; rows of length one and 0.1 are the code's. Cosines do not see
amplitude, so the decoder's is arbitrary after this phase unless `reconstruction` asks for it.

The network is in ``dc_mae_network.py``; ``resting.py`` makes resting-state scans into responses to train on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from phosphene.brain.patch_mae import PatchMaeConfig, PatchMaePart

if TYPE_CHECKING:
    from phosphene.brain.dc_mae_network import DcMae


class DcMaeConfig(PatchMaeConfig):
    """Sizes and variants of the double-contrastive masked autoencoder; the defaults are the paper's for GOD subject 3.

    For GOD subjects 1, 4 and 5 and BOLD5000's CSI1 and CSI2 the paper has a `cross_weight` of 1 and a `mask_ratio` of 0.5.
    """

    kind: Literal["dc_mae"] = "dc_mae"
    sparsify: float = Field(0.2, ge=0, lt=1, description="share of voxels zeroed in training; section 4.2.1")
    negatives: Literal["same_view", "cross_view"] = Field(
        "same_view", description="other responses' first views (paper) or what their positives are (authors' code)"
    )
    temperature: float = Field(0.1, gt=0, description="tau; authors' code, not given by the paper")
    self_weight: float = Field(1.0, ge=0, description="gamma_S, of finding the whole response from a view")
    cross_weight: float = Field(0.5, ge=0, description="gamma_C, of finding the second view from the first")
    symmetric: bool = Field(False, description="let both views be the first in turn; only one is in the paper")
    reconstruction: float = Field(
        0.0, ge=0, description="weight of the squared error of both views' prediction; not in the paper"
    )

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if not self.self_weight + self.cross_weight + self.reconstruction:
            raise ValueError("with self_weight, cross_weight and reconstruction all 0 there is nothing to train on")
        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab", "code"]) -> dict[str, Any]:
        """Values over the defaults: none for ``paper``, tiny sizes for ``lab``; ``code`` does what the authors' code does."""
        if name == "code":
            return {"sparsify": 0.0, "negatives": "cross_view", "self_weight": 0.25, "cross_weight": 0.25}
        return super().preset(name)


class DcMaePart(PatchMaePart):
    """A trained double-contrastive autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : a :class:`phosphene.brain.DcMae`
    config : as `of` makes it
    """

    module: DcMae

    @classmethod
    def build(cls, config: dict[str, Any]) -> DcMae:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.brain.dc_mae_network import DcMae
        from phosphene.run.config import validate

        values = validate(DcMaeConfig, config["network"], "the saved autoencoder")
        with torch.device("meta"):
            network = DcMae(values, {name: int(n) for name, n in config["subjects"]})
        return network.to_empty(device="cpu")
