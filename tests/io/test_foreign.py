"""Foreign checkpoints: what torch.save writes is read exactly; whatever wants to run is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from phosphene.errors import ModelError
from phosphene.io.foreign import ForeignCheckpoint, ForeignTensor, must_fit, read_foreign

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def save(request, tmp_path):
    def write(what, name="weights.pth"):
        torch.save(what, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return write


def weights():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    out = {str(d): (10 * torch.randn(3, 5, generator=generator)).to(d) for d in DTYPES}
    return out | {
        "whole": base,
        "column": base[:, 3],
        "transposed": base.T,
        "scalar": torch.tensor(2.5),
        "none": base[:0],
    }


def test_every_precision_and_layout_is_read_as_torch_reads_it(save):
    file = save({"model": OrderedDict(weights()), "epoch": 3})
    ours, theirs = read_foreign(file, "model"), torch.load(file, weights_only=True)["model"]
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


def test_a_module_and_its_optimiser_are_read(save):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    file = save(
        {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "parameter": {"w": network[0].weight}}
    )
    ours = read_foreign(file, "model")
    assert all(torch.equal(ours[k], v) for k, v in network.state_dict().items())
    assert torch.equal(read_foreign(file, "parameter")["w"], network[0].weight)
    content = ForeignCheckpoint(file).content
    assert isinstance(content["optimizer"]["state"][0]["exp_avg"], ForeignTensor)
    assert content["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


def test_tensors_that_were_not_asked_for_are_not_read(tmp_path):
    file = tmp_path / "big.pth"
    torch.save({"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.ones(3)}}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {i.filename: archive.read(i) for i in archive.infolist()}
    kept = {n: b for n, b in entries.items() if not n.endswith("data/1")}  # the optimiser's numbers are gone
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    assert torch.equal(read_foreign(file, "model")["w"], torch.ones(4))
    with pytest.raises(ModelError, match="'m'"):
        read_foreign(file, "optimizer")


class _Runs:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    ("call", "args"),
    [
        (os.mkdir, ("{}",)),
        (eval, ("__import__('os').mkdir('{}')",)),
        (getattr, (OrderedDict, "fromkeys")),
        (torch.load, ("{}",)),
        (__import__, ("os",)),
        (torch.nn.Linear, (2, 2)),
    ],
)
def test_a_payload_is_refused_by_name_and_never_runs(save, tmp_path, call, args):
    trap = tmp_path / "ran"
    args = tuple(a.format(trap) if isinstance(a, str) else a for a in args)
    file = save({"model": {"w": torch.ones(2)}, "note": _Runs(call, *args)})
    with pytest.raises(ModelError, match=rf"wants to call '.*{call.__name__}'"):
        read_foreign(file, "model")
    assert not trap.exists()


@pytest.mark.fault(66)
def test_a_bare_pickle_is_refused_even_when_harmless(tmp_path):
    file = tmp_path / "data.pkl"
    file.write_bytes(pickle.dumps({"w": [1.0, 2.0]}))
    with pytest.raises(ModelError, match="bare pickle"):
        read_foreign(file)


@pytest.mark.fault(66)
def test_a_hidden_pickle_in_the_legacy_stream_never_runs(tmp_path):
    trap = tmp_path / "ran"
    file = tmp_path / "old.pth"
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {})]
    for place in range(5):
        parts = [*head, pickle.dumps([], 2)]
        parts[place] = pickle.dumps(_Runs(os.mkdir, str(trap)), 2)
        file.write_bytes(b"".join(parts))
        with pytest.raises(ModelError, match="mkdir"):
            read_foreign(file)
    assert not trap.exists()


def craft(tmp_path, pickled: bytes, **storages: bytes):
    file = tmp_path / "crafted.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"a/data/{key.removeprefix('s')}", data)
    return file


class _Saver(pickle.Pickler):
    def persistent_id(self, value):
        return ("storage", torch.FloatStorage, "0", "cpu", value.n) if isinstance(value, _Numbers) else None


class _Numbers:
    def __init__(self, n):
        self.n = n


def crafted_tensor(tmp_path, n_claimed, offset, shape, stride, n_real=4):
    buffer = io.BytesIO()
    reduce = _Runs(torch._utils._rebuild_tensor_v2, _Numbers(n_claimed), offset, shape, stride, False, OrderedDict())
    _Saver(buffer, 2).dump({"w": reduce})
    return craft(tmp_path, buffer.getvalue(), s0=struct.pack(f"{n_real}f", *range(n_real)))


def test_a_crafted_tensor_that_fits_is_read(tmp_path):
    assert read_foreign(crafted_tensor(tmp_path, 4, 1, (3,), (1,)))["w"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.fault(69)
@pytest.mark.parametrize(
    ("n_claimed", "offset", "shape", "stride"),
    [
        (4, 2, (3,), (1,)),  # ends behind its storage
        (4, 0, (2, 2), (4, 1)),
        (400, 0, (400,), (1,)),  # storage larger than the file
        (4, 0, (10**12,), (0,)),  # one number repeated until memory ends
        (4, -1, (1,), (1,)),
        (4, 0, (2,), (-1,)),
        (10**15, 0, (10**15,), (1,)),
        (4, 0, (True,), (1,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, n_claimed, offset, shape, stride):
    with pytest.raises(ModelError, match=r"crafted\.pth"):
        read_foreign(crafted_tensor(tmp_path, n_claimed, offset, shape, stride))


def test_a_pickle_cannot_change_what_the_next_file_is_read_with(tmp_path):
    # BUILD with a slot state sets attributes of what the pickle was given: here the defaults of the tensor function.
    poison = b"ctorch._utils\n_rebuild_tensor_v2\n}(X\x0c\x00\x00\x00__defaults__)u\x86b."
    poison = poison.replace(b"\n}(", b"\nN}(")
    ForeignCheckpoint(craft(tmp_path, poison))
    assert read_foreign(crafted_tensor(tmp_path, 4, 0, (2,), (1,)))["w"].tolist() == [0.0, 1.0]


def test_settings_of_another_project_become_an_empty_shell(save, tmp_path):
    module = types.ModuleType("config")
    exec("class Settings:\n    def __setstate__(self, state):\n        raise RuntimeError('ran')\n", module.__dict__)
    sys.modules["config"] = module
    try:
        settings = module.Settings()
        settings.patch_size = 16
        file = save({"model": {"w": torch.ones(2)}, "config": settings})
    finally:
        del sys.modules["config"]
    with pytest.raises(ModelError, match=r"'config\.Settings'"):
        read_foreign(file, "model")
    checkpoint = ForeignCheckpoint(file, inert=["config.Settings"])
    assert checkpoint.content["config"].patch_size == 16
    assert torch.equal(checkpoint.tensors("model")["w"], torch.ones(2))
    assert "config" not in sys.modules


def test_a_truncated_file_is_refused_at_every_length(save):
    file = save({"model": {"w": torch.arange(50.0), "b": torch.ones(3)}})
    whole = file.read_bytes()
    for length in [0, 1, 7, 60, *range(100, len(whole) - 1, 97), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_foreign(file, "model")


def test_a_flipped_bit_in_the_numbers_is_noticed(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"w": torch.full((64,), 3.0)}, file)
    data = bytearray(file.read_bytes())
    data[data.index(struct.pack("<2f", 3.0, 3.0)) + 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        read_foreign(file)


def test_a_packed_archive_is_refused(tmp_path):
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(ModelError, match="packed"):
        read_foreign(file)


def test_a_wrong_entry_is_named_with_the_nearest(save):
    file = save({"model": {"w": torch.ones(2)}, "epoch": 3})
    with pytest.raises(ModelError, match="Did you mean 'model'"):
        read_foreign(file, "modle")
    with pytest.raises(ModelError, match="'model' is of type dict"):
        read_foreign(file)
    with pytest.raises(ModelError, match="cannot be read"):
        read_foreign(file.with_name("absent.pth"), "model")


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_a_file_must_hold_just_what_the_network_needs_whole_and_sound(kind):
    wanted = {"w": (2, 3), "b": (3,)}
    right = {"w": kind(np.ones((2, 3), np.float32)), "b": kind(np.zeros(3, np.float32))}
    must_fit(right, wanted, "the net")
    with pytest.raises(ModelError, match="the net has 2 tensors.* 1 came: missing b, unexpected nothing"):
        must_fit({"w": right["w"]}, wanted, "the net")
    with pytest.raises(ModelError, match="3 came: missing nothing, unexpected moment"):
        must_fit({**right, "moment": right["b"]}, wanted, "the net")
    with pytest.raises(ModelError, match=r"'w' of the net has shape \(3, 2\), but \(2, 3\)"):
        must_fit({**right, "w": right["w"].T}, wanted, "the net")
    with pytest.raises(ModelError, match="'b' of the net holds NaN"):
        must_fit({**right, "b": right["b"] + np.inf}, wanted, "the net")


def test_of_tensors_without_numbers_only_shapes_are_looked_at():
    must_fit({"w": torch.empty(2, device="meta")}, {"w": (2,)}, "the net")
