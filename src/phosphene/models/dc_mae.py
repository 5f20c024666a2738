"""DC-MAE, CAD's phase one, double-contrastive: responses are told apart by what two maskings of each leave of it.

Sun et al. 2023, NeurIPS, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities",
section 3.2. The network is MinD-Vis' (:mod:`phosphene.models.patch_mae`); what is new is what it is trained on, the
cross-contrastive (1) and the self-contrastive loss (2), each an InfoNCE. ::

    v  response, 20 % of its voxels zeroed          t  the same, whole
    z1 = decode(encode(v, mask 1))                  z2 = decode(encode(v, mask 2))          rows, made length one

    L_C(i) = -log  e^{z1_i z2_i / tau} / (e^{z1_i z2_i / tau} + sum_{j != i} e^{z1_i z1_j / tau})         (1)
    L_S(i) = -log  e^{z1_i t_i  / tau} / (e^{z1_i t_i  / tau} + sum_{j != i} e^{z1_i z1_j / tau})         (2)
    L      = gamma_C L_C + gamma_S L_S                                                                    (3)

Where the paper and the authors' code differ, the defaults follow the paper; ``preset("code")`` follows the code:

- Negatives are other responses' first views. In the code they are what the positives of the others are: their second
  views in (1), their whole responses in (2) (`negatives`).
- The weights are the paper's. In the code factors of a half hide in defaults; the ratio of 1 to 0.5 becomes 1 to 1.
- The code zeroes no voxel at all; see :mod:`phosphene.models.patch_mae`.

The paper writes plain products and gives no temperature; rows of length one and 0.1 are the code's. Cosines do not see
amplitude, so the decoder's is arbitrary after this phase unless `reconstruction` asks for it.

In this file, from top to bottom: the configuration; the network, which adds to its parent a training objective alone;
the contrast; the way to other subjects; the trained network as a part of a run. Responses to train on are made of scans
at rest by :func:`phosphene.data.resting.resting_windows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from phosphene.errors import ModelError
from phosphene.io.config import validate
from phosphene.models.patch_mae import PatchMae, PatchMaeConfig, PatchMaePart, pick_tokens
from phosphene.training.losses import gathered, info_nce, must_be_whole, row_correlation
from phosphene.training.sampling import Draws


class DcMaeConfig(PatchMaeConfig):
    """Sizes and variants of the double-contrastive masked autoencoder; the defaults are the paper's for GOD subject 3.

    For GOD subjects 1, 4 and 5 and BOLD5000's CSI1 and CSI2 the paper has a `cross_weight` of 1 and a `mask_ratio` of 0.5.
    """

    kind: Literal["dc_mae"] = "dc_mae"
    sparsify: float = Field(default=0.2, ge=0, lt=1, description="share of voxels zeroed in training; section 4.2.1")
    negatives: Literal["same_view", "cross_view"] = Field(
        default="same_view",
        description="other responses' first views (paper) or what their positives are (authors' code)",
    )
    temperature: float = Field(default=0.1, gt=0, description="tau; authors' code, not given by the paper")
    self_weight: float = Field(default=1.0, ge=0, description="gamma_S, of finding the whole response from a view")
    cross_weight: float = Field(default=0.5, ge=0, description="gamma_C, of finding the second view from the first")
    symmetric: bool = Field(default=False, description="let both views be the first in turn; only one is in the paper")
    reconstruction: float = Field(
        default=0.0, ge=0, description="weight of the squared error of both views' prediction; not in the paper"
    )

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if not self.self_weight + self.cross_weight + self.reconstruction:
            raise ValueError("with self_weight, cross_weight and reconstruction all 0 there is nothing to train on")

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab", "code"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab", "code"}
            none for ``paper``, tiny sizes for ``lab``; ``code`` does what the authors' code does

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "code":
            return {"sparsify": 0.0, "negatives": "cross_view", "self_weight": 0.25, "cross_weight": 0.25}

        return super().preset(name)


class DcMae(PatchMae):
    """The masked autoencoder of CAD's first phase: that of MinD-Vis, trained by two contrasts. Make one with `create`.

    Parameters
    ----------
    config : DcMaeConfig
        sizes and variants, a :class:`phosphene.models.DcMaeConfig`
    n_voxels : Mapping[str, int]
        by subject; decides nothing but how a row is padded
    recompute : bool, default False
        save memory in training by computing each block twice; results stay the same

    References
    ----------
    Sun et al. 2023, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities", section 3.2.
    """

    config: DcMaeConfig

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Both contrasts, weighted (equation 3), and the squared error of the prediction where configured.

        Rows are told apart from all rows of a batch that are computed together, on all processes; of a batch that one
        process accumulates in several parts, only from those of its part.

        Parameters
        ----------
        batch : Mapping[str, Any]
            ``{"betas": {subject: (k, n_voxels)}, "rows": {subject: (k,) places in the batch}}``, as
            :func:`phosphene.models.subject_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict[str, Tensor])
            loss, and ``{"cross": L_C, "self": L_S, "correlation": mean over rows and views of Pearson's r between the
            response and its prediction in the patches that ``config.loss_on`` names}``
        """
        c = self.config
        inputs, whole = self.inputs(batch, draws)  # (n, n_patches, patch_size) each

        # Both views pass through the network together: rows of view one, then those of view two.
        visible = torch.cat([self.draw_visible(draws), self.draw_visible(draws)])  # (2 n, n_visible)
        tokens = self.encode(torch.cat([inputs, inputs]), visible)
        views = self.decode(tokens, visible).float()  # (2 n, n_patches, patch_size)
        z1, z2 = views.flatten(1).chunk(2)

        pairs = [(z1, z2)]
        if c.symmetric:
            pairs.append((z2, z1))

        cross_terms = [self._contrast(anchor, other) for anchor, other in pairs]  # equation 1
        self_terms = [self._contrast(anchor, whole.flatten(1)) for anchor, _ in pairs]  # equation 2
        cross = torch.stack(cross_terms).mean()
        itself = torch.stack(self_terms).mean()
        loss = c.cross_weight * cross + c.self_weight * itself

        targets = torch.cat([whole, whole])
        if c.loss_on == "masked":
            hidden = self.hidden(visible)
            views = pick_tokens(views, hidden)
            targets = pick_tokens(targets, hidden)

        if c.reconstruction:
            loss = loss + c.reconstruction * F.mse_loss(views, targets)

        with torch.no_grad():
            correlation = row_correlation(targets.flatten(1), views.flatten(1)).mean()

        return loss, {"cross": cross, "self": itself, "correlation": correlation}

    def _contrast(self, anchors: Tensor, positives: Tensor) -> Tensor:
        return paired_info_nce(anchors, positives, self.config.temperature, self.config.negatives)


