"""Scans at rest as responses to pretrain on: against the authors' computation in memory, and what happens to bad files."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from phosphene.data.resting import resting_windows, window_means, wrapped_length
from phosphene.errors import DataError
from phosphene.models import DcMae, DcMaeConfig, PatchMaeConfig, subject_batches
from phosphene.training import TrainConfig, train

VOXELS = {"V1": 37, "V2": 21, "V3": 11, "V4": 9}


def lab() -> DcMaeConfig:
    return DcMaeConfig(**DcMaeConfig.preset("lab"))


def low_rank(n, n_voxels, seed=0, rank=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank)) @ np.random.default_rng(7).normal(size=(rank, n_voxels)) / math.sqrt(rank)
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


def scans(folder, subjects=5, frames=64, flat=False, seed=0, save=np.savez):
    rng = np.random.default_rng(seed)
    out = {}
    for i in range(subjects):
        name = f"{100307 + i}"
        areas = {area: (3 + i) * rng.normal(i, 1, size=(frames, n)) for area, n in VOXELS.items()}
        file = folder / f"{name}.npz" if flat else folder / name / "HCP_visual_voxel.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        save(file, **areas, other=np.zeros(3))
        out[name] = areas
    return out


def in_memory(areas, per_window=10, patch=8) -> np.ndarray:
    """One subject the authors' way: windows, wrapped to whole patches and one more, scaled; wrapping included."""
    frames = np.concatenate([areas[a] for a in ("V1", "V2", "V3", "V4")], axis=1)
    windows = np.stack([w.mean(0) for w in np.array_split(frames, len(frames) // per_window)])
    padded = np.pad(windows, ((0, 0), (0, patch - windows.shape[1] % patch)), mode="wrap")
    return (padded - padded.mean()) / padded.std()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_streamed_windows_equal_those_computed_in_memory(tmp_path, flat, save):
    data = scans(tmp_path / "hcp", flat=flat, save=save)
    rows = resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)
    assert rows.shape == (30, 78) and rows.dtype == np.float32
    fetch, n = subject_batches({"hcp": rows})
    net = DcMae.create(lab(), {"hcp": 78}, 0)
    wanted = np.random.default_rng(0).permutation(n)[:17]
    batch = fetch(wanted)
    found = torch.empty(17, net.n_patches * 8)
    found[batch["rows"]["hcp"]] = net.to_patches(batch["betas"]["hcp"], "hcp").flatten(1)
    expected = np.concatenate([in_memory(areas) for areas in data.values()])[wanted]
    assert np.allclose(found, expected, atol=1e-5)  # float32
    assert rows.store.ids[[0, 7]].tolist() == ["100307/000", "100308/001"]


def test_scans_of_other_lengths_and_window_sizes(tmp_path):
    first = scans(tmp_path / "hcp", subjects=2, frames=47)
    second = scans(tmp_path / "more", subjects=3, frames=30)
    (tmp_path / "more/100309").rename(tmp_path / "hcp/100309")
    data = first | {"100309": second["100309"]}
    rows = resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length, per_window=7)
    assert len(rows) == 6 + 6 + 4
    expected = np.concatenate([in_memory(areas, 7) for areas in data.values()])[:, :78]
    assert np.allclose(rows[:], expected, atol=1e-5)


def test_a_scan_of_the_human_connectome_gives_120_windows_of_ten_frames():
    frames = np.repeat(np.random.default_rng(0).normal(size=(120, 20)), 10, axis=0)  # alike within a window
    out = window_means(frames)
    assert out.shape == (120, 20)
    assert np.allclose(out, (frames[::10] - frames.mean()) / frames.std(), atol=1e-6)
    assert abs(out.mean()) < 1e-6 and abs(out.std() - 1) < 1e-6


def test_memory_is_that_of_one_subject(tmp_path):
    peaks = {}
    for subjects in (2, 12):
        scans(tmp_path / f"{subjects}", subjects=subjects, frames=2000)  # 1.25 MB each
        tracemalloc.start()
        rows = resting_windows(tmp_path / f"{subjects}", tmp_path / "cache", padded_length=lab().wrapped_length)
        rows[np.arange(0, len(rows), 100)]
        peaks[subjects] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    one = 2000 * 78 * 8
    assert peaks[12] < peaks[2] + 0.5 * one  # ten subjects more are 10 * one in memory
    assert peaks[12] < 4 * one


def test_what_was_computed_is_found_again_and_other_scans_are_not_mistaken_for_it(tmp_path):
    scans(tmp_path / "hcp")
    first = resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("rows.npy")}
    second = resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("rows.npy")} == before
    assert np.array_equal(first[:], second[:])
    scans(tmp_path / "hcp", seed=1)
    other = resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)
    assert not np.allclose(first[:], other[:], atol=0.1)


def test_an_interrupted_reading_goes_on_where_it_was(tmp_path):
    data = scans(tmp_path / "hcp")
    file = tmp_path / "hcp/100310/HCP_visual_voxel.npz"
    whole = file.read_bytes()
    expected = np.concatenate([in_memory(areas) for areas in data.values()])[:, :78]
    file.write_bytes(whole[:2000] + bytes(500) + whole[2500:])
    with pytest.raises(DataError, match="100310"):
        resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)
    assert len(list((tmp_path / "cache").glob("*/chunks/*.json"))) == 3
    file.write_bytes(whole)
    assert np.allclose(
        resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)[:],
        expected,
        atol=1e-5,
    )
    assert len(list((tmp_path / "cache").glob("*/chunks/*.json"))) == 5


def test_training_streams_from_disk(tmp_path):
    scans(tmp_path / "hcp", frames=300)
    rows = resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)
    own = low_rank(20, 50)
    fetch, n = subject_batches({"hcp": rows, "S1": own})  # GOD's training responses beside them, as the code does
    net = DcMae.create(lab(), {"hcp": 78, "S1": 50}, 0)
    done = train(net, fetch, n, TrainConfig(steps=3, batch_size=16), seed=0, device="cpu", log_every=1)
    assert n == 170 and done.finished
    assert all(math.isfinite(entry["loss"]) for entry in done.curve)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("V3"), r"100308 has no V3.*holds V1, V2, V4"),
        (lambda a: a.update(V2=a["V2"][:, 1:]), "100308 has 77 voxels.*V2 20.*100307 has 78"),
        (lambda a: a.update(V2=a["V2"][1:]), r"same number of frames.*V2 \(63, 21\)"),
        (lambda a: a.update({k: v[:9] for k, v in a.items()}), "100308 has 9 frames, fewer than the 10"),
        (lambda a: a["V4"].fill(math.nan), "100308.*finite"),
        (lambda a: a.update({k: 0 * v for k, v in a.items()}), "100308.*must be finite and differ"),
    ],
)
def test_scans_that_cannot_be_used_are_named(tmp_path, change, message):
    data = scans(tmp_path / "hcp", subjects=3)
    change(data["100308"])
    np.savez(tmp_path / "hcp/100308/HCP_visual_voxel.npz", **data["100308"])
    with pytest.raises(DataError, match=message):
        resting_windows(tmp_path / "hcp", tmp_path / "cache", padded_length=lab().wrapped_length)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no subject.*HCP_visual_voxel.npz"):
        resting_windows(tmp_path, tmp_path / "cache")


def test_rows_are_wrapped_by_default_as_the_network_of_the_paper_wraps_them():
    assert [wrapped_length(n) for n in (1, 4466, 4480)] == [PatchMaeConfig().wrapped_length(n) for n in (1, 4466, 4480)]
    assert PatchMaeConfig(padding="zero").wrapped_length(4466) is None
