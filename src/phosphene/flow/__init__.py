"""The verbs on a run folder: fit, decode, encode, evaluate. The command line is a few lines over this station.

Each verb opens the run, does its work under the run's lock, and writes results that appear whole or not at all.
Whatever was finished before a kill is found again by the same command.
"""

from phosphene.flow.decode import CONTROLS, decode, encode
from phosphene.flow.evaluate import evaluate
from phosphene.flow.fit import fit
from phosphene.flow.forecast import Forecast, forecast
from phosphene.flow.opened import DataConfig, Opened, RunConfig, configure, open_run
from phosphene.flow.show import plan, show_config, show_recipes, summary

__all__ = [
    "CONTROLS",
    "DataConfig",
    "Forecast",
    "Opened",
    "RunConfig",
    "configure",
    "decode",
    "encode",
    "evaluate",
    "fit",
    "forecast",
    "open_run",
    "plan",
    "show_config",
    "show_recipes",
    "summary",
]
