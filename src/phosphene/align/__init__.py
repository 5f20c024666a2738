"""Latents to latents: one linear map, used in every direction by every system.

==================  ==================================================================================
`Ridge`             fit, predict, save: any number of targets, penalty fixed or chosen
`ReducedRankRidge`  the same through a bottleneck; `ReducedRankConfig` for recipes
`StreamedRidge`     the same towards targets that stay in a feature store, without weights
`RidgeShards`       its predictions in ranges of targets, one job each
`ridge_predict`     disk to disk: targets streamed, predictions written, no weights ever formed
`estimate`          time and memory of either, before it starts
==================  ==================================================================================

Examples
--------
>>> import numpy as np
>>> from phosphene.align import Ridge
>>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
>>> Ridge(alpha=1e-6).fit(x, 2 * x + 1).predict([[10.0]]).round(3)
array([[21.]], dtype=float32)
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
