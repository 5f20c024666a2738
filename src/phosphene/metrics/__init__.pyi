from .catalogue import METRICS
from .category import CategoryOnlyDecoder, PictureClassifier, class_mean_pictures
from .comparison import Comparison, compare_items
from .fid import fid_floor, fid_of, frechet_distance, kid_of
from .identification import comparisons, rank_matrix, similarity, two_way, undefined_items
from .metric import COLUMNS, Decoded, Encoded, Evaluation, FeatureView, Metric, Score, Scores, Skip, Skipped
from .nway import expected_top_k, n_way, n_way_class, n_way_influence, n_way_matrix, n_way_monte_carlo
from .perceptual import (
    FEATURE_EXTRACTORS,
    FeatureExtractor,
    TrueFeatures,
    extract_features,
    feature_extractors_for,
    feature_view,
    feature_views,
)
from .pixel import grey, mse, pixcorr, pixcorr_variants
from .public_extractors import PUBLIC_EXTRACTORS
from .published import matching, published_rows
from .registry import all_metrics, compute_scores, find_metric, kind_of, metric_of, score_at_published_size, space_of
from .resize import at_published_size, resized
from .retrieval import batch_retrieval, combined, drawn_retrieval, ensemble_weights, retrieval_curve
from .ssim import ssim_2d, ssim_columns, ssim_pairs
from .statistics import bootstrap, holm, mean_of_items, mean_of_pairs, paired_difference, permutation_null
from .voxelwise import (
    ceiling_from_ncsnr,
    fdr,
    fraction_of_ceiling,
    noise_ceiling,
    pearson_per_voxel,
    r2_per_voxel,
    split_half_ceiling,
)
from .zero_shot import Candidates, candidates_from, confusion

__all__ = [
    "COLUMNS",
    "FEATURE_EXTRACTORS",
    "METRICS",
    "PUBLIC_EXTRACTORS",
    "Candidates",
    "CategoryOnlyDecoder",
    "Comparison",
    "Decoded",
    "Encoded",
    "Evaluation",
    "FeatureExtractor",
    "FeatureView",
    "Metric",
    "PictureClassifier",
    "Score",
    "Scores",
    "Skip",
    "Skipped",
    "TrueFeatures",
    "all_metrics",
    "at_published_size",
    "batch_retrieval",
    "bootstrap",
    "candidates_from",
    "ceiling_from_ncsnr",
    "class_mean_pictures",
    "combined",
    "compare_items",
    "comparisons",
    "compute_scores",
    "confusion",
    "drawn_retrieval",
    "ensemble_weights",
    "expected_top_k",
    "extract_features",
    "fdr",
    "feature_extractors_for",
    "feature_view",
    "feature_views",
    "fid_floor",
    "fid_of",
    "find_metric",
    "fraction_of_ceiling",
    "frechet_distance",
    "grey",
    "holm",
    "kid_of",
    "kind_of",
    "matching",
    "mean_of_items",
    "mean_of_pairs",
    "metric_of",
    "mse",
    "n_way",
    "n_way_class",
    "n_way_influence",
    "n_way_matrix",
    "n_way_monte_carlo",
    "noise_ceiling",
    "paired_difference",
    "pearson_per_voxel",
    "permutation_null",
    "pixcorr",
    "pixcorr_variants",
    "published_rows",
    "r2_per_voxel",
    "rank_matrix",
    "resized",
    "retrieval_curve",
    "score_at_published_size",
    "similarity",
    "space_of",
    "split_half_ceiling",
    "ssim_2d",
    "ssim_columns",
    "ssim_pairs",
    "two_way",
    "undefined_items",
]
