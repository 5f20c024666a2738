"""BOLD time series to single-trial betas.

==========================  ==========================================================================================
`single_trial_betas`        runs of BOLD to Trials, with maps of what was found on the way
`betas_from_folder`         the same from a BIDS or OpenfMRI folder to a folder of arrays and tables
`BetaOptions`               every setting of either
`BoldRun`, `read_runs`      one run and its events; reading those of a subject
`design_check`              are they fit for single trials? timing, collinearity, repeats, lengths
`onset_shift`               are the onsets of the files early or late?
`split_half`                do voxels answer to the same picture alike?
`HrfLibrary`                haemodynamic responses to choose from
`ncsnr`, `ceiling`          how much of single trials, or their mean, is signal
==========================  ==========================================================================================

Kinds of betas: ``lsa`` (least squares, all trials in one model, one assumed response for all voxels), ``lss`` (each trial
in a model of its own beside the sum of the others), and the three of GLMsingle: ``b`` (a response chosen for each voxel),
``c`` (and nuisance components found in voxels that do not respond), ``d`` (and ridge regression, its strength chosen for
each voxel).

References
----------
Prince et al. 2022 (GLMsingle); Rokem and Kay 2020 (fractional ridge); Mumford et al. 2012 (LSA, LSS).
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
