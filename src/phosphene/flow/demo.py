"""The whole flow on a simulated subject whose truth is known."""

from __future__ import annotations

import time
from pathlib import Path

from phosphene import flow, recipes
from phosphene.analysis import analysis
from phosphene.errors import NotAvailable
from phosphene.io.progress import Progress, duration
from phosphene.io.run_folder import RunFolder
from phosphene.reporting import report

ANALYSES = ("reliability", "cycle", "noise")
"""What a demo asks of every recipe that can answer."""


def run(recipe: str, out: str | Path, *, fast: bool = False, progress: Progress | None = None) -> str:
    """Fit, decode, encode, evaluate, analyse and report.

    Parameters
    ----------
    recipe : str
        name of a recipe, or ``all``
    out : str or Path
        folder of the run; with ``all``, one folder per recipe is made in it
    fast : bool, default False
        a smaller subject and no analyses, for a first look
    progress : Progress, optional
        where progress is shown

    Returns
    -------
    str
        the summary to print
    """
    progress = progress or Progress(quiet=True)
    if recipe == "all":
        names = recipes.recipe_names()
    else:
        names = [recipe]

    lines = []
    made = []
    for name in names:
        try:
            recipes.recipe(name)
        except NotAvailable as error:
            if recipe != "all":
                raise

            lines.append(f"{name} was left out: {error}")
            continue

        made.append(name)
        start = time.perf_counter()
        if recipe == "all":
            folder = Path(out) / name
        else:
            folder = Path(out)

        if fast:
            options = {"size": "small"}
        else:
            options = {"n_train": 2000, "n_voxels": 2000}

        values = {"data.name": "insilico", "data.options": options}
        config, origins = flow.configure(name, [("demo", values), (f"demo of {name}", recipes.recipe(name).demo)])
        opened = flow.fit(config, folder, origins=origins, progress=progress)
        flow.decode(opened, progress=progress)

        if recipes.recipe(name).can_encode(config.recipe):
            flow.encode(opened, progress=progress)

        flow.evaluate(opened, progress=progress)
        verdicts = []

        for question in [] if fast else [a for a in ANALYSES if analysis(a).applies_to(name)]:
            with progress.step(f"analysing: {question}"):
                answer = flow.analyse(opened, question, progress=progress)

            verdicts.append(f"{analysis(question).title}: {answer.summary.splitlines()[0]}")

        with progress.step("writing the report"):
            page = report(RunFolder(folder))

        lines += [
            flow.summary(folder),
            *verdicts,
            f"\n{name} took {duration(time.perf_counter() - start)}.",
            f"report: {page}",
            "",
        ]

    if len(made) > 1:
        page = report([RunFolder(Path(out) / n) for n in made], out=Path(out) / "report.html")
        lines.append(f"comparison: {page}")

    return "\n".join(lines).rstrip()
