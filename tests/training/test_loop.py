"""The training loop: resuming, sharing out, stopping."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from phosphene.errors import ConfigError, ModelError, PhospheneWarning
from phosphene.training import TrainConfig, learning_rate, train
from phosphene.training.checkpoint import checkpoints, last_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from tests.training.toy import CONFIG, Regression, items, toy

TOY = str(Path(__file__).parent / "toy.py")
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(folder=None, *, network=None, seed=7, **changes):
    """Train the toy in this process; (network, Trained)."""
    keys = {k: changes.pop(k) for k in list(changes) if k in TrainConfig.model_fields}
    network = network or toy()
    data = items()
    config = TrainConfig(**{**CONFIG, **keys})
    options = {"seed": seed, "folder": folder, "log_every": 1, "device": "cpu", **changes}
    return network, train(network, lambda rows: data[torch.from_numpy(rows)], len(data), config, **options)


def losses(result) -> np.ndarray:
    return np.array([entry["loss"] for entry in result.curve])


def weights(network) -> dict[str, np.ndarray]:
    return {k: v.numpy().copy() for k, v in network.state_dict().items()}


def same(a, b) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in {*a, *b})


@pytest.mark.fault(75)
def test_a_training_killed_with_signal_9_ends_bit_identical_to_one_that_was_not(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    network, result = run(whole, save_every=3)
    command = [sys.executable, TOY, str(broken), str(tmp_path / "out.safetensors"), "nap=0.02"]
    for kill_after in (5, 17):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as process:
            for line in process.stdout:
                if line.startswith("step") and int(line.split()[1]) >= kill_after:
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "out.safetensors").exists()
    ended = subprocess.run(command, capture_output=True, text=True, env=ENV, check=True).stdout
    assert "finished True" in ended
    assert re.search(r"resumed (15|18)\b", ended)  # killed after 17: a save at 15 or 18
    assert same(weights(network), {k: v.numpy() for k, v in load_file(tmp_path / "out.safetensors").items()})
    for name in ("model", "ema", "optimizer"):
        files = [folder / "step-00000024" / f"{name}.safetensors" for folder in (whole, broken)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert last_checkpoint(whole).record == last_checkpoint(broken).record  # the curve too
    assert result.resumed_at == 0


@pytest.mark.parametrize("stop", [1, 8, 23])
def test_a_training_stopped_at_any_step_goes_on_as_if_it_had_not(tmp_path, stop):
    network, result = run(tmp_path / "a")

    class Stop(Exception):
        pass

    def stop_there(entry):
        if entry["step"] == stop + 1:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "b", save_every=1, watch=stop_there)
    resumed, again = run(tmp_path / "b")
    assert again.resumed_at == stop
    assert same(weights(network), weights(resumed))
    assert np.array_equal(losses(result), losses(again))


def test_training_neither_reads_nor_moves_the_global_random_state():
    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the state is the point
    first, _ = run()
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(2)
    assert same(weights(first), weights(run()[0]))


def test_another_seed_gives_another_curve():
    assert not np.allclose(losses(run()[1]), losses(run(seed=8)[1]))


def test_two_processes_under_torchrun_give_the_curve_of_one(tmp_path):
    # Dropout is seeded per process, so it is left out; noise and contrast over the whole batch are in.
    expected = run(network=toy(dropout=0.0))[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", TOY]
    command += ["-", str(tmp_path / "out.safetensors"), "dropout=0"]
    out = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False, timeout=120)
    assert out.returncode == 0, out.stderr[-2000:]
    curve = np.array([float(line.split()[2]) for line in out.stdout.splitlines() if line.startswith("step")])
    assert len(curve) == CONFIG["steps"]
    # float32 sums in another order differ by about 1e-7 a step; Adam amplifies where gradients are near zero.
    assert np.allclose(curve, losses(expected), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 4])
def test_one_two_and_four_processes_and_accumulated_parts_give_the_same_curve(tmp_path, n):
    """Without the contrast, which needs the rows of a whole batch, each process also cuts its share into three parts."""
    expected = run(network=Regression(), ema=0.9)[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n}", "--standalone", TOY]
    command += ["-", str(tmp_path / "out.safetensors"), "network=regression", "accumulate=3"]
    out = subprocess.run(command, capture_output=True, text=True, env=ENV, check=False, timeout=400)
    assert out.returncode == 0, out.stderr[-2000:]
    curve = np.array([float(line.split()[2]) for line in out.stdout.splitlines() if line.startswith("step")])
    assert len(curve) == CONFIG["steps"]
    assert np.allclose(curve, losses(expected), rtol=1e-5)  # float32 sums in another order


def test_accumulated_parts_add_up_to_the_whole_batch():
    one, parts = (run(network=Regression(), accumulate=n, ema=None) for n in (1, 4))
    assert np.allclose(losses(one[1]), losses(parts[1]), rtol=1e-5)  # rounding of sums in another order
    assert np.allclose(one[0].layer.weight.detach(), parts[0].layer.weight.detach(), atol=1e-4)


def test_the_loop_is_adamw_step_by_step():
    """Against a plain torch loop written here, with torch's own scheduler and clipping."""
    network, result = run(network=Regression(), ema=None, weight_decay=0.1)
    from phosphene.training import BatchSampler, Draws

    data, plain = items(), Regression()
    steps = torch.optim.AdamW(
        [{"params": [plain.layer.weight], "weight_decay": 0.1}, {"params": [plain.layer.bias], "weight_decay": 0.0}],
        lr=CONFIG["lr"],
    )
    config = TrainConfig(**CONFIG)
    schedule = torch.optim.lr_scheduler.LambdaLR(steps, lambda s: learning_rate(config, s))
    for step in range(CONFIG["steps"]):
        steps.zero_grad()
        rows = BatchSampler(len(data), 12, 7).rows(step)
        loss, _ = plain.loss(data[torch.from_numpy(rows)], Draws(7, step, 12))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        steps.step()
        schedule.step()
    # The loop's optimiser is torch's fused one, whose roundings differ by some units in the last place a step.
    torch.testing.assert_close(network.layer.weight, plain.layer.weight, rtol=1e-4, atol=1e-6)
    assert result.finished


