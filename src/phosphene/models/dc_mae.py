"""The network of DC-MAE; :mod:`phosphene.models.dc_mae` says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from phosphene.errors import ModelError
from phosphene.io.config import validate
from phosphene.models.patch_mae import PatchMae, PatchMaeConfig, PatchMaePart, picked
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
        """Values over the defaults: none for ``paper``, tiny sizes for ``lab``; ``code`` does what the authors' code does."""
        if name == "code":
            return {"sparsify": 0.0, "negatives": "cross_view", "self_weight": 0.25, "cross_weight": 0.25}

        return super().preset(name)


class DcMae(PatchMae):
    """The masked autoencoder of CAD's first phase: that of MinD-Vis, trained by two contrasts. Make one with `create`.

    Parameters
    ----------
    config : DcMaeConfig
        sizes and variants, a :class:`phosphene.models.DcMaeConfig`
    n_voxels : mapping of {str: int}
        by subject; decides nothing but how a row is padded
    recompute : bool, default False
        save memory in training by computing each block twice; results stay the same

    References
    ----------
    Sun et al. 2023, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities", section 3.2.
    """

    config: DcMaeConfig

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Both contrasts, weighted, and the squared error of the prediction where configured.

        Rows are told apart from all rows of a batch that are computed together, on all processes; of a batch that one
        process accumulates in several parts, only from those of its part.

        Parameters
        ----------
        batch : mapping of {str: Any}
            ``{"betas": {subject: (k, n_voxels)}, "rows": {subject: (k,) places in the batch}}``, as
            :func:`phosphene.models.subject_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict of {str: Tensor})
            loss, and ``{"cross": L_C, "self": L_S, "correlation": mean over rows and views of Pearson's r between the
            response and its prediction in the patches that ``config.loss_on`` names}``
        """
        c = self.config
        inputs, whole = self.inputs(batch, draws)
        visible = torch.cat([self.draw_visible(draws), self.draw_visible(draws)])
        views = self.decode(self.encode(torch.cat([inputs, inputs]), visible), visible).float()
        z1, z2 = views.flatten(1).chunk(2)

        if c.symmetric:
            turns = [(z1, z2), (z2, z1)]
        else:
            turns = [(z1, z2)]

        cross = torch.stack([self._contrast(a, b) for a, b in turns]).mean()
        own = torch.stack([self._contrast(a, whole.flatten(1)) for a, _ in turns]).mean()
        loss = c.cross_weight * cross + c.self_weight * own

        targets = torch.cat([whole, whole])
        if c.loss_on == "masked":
            hidden = self.hidden(visible)
            views = picked(views, hidden)
            targets = picked(targets, hidden)

        if c.reconstruction:
            loss = loss + c.reconstruction * F.mse_loss(views, targets)

        with torch.no_grad():
            r = row_correlation(targets.flatten(1), views.flatten(1)).mean()

        return loss, {"cross": cross, "self": own, "correlation": r}

    def _contrast(self, a: Tensor, b: Tensor) -> Tensor:
        return contrast(a, b, self.config.temperature, self.config.negatives)


def contrast(
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
    >>> round(contrast(torch.ones(8, 3), torch.ones(8, 3), 0.1).item(), 4)  # ln 8
    2.0794
    """
    with torch.autocast(anchors.device.type, enabled=False):  # bfloat16 would round a tenth of a cosine away
        if negatives == "cross_view":
            return info_nce(anchors, positives, 1 / temperature, symmetric=False)

        must_be_whole()
        a, b = (gathered(F.normalize(x.float(), dim=-1)) for x in (anchors, positives))
        is_own = torch.eye(len(a), dtype=torch.bool, device=a.device)
        logits = torch.where(is_own, (a * b).sum(1, keepdim=True), a @ a.T) / temperature
        return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def for_subjects(network: PatchMae, n_voxels: Mapping[str, int], **changes: Any) -> PatchMae:
    """A trained autoencoder made ready for subjects to come: a copy of its weights, without what DC-MAE adds.

    For other subjects than its own, position codes are stretched over their patches, as the authors do for their last
    stage.

    Parameters
    ----------
    network : PatchMae
        a `PatchMae` or `DcMae`; left alone
    n_voxels : mapping of {str: int}
        by subject
    changes : Any
        settings of :class:`phosphene.models.PatchMaeConfig` to change: what is hidden, how rows are padded,
        `positions_of`, or a smaller `decoder_depth`, which keeps the first blocks

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

    theirs = network.state_dict()
    wanted = new.state_dict()
    wrong = [name for name, w in wanted.items() if name not in theirs or theirs[name].shape != w.shape]
    if wrong:
        raise ModelError(
            f"a trained autoencoder has no weights for {', '.join(f'{k} = {v}' for k, v in changes.items())}: '{wrong[0]}' "
            f"({len(wrong)} in all) is missing or of another shape. Only a decoder may get shorter, from {old.decoder_depth} "
            "blocks; patch size and widths stay."
        )

    new.load_state_dict({name: theirs[name].clone() for name in wanted}, assign=True)
    return new.requires_grad_(True)


class DcMaePart(PatchMaePart):
    """A trained double-contrastive autoencoder as a part of a run, working on arrays.

    Parameters
    ----------
    module : DcMae
        a :class:`phosphene.models.DcMae`
    config : mapping of {str: Any}
        as `of` makes it
    """

    module: DcMae

    @classmethod
    def build(cls, config: dict[str, Any]) -> DcMae:
        """A network of this configuration without values yet."""
        import torch

        from phosphene.io.config import validate

        values = validate(DcMaeConfig, config["network"], "the saved autoencoder")
        with torch.device("meta"):
            network = DcMae(values, {name: int(n) for name, n in config["subjects"]})

        return network.to_empty(device="cpu")
