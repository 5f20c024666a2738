"""Start an autoencoder from the public SC-MBM checkpoint: MinD-Vis' masked model, trained on HCP and GOD responses.

`PatchMae` takes over every weight; LEA takes over the trunk and starts its ROI layers anew. Chen et al. 2023, "Seeing
beyond the brain"; the checkpoint ``fmri_encoder.pth`` holds ``model``, an optimiser's state, and an instance of a class
of settings that is never imported.

That checkpoint has seen training responses of all five GOD subjects, and in its tuned variants test responses: a recipe
that uses it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from phosphene.errors import ModelError
from phosphene.io.foreign import read_foreign
from phosphene.io.reading import reads
from phosphene.models.transformer import position_codes

if TYPE_CHECKING:
    from phosphene.models.patch_mae import PatchMae
    from phosphene.models.roi_mae import RoiMae

_SETTINGS = ("config.Config_MBM_fMRI", "config.Config_MAE_fMRI")  # classes that the file names; never imported
_COMPUTED = ("pos_embed", "decoder_pos_embed")
_UNUSED = "nature_img_"  # a second decoder that some of its checkpoints have
_ENDS = ("patch_embed.", "decoder_pred.")  # replaced where tokens are ROIs
_OURS = ("pred.", "channel_mapper.")  # layers of LEA that the checkpoint never has


@dataclass(frozen=True)
class Loaded:
    """What became of a checkpoint's weights.

    Attributes
    ----------
    taken : tuple of str
        names of weights that now hold the checkpoint's values
    skipped : dict[str, str]
        names of the checkpoint that have no place here, with why
    fresh : tuple of str
        names of weights that keep their random start
    n_values : int
        numbers taken over
    n_patches : int or None
        that the checkpoint's model had, with which MinD-Vis went on training it (``n_patches`` of its configuration) or
        from which it stretched the position codes (``positions_of``); None where it does not say
    """

    taken: tuple[str, ...]
    skipped: dict[str, str]
    fresh: tuple[str, ...]
    n_values: int
    n_patches: int | None = None


@reads("file", ModelError)
def read_sc_mbm(file: str | Path) -> dict[str, torch.Tensor]:
    """Weights by name from the public checkpoint, read without running anything in it.

    Parameters
    ----------
    file : str or Path
        such as ``fmri_encoder.pth``

    Returns
    -------
    dict[str, Tensor]
        for `load_sc_mbm`

    Raises
    ------
    ModelError
        When the file is damaged, wants to run anything, or has no ``model``.
    """
    weights = read_foreign(file, "model", inert=_SETTINGS)
    return {name.removeprefix("module."): value for name, value in weights.items()}  # of data-parallel training


def load_sc_mbm(network: PatchMae | RoiMae, weights: Mapping[str, torch.Tensor]) -> Loaded:
    """Put a masked brain model into an autoencoder, in place: all of it into a `PatchMae`, its trunk into a `RoiMae`.

    Position codes are computed and so skipped. With ROI embedding, the patch embedding and the last layer are skipped
    too, which LEA cannot take over. A `RoiMae` that embeds patches of the same size takes these two over as well.

    Parameters
    ----------
    network : PatchMae or RoiMae
        changed in place, whole or not at all
    weights : Mapping[str, Tensor]
        as `read_sc_mbm` gives them

    Returns
    -------
    Loaded
        what was taken over and what was not

    Raises
    ------
    ModelError
        When a trunk weight is missing, unknown, not finite, or of another shape (both shapes are printed); for a
        `PatchMae` also when the checkpoint has position codes that were trained and cannot be computed.
    """
    has_rois = getattr(network.config, "embed", "patch") == "roi"
    if network.config.kind in ("patch_mae", "dc_mae"):
        _check_positions(weights)

    ours = dict(network.named_parameters())
    skipped = _skipped(weights, has_rois)

    # Names that start anew, in the network's order.
    fresh = [name for name in ours if name.startswith(_OURS) or (has_rois and name.startswith(_ENDS))]
    taken = sorted(set(ours) - set(fresh))

    _check_names(taken, set(weights) - set(skipped))
    for name in taken:
        _check_weight(name, weights[name], ours[name])

    with torch.no_grad():
        for name in taken:
            ours[name].copy_(weights[name])

    n_patches = None
    if "pos_embed" in weights:
        n_patches = weights["pos_embed"].shape[1] - 1  # without the class token's

    n_values = sum(weights[name].numel() for name in taken)
    return Loaded(tuple(taken), skipped, tuple(fresh), n_values, n_patches)


def _skipped(weights: Mapping[str, torch.Tensor], has_rois: bool) -> dict[str, str]:
    """Names of the checkpoint that have no place in the network, with the reason."""
    skipped = dict.fromkeys((name for name in _COMPUTED if name in weights), "computed")

    for name in weights:
        if name.startswith(_UNUSED):
            skipped[name] = "of another decoder"

    if has_rois:
        for name in sorted(weights):
            if name.startswith(_ENDS):
                skipped[name] = "replaced by ROI layers"

    return skipped


def _check_names(taken: list[str], offered: set[str]) -> None:
    missing = sorted(set(taken) - offered)
    unknown = sorted(offered - set(taken))

    if missing or unknown:
        raise ModelError(
            f"the checkpoint does not fit this trunk: missing {', '.join(missing[:3]) or 'nothing'} ({len(missing)}), "
            f"unexpected {', '.join(unknown[:3]) or 'nothing'} ({len(unknown)}). Its depth may differ: the public one has 24 "
            "encoder and 8 decoder blocks, as the paper preset."
        )


def _check_weight(name: str, theirs: torch.Tensor, ours: torch.Tensor) -> None:
    if theirs.shape != ours.shape:
        raise ModelError(
            f"'{name}' of the checkpoint has shape {tuple(theirs.shape)}, but this autoencoder needs "
            f"{tuple(ours.shape)}; use the paper preset, for which the checkpoint was made."
        )

    if not bool(torch.isfinite(theirs).all()):
        raise ModelError(f"'{name}' of the checkpoint holds NaN or infinite values; download it again.")


def _check_positions(weights: Mapping[str, torch.Tensor]) -> None:
    for name in _COMPUTED:
        if name not in weights:
            continue

        theirs = weights[name].float()
        if theirs.ndim != 3 or theirs.shape[0] != 1 or theirs.shape[1] < 2 or theirs.shape[2] % 2:
            raise ModelError(
                f"'{name}' of the checkpoint has shape {tuple(theirs.shape)}, not (1, 1 + patches, width)."
            )

        computed = position_codes(theirs.shape[1] - 1, theirs.shape[2])  # (1 + patches, width)
        gap = float((theirs[0] - computed).abs().max())
        if not gap < 1e-3:  # half precision rounds numbers up to one by 5e-4; NaN fails too
            raise ModelError(
                f"'{name}' of the checkpoint differs from sines and cosines by {gap:.3g}: it was trained, as in MinD-Vis' "
                "second stage, and this autoencoder only computes its position codes. Use fmri_encoder.pth of the first "
                "stage."
            )
