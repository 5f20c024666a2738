"""The verb `analyse`: ask a fitted run, and file what was found.

::

    RUN/analysis/NAME/
      analysis.json      title, recipe, options, seed, version, words for inputs and measures, facts, captions of the figures
      summary.txt        plain sentences, one a line
      table.csv          input, measure, value, ci_low, ci_high, n
      OTHER.csv          whatever other table the analysis has
      FIGURE.png, .svg   each figure twice: for people, and for the report
      MOVING.gif         pictures that change, where there are any
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from phosphene import recipes
from phosphene._version import __version__
from phosphene.analysis import analysis
from phosphene.analysis.interface import COLUMNS, Analysis, Findings
from phosphene.errors import ConfigError
from phosphene.io import atomic
from phosphene.io.config import Config, flatten, resolve_layers
from phosphene.io.progress import Progress
from phosphene.io.run_folder import RunFolder
from phosphene.reporting import drawing
from phosphene.reporting.presentation import Presentation, present
from phosphene.run import Run, RunLike, as_run


class Answer(NamedTuple):
    """Where an analysis was filed, and its sentences.

    Attributes
    ----------
    folder : str
        the folder in the run
    summary : str
        sentences, one a line
    """

    folder: str
    summary: str


def analyse(
    opened: RunLike,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Answer:
    """Run an analysis and file what it found in ``RUN/analysis/NAME``, all of it or nothing.

    Parameters
    ----------
    opened : Run or RunFolder or str or Path
        a fitted run, or its folder
    name : str
        one of ``phosphene.analysis.ANALYSES``
    options : mapping of str to Any, optional
        values over the analysis's defaults
    seed : int, optional
        of everything drawn; that of the run by default
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    Answer
        folder, and the sentences, one a line

    Raises
    ------
    ConfigError
        For an unknown analysis or option, or a recipe without the arrows needed.

    Examples
    --------
    >>> import phosphene
    >>> print(phosphene.analyse(phosphene.open_run("runs/demo"), "reliability").summary)       # doctest: +SKIP
    """
    opened = as_run(opened)
    cls = analysis(name)
    values, _ = resolve_layers(cls.options_class, [("options", options or {})])
    kind = opened.config.recipe.kind

    if seed is None:
        seed = opened.config.seed

    if missing := cls.missing(kind):
        able = [recipe for recipe in recipes.RECIPES if cls.applies_to(recipe)]
        raise ConfigError(
            f"the analysis '{name}' needs a recipe that can {' and '.join(cls.needs)}, but '{kind}' cannot "
            f"{' or '.join(missing)}. Recipes that can: {', '.join(able)}."
        )

    opened.verify()
    with opened.folder.locked(f"analyse {name}"):
        findings = cls(values, seed).run(opened, progress or Progress(quiet=True))
        presentation = present(name, findings)

        folder = opened.folder.path / "analysis" / name
        record = _record(cls, values, seed, opened, findings, presentation)
        _write(folder, record, findings, presentation)
        opened.folder.log("analysed", analysis=name, seed=seed)

    return Answer(str(folder), "\n".join(presentation.sentences))


def _record(
    cls: type[Analysis], options: Config, seed: int, opened: Run, findings: Findings, shown: Presentation
) -> dict[str, Any]:
    """Content of analysis.json."""
    return {
        "name": cls.name,
        "title": cls.title,
        "recipe": opened.config.recipe.kind,
        "setting": opened.config.recipe.setting,
        "options": flatten(options.model_dump(mode="json")),
        "seed": seed,
        "phosphene": __version__,
        "inputs": dict(shown.inputs),
        "measures": dict(shown.measures),
        "notes": dict(shown.notes),
        "facts": dict(findings.facts),
        "figures": [{"file": n, "alt": d.alt, "caption": d.caption} for n, d in shown.figures.items()],
        "animations": [{"file": n, "alt": a.alt, "caption": a.caption} for n, a in shown.animations.items()],
        "tables": ["table.csv", *(f"{n}.csv" for n in findings.tables)],
    }


def _write(place: Path, record: Mapping[str, Any], findings: Findings, shown: Presentation) -> None:
    with atomic.folder(place) as folder:
        files = RunFolder(folder)
        files.write_table(findings.table.loc[:, list(COLUMNS)], "table.csv")

        for name, table in findings.tables.items():
            files.write_table(table, f"{name}.csv")

        for name, drawn in shown.figures.items():
            atomic.write_bytes(folder / f"{name}.png", drawing.png(drawn.figure))
            atomic.write_text(folder / f"{name}.svg", drawing.svg(drawn.figure))

        for name, moving in shown.animations.items():
            gif = drawing.gif(moving.frames, moving.milliseconds, moving.rounds)
            atomic.write_bytes(folder / f"{name}.gif", gif)

        atomic.write_text(folder / "summary.txt", "".join(f"{sentence}\n" for sentence in shown.sentences))
        atomic.write_text(folder / "analysis.json", json.dumps(record, indent=2) + "\n")
