from .betas_folder import FolderResult, betas_from_folder
from .design import DesignCheck, design_check
from .hrf import HrfLibrary
from .noise_ceiling import ceiling, ncsnr
from .options import BetaOptions
from .pipeline import BetaResult, single_trial_betas
from .read import read_runs
from .runs import BoldRun
from .split_halves import SplitHalf, split_half
from .timing import OnsetShift, onset_shift

__all__ = [
    "BetaOptions",
    "BetaResult",
    "BoldRun",
    "DesignCheck",
    "FolderResult",
    "HrfLibrary",
    "OnsetShift",
    "SplitHalf",
    "betas_from_folder",
    "ceiling",
    "design_check",
    "ncsnr",
    "onset_shift",
    "read_runs",
    "single_trial_betas",
    "split_half",
]
