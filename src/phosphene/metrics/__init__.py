"""Scores that say what they are worth: interval, chance, null and sample size with every number.

``compute_scores`` walks ``METRICS`` and returns a table; the parts below can be used alone. Pictures are (n, height, width,
channels) from 0 to 1, similarity matrices have decoded items in rows and true items in columns.

Functions of arrays:

pixel, ssim          PixCorr, MSE, SSIM in two variants, all pairs at once
identification       similarity, two-way identification, inside a class too
nway, retrieval      n-way top-k, retrieval curves and batches, exact; several decoders together
voxelwise            Pearson, R2, noise ceiling, false discovery rate
fid                  how far two sets of pictures are apart: FID with its bias, KID without
zero_shot            decoded latents named by text
category             what a decoder that only knows the class would reach
resize               pictures at the sizes of published scores
correlation, ties    what is constant, and what is equal but for rounding
statistics           BCa bootstrap, permutation null, paired differences, Holm

Networks whose features are compared:

perceptual           feature extractors for the pictures of each data set
public_extractors    the public ones of the literature, from ``models.backbones`` and their weights

Metric objects:

metric               what is scored, what a score holds, what a ``Metric`` knows of itself
array_metrics        how those of pictures, latents and voxels are computed
feature_metrics      how those of network features and of texts are computed
catalogue            the table of metrics
registry             metrics by name, those of other packages included; ``compute_scores``
golden               values that each metric gives on a few pictures, so that a changed metric is noticed

Comparisons:

controls             paired differences to a control
comparison           several decoders on the same stimuli: paired differences of all pairs, ranks left open
published            the papers' numbers with their protocols
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
