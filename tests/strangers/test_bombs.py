"""Files of a few bytes that announce terabytes are refused before any of it is taken."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io
import torch

from phosphene.betas.read import _image
from phosphene.data.arrays import open_arrays
from phosphene.data.pictures import read_picture
from phosphene.errors import DataError, ModelError, PhospheneError
from phosphene.io import memory
from phosphene.io.foreign import read_foreign
from phosphene.io.npz_file import read_npz
from phosphene.io.reading import open_npy, reading
from phosphene.io.stages import read_safetensors

HUGE = 2**40


def npy(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue() + data


def npz_announcing(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy((HUGE,), b"0123"))


def npz_ratio(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(npy((2**25,)))
        for _ in range(2**7):
            member.write(bytes(2**20))


def npy_announcing(path: Path) -> None:
    path.write_bytes(npy((HUGE, 3), b"0123"))


def hdf5_announcing(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(2**13, 2**13), dtype="f8", chunks=(2**10, 2**10))


def sparse_announcing(path: Path) -> None:
    scipy.io.savemat(path, {"x": scipy.sparse.csc_matrix(([1.0], ([0], [0])), shape=(2**31 - 1, 1000))})


ARRAYS = [npz_announcing, npz_ratio, npy_announcing, hdf5_announcing, sparse_announcing]


@pytest.fixture
def little() -> Iterator[None]:
    """The test fails when more than 64 MB are taken by Python and NumPy."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64e6


@pytest.mark.parametrize("make", ARRAYS)
def test_arrays(tmp_path: Path, make: Callable[[Path], None], little: None) -> None:
    make(tmp_path / "data.bin")
    with pytest.raises(PhospheneError, match=r"announce|unpack|sparse|truncated"):
        open_arrays(tmp_path / "data.bin")["x"]


@pytest.mark.parametrize("make", [npz_announcing, npz_ratio])
def test_archives_of_our_own(tmp_path: Path, make: Callable[[Path], None], little: None) -> None:
    make(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"announce|unpack"):
        read_npz(tmp_path / "x.npz")


