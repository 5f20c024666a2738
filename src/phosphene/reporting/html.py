"""The verb `report`: one self-contained HTML page from run folders: no script, no remote asset, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from phosphene import recipes
from phosphene._version import __version__
from phosphene.errors import ConfigError
from phosphene.io import atomic
from phosphene.io.config import flatten
from phosphene.io.run_folder import SEEN, RunFolder
from phosphene.reporting.analysis_sections import analysis_sections
from phosphene.reporting.contents import Contents, plain
from phosphene.reporting.image_grid import image_grid, picture_sheet
from phosphene.reporting.plain_words import (
    HIDDEN,
    VERDICTS,
    input_words,
    is_secret,
    metric_words,
    number,
    p_value,
    redact,
    signed,
    whole,
)
from phosphene.reporting.run_comparison import check_comparable, comparison
from phosphene.reporting.run_figures import ENCODING, Drawn, draw_all, figure_values, near_copies, save_all
from phosphene.reporting.tables import published_table, score_table
from phosphene.run import Run, RunLike
from phosphene.validity.check import UNKNOWN_OUTSIDE

__all__ = ["RunLike", "render", "report"]

_MAX_ROWS = 400  # of the manifest
_SECTIONS = {
    "pictures": ("Pictures", "plates"),
    "scores": ("Scores", "scored"),
    "published": ("Published", "published"),
    "identification": ("Identification", "identification"),
    "encoding": ("Encoding", "encoding"),
    "analyses": ("Analyses", "analyses"),
    "validity": ("Validity", "validity"),
    "methods": ("Methods", "explained"),
    "configuration": ("Configuration", "manifest"),
}
"""Anchor of a section to its title, and the value of the page that it shows: without any, the section is left out."""


def report(run: RunLike | Sequence[RunLike], out: str | Path | None = None) -> Path:
    """Write one HTML page about a run, or one that compares several.

    Parameters
    ----------
    run : Run or RunFolder or str or Path or sequence of Run
        one run, as it was fitted or as a folder, or several that were tested on the same split
    out : str or Path, optional
        file to write; ``report.html`` in the (first) run by default, its figures then stand in ``figures/``

    Returns
    -------
    Path
        Path of the page

    Raises
    ------
    ModelError
        When a folder holds no run.
    SplitError
        When the runs were tested on different splits: their scores say nothing about each other.
    ConfigError
        Without any run.
    """
    if isinstance(run, Run | RunFolder | str | Path):
        run = [run]

    runs = [Contents(RunFolder.existing(_folder(one))) for one in run]
    if not runs:
        raise ConfigError("a report needs at least one run; name its folder.")

    check_comparable(runs)
    first = runs[0].run
    if out is not None:
        return _write(runs, atomic.checked_path(out), None)

    with first.locked("report"):  # which also sweeps figures that a killed report left half written
        return _write(runs, first.path / "report.html", first.path / "figures")


def _write(runs: Sequence[Contents], path: Path, figure_folder: Path | None) -> Path:
    pages = [_page(runs[0], figure_folder), *(_page(contents, None) for contents in runs[1:])]
    values: dict[str, Any] = {"runs": pages, "comparison": None, "title": pages[0]["title"]}
    if len(runs) > 1:
        values["comparison"] = comparison(runs)
        values["title"] = f"{len(runs)} runs on {runs[0].identity['data']}"

    atomic.write_text(path, render(values))
    return path


def _folder(run: RunLike) -> str | Path:
    if isinstance(run, Run):
        return run.folder.path

    if isinstance(run, RunFolder):
        return run.path

    return run


def render(values: Mapping[str, Any], template: str = "page.html") -> str:
    """Fill a template and its style sheet, with a policy that allows neither script nor network.

    Parameters
    ----------
    values : Mapping[str, Any]
        everything the template shows; texts are escaped, homes and secrets are taken out
    template : str, default "page.html"
        a file of this folder

    Returns
    -------
    str
        the page
    """
    css = files("phosphene.reporting").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    page = _environment().get_template(template)

    return page.render({"css": Markup(css), "policy": Markup(policy), "version": __version__, **values})


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("phosphene.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_redacted,
    )

    environment.filters |= {
        "number": number,
        "p_value": p_value,
        "signed": signed,
        "whole": whole,
        "text": _text,
        "inside": _inside,
        "number_or_text": _number_or_text,
    }

    environment.globals |= {
        "verdict_words": lambda verdict: VERDICTS.get(str(verdict), ("flag", "?")),
        "input_words": input_words,
    }
    return environment


def _redacted(value: Any) -> Any:
    """Every text of the page passes here: homes and secrets are taken out. Markup is ours and stays."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return redact(value)

    return value


