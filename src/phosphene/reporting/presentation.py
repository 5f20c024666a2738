"""What the findings of an analysis become for people: sentences, words for the table, figures. One file each says how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from phosphene.analysis.interface import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PRESENTERS", "Animation", "Drawing", "Presentation", "present"]

PRESENTERS: dict[str, str] = {
    "reliability": "phosphene.reporting.reliability_section:present_reliability",
    "cycle": "phosphene.reporting.cycle_section:present_cycle",
    "stimulate": "phosphene.reporting.stimulation_section:present_stimulation",
    "words": "phosphene.reporting.words_section:present_words",
    "interpolate": "phosphene.reporting.interpolation_section:present_interpolation",
    "noise": "phosphene.reporting.noise_section:present_noise",
    "categories": "phosphene.reporting.categories_section:present_categories",
    "robustness": "phosphene.reporting.robustness_section:present_robustness",
}
"""Name of an analysis, and where the function lives that turns its findings into sentences and figures."""


class Drawing(NamedTuple):
    """A figure with its words.

    Parameters
    ----------
    figure : Figure
        of matplotlib
    alt : str
        a text for who cannot see it
    caption : str
        below it
    """

    figure: Figure
    alt: str
    caption: str


class Animation(NamedTuple):
    """Pictures shown one after the other, with their words.

    Parameters
    ----------
    frames : ndarray of shape (n, h, w, 3)
        uint8
    alt : str
        a text for who cannot see them
    caption : str
        below them
    milliseconds : int, default 120
        each is shown for
    rounds : int, default 3
        how often the whole is shown, so that it ends
    """

    frames: np.ndarray
    alt: str
    caption: str
    milliseconds: int = 120
    rounds: int = 3


@dataclass(frozen=True)
class Presentation:
    """An analysis for people.

    Parameters
    ----------
    sentences : sequence of str
        what the numbers allow to be said, the verdict first
    inputs, measures : Mapping[str, str]
        names in the table to words, in the order shown
    figures : Mapping[str, Drawing], optional
        name of the file to drawing
    animations : Mapping[str, Animation], optional
        name of the file to moving pictures; they stand after the figures
    notes : Mapping[str, str], optional
        measure to what it is, for the reader of the report
    """

    sentences: Sequence[str]
    inputs: Mapping[str, str]
    measures: Mapping[str, str]
    figures: Mapping[str, Drawing] = field(default_factory=dict)
    animations: Mapping[str, Animation] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def present(name: str, findings: Findings) -> Presentation:
    """Turn the findings of an analysis into sentences and figures.

    Parameters
    ----------
    name : str
        of the analysis, one of `PRESENTERS`
    findings : Findings
        what it found

    Returns
    -------
    Presentation
        sentences, words for the table, figures and notes
    """
    module, _, attribute = PRESENTERS[name].partition(":")
    presenter: Callable[[Findings], Presentation] = getattr(import_module(module), attribute)
    return presenter(findings)
