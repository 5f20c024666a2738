"""What is installed here, what is broken, and the command that mends it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from phosphene._version import __version__
from phosphene.errors import MachineError
from phosphene.io import atomic

_NEEDED = (
    "numpy", "scipy", "pandas", "scikit-learn", "h5py", "nibabel", "pillow", "safetensors", "torch", "accelerate",
    "transformers", "diffusers",
)  # fmt: skip
_LOW_DISK = 2e9  # bytes


@dataclass(frozen=True)
class Remark:
    """One thing that was looked at.

    Parameters
    ----------
    level : {"ok", "note", "problem"}
        "ok", "note" or "problem"
    what : str
        the thing
    detail : str
        what was found
    mend : str, default ""
        the command, or what else to do; empty where nothing is to be done
    """

    level: Literal["ok", "note", "problem"]
    what: str
    detail: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.what}: {self.detail}{f' {self.mend}' if self.mend else ''}"


def examine(places: Sequence[str | Path] | None = None) -> list[Remark]:
    """Look at everything that goes wrong with installations.

    Parameters
    ----------
    places : sequence of (str or Path), optional
        folders that hold installed packages; those of this Python by default

    Returns
    -------
    list of Remark
        list of :class:`Remark`, as they were looked at
    """
    if places is None:
        paths = None
    else:
        paths = [str(p) for p in places]

    found = {}
    for one in metadata.distributions() if paths is None else metadata.distributions(path=paths):
        name = re.sub(r"[-_.]+", "-", str(one.metadata["Name"] or "")).lower()
        found.setdefault(name, one)

    out = [Remark("ok", "phosphene", f"{__version__} on Python {sys.version.split()[0]}.")]
    out += _packages(found)
    out += _torchvision(found, paths)
    out += _cuda(found)

    if places is None:
        out += _devices()

    return [*out, *_folders()]


def _packages(found: dict[str, metadata.Distribution]) -> list[Remark]:
    absent = [name for name in _NEEDED if name not in found]
    there = ", ".join(f"{name} {found[name].version}" for name in _NEEDED if name in found)

    if there:
        out = [Remark("ok", "packages", f"{there}.")]
    else:
        out = []

    if absent:
        names = " ".join(absent)
        out.append(Remark("problem", "packages", f"missing: {', '.join(absent)}.", f"Run: pip install {names}"))

    return out


def _torchvision(found: dict[str, metadata.Distribution], paths: list[str] | None) -> list[Remark]:
    """torchvision is not needed; a broken one breaks transformers, diffusers and torchmetrics at import."""
    mine = found.get("torchvision")
    if mine is None:
        return [Remark("ok", "torchvision", "not installed, and not needed.")]

    mend = "Run: pip uninstall -y torchvision (phosphene does not need it)."
    torch = found.get("torch")
    wanted = [
        m[1]
        for r in mine.requires or []
        if (m := re.fullmatch(r"torch\s*\(?==\s*([\w.]+)\)?", r.split(";")[0].strip()))
    ]

    if torch is not None and wanted and _plain(wanted[0]) != _plain(torch.version):
        detail = f"{mine.version} was built for torch {wanted[0]}, but torch {torch.version} is installed."
        return [Remark("problem", "torchvision", detail, mend)]

    if torch is not None and _build(mine.version) != _build(torch.version):
        builds = f"{_build(mine.version)}, {_build(torch.version)}"
        detail = f"{mine.version} and torch {torch.version} are of different builds ({builds})."
        return [Remark("problem", "torchvision", detail, mend)]

    code = f"import sys; sys.path[:0] = {paths or []!r}; import torchvision"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return [Remark("problem", "torchvision", f"{mine.version} cannot be imported ({why}).", mend)]

    return [Remark("ok", "torchvision", f"{mine.version} can be imported; it is not needed.")]


def _plain(version: str) -> str:
    return version.split("+")[0]


def _build(version: str) -> str:
    return version.partition("+")[2] or "default"


def _cuda(found: dict[str, metadata.Distribution]) -> list[Remark]:
    """NVIDIA's libraries come as packages; those of two CUDA releases side by side load each other's symbols."""
    releases: dict[str, list[str]] = {}
    for name in sorted(found):
        if release := re.fullmatch(r"nvidia-.+-cu(\d+)", name):
            releases.setdefault(release[1], []).append(name)

    torch = found.get("torch")
    if torch is not None:
        build = re.match(r"cu(\d\d)", _build(torch.version))
    else:
        build = None

    listed = "; ".join(f"CUDA {r}: {', '.join(names[:3])}" for r, names in sorted(releases.items()))
    again = "Run: pip uninstall -y {0} && pip install --force-reinstall torch=={1}"

    if torch is not None:
        version = torch.version
    else:
        version = "2.13.0"

    if len(releases) > 1:
        if build:
            keep = build[1]
        else:
            keep = max(releases)

        other = " ".join(n for r, names in sorted(releases.items()) if r != keep for n in names)
        return [
            Remark(
                "problem",
                "CUDA",
                f"libraries of several releases are installed ({listed}).",
                again.format(other, version),
            )
        ]

    if build and releases and build[1] not in releases:
        names = " ".join(n for names in releases.values() for n in names)
        detail = f"torch {version} was built for CUDA {build[1]}, but the libraries are {listed}."
        return [Remark("problem", "CUDA", detail, again.format(names, version))]

    if releases and torch is not None and _build(torch.version) == "cpu":
        names = " ".join(n for names in releases.values() for n in names)
        detail = f"torch {version} computes on the processor only, and {len(names.split())} NVIDIA packages lie unused."
        return [Remark("note", "CUDA", detail, f"To free the disk: pip uninstall -y {names}")]

    return [Remark("ok", "CUDA", f"{listed}." if releases else "no NVIDIA packages.")]


def _devices() -> list[Remark]:
    code = (
        "import torch; n = torch.cuda.device_count(); m = torch.backends.mps.is_available(); "
        "names = [torch.cuda.get_device_name(i) for i in range(n)]; "
        "print(torch.__version__, torch.get_num_threads(), n, int(m), *names, sep='|'); "
        "n and torch.zeros(1, device='cuda').add_(1).item()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        mend = "Run: pip install --force-reinstall torch==2.13.0"
        return [Remark("problem", "devices", f"torch does not work here ({why}).", mend)]

    version, threads, n, mps, *names = done.stdout.strip().split("|")
    if int(n):
        what = ", ".join(names)
    elif int(mps):
        what = "Apple's GPU (mps)"
    else:
        what = "no GPU"

    return [Remark("ok", "devices", f"torch {version} with {threads} threads on the processor; {what}.")]


def _folders() -> list[Remark]:
    out = []
    for what, folder in _places():
        if folder.is_dir():
            free = shutil.disk_usage(folder).free
        else:
            free = 0

        if problem := _unwritable(folder):
            out.append(
                Remark(
                    "problem",
                    what,
                    problem,
                    "Set TMPDIR to a folder that can be written." if what == "temporary" else "",
                )
            )
        elif free < _LOW_DISK:
            out.append(
                Remark("note", what, f"{folder} has {free / 1e9:.1f} GB free.", "Free some space before a long fit.")
            )
        else:
            out.append(Remark("ok", what, f"{folder} has {free / 1e9:.0f} GB free."))

    data = os.environ.get("PHOSPHENE_DATA")
    if data and not Path(data).expanduser().is_dir():
        out.append(
            Remark(
                "problem", "PHOSPHENE_DATA", f"{data} is no folder.", "Set it to the folder that holds your data sets."
            )
        )

    return out


def _places() -> Iterable[tuple[str, Path]]:
    asked = os.environ.get("TMPDIR")
    try:
        if asked:
            temporary = Path(asked)
        else:
            temporary = Path(tempfile.gettempdir())
    except OSError:
        temporary = Path("/tmp")

    return ("here", Path.cwd()), ("temporary", temporary)


def _unwritable(folder: Path) -> str:
    try:
        trial = folder / f"{atomic.PARTIAL}doctor-{os.getpid()}"
        with atomic.explained(folder):
            if not folder.is_dir():
                return f"{folder} is no folder."

            trial.write_bytes(bytes(4096))
            trial.unlink()
    except MachineError as error:
        return str(error)
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})."

    return ""
