"""Images and captions to target latents. One file per feature space."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Where features are kept between runs: the folder in PHOSPHENE_CACHE; None, computed anew, where it is not set."""
    folder = os.environ.get("PHOSPHENE_CACHE")
    if folder:
        return Path(folder)

    return None
