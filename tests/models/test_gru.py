"""Networks from betas to latents against their published sizes, closed forms, invariants, and small trainings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter

from phosphene.align import ReducedRankRidge
from phosphene.errors import ConfigError, DataError, ModelError, SplitError
from phosphene.io.config import validate
from phosphene.io.stages import load_part, save_part
from phosphene.models import (
    LATENT_NETS,
    GruCnnConfig,
    GruConfig,
    GruTransformerConfig,
    LatentNet,
    LatentNetConfig,
    LatentNetPart,
    LatentTraining,
    fit_latent_net,
    latent_net_config,
    voxel_runs,
)
from phosphene.models.gru import validation_rows
from phosphene.training import Draws, TrainConfig
from phosphene.types import Trials

KINDS = list(LATENT_NETS)
N_VOXELS, N_LATENTS = 30, 7
GROUPS = [np.array([4, 0, 9]), np.array([1, 2, 3, 5]), np.setdiff1d(np.arange(N_VOXELS), [0, 1, 2, 3, 4, 5, 9])]


def lab(kind: str, **changes):
    return latent_net_config({"kind": kind} | LATENT_NETS[kind].preset("lab") | changes)


def network(kind="gru", seed=0, **changes) -> LatentNet:
    groups = GROUPS if kind == "group_gru" else ()
    return LatentNet.create(lab(kind, **changes), N_VOXELS, N_LATENTS, seed, groups=groups)


def rows(n=5, width=N_VOXELS, seed=0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def batch(n=6) -> dict[str, torch.Tensor]:
    return {"betas": rows(n), "latents": rows(n, N_LATENTS, 1)}


def count(module) -> int:
    return sum(w.numel() for w in module.parameters())


def meta(config, n_voxels, n_latents) -> LatentNet:
    with torch.device("meta"):
        return LatentNet(config, n_voxels, n_latents)


# -- published sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_voxels", "n_latents", "expected"),
    [
        (15_724, 13_344, 12_400_344),  # subject 1, 15 latents: the paper's own figure
        (15_724, 91_168, 28_042_968),  # 31 latents
        (14_278, 13_344, 11_532_744),
        (13_039, 13_344, 10_789_344),
        (12_682, 13_344, 10_575_144),
    ],
)
def test_the_published_network_has_its_number_of_parameters(n_voxels, n_latents, expected):
    config = validate(GruConfig, GruConfig.preset("paper"), "preset")
    assert count(meta(config, n_voxels, n_latents)) == expected


def test_its_layers_have_the_sizes_of_table_1():
    body = meta(GruConfig(), 15_724, 13_344).body
    parts = [body.gru1, body.norm1, body.gru2, body.norm2, *(body.head[i] for i in (0, 1, 4))]
    assert [count(p) for p in parts] == [9_495_600, 400, 181_200, 400, 40_200, 400, 2_682_144]


def test_120_000_of_its_parameters_are_dead_and_the_re_creations_have_their_sizes():
    assert count(meta(GruConfig(cell="gated"), 15_724, 13_344)) == 12_400_344 - 120_000
    assert count(meta(GruCnnConfig(), 15_724, 13_344)) == 12_301_176
    assert count(meta(GruTransformerConfig(), 15_724, 13_344)) == 12_882_944


# -- what the networks compute -----------------------------------------------------------------------------------------


def test_a_gru_on_one_step_is_its_closed_form():
    gru = torch.nn.GRU(N_VOXELS, 4, batch_first=True, bidirectional=True).double()
    x = rows().double()
    halves = []
    for way in ("", "_reverse"):
        w, b, c = (getattr(gru, f"{name}_l0{way}") for name in ("weight_ih", "bias_ih", "bias_hh"))
        (wr, wz, wn), (br, bz, bn), (cr, cz, cn) = w.split(4), b.split(4), c.split(4)
        r, z = torch.sigmoid(x @ wr.T + br + cr), torch.sigmoid(x @ wz.T + bz + cz)
        halves.append((1 - z) * torch.tanh(x @ wn.T + bn + r * cn))
    assert torch.allclose(gru(x[:, None])[0][:, 0], torch.cat(halves, 1), atol=1e-12)  # float64, sums of 30 terms


@pytest.mark.parametrize("kind", ["gru", "gru_cnn", "gru_transformer"])
def test_the_gated_network_is_the_published_one_without_dead_weights(kind):
    net = network(kind).eval()
    gated = net.gated()
    assert torch.allclose(gated(rows()), net(rows()), atol=1e-5)  # float32
    n_cells = 1 if kind == "gru_cnn" else 2
    assert count(net) - count(gated) == n_cells * 2 * 3 * 32 * 32
    loaded = LatentNetPart.from_state(*LatentNetPart.of(gated).state())
    assert torch.equal(loaded.module(rows()), gated(rows()))
    with pytest.raises(ModelError, match="cell='torch'"):
        gated.gated()


def test_recurrent_weights_have_no_gradient_on_one_step_and_some_on_a_sequence():
    for kind in ("gru", "gru_transformer", "gru_cnn", "group_gru"):
        net = network(kind)
        net.loss(batch(), Draws(0, 0, 6))[0].backward()
        sizes = {k: float(w.grad.abs().max()) for k, w in net.named_parameters() if "weight_hh" in k}
        is_sequence = {k: kind == "group_gru" or (kind == "gru_cnn" and "gru2" in k) for k in sizes}
        assert {k: size > 0 for k, size in sizes.items()} == is_sequence


def test_queries_and_keys_of_a_single_token_have_no_gradient():
    net = network("gru_transformer", dropout=0.0)
    net.loss(batch(), Draws(0, 0, 6))[0].backward()
    gradient = net.body.block.self_attn.in_proj_weight.grad
    assert gradient[:128].abs().max() < 1e-7 < gradient[128:].abs().max()  # zero up to float32 rounding


def test_outputs_of_the_published_network_span_at_most_its_bottleneck():
    net = LatentNet.create(GruConfig(hidden=3, target_scale="none"), N_VOXELS, 40, 0).eval()
    out = net(rows(50)).detach().double().numpy()
    values = np.linalg.svd(out - out.mean(0), compute_uv=False)
    assert values[6] < 1e-5 * values[0] < values[5]  # six units, and float32


def test_a_group_network_is_a_gru_over_the_projections_of_its_groups():
    for readout in ("mean", "last"):
        net = network("group_gru", readout=readout).eval()
        body, x = net.body, rows()
        tokens = torch.stack([x[:, g] @ f.weight.T + f.bias for g, f in zip(GROUPS, body.embed, strict=True)], 1)
        tokens = torch.nn.functional.layer_norm(tokens, (32,), body.norm1.weight, body.norm1.bias)
        states = body.gru(tokens)[0]
        read = states.mean(1) if readout == "mean" else torch.cat([states[:, -1, :32], states[:, 0, 32:]], 1)
        assert torch.allclose(net(x), body.head(body.norm2(read)), atol=1e-5)  # float32


# -- invariances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_decoded_as_if_it_were_alone(kind):
    part = LatentNetPart.of(network(kind))
    x = rows(9).numpy()
    whole = part.predict(x)
    assert np.allclose(part.predict(x, batch_size=2), whole, atol=1e-5)  # float32, other blocks
    assert np.allclose(part.predict(x[::-1]), whole[::-1], atol=1e-5)
    assert whole.shape == (9, N_LATENTS) and whole.dtype == np.float32


def test_the_order_of_voxels_is_the_callers_and_the_order_of_groups_is_not():
    order = np.random.default_rng(0).permutation(N_VOXELS)
    place = np.argsort(order)  # voxel v stands in column place[v] of x[:, order]
    a = network("group_gru").eval()
    b = LatentNet.create(lab("group_gru"), N_VOXELS, N_LATENTS, 0, groups=[place[g] for g in GROUPS]).eval()
    x = rows()
    assert torch.allclose(b(x[:, order]), a(x), atol=1e-6)
    turned = LatentNet.create(lab("group_gru"), N_VOXELS, N_LATENTS, 0, groups=GROUPS[::-1]).eval()
    state = a.state_dict()
    for i in range(3):
        for what in ("weight", "bias"):
            turned.body.embed[2 - i].get_parameter(what).data = state[f"body.embed.{i}.{what}"]
    for name, weight in turned.named_parameters():
        if ".embed." not in name:
            weight.data.copy_(state[name])
    assert not torch.allclose(turned(x), a(x), atol=1e-3)
    # Walking the other way with the two directions exchanged is the same walk.
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        turned.body.gru.get_parameter(name).data = state[f"body.gru.{name}_reverse"]
        turned.body.gru.get_parameter(f"{name}_reverse").data = state[f"body.gru.{name}"]
    both = [net.body.gru(net.body.norm1(_tokens(net, x)))[0].mean(1) for net in (turned, a)]
    assert torch.allclose(both[0], both[1].roll(32, dims=1), atol=1e-6)


def _tokens(net, x):
    pieces = x[:, net.voxels].split(net.sizes, dim=1)
    return torch.stack([f(p) for f, p in zip(net.body.embed, pieces, strict=True)], 1)


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_networks_without_groups_do_not_care_where_a_voxel_stands(kind):
    net, moved = network(kind).eval(), network(kind).eval()
    order = torch.randperm(N_VOXELS, generator=torch.Generator().manual_seed(0))
    for name, weight in moved.named_parameters():
        if weight.ndim == 2 and weight.shape[1] == N_VOXELS:
            weight.data = dict(net.named_parameters())[name].data[:, order]
    assert torch.allclose(moved(rows()[:, order]), net(rows()), atol=1e-5)  # float32, other order of sums


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone(kind):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = network(kind).state_dict(), network(kind).state_dict(), network(kind, seed=1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


# -- learning ----------------------------------------------------------------------------------------------------------


def linear_gaussian(n=300, n_new=200):
    """Noisy betas of latents that lie in three dimensions."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((n + n_new, 3))
    latents = hidden @ rng.standard_normal((3, N_LATENTS)) * 2 + 5
    betas = hidden @ rng.standard_normal((3, N_VOXELS)) + rng.standard_normal((n + n_new, N_VOXELS))
    betas, latents = betas.astype(np.float32), latents.astype(np.float32)
    return betas[:n], latents[:n], betas[n:], latents[n:]


