"""Fixtures every test may use."""

from __future__ import annotations

import os

# One thread: small problems are faster so, and sums come out the same in every process. Before numpy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import signal
import tempfile
from pathlib import Path

# Looks at test sets are remembered for a person; those of tests are nobody's.
os.environ["PHOSPHENE_STATE"] = tempfile.mkdtemp(prefix="phosphene-state-")

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data beside the checkout; tests that ask for it skip when it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the small real data sets are not beside this checkout (../shared/data)")
    return folder


@pytest.fixture(autouse=True)
def no_memory_of_looks(tmp_path_factory, monkeypatch):
    """Every test begins without looks of another."""
    monkeypatch.setenv("PHOSPHENE_STATE", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def heeded():
    """Signals as a terminal sets them and as they were afterwards, also where the tests run in the background."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def one_thread():
    """Torch on one thread: rows of one batch are then summed alike, wherever they stand in it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
