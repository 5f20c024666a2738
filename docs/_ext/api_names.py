"""Which names are public, station by station."""

import importlib
import inspect
from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """One public name: its dotted path, what autodoc calls it, and what it is."""

    path: str
    kind: str
    value: object


STATIONS = {
    "phosphene": "The verbs. `Trials`, `Stimuli`, `Images`, `Latents`, `Split` and `Dataset` are here too, and described below.",
    "phosphene.types": "",
    "phosphene.data": "",
    "phosphene.betas": "",
    "phosphene.features.captions": "",
    "phosphene.features.clip": "",
    "phosphene.features.pixels": "",
    "phosphene.features.vdvae_latents": "",
    "phosphene.models": "",
    "phosphene.align": "",
    "phosphene.models.curves": "",
    "phosphene.models.dual_guided": "",
    "phosphene.models.ldm": "",
    "phosphene.models.maskgit": "",
    "phosphene.models.stylegan2": "",
    "phosphene.models.vdvae": "",
    "phosphene.models.vq": "",
    "phosphene.lab.zoo": "Their [model cards](model_cards.md).",
    "phosphene.metrics": "Every metric: [metrics](metrics.md). Every check: [validity](validity.md).",
    "phosphene.recipes.base": "What every recipe is. The recipes themselves: [recipes](recipes/index.md).",
    "phosphene.analysis": "",
    "phosphene.reporting.figures": "Figures of the page, each of which can be drawn alone.",
    "phosphene.sweeps.execution": "",
    "phosphene.conformance": "",
    "phosphene.training": "",
    "phosphene.io.config": "",
    "phosphene.io.run_folder": "",
    "phosphene.errors": "",
}
"""Station to what stands above its names."""


def public_names() -> dict[str, list[Name]]:
    """Names of each station: those in ``__all__``, or where there is none, those that the file defines without underscore.

    A name that two stations offer is described at the first; `phosphene` itself describes its verbs only.
    """
    out: dict[str, list[Name]] = {}
    seen: set[int] = set()
    for station in STATIONS:
        module = importlib.import_module(station)
        defined = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == station]
        names = []

        for name in getattr(module, "__all__", defined):  # of a stub, where the package has one
            if name.startswith("_"):
                continue

            value = getattr(module, name)
            kind = _kind(value)
            if kind == "module" or id(value) in seen or (station == "phosphene" and kind != "function"):
                continue

            names.append(Name(f"{station}.{name}", kind, value))

        out[station] = names
        seen.update(id(name.value) for name in names)

    return out


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, Exception) else "class"
    if inspect.isroutine(value):
        return "function"
    return "module" if inspect.ismodule(value) else "data"
