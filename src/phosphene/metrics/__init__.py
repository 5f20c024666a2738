"""Scores that say what they are worth: interval, chance, null and sample size with every number.

``score`` walks ``METRICS`` and returns a table; the parts below can be used alone. Pictures are (n, height, width,
channels) from 0 to 1, similarity matrices have decoded items in rows and true items in columns.

pixel, ssim          PixCorr, MSE, SSIM in two variants, all pairs at once
identification       similarity, two-way identification, inside a class too
nway, retrieval      n-way top-k, retrieval curves and batches, exact; several decoders together
voxelwise            Pearson, R2, noise ceiling, false discovery rate
perceptual           networks that look at pictures, for scores of what they show
photographs          the public ones of the literature, from ``backbones`` and their weights
resize               pictures at the sizes of published scores
fid                  how far two sets of pictures are apart: FID with its bias, KID without
zero_shot            decoded latents named by text
category             what a decoder that only knows the class would reach
statistics           BCa bootstrap, permutation null, paired differences, Holm
comparison           several decoders on the same stimuli: paired differences of all pairs, places left open
metric, seen, registry   inputs, scores and the table of metrics
validity             checks that run by default, each with a verdict
conclusion           the sentences that end a report
published            the papers' numbers with their protocols
"""

from __future__ import annotations

from phosphene._lazy import attach

_WHERE = {
    "pixcorr": "pixel",
    "pixcorr_variants": "pixel",
    "mse": "pixel",
    "grey": "pixel",
    "ssim_2d": "ssim",
    "ssim_columns": "ssim",
    "ssim_pairs": "ssim",
    "similarity": "identification",
    "two_way": "identification",
    "rank_matrix": "identification",
    "comparisons": "identification",
    "undefined_items": "identification",
    "n_way": "nway",
    "n_way_class": "nway",
    "n_way_matrix": "nway",
    "n_way_influence": "nway",
    "n_way_monte_carlo": "nway",
    "expected_top_k": "nway",
    "retrieval_curve": "retrieval",
    "batch_retrieval": "retrieval",
    "drawn_retrieval": "retrieval",
    "ensemble_weights": "retrieval",
    "combined": "retrieval",
    "pearson_per_voxel": "voxelwise",
    "r2_per_voxel": "voxelwise",
    "noise_ceiling": "voxelwise",
    "ceiling_from_ncsnr": "voxelwise",
    "split_half_ceiling": "voxelwise",
    "fraction_of_ceiling": "voxelwise",
    "fdr": "voxelwise",
    "bootstrap": "statistics",
    "mean_of_items": "statistics",
    "mean_of_pairs": "statistics",
    "permutation_null": "statistics",
    "paired_difference": "statistics",
    "holm": "statistics",
    "Comparison": "comparison",
    "compare_items": "comparison",
    "PictureClassifier": "category",
    "CategoryOnlyDecoder": "category",
    "class_mean_pictures": "category",
    "frechet_distance": "fid",
    "fid_of": "fid",
    "fid_floor": "fid",
    "kid_of": "fid",
    "FEATURE_EXTRACTORS": "perceptual",
    "FeatureExtractor": "perceptual",
    "eyes_for": "perceptual",
    "look": "perceptual",
    "views": "perceptual",
    "PHOTOGRAPHS": "photographs",
    "at_published_size": "resize",
    "resized": "resize",
    "Candidates": "zero_shot",
    "candidates_from": "zero_shot",
    "confusion": "zero_shot",
    "View": "metric",
    "Decoded": "metric",
    "Encoded": "metric",
    "Evaluation": "metric",
    "Score": "metric",
    "Scores": "metric",
    "Skipped": "metric",
    "COLUMNS": "metric",
    "METRICS": "registry",
    "metric_of": "registry",
    "score": "registry",
    "score_at_published_size": "registry",
    "published_rows": "published",
    "matching": "published",
}

__getattr__, __dir__, __all__ = attach(__name__, _WHERE)
