from .category import CategoryOnlyDecoder, PictureClassifier, class_mean_pictures
from .comparison import Comparison, compare_items
from .fid import fid_floor, fid_of, frechet_distance, kid_of
from .identification import comparisons, rank_matrix, similarity, two_way, undefined_items
from .metric import COLUMNS, Decoded, Encoded, Evaluation, Score, Scores, Skipped, View
from .nway import expected_top_k, n_way, n_way_class, n_way_influence, n_way_matrix, n_way_monte_carlo
from .perceptual import FEATURE_EXTRACTORS, FeatureExtractor, feature_extractors_for, look, views
from .photographs import PHOTOGRAPHS
from .pixel import grey, mse, pixcorr, pixcorr_variants
from .published import matching, published_rows
from .registry import METRICS, metric_of, score, score_at_published_size
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
    "PHOTOGRAPHS",
    "Candidates",
    "CategoryOnlyDecoder",
    "Comparison",
    "Decoded",
    "Encoded",
    "Evaluation",
    "FeatureExtractor",
    "PictureClassifier",
    "Score",
    "Scores",
    "Skipped",
    "View",
    "at_published_size",
    "batch_retrieval",
    "bootstrap",
    "candidates_from",
    "ceiling_from_ncsnr",
    "class_mean_pictures",
    "combined",
    "compare_items",
    "comparisons",
    "confusion",
    "drawn_retrieval",
    "ensemble_weights",
    "expected_top_k",
    "fdr",
    "feature_extractors_for",
    "fid_floor",
    "fid_of",
    "fraction_of_ceiling",
    "frechet_distance",
    "grey",
    "holm",
    "kid_of",
    "look",
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
    "score",
    "score_at_published_size",
    "similarity",
    "split_half_ceiling",
    "ssim_2d",
    "ssim_columns",
    "ssim_pairs",
    "two_way",
    "undefined_items",
    "views",
]
