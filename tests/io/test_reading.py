"""What a damaged file makes a library raise becomes one sentence that names the file."""

from __future__ import annotations

import pytest

from phosphene.errors import ConfigError, DataError, MachineError, ModelError
from phosphene.io.config import parse_yaml
from phosphene.io.reading import open_npy, reading, reads
from phosphene.io.run_folder import read_json


@pytest.mark.parametrize("error", [IndexError("a\nb"), RuntimeError(), RecursionError("deep"), OSError(5, "x")])
def test_whatever_a_library_raises_is_one_paragraph_that_names_the_file(error):
    with pytest.raises(DataError) as told, reading("scan.nii"):
        raise error
    assert str(told.value).startswith("scan.nii cannot be read (") and "\n" not in str(told.value)
    assert told.value.__cause__ is error


def test_memory_that_runs_out_is_no_damage():
    expected = r"memory ran out while reading scan.nii.*No file is damaged"
    with pytest.raises(MachineError, match=expected) as told, reading("scan.nii"):
        raise MemoryError

    assert isinstance(told.value.__cause__, MemoryError)


def test_errors_of_ours_pass_as_they_are():
    with pytest.raises(MachineError, match="full"), reading("x", ModelError):
        raise MachineError("full")


def test_a_reader_names_the_path_it_was_given_by_place_by_name_or_by_default():
    @reads("path", ModelError, "Fit again.")
    def read(number, path="here"):
        return number[path]

    for call in (lambda: read({}, "there"), lambda: read({}, path="there")):
        with pytest.raises(ModelError, match=r"^there .*Fit again"):
            call()
    with pytest.raises(ModelError, match="^here"):
        read({})
    assert read({"here": 1}) == 1


def test_a_message_a_library_filled_with_a_files_content_is_cut_in_its_middle():
    text = str(DataError("first " + "x" * 50_000 + "\nlast"))
    assert len(text) < 3000 and text.startswith("first") and text.endswith("last") and "\n" not in text


@pytest.mark.fault(118)
def test_lists_in_lists_in_lists_are_refused_and_do_not_end_the_process(tmp_path):
    with pytest.raises(ConfigError, match="recursion"):
        parse_yaml("a: " + "[" * 5000 + "]" * 5000)
    (tmp_path / "x.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelError, match="cannot be read"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("header", [b"{'descr': '<f4', 'shape': (3", b"{" * 40, b"(" * 60])
def test_a_header_that_numpy_cannot_parse_is_a_value_error(tmp_path, header):
    file = tmp_path / "x.npy"
    text = header.ljust(117) + b"\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(12))
    with pytest.raises(ValueError):  # noqa: PT011 - what numpy says differs
        open_npy(file)
