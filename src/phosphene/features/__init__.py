"""Pictures and captions to target latents. One file per feature space."""

from __future__ import annotations

from phosphene.io.store import cache_folder

__all__ = ["cache_folder"]
