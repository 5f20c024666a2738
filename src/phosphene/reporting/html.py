"""One self-contained HTML page from run folders: no script, no remote asset, everything escaped."""

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
from phosphene.io.folder import SEEN, RunFolder
from phosphene.reporting.analyses import analyses
from phosphene.reporting.contents import Contents, plain
from phosphene.reporting.image_grid import contact_sheet, image_grid
from phosphene.reporting.run_comparison import check_comparable, comparison
from phosphene.reporting.run_figures import ENCODING, draw_all, figure_values, near_copies, save_all
from phosphene.reporting.tables import published_table, score_table
from phosphene.reporting.words import (
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
from phosphene.run import Run

_ROW_LIMIT = 400
_SECTIONS = (
    ("pictures", "Pictures"), ("scores", "Scores"), ("published", "Published"), ("identification", "Identification"),
    ("encoding", "Encoding"), ("analyses", "Analyses"), ("validity", "Validity"), ("methods", "Methods"),
    ("configuration", "Configuration"),
)  # fmt: skip


Run = Run | RunFolder | str | Path


def report(run: Run | Sequence[Run], out: str | Path | None = None) -> Path:
    """Write one HTML page about a run, or one that compares several.

    Parameters
    ----------
    run : Run or sequence of Run
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
    if isinstance(run, Run):
        given = [run]
    else:
        given = list(run)

    if not given:
        raise ConfigError("a report needs at least one run; name its folder.")

    folders = [r.run if isinstance(r, Run) else r for r in given]
    runs = [Contents(RunFolder.existing(r.path if isinstance(r, RunFolder) else r)) for r in folders]
    check_comparable(runs)
    pages = [_page(c, runs[0].run.path / "figures" if out is None and c is runs[0] else None) for c in runs]
    values = {
        "runs": pages,
        "comparison": comparison(runs) if len(runs) > 1 else None,
        "title": pages[0]["title"] if len(runs) == 1 else f"{len(runs)} runs on {runs[0].identity['data']}",
    }

    if out is None:
        path = runs[0].run.path / "report.html"
    else:
        path = atomic.checked_path(out)

    atomic.write_text(path, render(values))
    return path


def render(values: Mapping[str, Any], template: str = "page.html") -> str:
    """A page as text: template and style sheet, with a policy that allows neither script nor network."""
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
        finalize=_shown,
    )

    environment.filters |= {
        "number": number,
        "p_value": p_value,
        "signed": signed,
        "whole": whole,
        "text": _text,
        "inside": _inside,
        "number_or_text": _either,
    }

    environment.globals |= {"verdict_words": lambda v: VERDICTS.get(str(v), ("flag", "?")), "input_words": input_words}
    return environment


def _shown(value: Any) -> Any:
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


def _either(value: Any) -> str:
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
    c = contents
    rng = np.random.default_rng(c.seed)
    groups = c.groups(rng)

    if c.pictures(SEEN) is not None:
        sources = [SEEN, *c.inputs]
    else:
        sources = c.inputs

    scores = score_table(c)
    drawn = draw_all(c, scores)
    if figure_folder is not None:
        save_all(c, groups, drawn, figure_folder)

    verdicts = c.validity["verdict"].astype(str)
    idle = verdicts.isin(["not applicable", "not tested"]).to_numpy()
    manifest = [
        {"key": k, "value": "[hidden]" if is_secret(k) else plain(v)}
        for k, v in flatten(c.manifest).items()
        if not k.startswith("versions.")
    ]

    versions = c.manifest.get("versions")
    explained: dict[tuple[str, str], list[str]] = {}

    for words in (r["words"] for r in scores["flat"]):
        explained.setdefault((words.title.partition(" · ")[0], words.text), []).append(words.name)

    panels = {name: figure_values(*parts) for name, parts in drawn.items()}
    page = {
        "title": f"{c.identity['recipe']} on {c.identity['data']}",
        "name": c.name,
        "identity": c.identity,
        "lede": _lede(c),
        "conclusions": [line for line in c.conclusions if not line.startswith(("Check ", "Not tested"))],
        "flags": c.validity[(verdicts == "flag").to_numpy()].to_dict("records"),
        "plates": [image_grid(g, c, sources) for g in groups],
        "sorted_by": metric_words(c.sorting_metric) if c.sorting_metric else None,
        "sheet": contact_sheet(c),
        "n_pictures": c.n_pictures,
        "sources": sources,
        "scores": scores,
        "published": published_table(c),
        "identification": [f for name, f in panels.items() if name not in ENCODING],
        "encoding": [f for name, f in panels.items() if name in ENCODING],
        "analyses": analyses(c),
        "validity": c.validity[~idle].to_dict("records"),
        "near_copies": near_copies(c),
        "idle": c.validity[idle].to_dict("records"),
        "counts": [(v, int((verdicts == v).sum()), *VERDICTS[v]) for v in VERDICTS if (verdicts == v).any()],
        "urgent": c.validity[(verdicts == "fail").to_numpy()].to_dict("records"),
        "configuration": c.configuration,
        "manifest": manifest[:_ROW_LIMIT],
        "versions": {str(k): plain(v) for k, v in versions.items()} if isinstance(versions, Mapping) else {},
        "skipped": c.skipped,
        "explained": [(title, text, names) for (title, text), names in explained.items() if text],
        "missing": _missing(c),
        "notes": c.notes,
        "split": c.split,
    }

    shown = {"pictures": "plates", "validity": "validity", "methods": "explained", "configuration": "manifest"}
    shown |= {name: name for name in ("published", "identification", "encoding", "analyses")}
    there = {id_ for id_, key in shown.items() if page[key]} | ({"scores"} if scores["flat"] else set())
    page["sections"] = [(id_, name) for id_, name in _SECTIONS if id_ in there]

    return page


def _lede(c: Contents) -> str:
    """One sentence that says what this run is."""
    i = c.identity
    if i["n_voxels"]:
        voxels = f"{whole(i['n_voxels'])} voxels"
    else:
        voxels = "the responses"

    if i["subject"]:
        who = f" of {i['subject']}"
    else:
        who = ""

    if c.n_pictures:
        start = f"Pictures decoded from {voxels}{who}"
    else:
        start = f"A decoder of {voxels}{who}"

    if i["folds"] > 1:
        return (
            f"{start} with the recipe {i['recipe']}, in {i['folds']} folds: each of {whole(i['n_test'])} pictures is decoded "
            "by a model fitted on the others."
        )

    if i["n_train"]:
        fitted = f", fitted on {whole(i['n_train'])} {_unit(i, i['n_train'])}"
    else:
        fitted = ""

    if i["n_test"]:
        tested = f" and tested on {whole(i['n_test'])} set aside"
    else:
        tested = ""

    return f"{start} with the recipe {i['recipe']}{fitted}{tested}."


def _unit(identity: Mapping[str, Any], n: int) -> str:
    if identity["unit"] == "trial":
        word = "trial"
    else:
        word = "picture"

    if n == 1:
        return word

    return word + "s"


def _encodes(kind: str) -> bool:
    """Whether a recipe predicts responses; a recipe that is not installed here might."""
    try:
        return recipes.recipe(kind).can_encode()
    except ConfigError:
        return True


def _missing(c: Contents) -> list[tuple[str, str]]:
    """(what is not there, the command that makes it)."""
    gaps = []
    if c.identity["state"] == "fitting":
        gaps.append(("The fit is not finished.", "run the same `phosphene fit` command again; it goes on"))

    if not c.n_pictures:
        gaps.append(("No pictures were decoded yet.", c.command("decode")))

    if not (c.run.encoded(c.split) / "predicted.npy").is_file() and _encodes(c.identity["recipe"]):
        gaps.append(("No responses were predicted yet.", c.command("encode")))

    if c.scores.empty and c.validity.empty:
        gaps.append(("Nothing was scored yet, so nothing here can be believed or doubted.", c.command("evaluate")))

    return gaps
