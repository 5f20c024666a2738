"""phosphene: brain activity to the image that was seen, and an image to the brain activity it evokes.

brain <-> latent <-> image. Every published system is some choice for each arrow; here they are parts of one flow:

    data       what was shown and what was measured: Trials and Stimuli, splits, standardisation
    features   pictures and captions to target latents
    align      latents to latents: ridge and its relatives
    generate   latents to pictures
    recipes    whole systems, one file each: fit, decode (brain to image), encode (image to brain)
    evaluate   scores with intervals, chance, nulls and controls; checks that run by default
    flow       the verbs on a run folder: fit, decode, encode, evaluate
    report     one self-contained page

    >>> import phosphene
    >>> run = phosphene.fit(phosphene.configure("linear", [("mine", {"data.name": "insilico"})])[0], "runs/mine")
    >>> phosphene.decode(run), phosphene.encode(run), phosphene.evaluate(run), phosphene.report(run)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from phosphene._version import __version__

_PUBLIC = {
    "Dataset": "phosphene.types",
    "Images": "phosphene.types",
    "Latents": "phosphene.types",
    "Run": "phosphene.run",
    "Split": "phosphene.types",
    "Stimuli": "phosphene.types",
    "Trials": "phosphene.types",
    "analyse": "phosphene.flow.analysing",
    "configure": "phosphene.run",
    "decode": "phosphene.flow",
    "encode": "phosphene.flow",
    "evaluate": "phosphene.flow",
    "fit": "phosphene.flow",
    "open_dataset": "phosphene.data.registry",
    "open_run": "phosphene.run",
    "recipe": "phosphene.recipes",
    "recipe_names": "phosphene.recipes",
    "report": "phosphene.reporting.html",
    "score": "phosphene.metrics",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that importing phosphene loads nothing heavy."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)

    raise AttributeError(f"module 'phosphene' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