def quick(steps=120, **changes) -> LatentTraining:
    train = TrainConfig(steps=steps, batch_size=32, lr=5e-3)
    return LatentTraining(train=train, **({"check_every": 20, "patience": None} | changes))


def fit(kind, training=None, folder=None, **changes) -> LatentNetPart:
    betas, latents, _, _ = linear_gaussian()
    groups = GROUPS if kind == "group_gru" else ()
    stimuli = [f"s{i // 2}" for i in range(len(betas))]
    config = lab(kind, dropout=0.1, **changes)
    training = training or quick()
    return fit_latent_net(config, betas, latents, stimuli, training, seed=0, groups=groups, folder=folder, device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_each_network_learns_a_linear_gaussian_problem(kind):
    part = fit(kind)
    betas, latents, new, truth = linear_gaussian()
    error = np.square(part.predict(new) - truth).mean()
    mean = np.square(latents.mean(0) - truth).mean()
    # The three hidden numbers are seen through thirty voxels of unit noise: about a tenth of the variance must stay.
    assert error < 0.35 * mean
    best = np.square(ReducedRankRidge(3, 1.0).fit(betas, latents).predict(new) - truth).mean()
    assert best < 0.15 * mean
    chosen = part.chosen_
    assert chosen["validation_mse"] < chosen["mean_mse"]
    assert chosen["step"] % 20 == 0 and chosen["n_validation"] == 15


@pytest.mark.parametrize(("loss", "scale"), [("mae", "column"), ("mse", "none"), ("mae", "whole")])
def test_other_losses_and_units_learn_too(loss, scale):
    part = fit("mlp", quick(240), loss=loss, target_scale=scale)
    assert part.chosen_["validation_mse"] < 0.5 * part.chosen_["mean_mse"]


def test_units_are_those_of_the_rows_trained_on():
    part = fit("mlp")
    _, latents, _, _ = linear_gaussian()
    stimuli = np.array([f"s{i // 2}" for i in range(300)])
    inside, held_out = validation_rows(stimuli, 0.1, np.random.default_rng([0, 0]))
    mean = part.module.target_mean.numpy()
    assert np.allclose(mean, latents[inside].mean(0), atol=1e-5)  # float32
    assert not np.allclose(mean, latents.mean(0), atol=1e-3)
    assert np.allclose(part.module.target_scale.numpy(), np.sqrt(latents[inside].var(0).mean()), rtol=1e-5)
    # What is reported is what its weights do on the held-out rows.
    betas, _, _, _ = linear_gaussian()
    error = np.square(part.predict(betas[held_out]) - latents[held_out]).mean()
    assert error == pytest.approx(part.chosen_["validation_mse"], rel=1e-5)


def test_the_loss_is_in_the_units_learnt_in_and_the_log_in_the_latents_own():
    net = network("mlp", target_scale="column").eval()
    net.set_target_scale(np.full(N_LATENTS, 2.0), np.full(N_LATENTS, 9.0))
    data = batch()
    error = (net(data["betas"]) - data["latents"]).detach()
    loss, logs = net.loss(data, Draws(0, 0, 6))
    assert loss.item() == pytest.approx(float(error.square().mean()) / 9, rel=1e-5)
    assert float(logs["mse"]) == pytest.approx(float(error.square().mean()), rel=1e-5)


def test_no_stimulus_trains_and_judges():
    stimuli = np.array([f"s{i % 20}" for i in range(70)])
    inside, held_out = validation_rows(stimuli, 0.25, np.random.default_rng(3))
    assert not set(stimuli[inside]) & set(stimuli[held_out])
    assert len(set(stimuli[held_out])) == 5
    assert np.array_equal(np.sort(np.concatenate([inside, held_out])), np.arange(70))
    assert len(validation_rows(stimuli, 0.0, np.random.default_rng(3))[1]) == 0
    with pytest.raises(SplitError, match="validation=0"):
        validation_rows(np.array(["a", "b"]), 0.5, np.random.default_rng(3))


def test_validation_rows_never_reach_the_gradient():
    betas, latents, _, _ = linear_gaussian()
    stimuli = np.arange(300).astype(str)
    _, held_out = validation_rows(stimuli, 0.1, np.random.default_rng([0, 0]))
    other = betas.copy()
    other[held_out] *= 3
    training = quick(20)  # one look, at the end
    parts = [fit_latent_net(lab("mlp"), b, latents, stimuli, training, seed=0, device="cpu") for b in (betas, other)]
    assert parts[0].chosen_["validation_mse"] != parts[1].chosen_["validation_mse"]
    a, b = (p.module.state_dict() for p in parts)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_training_ends_when_it_gets_no_better_and_keeps_the_best_step():
    rng = np.random.default_rng(0)
    betas = rng.standard_normal((60, N_VOXELS)).astype(np.float32)
    latents = rng.standard_normal((60, N_LATENTS)).astype(np.float32)  # nothing to learn: it can only overfit
    training = quick(2000, check_every=5, patience=3)
    part = fit_latent_net(lab("mlp"), betas, latents, np.arange(60), training, seed=0, device="cpu")
    assert part.chosen_["stopped_at"] == part.chosen_["step"] + 15 < 2000
    everything = fit_latent_net(
        lab("mlp"), betas, latents, np.arange(60), quick(60, validation=0.0), seed=0, device="cpu"
    )
    assert everything.chosen_ == {"step": 60}


def test_training_is_deterministic():
    a, b = (fit("gru", quick(20)).state()[0] for _ in range(2))
    assert all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("patience", [None, 2])
def test_a_training_that_was_killed_ends_like_one_that_was_not(tmp_path, patience):
    betas, latents, _, _ = linear_gaussian()

    class KilledError(Exception):
        pass

    def run(folder, betas):
        training = LatentTraining(
            train=TrainConfig(steps=60, batch_size=32, lr=0.05), check_every=5, patience=patience, validation=0.2
        )
        return fit_latent_net(
            lab("mlp"), betas, latents, np.arange(300), training, seed=0, folder=folder, device="cpu", save_every=14
        )

    class Rows:
        """Betas that can be read so many times, and then no longer."""

        shape, reads = betas.shape, 0

        def __len__(self):
            return len(betas)

        def __getitem__(self, rows):
            self.reads += 1
            if self.reads > 40:
                raise KilledError
            return betas[rows]

    whole = run(tmp_path / "whole", betas)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", Rows())
    second = run(tmp_path / "killed", betas)
    assert second.chosen_ == whole.chosen_
    a, b = second.state()[0], whole.state()[0]
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert run(tmp_path / "killed", betas).chosen_ == whole.chosen_  # and once more, finished


def test_half_precision_products_learn_too():
    training = LatentTraining(
        train=TrainConfig(steps=120, batch_size=32, lr=5e-3, precision="bf16"), check_every=20, patience=None
    )
    part = fit("gru", training)
    assert part.chosen_["validation_mse"] < 0.5 * part.chosen_["mean_mse"]
    assert {str(w.dtype) for w in part.module.parameters()} == {"torch.float32"}


# -- as a part of a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_network_decodes_the_same(tmp_path, kind):
    net = network(kind)
    net.set_target_scale(np.arange(N_LATENTS), 1.0 + np.arange(N_LATENTS))
    for _ in range(3):
        net.loss(batch(), Draws(0, 0, 6))  # moves the running statistics of batch norm
    part = LatentNetPart.of(net, {"step": 3})
    save_part(tmp_path / "part", part, stage="net", digest="d", seconds=0.0, lineage=())
    loaded = load_part(tmp_path / "part", LatentNetPart)
    x = rows(4).numpy()
    assert np.array_equal(loaded.predict(x), part.predict(x))
    assert loaded.chosen_ == {"step": 3}
    assert loaded.module.config == net.config


def test_a_recipe_can_take_any_of_them_by_kind():
    adapter = TypeAdapter(LatentNetConfig)
    for kind, config in LATENT_NETS.items():
        for preset in ("paper", "lab"):
            values = {"kind": kind} | config.preset(preset)
            assert type(adapter.validate_python(latent_net_config(values).model_dump())) is config
    for preset in ("paper", "lab"):
        validate(LatentTraining, LatentTraining.preset(preset), "preset")


def test_what_cannot_be_decoded_is_named():
    part = LatentNetPart.of(network())
    with pytest.raises(ModelError, match=r"\(trials, 30\).*\(2, 29\)"):
        part.predict(np.zeros((2, 29), np.float32))
    with pytest.raises(DataError, match="shape"):
        part.predict(np.zeros((0, 30), np.float32))
    bad = np.zeros((3, 30), np.float32)
    bad[2, 4] = np.nan
    with pytest.raises(DataError, match="row 2, column 4"):
        part.predict(bad, batch_size=2)
    with pytest.raises(ModelError, match="at least two rows"):
        network().loss(batch(1), Draws(0, 0, 1))
    with pytest.raises(DataError, match="300, 300 and 7"):
        fit_latent_net(lab("mlp"), *linear_gaussian()[:2], ["a"] * 7, quick(), seed=0)


@pytest.mark.parametrize("groups", [(), [[0, 1], [1, 2]], [[0], [2]], [[0, 1, 2], []]])
def test_groups_that_overlap_or_leave_voxels_out_are_refused(groups):
    with pytest.raises(ModelError, match="groups"):
        LatentNet.create(lab("group_gru"), 3, 2, 0, groups=[np.array(g, dtype=int) for g in groups])


def test_groups_are_refused_where_they_mean_nothing():
    with pytest.raises(ModelError, match="has no groups"):
        LatentNet.create(lab("mlp"), N_VOXELS, 2, 0, groups=GROUPS)


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "grue"}, "gru"),
        ({"kind": "gru", "hidden": 0}, "hidden"),
        ({"kind": "gru", "dropout": 1.0}, "dropout"),
        ({"kind": "gru", "heads": 4}, "heads"),
        ({"kind": "gru_cnn", "kernel": 4}, "odd kernel"),
        ({"kind": "gru_transformer", "heads": 7}, "attention heads"),
        ({"kind": "mlp", "hidden": [8, 0]}, "at least one unit"),
    ],
)
def test_an_impossible_configuration_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        latent_net_config(values)


