from .cost import RidgeEstimate, estimate
from .reduced_rank import ReducedRankConfig, ReducedRankRidge
from .ridge import Ridge
from .shards import RidgeShards
from .stream import ridge_predict
from .streamed import StreamedRidge

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
