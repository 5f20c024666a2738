"""Flax checkpoints: what the format's own description says they hold is read, and damage is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from phosphene.errors import ModelError
from phosphene.io.flax_file import read_flax


def pack(value) -> bytes:
    """MessagePack by its specification, in its longest forms where Flax's writer may use short ones and vice versa."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">B", value) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return (bytes([0xA0 | len(text)]) if len(text) < 32 else b"\xda" + struct.pack(">H", len(text))) + text
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, (list, tuple)):
        return bytes([0x90 | len(value)]) + b"".join(map(pack, value))
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        return head + b"".join(pack(k) + pack(v) for k, v in value.items())
    if isinstance(value, np.ndarray):
        return array(value.shape, value.dtype.name, value.tobytes())
    raise TypeError(type(value))


def array(shape, name, data, kind=1) -> bytes:
    inner = pack([list(shape), name, data])
    return b"\xc9" + struct.pack(">Ib", len(inner), kind) + inner


def written(tmp_path, data):
    file = tmp_path / "checkpoint"
    file.write_bytes(data)
    return file


def test_a_tree_of_arrays_comes_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(0)
    layer = {"kernel": rng.normal(size=(3, 4, 2)).astype(np.float32), "bias": rng.normal(size=4)}
    tree = {
        "params": {"Conv_0": layer, "k" * 40: {"i": np.arange(6).reshape(2, 3)}},
        "step": 1_000_000,
        "few": 7,
        "n": None,
    }
    tree |= {"less": -5.5, "yes": True, "many": {str(i): i for i in range(20)}}
    read = read_flax(written(tmp_path, pack(tree)))
    assert read["step"] == 1_000_000
    assert (read["few"], read["n"], read["less"], read["yes"]) == (7, None, -5.5, True)
    assert read["many"] == tree["many"]
    for name, value in layer.items():
        assert np.array_equal(read["params"]["Conv_0"][name], value)
        assert read["params"]["Conv_0"][name].dtype == value.dtype
    assert np.array_equal(read["params"]["k" * 40]["i"], np.arange(6).reshape(2, 3))


def test_bfloat16_keeps_its_values(tmp_path):
    values = np.array([1.0, -2.5, 0.15625], dtype=np.float32)  # exact in eight bits of mantissa
    data = b"\x81" + pack("a") + array((3,), "bfloat16", (values.view(np.uint32) >> 16).astype("<u2").tobytes())
    assert np.array_equal(read_flax(written(tmp_path, data))["a"], values)


def test_a_truncated_checkpoint_is_refused_wherever_it_ends(tmp_path):
    data = pack({"a": np.arange(5.0), "b": {"c": "text", "d": 300}})
    for length in range(len(data)):
        with pytest.raises(ModelError, match="no valid Flax checkpoint"):
            read_flax(written(tmp_path, data[:length]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pack({"a": 1}) + b"\x00", "follow its end"),
        (pack([1, 2]), "a list"),
        (b"\x82" + (pack("a") + pack(1)) * 2, "stands twice"),
        (b"\x81" + pack(1) + pack(1), "no text"),
        (b"\x81" + pack("a") + b"\xc1", "0xc1"),
        (b"\x81" + pack("a") + array((3,), "float32", bytes(8)), "shape"),
        (b"\x81" + pack("a") + array((1,), "object", bytes(8)), "object|dtype"),
        (b"\x81" + pack("a") + array((2,), "float32", bytes(8), kind=2), "extension type 2"),
        (b"\x81" + pack("a") + b"\xdd\xff\xff\xff\xff", "announced"),
        (b"\x81" + pack("a") + b"\x91" * 100 + b"\x00", "deep"),
    ],
)
def test_what_flax_does_not_write_is_refused(tmp_path, data, words):
    with pytest.raises(ModelError, match=words):
        read_flax(written(tmp_path, data))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        read_flax(tmp_path / "nowhere")
