"""The skeleton of MATLAB 5 files: what scipy writes is walked through, and a tag that would crash its reader is refused."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from phosphene.data.arrays import open_arrays
from phosphene.data.mat5 import check_tags
from phosphene.errors import DataError


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def file(request, tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "matrix": rng.normal(size=(300, 400)),  # beyond what is unpacked at once
        "complex": rng.normal(size=(3, 2)) + 1j,
        "text": "größe",
        "cell": np.array([[1, "x", np.arange(3)]], dtype=object),
        "struct": {"u": 1, "w": {"z": np.arange(5)}},
        "sparse": scipy.sparse.random(5, 6, 0.3, rng=rng),
        "flags": np.array([[True, False]]),
        "empty": np.zeros((0, 3)),
        "last": np.arange(9, dtype=np.uint8)[None],
    }
    scipy.io.savemat(tmp_path / "x.mat", values, do_compression=request.param)
    return tmp_path / "x.mat"


def test_whatever_scipy_writes_is_accepted(file):
    check_tags(file)
    assert np.array_equal(open_arrays(file)["last"], np.arange(9)[None])


@pytest.mark.parametrize("kind", [0, 8, 0x4002, 0x7FFF])
def test_an_element_of_a_type_that_there_is_not_is_refused_before_scipy_reads_it(kind, tmp_path):
    file = tmp_path / "x.mat"
    scipy.io.savemat(file, {"x": np.arange(9, dtype=np.uint8)[None]})
    data = bytearray(file.read_bytes())
    at = data.rindex(struct.pack("<II", 2, 9))  # nine bytes of uint8
    data[at : at + 4] = struct.pack("<I", kind)
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"an element of type {kind}, which there is not"):
        open_arrays(file)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="damaged or truncated"):
        open_arrays(file)


def test_whatever_matlab_wrote_that_scipy_reads_is_accepted():
    folder = Path(scipy.io.matlab.__file__).parent / "tests" / "data"  # of MATLAB 5 to 7.4, on several machines
    files = [f for f in sorted(folder.glob("*.mat")) if f.read_bytes()[:6] == b"MATLAB"]
    if not files:
        pytest.skip("this scipy came without its test files")
    read = 0
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                scipy.io.loadmat(file)
            except (ValueError, NotImplementedError, zlib.error):  # damaged on purpose, or HDF5
                continue
        check_tags(file)
        read += 1
    assert read > 50


def test_no_single_byte_makes_the_walk_raise_anything_else(file):
    whole, rng = file.read_bytes(), np.random.default_rng(1)
    for at in [*range(124, 400), *rng.integers(400, len(whole), 200)]:
        data = bytearray(whole)
        data[at] ^= int(rng.integers(1, 256))
        file.write_bytes(data)
        try:
            check_tags(file)
        except DataError as error:
            assert str(file) in str(error)
