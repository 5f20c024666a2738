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

# What phosphene cannot do without. An extra says itself what it lacks when it is used.
_NEEDED = (
    "numpy", "scipy", "pandas", "scikit-learn", "h5py", "nibabel", "pillow", "safetensors", "torch", "accelerate",
    "transformers", "diffusers",
)  # fmt: skip
_TORCH = "2.13.0"  # the version that phosphene is tested with
_LOW_DISK = 2e9  # bytes; a few checkpoints of a middle-sized network


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

    installed = _installed(paths)
    remarks = [Remark("ok", "phosphene", f"{__version__} on Python {sys.version.split()[0]}.")]
    remarks += _packages(installed)
    remarks += _torchvision(installed, paths)
    remarks += _cuda(installed)

    # Which devices there are is a matter of this Python, and not of packages in some other folder.
    if places is None:
        remarks += _devices()

    return [*remarks, *_folders()]


def _installed(paths: list[str] | None) -> dict[str, metadata.Distribution]:
    """Installed packages by their normalised names; of one that lies in several folders, the one that is imported."""
    if paths is None:
        distributions = metadata.distributions()
    else:
        distributions = metadata.distributions(path=paths)

    installed: dict[str, metadata.Distribution] = {}
    for distribution in distributions:
        # PyPI's rule (PEP 503): scikit_learn, Scikit-Learn and scikit.learn are one package.
        name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"] or "")).lower()
        installed.setdefault(name, distribution)
    return installed


def _packages(installed: dict[str, metadata.Distribution]) -> list[Remark]:
    """Which of the needed packages are installed; nothing is imported, since an import may be what fails."""
    present = []
    absent = []
    for name in _NEEDED:
        if name in installed:
            present.append(f"{name} {installed[name].version}")
        else:
            absent.append(name)

    remarks = []
    if present:
        remarks.append(Remark("ok", "packages", f"{', '.join(present)}."))
    if absent:
        mend = f"Run: pip install {' '.join(absent)}"
        remarks.append(Remark("problem", "packages", f"missing: {', '.join(absent)}.", mend))

    return remarks


def _torchvision(installed: dict[str, metadata.Distribution], paths: list[str] | None) -> list[Remark]:
    """torchvision is not needed; a broken one breaks transformers, diffusers and torchmetrics at import."""
    torchvision = installed.get("torchvision")
    if torchvision is None:
        return [Remark("ok", "torchvision", "not installed, and not needed.")]

    version = torchvision.version
    mend = "Run: pip uninstall -y torchvision (phosphene does not need it)."
    torch = installed.get("torch")
    needed = _torch_that_it_needs(torchvision)
    if torch is not None and needed is not None and _plain(needed) != _plain(torch.version):
        detail = f"{version} was built for torch {needed}, but torch {torch.version} is installed."
        return [Remark("problem", "torchvision", detail, mend)]

    # The same version from two indexes, one for CUDA and one for the processor: neither finds the other's operators.
    if torch is not None and _build(version) != _build(torch.version):
        builds = f"{_build(version)}, {_build(torch.version)}"
        detail = f"{version} and torch {torch.version} are of different builds ({builds})."
        return [Remark("problem", "torchvision", detail, mend)]

    done = _run(f"import sys; sys.path[:0] = {paths or []!r}; import torchvision")
    if done.returncode:
        return [Remark("problem", "torchvision", f"{version} cannot be imported ({_last_line(done)}).", mend)]
    return [Remark("ok", "torchvision", f"{version} can be imported; it is not needed.")]


def _torch_that_it_needs(distribution: metadata.Distribution) -> str | None:
    """The exact version of torch that a package was built for."""
    for requirement in distribution.requires or []:
        text = requirement.split(";")[0].strip()
        if match := re.fullmatch(r"torch\s*\(?==\s*([\w.]+)\)?", text):
            return match[1]
    return None


def _run(code: str) -> subprocess.CompletedProcess[str]:
    """Code in a Python of its own, which a broken library may kill."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a process complained of, which in a traceback names the error."""
    lines = done.stderr.strip().splitlines()
    if lines:
        return lines[-1]
    return "it ended without a word"


def _plain(version: str) -> str:
    """2.13.0 of 2.13.0+cu130."""
    return version.split("+")[0]


def _build(version: str) -> str:
    """cu130 of 2.13.0+cu130, cpu of 2.13.0+cpu; PyPI's own builds say nothing."""
    return version.partition("+")[2] or "default"