def test_an_average_of_weights_and_a_best_step_exclude_each_other():
    with pytest.raises(ConfigError, match="validation=0"):
        validate(LatentTraining, {"train": {"steps": 5, "batch_size": 4, "ema": 0.9}}, "the configuration")


# -- groups of voxels --------------------------------------------------------------------------------------------------


def trials_with_places(n=40) -> Trials:
    rng = np.random.default_rng(0)
    voxels = pd.DataFrame(rng.normal(size=(n, 3)) * [1, 5, 1], columns=["x", "y", "z"])
    voxels["roi.V1"] = np.arange(n) % 4 == 0
    voxels["roi.V2"] = np.arange(n) % 4 <= 1  # takes what V1 left
    return Trials(np.zeros((1, n), np.float32), pd.DataFrame({"stimulus": ["a"]}), voxels)


def test_runs_hold_every_voxel_once_and_follow_the_cortex():
    trials = trials_with_places()
    runs = voxel_runs(trials, size=4)
    assert [len(r) for r in runs] == [4, 3, 3, 4, 3, 3, 4, 4, 4, 4, 4]
    assert np.array_equal(np.sort(np.concatenate(runs)), np.arange(40))
    v1 = np.concatenate(runs[:3])
    assert set(v1) == set(range(0, 40, 4))
    y = trials.voxels["y"].to_numpy()[v1]
    assert np.corrcoef(y, np.arange(len(y)))[0, 1] > 0.9  # the longest axis is y but for what x and z add
    assert [len(r) for r in voxel_runs(trials)] == [10, 10, 20]
    assert set(voxel_runs(trials, rois=["V2", "V1"])[0]) == set(np.flatnonzero(np.arange(40) % 4 <= 1))


def test_runs_without_places_keep_the_order_of_voxels_and_a_run_of_none_is_refused():
    trials = trials_with_places()
    bare = Trials(trials.betas, trials.table, trials.voxels[["roi.V1"]])
    assert np.array_equal(voxel_runs(bare, size=5)[0], [0, 4, 8, 12, 16])
    with pytest.raises(ConfigError, match="size"):
        voxel_runs(trials, size=0)
