"""The verbs on a run folder: fit, decode, encode, evaluate, analyse. The command line is a few lines over this station.

Each verb opens the run, does its work under the run's lock, and writes results that appear whole or not at all.
Whatever was finished before a kill is found again by the same command.
"""

from phosphene.flow.analysing import Answer, analyse
from phosphene.flow.decoding import CONTROLS, decode, encode
from phosphene.flow.evaluation import evaluate
from phosphene.flow.fitting import fit
from phosphene.flow.forecast import Forecast, forecast
from phosphene.flow.new_pictures import encode_pictures
from phosphene.flow.scored_pictures import ScoredPictures
from phosphene.flow.scoring import score
from phosphene.flow.show import plan, require_checks, show_config, show_recipes, summary
from phosphene.run import DataConfig, Run, RunConfig, configure, open_run

__all__ = [
    "CONTROLS",
    "Answer",
    "DataConfig",
    "Forecast",
    "Run",
    "RunConfig",
    "ScoredPictures",
    "analyse",
    "configure",
    "decode",
    "encode",
    "encode_pictures",
    "evaluate",
    "fit",
    "forecast",
    "open_run",
    "plan",
    "require_checks",
    "score",
    "show_config",
    "show_recipes",
    "summary",
]
