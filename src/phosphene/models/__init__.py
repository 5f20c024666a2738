"""Betas to brain latents, and back. One file per network; ``to_latent`` / ``from_latent`` are its two halves.

==================  ================================================================================
`RoiMaeConfig`      LEA's ROI masked autoencoder: sizes and variants, ``paper`` and ``lab`` presets
`RoiMaePart`        the trained network as a part of a run
`RoiMae`            the network itself (needs torch)
`roi_partition`     ROIs that may overlap to groups that share out all voxels
`subject_batches`   several subjects' betas as batches for one training
`PatchMaeConfig`    MinD-Vis' patch-embedded masked autoencoder (SC-MBM), with the same presets
`PatchMaePart`      the trained network as a part of a run
`PatchMae`          the network itself (needs torch)
`FedDecoderPart`    its decoder fed with a picture's latent, as a part of a run: MinD-Vis predicts responses
`FedDecoder`        the network itself (needs torch)
`DcMaeConfig`       CAD's first phase: that autoencoder, trained by telling responses apart
`DcMaePart`         the trained network as a part of a run
`DcMae`             the network itself (needs torch); `for_subjects` hands its weights to other subjects
`CrossModalConfig`  CAD's second phase: a brain and a picture autoencoder that look at each other
`CrossModalPart`    both, trained, as a part of a run
`CrossModal`        the network itself (needs torch)
`paired_batches`    responses with their pictures as batches for one training
`LatentNetConfig`   networks from betas to given latents: the published GRU and its rivals, told apart by ``kind``
`fit_latent_net`    trains one, its best step chosen on held-out training stimuli; `LatentTraining` says how
`LatentNetPart`     the trained one as a part of a run; `LatentNet` the network itself (needs torch)
`voxel_runs`        voxels in groups that follow each other over the cortex
`MapperConfig`      Mind Reader's mapper of betas to CLIP embeddings, `VoxelEncoderConfig` its network back
`fit_mapper`        trains one in two stages, `fit_voxel_encoder` the other; `MapperTraining`, `EncoderTraining` say how
`MapperPart`        one trained mapper or several as a part of a run, `VoxelEncoderPart` the network back;
                    `Mapper` and `VoxelEncoder` are the networks (need torch), `padding` the zeros around voxels
`read_sc_mbm`       the public SC-MBM checkpoint, read safely; `load_sc_mbm` puts all of it into a `PatchMae`, or its
                    trunk into a `RoiMae`
==================  ================================================================================
"""

from __future__ import annotations

from phosphene._lazy import attach

_WHERE = {
    "CrossModal": "cross_modal",
    "CrossModalConfig": "cross_modal",
    "CrossModalPart": "cross_modal",
    "DcMae": "dc_mae",
    "DcMaeConfig": "dc_mae",
    "DcMaePart": "dc_mae",
    "EncoderTraining": "mapper",
    "FedDecoder": "fed_decoder",
    "FedDecoderPart": "fed_decoder",
    "GroupGruConfig": "gru",
    "GruCnnConfig": "gru",
    "GruConfig": "gru",
    "GruTransformerConfig": "gru",
    "LATENT_NETS": "gru",
    "LatentNet": "gru",
    "LatentNetConfig": "gru",
    "LatentNetPart": "gru",
    "LatentTraining": "gru",
    "Mapper": "mapper",
    "MapperConfig": "mapper",
    "MapperPart": "mapper",
    "MapperTraining": "mapper",
    "MlpConfig": "gru",
    "PatchMae": "patch_mae",
    "PatchMaeConfig": "patch_mae",
    "PatchMaePart": "patch_mae",
    "RoiMae": "roi_mae",
    "RoiMaeConfig": "roi_mae",
    "RoiMaePart": "roi_mae",
    "VoxelEncoder": "mapper",
    "VoxelEncoderConfig": "mapper",
    "VoxelEncoderPart": "mapper",
    "fit_latent_net": "gru",
    "fit_mapper": "mapper",
    "fit_voxel_encoder": "mapper",
    "for_subjects": "dc_mae",
    "latent_net_config": "gru",
    "load_sc_mbm": "sc_mbm",
    "padding": "mapper",
    "paired_batches": "cross_modal",
    "read_sc_mbm": "sc_mbm",
    "roi_partition": "roi_mae",
    "subject_batches": "roi_mae",
    "voxel_runs": "gru",
}

__getattr__, __dir__, __all__ = attach(__name__, _WHERE)
