"""Fills pages from the code they describe, so that they cannot go stale.

A page says where with a comment on a line of its own, ``<!-- generated: NAME -->``. NAME is one of `MAKERS`: functions that
return Markdown.
"""

import re
from pathlib import Path

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
BUILD = Path(__file__).resolve().parents[2] / "build"


def api() -> str:
    """Public names of every station, from their docstrings."""
    from api_names import STATIONS, public_names
    from docstring_markdown import described

    parts = []
    for station, names in public_names().items():
        parts.append(f"## {station}\n\n{STATIONS[station]}\n")
        for name in names:
            if name.kind != "data":
                parts.append(described(name.path, name.value))
                continue
            held = ": " + ", ".join(f"`{k}`" for k in name.value) if isinstance(name.value, dict) else ""
            parts.append(f"`{name.path}`, a {type(name.value).__name__}{held}\n")
    return "\n".join(parts)


def cli() -> str:
    """Every command's own help."""
    import typer
    from typer.testing import CliRunner

    from phosphene.cli import app

    runner, root = CliRunner(), typer.main.get_command(app)

    def pages(command, words):
        if words:
            shown = runner.invoke(app, [*words, "--help"], terminal_width=100, prog_name="phosphene").output.strip()
            yield f"{'#' * (len(words) + 1)} phosphene {' '.join(words)}\n\n```text\n{shown}\n```\n"
        for name, sub in getattr(command, "commands", {}).items():
            yield from pages(sub, [*words, name])

    return "\n".join(pages(root, []))


def model_cards() -> str:
    """The zoo's cards, as they are bundled."""
    from phosphene.lab import zoo

    return "\n".join(re.sub(r"^#", "##", zoo.card(name), flags=re.MULTILINE) + "\n" for name in zoo.names())


def recipe_list() -> str:
    """What `phosphene show recipes` says."""
    from phosphene import flow

    return f"```text\n{flow.show_recipes()}\n```\n"


def analyses() -> str:
    """What `phosphene show analyses` says."""
    from phosphene.analysis import show_analyses

    return f"```text\n{show_analyses()}\n```\n"


def gallery() -> str:
    """A tiny run of the lab, made now: the commands, what they said, and the pictures they left."""
    from gallery import make

    return make(BUILD / "gallery")


MAKERS = {f.__name__: f for f in (analyses, api, cli, gallery, model_cards, recipe_list)}


def fill(app, docname, source) -> None:
    """Replace every mark of a page by what its maker returns."""
    source[0] = MARK.sub(lambda found: MAKERS[found[1]](), source[0])


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
