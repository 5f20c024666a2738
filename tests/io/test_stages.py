import json
import struct

import numpy as np
import pytest

from phosphene.errors import ModelError, PhospheneWarning
from phosphene.features.pixels import PixelPca
from phosphene.io.stages import STAGE, WEIGHTS, StageStore, load_part, read_lineage, save_part
from phosphene.types import Stimuli


@pytest.fixture
def part():
    images = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 1), dtype=np.uint8)
    return PixelPca(3).fit(Stimuli([str(i) for i in range(8)], images))


@pytest.fixture
def saved(part, tmp_path):
    save_part(tmp_path / "pca", part, stage="pca", digest="d", seconds=1.0, lineage=["s/2", "s/1"])
    return tmp_path / "pca"


def test_a_stage_comes_back_bit_by_bit_with_its_lineage(part, saved):
    back = load_part(saved, PixelPca)
    for name, array in part.state()[0].items():
        np.testing.assert_array_equal(array, back.state()[0][name])
    assert read_lineage(saved) == {"s/1", "s/2"}


def test_a_finished_stage_is_never_fitted_twice(part, tmp_path):
    calls = []

    def fit():
        calls.append(1)
        return part

    for _ in range(3):
        StageStore(tmp_path).get("pca", PixelPca, "digest", [], fit)
    assert len(calls) == 1
    StageStore(tmp_path).get("pca", PixelPca, "another digest", [], fit)
    assert len(calls) == 2


@pytest.mark.fault(97)
def test_a_flipped_byte_is_found_by_its_hash_and_the_stage_fitted_again(part, tmp_path):
    StageStore(tmp_path).get("pca", PixelPca, "d", [], lambda: part)
    file = tmp_path / "pca" / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match="not what was written"):
        load_part(tmp_path / "pca", PixelPca)
    with pytest.warns(PhospheneWarning, match="'pca' is fitted again"):
        again = StageStore(tmp_path).get("pca", PixelPca, "d", [], lambda: part)
    np.testing.assert_array_equal(again.components_, part.components_)
    load_part(tmp_path / "pca", PixelPca)


@pytest.mark.fault(98)
def test_a_stage_of_another_class_is_not_taken(saved):
    record = json.loads((saved / STAGE).read_text())
    record["part"] = "phosphene.features.clip:Clip"
    (saved / STAGE).write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"holds a phosphene.features.clip:Clip, but a .*PixelPca was expected"):
        load_part(saved, PixelPca)


@pytest.mark.fault(99)
def test_a_half_written_stage_has_no_final_name_and_is_not_read(part, tmp_path):
    (tmp_path / ".partial-pca-1").mkdir()
    (tmp_path / ".partial-pca-1" / WEIGHTS).write_bytes(b"half")
    store = StageStore(tmp_path)
    store.get("pca", PixelPca, "d", [], lambda: part)
    assert store.reused == []


@pytest.mark.fault(67)
@pytest.mark.parametrize("keep", [0, 4, 40, -10])
def test_truncated_weights_are_refused(saved, keep):
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(ModelError, match=WEIGHTS):
        load_part(saved, PixelPca)


@pytest.mark.fault(68)
def test_a_header_of_two_gigabytes_is_refused_without_reading_it(saved):
    data = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(struct.pack("<Q", 2**31) + data[8:])
    with pytest.raises(ModelError, match="announces a header of 2147483648 bytes"):
        load_part(saved, PixelPca)


@pytest.mark.fault(69)
def test_shapes_that_overflow_are_refused(saved):
    header = json.dumps({"mean": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    (saved / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    with pytest.raises(ModelError, match="no valid safetensors"):
        load_part(saved, PixelPca)


@pytest.mark.fault(70)
@pytest.mark.fault(78)
def test_a_fit_that_ended_in_nan_is_not_stored_as_finished(part, tmp_path):
    part.mean_ = part.mean_ * np.nan
    with pytest.raises(ModelError, match="NaN or infinite values in 'mean'"):
        StageStore(tmp_path).get("pca", PixelPca, "d", [], lambda: part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(72)
def test_missing_and_extra_arrays_are_both_printed(part):
    tensors, meta = part.state()
    tensors["surprise"] = tensors.pop("variance")
    with pytest.raises(ModelError, match="missing variance, unexpected surprise"):
        PixelPca.from_state(tensors, meta)


@pytest.mark.fault(66)
def test_a_pickle_under_the_name_of_weights_is_refused_and_not_run(saved, tmp_path):
    import pickle

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (saved / WEIGHTS).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ModelError, match=WEIGHTS):
        load_part(saved, PixelPca)
    assert not (tmp_path / "ran").exists()
