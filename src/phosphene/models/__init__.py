"""Networks, one file per architecture: configuration, network, training objective, trained part, public weights.

Betas to latents and back; ``to_latent`` / ``from_latent`` are the two halves of an autoencoder, and a name that ends in
Part is that of a trained network as a part of a run.

==================  ================================================================================
`RoiMaeConfig`      LEA's ROI masked autoencoder: sizes and variants, ``paper`` and ``lab`` presets
`RoiMaePart`        the trained network as a part of a run; `RoiMae` the network itself
`roi_partition`     ROIs that may overlap to groups that share out all voxels
`subject_batches`   several subjects' betas as batches for one training
`PatchMaeConfig`    MinD-Vis' patch-embedded masked autoencoder (SC-MBM), with the same presets
`PatchMaePart`      the trained network as a part of a run; `PatchMae` the network itself
`FedDecoderPart`    its decoder fed with a picture's latent: MinD-Vis predicts responses; `FedDecoder` the network
`read_sc_mbm`       its public checkpoint, read safely; `load_sc_mbm` puts all of it into a `PatchMae`, or its trunk into
                    a `RoiMae`
`DcMaeConfig`       CAD's first phase: that autoencoder, trained by telling responses apart
`DcMaePart`         the trained network as a part of a run; `DcMae` the network itself
`for_subjects`      hands the weights of a `PatchMae` or `DcMae` to other subjects
`CrossModalConfig`  CAD's second phase: a brain and a picture autoencoder that attend to each other
`CrossModalPart`    both, trained, as a part of a run; `CrossModal` the network itself
`paired_batches`    responses with their pictures as batches for one training
`LatentNetConfig`   networks from betas to latents: the published GRU and its rivals, told apart by ``kind``
`fit_latent_net`    trains one, its best step chosen on held-out training stimuli; `LatentTraining` says how
`LatentNetPart`     the trained one as a part of a run; `LatentNet` the network itself
`voxel_runs`        voxels in groups that follow each other over the cortex
`MapperConfig`      Mind Reader's mapper of betas to CLIP embeddings, `VoxelEncoderConfig` its network back
`fit_mapper`        trains one in two stages, `fit_voxel_encoder` the other; `MapperTraining`, `EncoderTraining` say how
`MapperPart`        one trained mapper or several as a part of a run, `VoxelEncoderPart` the network back;
                    `Mapper` and `VoxelEncoder` are the networks, `padding` the zeros around voxels
==================  ================================================================================

The other files are imported by name. Generators of pictures: ``ldm``, ``maskgit``, ``stylegan2``, ``vdvae``,
``dual_guided``, with their tokenizer ``vq``; ``brain_ldm``, an encoder and a latent diffusion tuned together. Networks of
features: ``public_clip``, ``backbones``. What several share: ``transformer``, ``batches``, ``pretrained``, ``bundled``,
``pixel_range``, ``curves``.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
