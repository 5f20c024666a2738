from .cost import RidgeEstimate as RidgeEstimate
from .cost import estimate as estimate
from .reduced_rank import ReducedRankConfig as ReducedRankConfig
from .reduced_rank import ReducedRankRidge as ReducedRankRidge
from .ridge import Ridge as Ridge
from .shards import RidgeShards as RidgeShards
from .streamed import StreamedRidge as StreamedRidge
from .streamed import ridge_predict as ridge_predict

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
