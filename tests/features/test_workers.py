"""Several workers on one store: the same rows, and a killed one leaves only the chunk it was at."""

from __future__ import annotations

import os
import pickle
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from phosphene.data import open_dataset
from phosphene.errors import ConfigError
from phosphene.features.clip import ClipFeatures
from phosphene.features.workers import FeatureJob, fill
from phosphene.io.store import RowStore, cached
from phosphene.lab import zoo

SIZES = {"n_train": 20, "n_test": 4, "n_voxels": 50}
pytestmark = pytest.mark.skipif(not {"clip", "vdvae"} <= set(zoo.names()), reason="the zoo's weights are not bundled")


def job(cache, **more) -> FeatureJob:
    return FeatureJob("insilico", {"kind": "clip", "batch": 4}, str(cache), options=SIZES, **more)


class MeanColours:
    """Features without a network, so that two processes start at once."""

    def image_store(self, stimuli, cache, progress) -> RowStore:
        def compute(ids):
            return stimuli.select(ids).floats().mean(axis=(1, 2))

        return cached(cache, {"extractor": "colours"}, stimuli.ids, compute, shape=(3,), chunk=4, progress=progress)


@dataclass(frozen=True)
class Dying(FeatureJob):
    """The second worker is killed while it writes its second chunk; the first waits for that, and notes what it writes."""

    def _features(self):
        return MeanColours()

    def __call__(self, worker: int = 0) -> Path:
        place, write, written = Path(self.cache).parent, RowStore.write, []

        def killed(store, rows, array):
            if written:
                (place / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            written.append(rows)
            write(store, rows, array)

        def noted(store, rows, array):
            with open(place / "rows.txt", "a") as file:
                file.write(f"{rows.start}\n")
            write(store, rows, array)

        RowStore.write = killed if worker else noted
        try:
            patience = time.monotonic() + 200
            while not worker and not (place / "killed").exists():
                assert time.monotonic() < patience, "the second worker ended before it was killed"
                time.sleep(0.05)
            return super().__call__(worker)
        finally:
            RowStore.write = write


def test_a_worker_killed_at_its_second_chunk_leaves_only_that_to_the_others(tmp_path):
    (tmp_path / "cache").mkdir()
    folder = fill(Dying("insilico", {"kind": "colours"}, str(tmp_path / "cache"), options=SIZES), workers=2)
    store = RowStore.open(folder)
    assert store.missing() == []
    stimuli = open_dataset("insilico", options=SIZES).stimuli
    np.testing.assert_array_equal(store.read(stimuli.ids), stimuli.floats().mean(axis=(1, 2)))
    redone = [int(line) for line in (tmp_path / "rows.txt").read_text().split()]
    assert redone == [4, 8, 12, 16, 20]


def test_the_same_job_again_computes_nothing(tmp_path, monkeypatch):
    folder = fill(job(tmp_path))
    monkeypatch.setattr(RowStore, "write", None)
    assert job(tmp_path)() == folder


def test_pictures_and_captions_have_stores_of_their_own(tmp_path):
    stimuli = open_dataset("insilico", options=SIZES).stimuli
    store = RowStore.open(job(tmp_path, what="captions")())
    # other batches of the same float32 products
    np.testing.assert_allclose(store.read(stimuli.ids), ClipFeatures().captions(stimuli), rtol=0, atol=1e-5)
    vdvae = FeatureJob("insilico", {"kind": "vdvae"}, tmp_path, options=SIZES)
    assert len(RowStore.open(vdvae())) == len(stimuli)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_job_is_small(tmp_path):
    assert len(pickle.dumps(job(tmp_path))) < 1000


def test_what_cannot_be_made_is_named(tmp_path):
    for extractor, words in (
        ({"kind": "clop"}, "no features of kind 'clop'"),
        ({"kind": "clip", "layers": 3}, "layers"),
    ):
        with pytest.raises(ConfigError, match=words):
            FeatureJob("insilico", extractor, tmp_path, options=SIZES)()
    with pytest.raises(ConfigError, match="vdvae makes no features of 'captions'"):
        FeatureJob("insilico", {"kind": "vdvae"}, tmp_path, "captions", options=SIZES)()
    with pytest.raises(ConfigError, match="1 or more"):
        fill(job(tmp_path), workers=0)
