"""Linear: betas to picture and picture to betas by linear maps alone. The honest baseline, and the template.

Paper: none. The parts are those of Naselaris et al. 2009 and Schoenmakers et al. 2013 (linear reconstruction).

Encode: principal components of pixels -> standardised voxels, ridge with a penalty per voxel.
Decode: voxels, weighted by how well they are encoded -> components -> pixels -> an output curve.
Everything is fitted, and every penalty chosen, inside the training trials.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from phosphene.align.decoders import LinearDecoder
from phosphene.align.ridge import Ridge
from phosphene.data.standardise import Standardiser
from phosphene.features.pixels import PixelPca
from phosphene.recipes.base import Recipe, RecipeConfig
from phosphene.run.config import Config
from phosphene.types import Images, Latents, Stimuli, Trials