def _text(value: Any) -> str:
    """A cell of a table as text, empty when there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""

    return str(value)


def _inside(words: str) -> str:
    """A title as part of a sentence: its first letter small, unless an abbreviation begins it."""
    if words[1:2].isupper():
        return words

    return words[:1].lower() + words[1:]


def _number_or_text(value: Any) -> str:
    text = _text(value)
    try:
        as_number = float(text)
    except ValueError:
        return text or "–"

    if 0 < abs(as_number) < 1e-3:
        return f"{as_number:.1e}".replace("-", "−")

    if as_number.is_integer():
        return whole(as_number)

    return number(as_number)


# -- one run -----------------------------------------------------------------------------------------------------------


def _page(contents: Contents, figure_folder: Path | None) -> dict[str, Any]:
    """Everything the template shows of one run."""
    groups = contents.groups(np.random.default_rng(contents.seed))
    scores = score_table(contents)
    drawn = draw_all(contents, scores)
    if figure_folder is not None:
        save_all(contents, groups, drawn, figure_folder)

    # Tables are read when first asked for, and what is damaged is noted in that order.
    verdicts = _verdicts(contents)
    manifest = _manifest(contents)

    sources = contents.inputs
    if contents.pictures(SEEN) is not None:
        sources = [SEEN, *contents.inputs]

    sorted_by = None
    if contents.sorting_metric:
        sorted_by = metric_words(contents.sorting_metric)

    identification, encoding = _panels(drawn)
    page = {
        "title": f"{contents.identity['recipe']} on {contents.identity['data']}",
        "name": contents.name,
        "identity": contents.identity,
        "lede": _lede(contents),
        "conclusions": [line for line in contents.conclusions if not line.startswith(("Check ", "Not tested"))],
        "plates": [image_grid(group, contents, sources) for group in groups],
        "sorted_by": sorted_by,
        "sheet": picture_sheet(contents),
        "n_pictures": contents.n_pictures,
        "sources": sources,
        "scores": scores,
        "scored": scores["flat"],
        "published": published_table(contents),
        "identification": identification,
        "encoding": encoding,
        "analyses": analysis_sections(contents),
        "near_copies": near_copies(contents),
        "configuration": contents.configuration,
        "manifest": manifest,
        "versions": _versions(contents),
        "skipped": contents.skipped,
        "explained": _explained(scores),
        "missing": _missing(contents),
        "notes": contents.notes,
        "split": contents.split,
        **verdicts,
    }
    page["sections"] = [(anchor, title) for anchor, (title, key) in _SECTIONS.items() if page[key]]

    return page


def _panels(drawn: Mapping[str, Drawn]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Figures about identification, and about encoding."""
    identification = []
    encoding = []
    for name, (figure, alt, caption) in drawn.items():
        if name in ENCODING:
            encoding.append(figure_values(figure, alt, caption))
        else:
            identification.append(figure_values(figure, alt, caption))

    return identification, encoding


