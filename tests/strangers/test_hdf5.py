"""An HDF5 file that leads to another file is refused by every reader, whichever way it leads there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from phosphene.data.arrays import open_arrays
from phosphene.data.bdata import BData
from phosphene.data.mosaic import TrialRows
from phosphene.data.nsd import BrickRows
from phosphene.data.registry import open_dataset
from phosphene.data.volumes import open_session
from phosphene.errors import DataError, MachineError, PhospheneError
from phosphene.io.hdf5 import open_hdf5

SOURCES = Path(__file__).parents[2] / "src" / "phosphene"
N = 24
"""Bytes of the secret."""


def external_storage(file: h5py.File, secret: Path, name: str) -> None:
    file.create_dataset(name, shape=(N,), dtype="u1", external=[(str(secret), 0, N)])


def relative_storage(file: h5py.File, secret: Path, name: str) -> None:
    file.create_dataset(name, shape=(N,), dtype="u1", external=[(f"../{secret.parent.name}/{secret.name}", 0, N)])


def virtual(file: h5py.File, secret: Path, name: str) -> None:
    layout = h5py.VirtualLayout(shape=(N,), dtype="u1")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape=(N,))
    file.create_virtual_dataset(name, layout)


def virtual_of_itself(file: h5py.File, secret: Path, name: str) -> None:
    file["own"] = np.zeros(N, dtype="u1")
    layout = h5py.VirtualLayout(shape=(N,), dtype="u1")
    layout[:] = h5py.VirtualSource(".", "own", shape=(N,))
    file.create_virtual_dataset(name, layout)


def external_link(file: h5py.File, secret: Path, name: str) -> None:
    file[name] = h5py.ExternalLink(str(secret), "/x")


def dangling_link(file: h5py.File, secret: Path, name: str) -> None:
    file[name] = h5py.ExternalLink("nowhere.h5", "/x")


def soft_into_external(file: h5py.File, secret: Path, name: str) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
    file[name] = h5py.SoftLink("/elsewhere/x")


def deep(file: h5py.File, secret: Path, name: str) -> None:
    external_storage(file, secret, "a/b/c/d")
    file[name] = np.zeros(N, dtype="u1")


def by_reference(file: h5py.File, secret: Path, name: str) -> None:
    external_storage(file, secret, "#refs#/a")
    file.create_dataset(name, data=np.array([file["#refs#/a"].ref], dtype=h5py.ref_dtype))


ATTACKS: list[Callable[[h5py.File, Path, str], None]] = [
    external_storage, relative_storage, virtual, virtual_of_itself, external_link, dangling_link, soft_into_external, deep,
    by_reference,
]  # fmt: skip

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "arrays": ("train_betas", lambda path: open_arrays(path)["train_betas"]),
    "pairs": ("train_betas", lambda path: open_dataset(path)),
    "bdata": ("dataset", lambda path: BData(path)),
    "mosaic": ("betas/t", lambda path: TrialRows(path, ["t"], np.array([0]))[0]),
    "nsd pictures": ("imgBrick", lambda path: BrickRows(path)),
    "nsd betas": ("betas", lambda path: open_session(path, (2, 3, 4))),
}


def hostile(path: Path, attack: Callable[[h5py.File, Path, str], None], name: str, userblock: int = 0) -> Path:
    secret = path.parent / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(N, dtype="u1")

    with h5py.File(path, "w", userblock_size=userblock) as file:
        attack(file, secret, name)
    return path


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_follows_a_way_out(
    tmp_path: Path, reader: str, attack: Callable[[h5py.File, Path, str], None]
) -> None:
    name, read = READERS[reader]
    path = hostile(tmp_path / "data.h5", attack, name)

    with pytest.raises(DataError, match=r"another file|other data sets") as caught:
        read(path)

    assert "data.h5" in str(caught.value)


@pytest.mark.parametrize("attack", ATTACKS)
def test_matlab_files_are_no_exception(tmp_path: Path, attack: Callable[[h5py.File, Path, str], None]) -> None:
    path = hostile(tmp_path / "data.mat", attack, "x", userblock=512)
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file")

    with pytest.raises(DataError, match=r"another file|other data sets"):
        open_arrays(path)["x"]


def test_a_file_changed_after_it_was_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(N, dtype="u1")

    assert (open_arrays(path)["x"] == np.arange(N)).all()
    with h5py.File(path, "r+") as file:
        file["y"] = h5py.ExternalLink("secret.h5", "/x")

    with pytest.raises(DataError, match="link to another file"), open_hdf5(path):
        pass


def test_links_within_a_file_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["a/x"] = np.arange(N, dtype="u1")
        file["soft"] = h5py.SoftLink("/a/x")
        file["hard"] = file["a/x"]
        file["a/loop"] = file["a"]

    with open_hdf5(path) as file:
        assert (file["soft"][()] == file["hard"][()]).all()


def test_an_announced_shape_is_not_taken_on_trust(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(10**7, 10**7), dtype="f4", chunks=(100, 100))

    with pytest.raises(MachineError, match="announced as"):
        open_arrays(path)["x"]


def test_nothing_else_opens_hdf5_files() -> None:
    others = []
    for file in SOURCES.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if re.search(r"h5py\s*\.\s*(File|h5f)|from h5py.*(File|h5f)|read_hdf|HDFStore|import h5py as", text):
            others.append(file.relative_to(SOURCES).as_posix())

    assert others == ["io/hdf5.py"], "open HDF5 files with phosphene.io.hdf5.open_hdf5"


@pytest.mark.parametrize("attack", [external_storage, external_link, virtual])
def test_import_takes_nothing_from_elsewhere(tmp_path: Path, attack: Callable[[h5py.File, Path, str], None]) -> None:
    from phosphene.data.importing import import_table

    path = hostile(tmp_path / "data.h5", attack, "betas")
    with pytest.raises(PhospheneError, match=r"another file|other data sets"):
        import_table(out=tmp_path / "out", betas=path, trials=tmp_path / "trials.csv", key="betas")

    assert not (tmp_path / "out").exists()