def _cuda(installed: dict[str, metadata.Distribution]) -> list[Remark]:
    """NVIDIA's libraries come as packages; those of two CUDA releases side by side load each other's symbols."""
    releases: dict[str, list[str]] = {}
    for name in sorted(installed):
        if release := re.fullmatch(r"nvidia-.+-cu(\d+)", name):
            releases.setdefault(release[1], []).append(name)

    torch = installed.get("torch")
    version = _TORCH
    build = None
    if torch is not None:
        version = torch.version
        build = re.match(r"cu(\d\d)", _build(version))  # the release: cu130 and cu132 share libraries named cu13

    listed = "; ".join(f"CUDA {release}: {', '.join(names[:3])}" for release, names in sorted(releases.items()))

    every: list[str] = []
    for names in releases.values():
        every += names

    # Reinstalled, since packages of two releases may share folders, and removing one takes files of the other.
    reinstall = f"&& pip install --force-reinstall torch=={version}"

    if len(releases) > 1:
        if build:
            keep = build[1]
        else:
            keep = max(releases)  # PyPI's torch does not say; the newest is the likeliest

        other = []
        for release, names in sorted(releases.items()):
            if release != keep:
                other += names

        detail = f"libraries of several releases are installed ({listed})."
        return [Remark("problem", "CUDA", detail, f"Run: pip uninstall -y {' '.join(other)} {reinstall}")]

    if build and releases and build[1] not in releases:
        detail = f"torch {version} was built for CUDA {build[1]}, but the libraries are {listed}."
        return [Remark("problem", "CUDA", detail, f"Run: pip uninstall -y {' '.join(every)} {reinstall}")]

    if releases and torch is not None and _build(version) == "cpu":
        detail = f"torch {version} computes on the processor only, and {len(every)} NVIDIA packages lie unused."
        return [Remark("note", "CUDA", detail, f"To free the disk: pip uninstall -y {' '.join(every)}")]

    if releases:
        return [Remark("ok", "CUDA", f"{listed}.")]
    return [Remark("ok", "CUDA", "no NVIDIA packages.")]


def _devices() -> list[Remark]:
    """What torch can compute on, asked of it in a process of its own: a broken driver may end it without an exception."""
    # The last statement really computes. A device may be listed and still refuse, as when the driver is too old.
    code = (
        "import torch; n = torch.cuda.device_count(); m = torch.backends.mps.is_available(); "
        "names = [torch.cuda.get_device_name(i) for i in range(n)]; "
        "print(torch.__version__, torch.get_num_threads(), n, int(m), *names, sep='|'); "
        "n and torch.zeros(1, device='cuda').add_(1).item()"
    )

    done = _run(code)
    if done.returncode:
        mend = f"Run: pip install --force-reinstall torch=={_TORCH}"
        return [Remark("problem", "devices", f"torch does not work here ({_last_line(done)}).", mend)]

    version, threads, n, mps, *names = done.stdout.strip().split("|")
    if int(n):
        what = ", ".join(names)
    elif int(mps):
        what = "Apple's GPU (mps)"
    else:
        what = "no GPU"

    return [Remark("ok", "devices", f"torch {version} with {threads} threads on the processor; {what}.")]


def _folders() -> list[Remark]:
    """Whether the folders that every command writes to can be written, and have room."""
    remarks = []
    for what, folder in _places():
        free = 0
        if folder.is_dir():
            free = shutil.disk_usage(folder).free

        if problem := _unwritable(folder):
            mend = ""
            if what == "temporary":
                mend = "Set TMPDIR to a folder that can be written."

            remarks.append(Remark("problem", what, problem, mend))
        elif free < _LOW_DISK:
            detail = f"{folder} has {free / 1e9:.1f} GB free."
            remarks.append(Remark("note", what, detail, "Free some space before a long fit."))
        else:
            remarks.append(Remark("ok", what, f"{folder} has {free / 1e9:.0f} GB free."))

    data = os.environ.get("PHOSPHENE_DATA")
    if data and not Path(data).expanduser().is_dir():
        mend = "Set it to the folder that holds your data sets."
        remarks.append(Remark("problem", "PHOSPHENE_DATA", f"{data} is no folder.", mend))

    return remarks


def _places() -> Iterable[tuple[str, Path]]:
    """Where a command writes: the folder it is started in, and the temporary one."""
    # As it is asked for, not as Python resolves it: that passes over a TMPDIR that cannot be written and says nothing.
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
    """Why nothing can be written there; empty where it can. Permissions say little on network disks, so it is tried."""
    try:
        trial = folder / f"{atomic.PARTIAL}doctor-{os.getpid()}"
        with atomic.explained_write(folder):
            if not folder.is_dir():
                return f"{folder} is no folder."

            trial.write_bytes(bytes(4096))  # a block: a full disk still takes an empty file
            trial.unlink()
    except MachineError as error:
        return str(error)
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})."

    return ""
