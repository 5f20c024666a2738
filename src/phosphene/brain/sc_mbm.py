"""Start an autoencoder from the public SC-MBM checkpoint: MinD-Vis' masked model, trained on HCP and GOD responses.

LEA takes over the trunk and starts its ROI layers anew. Chen et al. 2023, "Seeing beyond the brain"; the checkpoint
``fmri_encoder.pth`` holds ``model`` beside an optimiser, and an instance of a class of settings that is never imported.

That checkpoint has seen training responses of all five GOD subjects, and in its tuned variants test responses: a recipe
that uses it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene.errors import ModelError
from phosphene.train.foreign import read_foreign

if TYPE_CHECKING:
    import torch

    from phosphene.brain.roi_mae_network import RoiMae

_SETTINGS = ("config.Config_MBM_fMRI", "config.Config_MAE_fMRI")
_COMPUTED = ("pos_embed", "decoder_pos_embed")
_UNUSED = "nature_img_"  # a second decoder that some of its checkpoints have


@dataclass(frozen=True)
class Loaded:
    """What became of a checkpoint's weights.

    Attributes
    ----------
    taken : names of weights that now hold the checkpoint's values
    skipped : names of the checkpoint that have no place here, with why
    fresh : names of weights that keep their random start
    n_values : numbers taken over
    """

    taken: tuple[str, ...]
    skipped: dict[str, str]
    fresh: tuple[str, ...]
    n_values: int


def read_sc_mbm(file: str | Path) -> dict[str, torch.Tensor]:
    """Weights by name from the public checkpoint, read without running anything in it.

    Raises
    ------
    ModelError
        When the file is damaged, wants to run anything, or has no ``model``.
    """
    weights = read_foreign(file, "model", inert=_SETTINGS)
    return {name.removeprefix("module."): value for name, value in weights.items()}


def load_sc_mbm(network: RoiMae, weights: Mapping[str, torch.Tensor]) -> Loaded:
    """Put the trunk of a masked brain model into an autoencoder, in place.

    Only what LEA cannot take over is skipped: position codes (computed here), and, with ROI embedding, the patch
    embedding and the last layer. A network that embeds patches of the same size takes these two over as well.

    Parameters
    ----------
    network : changed in place, whole or not at all
    weights : as `read_sc_mbm` gives them

    Returns
    -------
    Loaded

    Raises
    ------
    ModelError
        When a trunk weight is missing, unknown, not finite, or of another shape (both shapes are printed).
    """
    import torch

    wanted = dict(network.named_parameters())
    is_ends = {name for name in weights if name.startswith(("patch_embed.", "decoder_pred."))}
    skipped = {name: "computed" for name in _COMPUTED if name in weights}
    skipped |= {name: "of another decoder" for name in weights if name.startswith(_UNUSED)}
    if network.config.embed == "roi":
        skipped |= dict.fromkeys(sorted(is_ends), "replaced by ROI layers")
    fresh = [n for n in wanted if n.startswith(("pred.", "channel_mapper."))]
    if network.config.embed == "roi":
        fresh += [n for n in wanted if n.startswith(("patch_embed.", "decoder_pred."))]
    taken = sorted(set(wanted) - set(fresh))
    offered = set(weights) - set(skipped)
    missing, unknown = sorted(set(taken) - offered), sorted(offered - set(taken))
    if missing or unknown:
        raise ModelError(
            f"the checkpoint does not fit this trunk: missing {', '.join(missing[:3]) or 'nothing'} ({len(missing)}), "
            f"unexpected {', '.join(unknown[:3]) or 'nothing'} ({len(unknown)}). Its depth may differ: the public one has 24 "
            "encoder and 8 decoder blocks, as the paper preset."
        )
    for name in taken:
        theirs, ours = weights[name], wanted[name]
        if theirs.shape != ours.shape:
            raise ModelError(
                f"'{name}' of the checkpoint has shape {tuple(theirs.shape)}, but this autoencoder needs "
                f"{tuple(ours.shape)}; use the paper preset, for which the checkpoint was made."
            )
        if not bool(torch.isfinite(theirs).all()):
            raise ModelError(f"'{name}' of the checkpoint holds NaN or infinite values; download it again.")
    with torch.no_grad():
        for name in taken:
            wanted[name].copy_(weights[name])
    order = [n for n in wanted if n in set(fresh)]
    return Loaded(tuple(taken), skipped, tuple(order), sum(weights[n].numel() for n in taken))
