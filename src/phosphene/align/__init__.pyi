from .cost import RidgeEstimate, estimate
from .reduced_rank import ReducedRankConfig, ReducedRankRidge
from .ridge import Ridge
from .shards import RidgeShards
from .streamed import StreamedRidge, ridge_predict

__all__ = [
    "ReducedRankConfig",
    "ReducedRankRidge",
    "Ridge",
    "RidgeEstimate",
    "RidgeShards",
    "StreamedRidge",
    "estimate",
    "ridge_predict",
]
