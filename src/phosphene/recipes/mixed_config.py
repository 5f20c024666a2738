"""What a mix can be told: which parts, and a section for each part there is. Sections are those of the parts' recipes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from phosphene.align.moments import Mode
from phosphene.align.reduced_rank import ReducedRankConfig
from phosphene.brain.dc_mae import DcMaeConfig
from phosphene.brain.gru import GroupGruConfig, GruConfig, LatentTraining
from phosphene.brain.patch_mae import PatchMaeConfig
from phosphene.brain.roi_mae import RoiMaeConfig
from phosphene.features.captions import LIMIT, SHARE
from phosphene.generate.dual_guided_config import RefineConfig
from phosphene.generate.maskgit_config import SamplingConfig
from phosphene.generate.stylegan2_config import SamplingConfig as GanSampling
from phosphene.recipes import cad, latent_diffused, lea, mind_reader
from phosphene.recipes.base import RecipeConfig
from phosphene.recipes.clip_painted import ClipConfig, PainterConfig
from phosphene.recipes.two_stage import FirstStageConfig, RefinerConfig, TokensConfig
from phosphene.run.config import Config


class RoiMaeSection(Config):
    """LEA's autoencoder: what `Lea` can be told about it."""

    rois: tuple[str, ...] | None = Field(None, description="order in which ROIs take their voxels; as in the data")
    brain: RoiMaeConfig = RoiMaeConfig()
    brain_rows: Literal["trials", "averaged"] = Field("trials", description="single trials, or repeats averaged")
    brain_training: lea.BrainTraining = lea.BrainTraining()


class ContrastSection(Config):
    """Phase one of CAD: what `Cad` can be told about it."""

    rows: Literal["trials", "averaged"] = Field("trials", description="single trials, or repeats averaged")
    brain: DcMaeConfig = DcMaeConfig()
    brain_training: cad.ContrastTraining = cad.ContrastTraining()


class MaskedSection(Config):
    """Phase one of MinD-Vis: what `MindVis` can be told about it."""

    rows: Literal["trials", "averaged"] = Field("trials", description="single trials, or repeats averaged")
    brain: PatchMaeConfig = PatchMaeConfig()
    brain_training: latent_diffused.BrainTraining = latent_diffused.BrainTraining()


class MaskGitSection(Config):
    """LEA's generator: what `Lea` can be told about it."""

    clip: ClipConfig = ClipConfig()
    images: PainterConfig = PainterConfig()
    sampling: SamplingConfig = SamplingConfig()


class StyleGan2Section(Config):
    """Mind Reader's generator: what `MindReader` can be told about it."""

    clip: ClipConfig = ClipConfig(name=mind_reader.PAPER_CLIP)
    screening: float = Field(SHARE, ge=0, lt=1, description="see the recipe mind_reader; 0 keeps all captions")
    clamp: float | None = Field(LIMIT, gt=0, description="largest value of a raw embedding; none: as they are")
    images: mind_reader.GeneratorConfig = mind_reader.GeneratorConfig()
    sampling: GanSampling = GanSampling()


class TwoStageSection(Config):
    """The generators of Brain-Diffuser: what `BrainDiffuser` can be told about them."""

    first: FirstStageConfig = FirstStageConfig()
    tokens: TokensConfig = TokensConfig()
    refiner: RefinerConfig = RefinerConfig()
    sampling: RefineConfig = RefineConfig()


class MixedConfig(RecipeConfig):
    """Configuration of `Mixed`: what is mixed, and a section for each part, read where that part is chosen."""

    kind: Literal["mixed"] = "mixed"
    brain: Literal["none", "roi_mae", "contrast", "masked"] = Field("none", description="model of responses alone")
    map: Literal["ridge", "reduced_rank", "gru", "group_gru"] = Field("ridge", description="from its features onwards")
    generator: Literal["maskgit", "stylegan2", "vdvae", "dual_guided"] = Field("maskgit", description="what draws")
    start: Literal["vdvae", "noise"] = Field("vdvae", description="what generator=dual_guided starts from")
    pick: Literal["first", "closest"] = Field(
        "first", description="which sample: the first, or the one whose CLIP latent is closest to the decoded one"
    )
    per_session: bool = Field(False, description="standardise voxels by the training trials of each session")
    pretrain: tuple[str, ...] = Field((), description="other subjects whose responses the brain model learns from too")
    read: Literal["tokens", "mean", "class"] = Field(
        "tokens", description="features of contrast and masked: all tokens, their mean, or the class token"
    )
    alpha: float | None = Field(None, gt=0, description="penalty of the ridge map; chosen by leave-one-out where none")
    restandardise: Mode = Field("train_oof", description="mean and spread of predictions, as for brain_diffuser")
    n_folds: int = Field(5, ge=2, description="folds over training stimuli for restandardise=train_oof")
    roi_mae: RoiMaeSection = RoiMaeSection()
    contrast: ContrastSection = ContrastSection()
    masked: MaskedSection = MaskedSection()
    reduced_rank: ReducedRankConfig = ReducedRankConfig()
    gru: GruConfig = GruConfig()
    group_gru: GroupGruConfig = GroupGruConfig()
    group_size: int | None = Field(50, ge=1, description="voxels of a step of the sequence, for map=group_gru")
    training: LatentTraining = Field(LatentTraining(), description="of gru and group_gru")
    maskgit: MaskGitSection = MaskGitSection()
    stylegan2: StyleGan2Section = StyleGan2Section()
    two_stage: TwoStageSection = Field(TwoStageSection(), description="of vdvae and dual_guided")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.setting == "strict" and self.restandardise == "test":
            raise ValueError(
                "restandardise 'test' looks at test responses; say so with setting=relax, or use 'train_oof'"
            )
        if self.map == "group_gru" and (self.brain == "roi_mae" or (self.brain != "none" and self.read != "tokens")):
            raise ValueError(
                "map 'group_gru' walks over groups of voxels or tokens, but one latent has none: use brain none, or "
                "contrast or masked with read=tokens"
            )
        if self.pick == "closest" and self.generator not in ("maskgit", "stylegan2"):
            raise ValueError("pick 'closest' chooses among samples, which generators maskgit and stylegan2 draw")
        return self
