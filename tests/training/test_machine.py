"""When the machine gives out: memory, signals, devices, other processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.errors import ConfigError, MachineError, PhospheneWarning
from phosphene.io import memory
from phosphene.io.device import device
from phosphene.io.notes import collecting
from phosphene.training.checkpoint import last_checkpoint
from phosphene.training.machine import held, smaller
from phosphene.training.recompute import recomputing
from phosphene.training.settings import TrainConfig
from tests.training.test_loop import ENV, TOY, Regression, losses, run, same, toy, weights


class Small(Regression):
    """On a device with room for a few rows: the error torch raises there, when there are more."""

    def __init__(self, room: int, then: int | None = None):
        super().__init__()
        self.room, self.then, self.calls = room, then, 0

    def loss(self, batch, draws):
        self.calls += 1
        if self.calls > 10 and self.then is not None:
            self.room = self.then
        if len(batch) > self.room:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to hold {len(batch)} rows.")
        return super().loss(batch, draws)


@pytest.mark.fault(83)
def test_memory_that_runs_out_halves_the_parts_and_leaves_the_training_as_it_was():
    with collecting() as notes, pytest.warns(PhospheneWarning, match="12 items at a time.*again with 6") as said:
        network, result = run(network=Small(room=4), ema=None)
    assert sum("memory ran out" in str(w.message) for w in said) == 2  # 12, 6, 3 at a time
    asked, expected = run(network=Regression(), ema=None, accumulate=4)
    assert result.accumulate == 4
    assert np.array_equal(losses(result), losses(expected))
    assert same(weights(network), weights(asked))
    assert notes == ["memory ran out: batches of 12 were computed in 4 parts instead of 1"]


@pytest.mark.fault(83)
def test_a_training_that_ran_out_of_memory_on_the_way_resumes_bit_identical(tmp_path):
    class Stop(Exception):
        pass

    def stop(entry):
        if entry["step"] == 16:
            raise Stop

    with pytest.warns(PhospheneWarning, match="at step 11"):
        whole, expected = run(network=Small(12, then=6), ema=None)
    with pytest.warns(PhospheneWarning), pytest.raises(Stop):
        run(tmp_path, network=Small(12, then=6), ema=None, save_every=5, watch=stop)
    resumed, result = run(tmp_path, network=Small(6), ema=None)
    assert result.resumed_at == 15
    assert np.array_equal(losses(result), losses(expected))
    assert same(weights(whole), weights(resumed))


@pytest.mark.fault(83)
def test_memory_that_a_single_item_exceeds_is_an_error_that_says_what_to_lower():
    with pytest.warns(PhospheneWarning), pytest.raises(MachineError, match=r"1 of the 12 items.*accumulate.*bf16"):
        run(network=Small(room=0), ema=None)


@pytest.mark.fault(83)
def test_a_loss_that_compares_the_rows_of_a_batch_is_never_silently_computed_on_fewer():
    class Contrast(type(toy())):
        def loss(self, batch, draws):
            if len(batch) > 6:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().loss(batch, draws)

    with pytest.warns(PhospheneWarning), pytest.raises(MachineError, match="compares the items of a batch"):
        run(network=Contrast())
    assert run(network=Contrast(), accumulate=2)[1].finished  # asked for, it is another science and allowed


@pytest.mark.fault(83)
def test_several_processes_that_run_out_of_memory_are_told_what_to_set():
    with pytest.raises(MachineError, match="accumulate=4"):
        smaller(64, 2, 2, 0, "CUDA out of memory")


@pytest.mark.fault(84)
def test_weights_that_memory_cannot_hold_are_refused_before_the_first_step():
    with torch.device("meta"):
        network = nn.Linear(2_000_000, 2_000_000)  # 16 TB, which is nowhere
    with pytest.raises(MachineError, match=r"Linear with their gradients, moments.* TB|GB .*available.*Lower"):
        run(network=network)


@pytest.mark.fault(84)
def test_more_memory_than_there_is_is_refused_and_less_is_not():
    there = memory.available()
    assert there > 0
    memory.require_memory(there // 2, "Half of it", "Nothing.")
    with pytest.raises(MachineError, match=r"Twice as much needs .*GB.* are available.*Lower it"):
        memory.require_memory(2 * there, "Twice as much", "Lower it.")


def test_what_a_training_holds_is_four_copies_of_the_weights_and_a_fifth_for_the_average():
    network = nn.Linear(10, 5)  # 55 numbers
    assert held(network, TrainConfig(steps=1, batch_size=1, ema=0.9)) == {
        "weights": 220, "gradients": 220, "moments": 440, "average": 220,
    }  # fmt: skip


def test_the_peak_of_a_block_is_what_it_took_and_gave_back():
    with memory.Peak() as peak:
        a = np.ones(40_000_000)  # 320 MB
        del a
    if peak.bytes is None:
        pytest.skip("this system does not let the highest figure be reset")
    assert 300e6 < peak.bytes < 400e6  # pages, and what Python takes on the way


@pytest.mark.fault(85)
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_an_error_at_once(monkeypatch):
    with pytest.raises(MachineError, match=r"'cuda:3' was asked for.*finds no such device.*--device cpu"):
        device("cuda:3")
    monkeypatch.setenv("PHOSPHENE_DEVICE", "cuda")
    with pytest.raises(MachineError, match="'cuda' was asked for"):
        run(device=None)
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        device("gpu")


@pytest.mark.fault(87)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_leaves_its_checkpoint(tmp_path, heeded, number):
    def told(entry):
        if entry["step"] == 7:
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as the command line has it
    with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt) as end:
        run(tmp_path, watch=told)
    if number == signal.SIGTERM:
        assert end.value.code == 143
    assert last_checkpoint(tmp_path).step == 7
    resumed, result = run(tmp_path)
    assert result.resumed_at == 7
    assert same(weights(resumed), weights(run()[0]))


@pytest.mark.fault(87)
def test_a_second_interrupt_does_not_wait_for_the_step(heeded):
    class Endless(Regression):
        def loss(self, batch, draws):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second interrupt was swallowed")

    with pytest.raises(KeyboardInterrupt):
        run(network=Endless(), ema=None)


def test_an_interrupt_that_is_ignored_stays_so(tmp_path, heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup

    def told(entry):
        if entry["step"] == 7:
            signal.raise_signal(signal.SIGINT)

    assert same(weights(run(tmp_path, watch=told)[0]), weights(run()[0]))


@pytest.mark.fault(96)
def test_one_process_that_fails_stops_all_with_its_error(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", TOY]
    command += ["-", str(tmp_path / "out.safetensors"), "dropout=0", "fails=1"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False, timeout=200)
    assert done.returncode != 0
    assert "DataError: row 3 of rank 1 is damaged" in done.stderr
    assert not (tmp_path / "out.safetensors").exists()


def test_computing_blocks_twice_changes_nothing_but_the_memory():
    """Dropout inside the blocks is drawn again as it was."""

    class Deep(Regression):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.blocks = nn.ModuleList(
                    nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Dropout(0.2)) for _ in range(3)
                )

        def loss(self, batch, draws):
            x = batch + draws.normal(6)
            for block in self.blocks:
                x = x + block(x)
            return (self.layer(x) - batch).square().mean(), {}

    network = Deep()
    with recomputing(network) as n:
        assert n == 3
    plain, twice = run(network=network, ema=None), run(network=Deep(), ema=None, recompute=True)
    assert np.array_equal(losses(plain[1]), losses(twice[1]))
    assert same(weights(plain[0]), weights(twice[0]))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_gives_the_curve_of_the_plain_one(backend):
    changes = {"ema": None, "steps": 6}
    plain, compiled = run(network=Regression(), **changes), run(network=Regression(), compile=backend, **changes)
    # The same operations in perhaps another order: float32 rounding.
    assert np.allclose(losses(plain[1]), losses(compiled[1]), rtol=1e-5)
    assert set(plain[0].state_dict()) == set(compiled[0].state_dict())
