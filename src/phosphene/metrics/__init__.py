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

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