def test_honest_archives_pass(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", zeros=np.zeros(10**6), some=np.arange(9), none=np.zeros((0, 3)))
    assert set(read_npz(tmp_path / "x.npz")) == {"zeros", "some", "none"}


# -- pickles -----------------------------------------------------------------------------------------------------------

STOP = b"."

PICKLES = {
    "memo index": b"\x80\x02N" + b"r" + struct.pack("<I", 2**31 - 1) + STOP,
    "memo index in text": b"\x80\x02Np4000000000\n" + STOP,
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", HUGE) + STOP,
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + STOP,
    "text": b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + STOP,
    "number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + STOP,
    "frame": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b"N" + STOP,
    "doubled": b"\x80\x02)" + b"2\x86" * 60 + STOP,
}


def legacy(bomb: bytes) -> bytes:
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + bomb


def zipped(bomb: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", bomb)
    return out.getvalue()


@pytest.mark.parametrize("layout", [legacy, zipped])
@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path: Path, name: str, layout: Callable[[bytes], bytes], little: None) -> None:
    (tmp_path / "weights.pt").write_bytes(layout(PICKLES[name]))
    with pytest.raises(ModelError, match=r"weights\.pt"):
        read_foreign(tmp_path / "weights.pt")


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_of_stylegan2(tmp_path: Path, name: str, little: None) -> None:
    from phosphene.models.stylegan2 import read_networks

    (tmp_path / "network.pkl").write_bytes(PICKLES[name])
    with pytest.raises(ModelError, match=r"network\.pkl"):
        read_networks(tmp_path / "network.pkl")


@pytest.mark.parametrize("is_zip", [True, False])
def test_honest_checkpoints_pass(tmp_path: Path, is_zip: bool) -> None:
    tensors = {f"layer.{n}": torch.arange(n + 1.0) for n in range(300)}
    torch.save(tensors, tmp_path / "w.pt", _use_new_zipfile_serialization=is_zip)
    back = read_foreign(tmp_path / "w.pt")
    assert all(torch.equal(back[key], value) for key, value in tensors.items())


# -- headers -----------------------------------------------------------------------------------------------------------


def test_safetensors(tmp_path: Path, little: None) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0123")
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", HUGE) + b"{}")
    for name in "ab":
        with pytest.raises(ModelError, match=f"{name}.safetensors"):
            read_safetensors(tmp_path / f"{name}.safetensors")


def test_a_packed_image_that_goes_on_behind_its_end(tmp_path: Path, little: None) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii")
    with gzip.open(tmp_path / "a.nii.gz", "wb") as out:
        out.write((tmp_path / "a.nii").read_bytes())
        for _ in range(200):
            out.write(bytes(2**20))

    with pytest.raises(DataError, match="unpacks to more"):
        _image(tmp_path / "a.nii.gz", 3)


def test_a_picture_of_a_few_bytes(tmp_path: Path, little: None) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2**16, 2**16, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match="enormous picture"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_depth(tmp_path: Path, text: str) -> None:
    from phosphene.io.config import read_yaml
    from phosphene.io.run_folder import read_json

    (tmp_path / "a.json").write_text(text)
    (tmp_path / "a.yaml").write_text(text[:20_000])
    start = time.monotonic()
    with pytest.raises(PhospheneError):
        read_json(tmp_path / "a.json")
    with pytest.raises(PhospheneError):
        read_yaml(tmp_path / "a.yaml")

    assert time.monotonic() - start < 10


def test_aliases(tmp_path: Path) -> None:
    from phosphene.io.config import read_yaml

    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(PhospheneError, match="alias"):
        read_yaml(tmp_path / "a.yaml")


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_ran_out_is_called_that(error: Exception) -> None:
    with pytest.raises(PhospheneError, match="memory ran out while reading x.npy") as caught, reading("x.npy"):
        raise error

    assert caught.value.exit_status == 7
    assert "copy" not in str(caught.value)


def test_a_map_that_finds_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(np, "load", full)
    with pytest.raises(MemoryError):
        open_npy(tmp_path / "x.npy")


def groups(root: Path, lines: list[str], mounts: list[str], files: dict[str, str]) -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemAvailable: 64000000 kB\n")
    (root / "proc" / "self" / "cgroup").write_text("\n".join(lines) + "\n")
    (root / "proc" / "self" / "mountinfo").write_text("\n".join(mounts) + "\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@pytest.mark.parametrize("limited", ["job_1", "job_1/step_0", "job_1/step_0/task_0", ""])
@pytest.mark.parametrize("version", [1, 2])
def test_the_nearest_limit_of_nested_groups(tmp_path: Path, version: int, limited: str) -> None:
    if version == 1:
        base, mounts = "sys/fs/cgroup/memory", [V1]
        lines = ["5:cpu:/", "4:memory:/slurm/job_1/step_0/task_0"]
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "9223372036854771712", "total_inactive_file")
    else:
        base, mounts = "sys/fs/cgroup", [V2]
        lines = ["0::/slurm/job_1/step_0/task_0"]
        names = ("memory.max", "memory.current", "max", "inactive_file")

    files = {}
    for place in ("job_1", "job_1/step_0", "job_1/step_0/task_0", ""):
        folder = f"{base}/slurm/{place}".rstrip("/")
        files[f"{folder}/{names[0]}"] = "3000000000" if place == limited else names[2]
        files[f"{folder}/{names[1]}"] = "1000000000"
        files[f"{folder}/memory.stat"] = f"anon 5\n{names[3]} 500000000\nactive_file 7\n"

    assert memory.available(groups(tmp_path, lines, mounts, files)) == 2_500_000_000


def test_a_group_seen_from_within_a_container(tmp_path: Path) -> None:
    mount = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    files = {"sys/fs/cgroup/memory.max": "2000000000", "sys/fs/cgroup/memory.current": "500000000"}
    assert memory.available(groups(tmp_path, ["0::/docker/abc"], [mount], files)) == 1_500_000_000


def test_without_groups(tmp_path: Path) -> None:
    assert memory.available(groups(tmp_path, ["0::/a"], [V2], {})) == 64_000_000 * 1024


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_limits_of_the_process(limit: str) -> None:
    code = (
        "import resource; from phosphene.io import memory; "
        f"resource.setrlimit(resource.{limit}, (3 * 10**9, 3 * 10**9)); "
        "print(memory.available()); memory.require_memory(5 * 10**9, 'The voxels', 'Fewer.')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 0 < int(done.stdout) < 3 * 10**9
    assert "ulimit" in done.stderr