def _verdicts(contents: Contents) -> dict[str, Any]:
    """Verdicts of the checks: those that were reached, those that were not, the urgent ones, and how many of each."""
    reached = []
    idle = []
    with_verdict: dict[str, list[dict[Any, Any]]] = {verdict: [] for verdict in VERDICTS}

    for row in contents.validity.to_dict("records"):
        verdict = str(row["verdict"])
        with_verdict.setdefault(verdict, []).append(row)

        if verdict in ("not applicable", "not tested", UNKNOWN_OUTSIDE):
            idle.append(row)
        else:
            reached.append(row)

    counts = []
    for verdict, (css_class, sign) in VERDICTS.items():
        n = len(with_verdict[verdict])
        if n:
            counts.append((verdict, n, css_class, sign))

    return {
        "validity": reached,
        "idle": idle,
        "idle_words": " or ".join(verdict for verdict in VERDICTS if any(row["verdict"] == verdict for row in idle)),
        "flags": with_verdict["flag"],
        "urgent": with_verdict["fail"],
        "counts": counts,
    }


def _manifest(contents: Contents) -> list[dict[str, str]]:
    rows = []
    for key, value in flatten(contents.manifest).items():
        if not key.startswith("versions."):
            rows.append({"key": key, "value": HIDDEN if is_secret(key) else plain(value)})

    return rows[:_MAX_ROWS]


def _versions(contents: Contents) -> dict[str, str]:
    versions = contents.manifest.get("versions")
    if isinstance(versions, Mapping):
        return {str(name): plain(version) for name, version in versions.items()}

    return {}


def _explained(scores: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(title, explanation, metrics) of every kind of metric in the table."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in scores["flat"]:
        words = row["words"]
        title = words.title.partition(" · ")[0]
        names.setdefault((title, words.text), []).append(words.name)

    return [(title, text, metrics) for (title, text), metrics in names.items() if text]


def _lede(contents: Contents) -> str:
    """One sentence that says what this run is."""
    identity = contents.identity
    if contents.is_from_elsewhere:
        return (
            f"{whole(contents.n_pictures)} pictures that were made elsewhere, beside what was seen. Nothing is known here of the "
            "decoder, its training or the brain: only what pictures themselves tell was scored and checked."
        )

    voxels = "the responses"
    if identity["n_voxels"]:
        voxels = f"{whole(identity['n_voxels'])} voxels"

    who = ""
    if identity["subject"]:
        who = f" of {identity['subject']}"

    if contents.n_pictures:
        start = f"Pictures decoded from {voxels}{who}"
    else:
        start = f"A decoder of {voxels}{who}"

    if identity["folds"] > 1:
        return (
            f"{start} with the recipe {identity['recipe']}, in {identity['folds']} folds: each of "
            f"{whole(identity['n_test'])} pictures is decoded by a model fitted on the others."
        )

    fitted = ""
    if identity["n_train"]:
        fitted = f", fitted on {whole(identity['n_train'])} {_unit(identity, identity['n_train'])}"

    tested = ""
    if identity["n_test"]:
        tested = f" and tested on {whole(identity['n_test'])} set aside"

    return f"{start} with the recipe {identity['recipe']}{fitted}{tested}."


def _unit(identity: Mapping[str, Any], n: int) -> str:
    word = "picture"
    if identity["unit"] == "trial":
        word = "trial"

    if n == 1:
        return word

    return word + "s"


def _encodes(kind: str) -> bool:
    """Whether a recipe predicts responses; a recipe that is not installed here might."""
    try:
        return recipes.recipe(kind).can_encode()
    except ConfigError:
        return True


def _missing(contents: Contents) -> list[tuple[str, str]]:
    """(what is not there, the command that makes it)."""
    gaps = []
    if contents.is_from_elsewhere:
        if contents.scores.empty:
            gaps.append(("Nothing was scored to the end.", "run the same `phosphene score` command again"))

        return gaps

    if contents.identity["state"] == "fitting":
        gaps.append(("The fit is not finished.", "run the same `phosphene fit` command again; it goes on"))

    if not contents.n_pictures:
        gaps.append(("No pictures were decoded yet.", contents.command("decode")))

    if not (contents.run.encoded(contents.split) / "predicted.npy").is_file() and _encodes(contents.identity["recipe"]):
        gaps.append(("No responses were predicted yet.", contents.command("encode")))

    if contents.scores.empty and contents.validity.empty:
        gaps.append(
            ("Nothing was scored yet, so nothing here can be believed or doubted.", contents.command("evaluate"))
        )

    return gaps
