"""The gallery's run: real commands on a tiny subject of the lab, in this process, with what they print and draw."""

import contextlib
import io
import os
import shutil
from pathlib import Path

COMMANDS = (
    "phosphene fit linear --data insilico --option n_train=240 --option n_test=40 --option n_voxels=400 --out runs/gallery -q",
    "phosphene decode runs/gallery -q",
    "phosphene encode runs/gallery -q",
    "phosphene evaluate runs/gallery -q",
    "phosphene report runs/gallery",
)  # fmt: skip
FIGURES = {
    "pictures": "Seen, decoded, and what the controls give, as the report shows them.",
    "identification": "How often the true picture is told from another.",
    "voxels": "Predicted against measured responses: correlation over the test pictures, voxel by voxel.",
    "flatmap": "The same voxels where they lie.",
}


def make(folder: Path) -> str:
    """Run every command in `folder`, and return what happened as Markdown; figures stay in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = []
    with contextlib.chdir(folder):
        for command in COMMANDS:
            parts.append(f"```sh\n{command}\n```\n\n```text\n{_said(command).strip()}\n```\n")
    shutil.copytree(folder / "runs" / "gallery" / "figures", folder / "figures")
    for name, caption in FIGURES.items():
        if (folder / "figures" / f"{name}.png").is_file():
            place = os.path.relpath(folder / "figures" / f"{name}.png", Path(__file__).resolve().parents[1])
            parts.append(f"![{caption}]({place})\n\n{caption}\n")
    return "\n".join(parts)


def _said(command: str) -> str:
    from phosphene.cli import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        app(args=command.split()[1:], prog_name="phosphene", standalone_mode=False)
    return out.getvalue()