def test_the_average_is_the_exponential_one_of_the_weights_seen():
    seen, network = [], Regression()
    run(network=network, watch=lambda _: seen.append(network.layer.weight.detach().clone()))
    expected = torch.zeros_like(seen[0])
    for step, weight in enumerate(seen):
        decay = min(CONFIG["ema"], (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    assert torch.allclose(network.layer.weight, expected, atol=1e-6)  # float32 rounding over 24 steps


class Breaks(Regression):
    """Its loss stops being a number at the tenth call."""

    calls = 0

    def loss(self, batch, draws):
        self.calls += 1
        loss, logs = super().loss(batch, draws)
        return (loss * float("nan") if self.calls == 10 else loss), logs


@pytest.mark.fault(78)
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"step 10 the loss is nan.*of step 8 .*is kept.*learning rate"):
        run(tmp_path, network=Breaks(), save_every=4)
    saved = last_checkpoint(tmp_path)
    assert saved.step == 8
    assert all(torch.isfinite(t).all() for t in saved.model.values())


@pytest.mark.fault(73)
def test_a_resume_without_the_optimizer_state_is_refused(tmp_path):
    run(tmp_path, save_every=12)
    (tmp_path / "step-00000024" / "optimizer.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no optimizer\.safetensors"):
        run(tmp_path)


@pytest.mark.fault(77)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "no record", "record without digests"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    network, _ = run(tmp_path, save_every=12)
    last = tmp_path / "step-00000024"
    file = last / "model.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(data[:-7])
    elif damage == "flipped":
        data[-3] ^= 1
        file.write_bytes(data)
    elif damage == "no record":
        (last / "state.json").unlink()
    else:
        (last / "state.json").write_text('{"step": 24, "sha256": 7}')
    with pytest.warns(PhospheneWarning, match="step-00000024 is damaged"):
        again, result = run(tmp_path)
    assert result.resumed_at == 12
    assert same(weights(network), weights(again))


@pytest.mark.fault(75)
def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    network, _ = run(tmp_path / "a")
    leftover = tmp_path / "b" / ".partial-step-00000012-1-abc"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    assert same(weights(network), weights(run(tmp_path / "b")[0]))
    assert not leftover.exists()


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    ("change", "named"),
    [({"lr": 0.02}, "lr: 0.01 -> 0.02"), ({"data": "other"}, "data"), ({"seed": 8}, "seed: 7 -> 8")],
)
def test_a_resume_with_another_configuration_or_data_is_refused(tmp_path, change, named):
    run(tmp_path)
    with pytest.raises(ModelError, match=named):
        run(tmp_path, **change)


@pytest.mark.fault(74)
def test_a_resume_on_another_number_of_processes_says_so(tmp_path):
    run(tmp_path, save_every=12)
    for place in checkpoints(tmp_path):
        record = json.loads((place / "state.json").read_text())
        (place / "state.json").write_text(json.dumps({**record, "world": 4}))
    with pytest.warns(PhospheneWarning, match="4 processes and goes on on 1"):
        run(tmp_path)


def test_a_finished_training_can_be_prolonged_where_the_caller_allows_it(tmp_path):
    run(tmp_path, schedule="constant")
    longer, result = run(tmp_path, steps=30, schedule="constant", may_change=("steps",))
    assert (result.resumed_at, result.step) == (24, 30)
    assert same(weights(longer), weights(run(steps=30, schedule="constant")[0]))


def _without(folder, setting):
    for place in checkpoints(folder):
        record = json.loads((place / "state.json").read_text())
        assert setting in record["identity"]
        del record["identity"][setting]
        (place / "state.json").write_text(json.dumps(record))


def test_a_setting_that_a_checkpoint_does_not_know_was_at_its_default(tmp_path):
    run(tmp_path)
    _without(tmp_path, "config.recompute")  # as if written before there was such a setting
    assert run(tmp_path)[1].resumed_at == 24
    with pytest.raises(ModelError, match="recompute: False -> True"):
        run(tmp_path, recompute=True)


def test_a_setting_without_a_default_must_be_in_the_checkpoint(tmp_path):
    run(tmp_path)
    _without(tmp_path, "config.batch_size")
    with pytest.raises(ModelError, match="batch_size: None -> "):
        run(tmp_path)


def test_only_the_last_two_checkpoints_are_kept(tmp_path):
    run(tmp_path, save_every=3)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000021", "step-00000024"]


def test_running_out_of_minutes_stops_with_a_checkpoint(tmp_path):
    _, result = run(tmp_path, minutes=0.0)
    assert (result.step, result.finished) == (1, False)
    assert run(tmp_path)[1].resumed_at == 1


def test_bf16_is_close_to_float32_and_keeps_float32_weights():
    exact, rough = run(network=Regression(), ema=None), run(network=Regression(), ema=None, precision="bf16")
    assert rough[0].layer.weight.dtype == torch.float32
    assert not np.array_equal(losses(exact[1]), losses(rough[1]))
    assert np.allclose(losses(exact[1]), losses(rough[1]), rtol=0.02)  # bf16 has 8 bits of mantissa, 0.4 %


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ConfigError, match="multiple of 5"):
        run(accumulate=5)
