from .design import DesignCheck as DesignCheck
from .design import design_check as design_check
from .folder import FolderResult as FolderResult
from .folder import betas_from_folder as betas_from_folder
from .hrf import HrfLibrary as HrfLibrary
from .noise_ceiling import ceiling as ceiling
from .noise_ceiling import ncsnr as ncsnr
from .options import BetaOptions as BetaOptions
from .pipeline import BetaResult as BetaResult
from .pipeline import single_trial_betas as single_trial_betas
from .read import read_runs as read_runs
from .reliability import SplitHalf as SplitHalf
from .reliability import split_half as split_half
from .runs import BoldRun as BoldRun
from .timing import OnsetShift as OnsetShift
from .timing import onset_shift as onset_shift

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
