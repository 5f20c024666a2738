"""Settings of single-trial betas."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from phosphene.errors import ConfigError
from phosphene.io.config import Config

Kind = Literal["lsa", "lss", "b", "c", "d"]


class BetaOptions(Config):
    """How betas are made. Defaults are those of GLMsingle (Prince et al. 2022), but for the responses, our own library.

    The kinds of single trials are GLMsingle's types: ``lsa`` its type A, ``b``, ``c`` and ``d`` types B, C and D.
    """

    kind: Kind = Field(
        default="d", description="lsa, lss: one assumed response; b: chosen per voxel; c: and components; d: and ridge"
    )
    hrf_table: str | None = Field(
        default=None,
        description="file of impulse responses, a column each, such as GLMsingle's table; None: our own twenty",
    )
    hrf_step_s: float = Field(default=0.1, gt=0, le=2, description="seconds between the rows of `hrf_table`")
    assumed_hrf: int | None = Field(
        default=None, ge=0, description="response of lsa, lss and the on-off model; None: peaks near 5 s"
    )
    polynomial_degree: int | None = Field(
        default=None, ge=0, le=20, description="drift; None: half the minutes of a run"
    )
    max_components: int = Field(default=10, ge=0, le=100, description="noise components tried")
    components: int | None = Field(
        default=None, ge=0, le=100, description="noise components used; None: cross-validated"
    )
    stop: float = Field(
        default=1.05, ge=1, description="fewest components whose gain times this reaches the largest gain"
    )
    bright_percentile: float = Field(
        default=99.0, gt=0, le=100, description="a voxel is bright above `bright_share` of this"
    )
    bright_share: float = Field(default=0.1, ge=0, lt=1, description="see `bright_percentile`")
    threshold: float | None = Field(
        default=None, description="on-off R2 (percent) of voxels that respond; None: two-Gaussian mixture"
    )
    fractions: tuple[float, ...] = Field(
        default=tuple(round(1 - 0.05 * k, 2) for k in range(20)),
        min_length=1,
        description="of ridge; one alone is not validated",
    )
    autoscale: bool = Field(default=True, description="bring shrunk betas back to the size of least squares")
    percent: bool = Field(default=True, description="percent of the mean signal; else the units of the file")
    confounds: bool = Field(default=False, description="project motion or other confounds out together with drift")
    onset_shift_s: float = Field(default=0.0, ge=-60, le=60, description="added to every onset of the files")
    memory_gb: float = Field(default=2.0, gt=0, description="for working copies; larger data are done in more passes")

    @model_validator(mode="after")
    def _step_of_a_table(self) -> BetaOptions:
        if self.hrf_table is None and self.hrf_step_s != 0.1:
            raise ConfigError(
                f"hrf_step_s says how far apart the rows of hrf_table are; got hrf_step_s={self.hrf_step_s:g} and no table. "
                "Our own library is known at any time and needs no step."
            )

        return self

    @model_validator(mode="after")
    def _known_fractions(self) -> BetaOptions:
        if not all(0 < f <= 1 for f in self.fractions) or len(set(self.fractions)) < len(self.fractions):
            raise ConfigError(
                f"fractions of ridge are distinct, more than 0 and at most 1; got {list(self.fractions)}."
            )

        return self