def paired_info_nce(
    anchors: Tensor, positives: Tensor, temperature: float, negatives: Literal["same_view", "cross_view"] = "same_view"
) -> Tensor:
    """InfoNCE of rows with their positives, against other anchors or against other rows' positives.

        p_i = cos(a_i, b_i) / tau,    n_ij = cos(a_i, a_j) / tau   (same_view)   or   cos(a_i, b_j) / tau   (cross_view)
        loss = mean of -log  e^{p_i} / (e^{p_i} + sum_{j != i} e^{n_ij})

    Parameters
    ----------
    anchors, positives : Tensor of shape (n, d)
        not necessarily normalised; rows of all processes take part
    temperature : float
        tau, above 0
    negatives : {"same_view", "cross_view"}, default "same_view"
        ``same_view`` is the paper's, ``cross_view`` the authors' code

    Returns
    -------
    Tensor
        scalar, above 0; ln(n) when nothing is told apart

    Raises
    ------
    DataError
        When the two differ in shape.

    References
    ----------
    Sun et al. 2023, eqs. 1 and 2.

    Examples
    --------
    >>> round(paired_info_nce(torch.ones(8, 3), torch.ones(8, 3), 0.1).item(), 4)  # ln 8
    2.0794
    """
    with torch.autocast(anchors.device.type, enabled=False):  # bfloat16 would round a tenth of a cosine away
        if negatives == "cross_view":
            return info_nce(anchors, positives, 1 / temperature, symmetric=False)

        must_be_whole()
        a = gathered(F.normalize(anchors.float(), dim=-1))
        b = gathered(F.normalize(positives.float(), dim=-1))

        # Each row's positive takes the place of the product of the row with itself, which is one and tells nothing.
        is_positive = torch.eye(len(a), dtype=torch.bool, device=a.device)
        logits = torch.where(is_positive, (a * b).sum(1, keepdim=True), a @ a.T) / temperature  # (n, n)
        return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def for_subjects(network: PatchMae, n_voxels: Mapping[str, int], **changes: Any) -> PatchMae:
    """A trained autoencoder made ready for subjects to come: a copy of its weights, without what DC-MAE adds.

    For other subjects than its own, position codes are stretched over their patches, as the authors do for their last
    stage.

    Parameters
    ----------
    network : PatchMae
        a `PatchMae` or `DcMae`; left alone
    n_voxels : Mapping[str, int]
        by subject
    **changes : Any
        settings of :class:`phosphene.models.PatchMaeConfig` to change: what is hidden, how rows are padded,
        `positions_of`, or a smaller `decoder_depth`, which keeps the first blocks

    Returns
    -------
    PatchMae
        all of its weights ready to be trained

    Raises
    ------
    ConfigError
        For a setting that does not exist or is out of range.
    ModelError
        When a change would need weights that are not there, or the voxels do not fit.
    """
    old = network.config
    values = {key: getattr(old, key) for key in PatchMaeConfig.model_fields if key != "kind"}
    if dict(n_voxels) != network.n_voxels:
        values |= {"n_patches": None, "positions_of": old.positions_of or network.n_patches}

    values |= changes
    config = validate(PatchMaeConfig, values, "the autoencoder of other subjects")

    with torch.device("meta"):
        new = PatchMae(config, n_voxels, recompute=network.recompute)

    old_state = network.state_dict()
    new_state = new.state_dict()
    unfit = [name for name, w in new_state.items() if name not in old_state or old_state[name].shape != w.shape]
    if unfit:
        listed = ", ".join(f"{key} = {value}" for key, value in changes.items())
        raise ModelError(
            f"a trained autoencoder has no weights for {listed}: '{unfit[0]}' ({len(unfit)} in all) is missing or of "
            f"another shape. Only a decoder may get shorter, from {old.decoder_depth} blocks; patch size and widths stay."
        )

    copies = {name: old_state[name].clone() for name in new_state}
    new.load_state_dict(copies, assign=True)
    return new.requires_grad_(True)


class DcMaePart(PatchMaePart):
    """A trained double-contrastive autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : DcMae
        a :class:`phosphene.models.DcMae`
    config : Mapping[str, Any]
        as `of` makes it
    """

    module: DcMae

    @classmethod
    def build(cls, config: dict[str, Any]) -> DcMae:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        DcMae
            on the CPU; the memory of the weights is not filled
        """
        values = validate(DcMaeConfig, config["network"], "the saved autoencoder")
        n_voxels = {name: int(n) for name, n in config["subjects"]}
        with torch.device("meta"):
            network = DcMae(values, n_voxels)

        return network.to_empty(device="cpu")
