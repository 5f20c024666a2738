"""Outputs of every part and solver that has a version number, small and rounded, by which a change of results is noticed.

``python -m tests.recipes.golden`` writes them to golden_parts.json, with the number they belong to. Problems are well posed and
few numbers are kept, so that kernels and threads move them far less than the tolerance of the test.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phosphene.align.aligner import AlignConfig, Aligner
from phosphene.align.decoders import (
    HeldOut,
    LinearDecoder,
    LinearGaussian,
    fit_encoding,
    invert,
    regress,
    reliable_voxels,
)
from phosphene.align.mixture import MixtureDecoder
from phosphene.align.moments import Moments
from phosphene.align.reduced_rank import ReducedRankRidge
from phosphene.align.ridge import Ridge
from phosphene.align.streamed import StreamedRidge
from phosphene.data.splits import inner_folds
from phosphene.data.standardise import Standardiser
from phosphene.features.captions import Screening, Targets
from phosphene.features.clip import ClipFeatures
from phosphene.features.pixels import PixelPca
from phosphene.features.warps import WarpConfig, WarpedPictures
from phosphene.io.stages import name_of, version_of
from phosphene.io.store import cached
from phosphene.metrics.retrieval import ensemble_weights
from phosphene.models import bundled
from phosphene.models.brain_ldm import BrainLdm, HeldOutChoice, Pictures
from phosphene.models.curves import OutputCurve
from phosphene.models.dual_guided import DualGuided, RefineConfig
from phosphene.models.fed_decoder import FedDecoder, FedDecoderPart
from phosphene.models.gru import (
    GruConfig,
    LatentNet,
    LatentNetPart,
    LatentTraining,
    fit_latent_net,
    validation_rows,
    voxel_runs,
)
from phosphene.models.ldm import Ldm, LdmSampling
from phosphene.models.mapper import (
    EncoderTraining,
    Mapper,
    MapperConfig,
    MapperPart,
    MapperTraining,
    VoxelEncoder,
    VoxelEncoderConfig,
    VoxelEncoderPart,
    fit_mapper,
    fit_voxel_encoder,
)
from phosphene.models.maskgit import MaskGitPipeline, MaskGitSampling
from phosphene.models.patch_mae import PatchMae, PatchMaeConfig, PatchMaePart
from phosphene.models.roi_mae import RoiMae, RoiMaeConfig, RoiMaePart, subject_batches
from phosphene.models.stylegan2 import StyleGan2, StyleGan2Sampling
from phosphene.models.tuned_ldm import TunedLdm
from phosphene.models.vdvae import VdvaeDecoder, VdvaePart
from phosphene.recipes.maps import Predictor
from phosphene.recipes.parts import Parts
from phosphene.training.loop import train
from phosphene.training.settings import TrainConfig
from phosphene.types import Stimuli, Trials

FILE = Path(__file__).with_name("golden_parts.json")
MOST = 8  # numbers kept of an output, besides its mean and standard deviation
TOLERANCE = 1e-2  # of an output's standard deviation; other kernels and threads stay below 2e-3 of it
N, N_VOXELS, N_LATENTS, SIDE = 48, 20, 6, 12
IDS = [f"scene-{i}" for i in range(N)]
ALPHAS = (0.1, 1.0, 10.0, 100.0)
FEW = TrainConfig(steps=4, batch_size=8, lr=1e-3)


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Latents (N, N_LATENTS) and noisy responses (N, N_VOXELS) of them, float32."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((N, N_LATENTS))
    betas = latents @ rng.standard_normal((N_LATENTS, N_VOXELS)) + 2 * rng.standard_normal((N, N_VOXELS))
    return latents.astype(np.float32), betas.astype(np.float32)


def trials() -> Trials:
    """Responses with two regions and two sessions, every second stimulus twice."""
    betas = 3 * pairs()[1] + 1
    table = pd.DataFrame({"stimulus": IDS, "session": [1 + i % 2 for i in range(N)]})
    return Trials(betas, table, subject="s1")


def stimuli() -> Stimuli:
    """Small smooth colour pictures."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (N, 3, 3, 3), dtype=np.uint8)
    return Stimuli(IDS, coarse.repeat(SIDE // 3, axis=1).repeat(SIDE // 3, axis=2))


def filled(network: Any, scale: float = 0.2) -> Any:
    """A network whose weights come from numpy and not from torch's generator; in evaluation mode."""
    import torch

    rng = np.random.default_rng(2)
    for weight in network.parameters():
        weight.data = torch.from_numpy((scale * rng.standard_normal(tuple(weight.shape))).astype(np.float32))

    return network.eval()


def chosen_penalties(kind: Any = Ridge) -> np.ndarray:
    """Predictions and penalties of ridges that choose in every way."""
    latents, betas = pairs()
    out = []
    for choose in ("loo", "gcv"):
        for per_target in (True, False):
            ridge = kind(ALPHAS, choose=choose, per_target=per_target).fit(latents, betas)
            out += [np.log10(np.ravel(ridge.alpha_))[:2], ridge.predict(latents[:1])[0, :2]]

    return np.concatenate(out)


def encoding() -> Ridge:
    """An encoding model of the pairs."""
    return fit_encoding(*pairs(), ALPHAS)


def decoder() -> LinearDecoder:
    """A ridge decoder of the pairs."""
    latents, betas = pairs()
    return regress(betas, latents, np.ones(N_VOXELS, dtype=np.float32), ALPHAS)


def streamed() -> np.ndarray:
    latents, betas = pairs()
    with tempfile.TemporaryDirectory() as folder:
        what = {"extractor": "golden", "content": "pairs"}
        store = cached(
            folder, what, IDS, lambda ids: latents[[IDS.index(i) for i in ids]], shape=(N_LATENTS,), dtype="float32"
        )
        return StreamedRidge(10.0).fit(betas, store.select(IDS)).predict(betas[:2])


def warped() -> WarpedPictures:
    """Warped copies of the pictures."""
    return WarpedPictures(2 * N, 4, None, WarpConfig()).fit(stimuli(), np.random.default_rng(0))


def mixture() -> np.ndarray:
    latents, betas = pairs()
    model = LinearGaussian(encoding(), latents, betas)
    made = MixtureDecoder.fit(model, latents, correlation=0.1, trust=0.5, spread=0.03)
    return made.predict(betas[:2])


def screening() -> np.ndarray:
    few = stimuli().select(IDS[:4])
    captions = tuple((f"a scene with {i} trees", "a face") for i in range(4))
    described = Stimuli(few.ids, few.pixels(), captions=captions)
    made = Screening.fit(ClipFeatures("lab", normalise="none"), described, 0.5)
    return np.concatenate([made.similarity, made.kept])


def curve() -> np.ndarray:
    rng = np.random.default_rng(3)
    true = rng.random((20, 4, 4, 1)).astype(np.float32)
    return OutputCurve.monotone(0.5 * true + 0.2, true)(true[:1])


def roi_mae() -> RoiMae:
    """LEA's autoencoder, tiny."""
    config = RoiMaeConfig(
        **{**RoiMaeConfig.preset("lab"), "roi_heads": 2, "latent": 8, "width": 8, "depth": 1, "heads": 2,
           "decoder_width": 8, "decoder_heads": 2}
    )  # fmt: skip
    return filled(RoiMae.create(config, {"s1": [np.arange(12), np.arange(12, N_VOXELS)]}, 0))


def patch_mae() -> PatchMae:
    """The masked autoencoder, tiny."""
    sizes = {"patch_size": 5, "width": 8, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1}
    return filled(PatchMae.create(PatchMaeConfig(**sizes, decoder_heads=2), {"s1": N_VOXELS}, 0))


def trained() -> np.ndarray:
    network = roi_mae()
    _, betas = pairs()
    train(network, *subject_batches({"s1": betas}), FEW, seed=0)
    return RoiMaePart.of(network.cpu().eval()).to_latent(betas[:2])


def label_network() -> Ldm:
    """The lab's latent diffusion."""
    return Ldm.of(bundled.load("ldm"), bundled.load("vq"))


def brain_ldm() -> BrainLdm:
    """An encoder and the lab's latent diffusion that it conditions."""
    brain = patch_mae()
    network = label_network().network.with_tokens(brain.n_patches, 8, seed=0, mapped=4, time="mean", zero_time=True)
    return BrainLdm.of(brain, network)


def held_out_choice() -> np.ndarray:
    import torch

    network = filled(LatentNet.create(GruConfig(hidden=4), N_VOXELS, N_LATENTS, 0))
    _, betas = pairs()
    latents = torch.from_numpy(pairs()[0])

    def fetch(rows: np.ndarray) -> dict[str, Any]:
        return {"betas": torch.from_numpy(betas[rows]), "latents": latents[rows]}

    choice = HeldOutChoice(network, fetch, N, 16, 0, None)
    for step in (10, 20):
        choice.look({"step": step})
        for weight in network.parameters():
            weight.data *= 3

    return np.array([choice.take()[name] for name in ("step", "held_out_loss")])


def latent_net() -> np.ndarray:
    latents, betas = pairs()
    training = LatentTraining(train=FEW, validation=0.2, check_every=2)
    config = GruConfig(hidden=4)
    return fit_latent_net(config, betas, latents, IDS, training, seed=0).predict(betas[:2])


MAPPER = MapperConfig(channels=2, blocks=1, mixtures=4, linear="ridge")
ENCODER = VoxelEncoderConfig(channels=2, blocks=1, linear="ridge")


def line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and intercept of a ridge."""
    ridge = Ridge(10.0).fit(x, y)
    return ridge.coef_, ridge.intercept_


def mapper() -> np.ndarray:
    latents, betas = pairs()
    unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    targets = Targets(unit, np.arange(N), unit)
    training = MapperTraining(base=FEW, finetune=FEW, check_every=2)
    made = fit_mapper(
        MAPPER, betas, np.arange(N), targets, training, seed=0, held_out=np.arange(8), ridge=line(betas, unit)
    )
    return made.predict(betas[:2])


def voxel_encoder() -> np.ndarray:
    latents, betas = pairs()
    training = EncoderTraining(train=FEW, check_every=2)
    made = fit_voxel_encoder(
        ENCODER, latents, betas, training, seed=0, held_out=np.arange(8), ridge=line(latents, betas)
    )
    return made.encode(latents[:2])


def clip_latents() -> np.ndarray:
    """Of two pictures, by the lab's CLIP."""
    return ClipFeatures("lab").images(stimuli().pixels(np.arange(2)))


def vdvae() -> np.ndarray:
    network = bundled.load("vdvae")
    latents = np.random.default_rng(4).standard_normal((1, network.config.length(network.config.given)))
    decoder = VdvaeDecoder(VdvaePart.of(network).module)
    return decoder.decode(latents.astype(np.float32), ["a"], seed=0, temperature=0.0, pixels="mean")


def dual_guided() -> np.ndarray:
    clip = ClipFeatures("lab", output="tokens")
    vision = clip.images(stimuli().pixels(np.arange(1)))
    text = clip.texts(["a house"])
    first = stimuli().floats(np.arange(1))
    return DualGuided.bundled().refine(first, vision, text, ["a"], RefineConfig(steps=3, strength=0.7), 0)


def stylegan2() -> np.ndarray:
    latents = ClipFeatures("lab", normalise="none").images(stimuli().pixels(np.arange(1)))
    return StyleGan2.bundled().sample(latents, latents, ["a"], StyleGan2Sampling(samples=1), 0)


def diffused(network: Any) -> np.ndarray:
    tokens = np.random.default_rng(5).standard_normal((1, 4, 8)).astype(np.float32)
    ldm = Ldm.of(network, bundled.load("vq"))
    sampling = LdmSampling.lab().model_copy(update={"steps": 3, "samples": 1})
    return ldm.sample(tokens, ["a"], sampling, 0)


def tuned() -> TunedLdm:
    """The lab's latent diffusion with four tokens in place of its labels."""
    network = label_network().network.with_tokens(4, 8, seed=0, mapped=4, time="mean", zero_time=True)
    return TunedLdm.of(network, (4, 8))


def similarities() -> list[np.ndarray]:
    """Two decoders' similarity matrices, the second better than the first."""
    rng = np.random.default_rng(6)
    return [weight * np.eye(30) + rng.standard_normal((30, 30)) for weight in (0.5, 1.0)]


GOLDEN: dict[Any, Callable[[], Any]] = {
    Ridge: chosen_penalties,
    StreamedRidge: streamed,
    ReducedRankRidge: lambda: ReducedRankRidge(2, 10.0).fit(pairs()[1], pairs()[0]).predict(pairs()[1][:2]),
    Moments: lambda: Moments("train_oof").fit(0.3 * pairs()[0], pairs()[0])(pairs()[0][:2]),
    Aligner: lambda: Aligner(AlignConfig()).fit(pairs()[1], pairs()[0], np.random.default_rng(0)).brain_to_image(
        pairs()[1][:2]
    ),
    LinearDecoder: lambda: decoder().predict(pairs()[1][:2]),
    HeldOut: lambda: HeldOut(encoding(), *pairs()).r2_,
    LinearGaussian: lambda: LinearGaussian(encoding(), *pairs()).centre,
    MixtureDecoder: mixture,
    fit_encoding: lambda: encoding().predict(pairs()[0][:2]),
    regress: lambda: decoder().predict(pairs()[1][2:4]),
    invert: lambda: invert(
        pairs()[1], pairs()[0], encoding(), rng=np.random.default_rng(0), n_folds=3, alphas=ALPHAS
    ).predict(pairs()[1][:2]),
    reliable_voxels: lambda: reliable_voxels(np.linspace(-0.5, 0.5, 9)),
    Standardiser: lambda: Standardiser(per_session=True).fit(trials()).transform(trials()).betas[:2],
    inner_folds: lambda: inner_folds(trials(), 4, np.random.default_rng(0)),
    PixelPca: lambda: np.abs(PixelPca(3).fit(stimuli()).transform(stimuli())[:2]),
    WarpedPictures: lambda: warped().transform(stimuli())[:2, :1] ** 2,
    Screening: screening,
    OutputCurve: curve,
    RoiMaePart: lambda: RoiMaePart.of(roi_mae()).to_latent(pairs()[1][:2]),
    PatchMaePart: lambda: PatchMaePart.of(patch_mae()).to_tokens(pairs()[1][:2]),
    FedDecoderPart: lambda: FedDecoderPart.of(filled(FedDecoder.of(patch_mae(), N_LATENTS, 0))).from_latent(
        pairs()[0][:2]
    ),
    BrainLdm: lambda: brain_ldm().to_tokens(pairs()[1][:2]),
    TunedLdm: lambda: diffused(tuned().network),
    Ldm: lambda: label_network().decode(label_network().encode(_tensor(stimuli()))),
    HeldOutChoice: held_out_choice,
    LatentNetPart: lambda: LatentNetPart.of(
        filled(LatentNet.create(GruConfig(hidden=4), N_VOXELS, N_LATENTS, 0))
    ).predict(pairs()[1][:2]),
    fit_latent_net: latent_net,
    validation_rows: lambda: np.concatenate(validation_rows(np.array(IDS), 0.2, np.random.default_rng(0))),
    voxel_runs: lambda: np.concatenate(voxel_runs(trials(), 7)),
    MapperPart: lambda: MapperPart.of(
        filled(Mapper(MapperConfig(channels=2, blocks=1, mixtures=4), N_VOXELS, N_LATENTS))
    ).predict(pairs()[1][:2]),
    fit_mapper: mapper,
    VoxelEncoderPart: lambda: VoxelEncoderPart.of(
        filled(VoxelEncoder(VoxelEncoderConfig(channels=2, blocks=1), N_VOXELS, N_LATENTS))
    ).encode(pairs()[0][:2]),
    fit_voxel_encoder: voxel_encoder,
    MaskGitPipeline: lambda: MaskGitPipeline.bundled().sample(
        clip_latents()[:1], ["a"], MaskGitSampling(steps=3, samples=1, temperature=0.0), 0
    ),
    StyleGan2: stylegan2,
    VdvaePart: vdvae,
    DualGuided: dual_guided,
    Predictor: lambda: Predictor(encoding(), Moments("train_oof").fit(*2 * [pairs()[1]])).predict(pairs()[0][:2]),
    Parts: lambda: Parts({"units": Standardiser().fit(trials())}).state()[0]["units/mean"],
    ensemble_weights: lambda: ensemble_weights(similarities(), truth=np.arange(30)).weights,
    train: trained,
}  # fmt: skip
"""By part or solver, what makes its output."""


def _tensor(pictures: Stimuli) -> Any:
    import torch

    return torch.from_numpy(Pictures.of(pictures, 32)[np.arange(1)])


def summary(output: Any) -> list[float]:
    """Mean, standard deviation and a few entries of an output."""
    values = np.asarray(output, dtype=np.float64).ravel()
    step = max(1, len(values) // MOST)
    return [float(values.mean()), float(values.std()), *map(float, values[::step][:MOST])]


def differs(ours: list[float], golden: list[float]) -> bool:
    """Whether an output is another than the golden one, beyond what kernels and threads do."""
    if len(ours) != len(golden):
        return True

    scale = max(golden[1], 1e-3 * abs(golden[0]), 1e-6)
    return bool(np.max(np.abs(np.subtract(ours, golden))) > TOLERANCE * scale)


def output(solver: Any) -> list[float]:
    """Summary of what a part or solver makes now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return summary(GOLDEN[solver]())


def write() -> None:
    """Write every golden output with the version number it belongs to."""
    entries = {}
    for solver in GOLDEN:
        rounded = [float(f"{value:.6g}") for value in output(solver)]
        entries[name_of(solver)] = {"version": version_of(solver), "output": rounded}

    FILE.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
