"""Sweeps with the linear recipe on a tiny lab: what is planned, what is made, and what is never made twice."""

from __future__ import annotations

import json
import pickle
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from phosphene.errors import ConfigError, MachineError, NotAvailable
from phosphene.io.config import to_yaml
from phosphene.io.run_folder import RunFolder
from phosphene.sweeps.cluster import Job, submit
from phosphene.sweeps.execution import one, prepare, sweep
from phosphene.sweeps.grid import read_grid
from phosphene.sweeps.table import mean_interval, nested_interval, point_table, summary_table, text_table

BASE = {"data": {"name": "insilico", "options": {"n_train": 60, "n_test": 12, "n_voxels": 80}}}
GRID = [{"recipe.curve.kind": ["none", "monotone"]}]


def write(folder, **content):
    file = folder / "grid.yaml"
    values = {"recipe": "linear", "base": BASE, "controls": ["shuffled"], "grid": GRID, **content}
    file.write_text(to_yaml({k: v for k, v in values.items() if v is not None}))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    file = write(folder, grid=[{"recipe.decoder.kind": ["ridge", "inverse"]}], repeat=[{"seed": [0, 1]}])
    return sweep(file, folder / "out")


def test_uncrossed_axes_move_one_at_a_time_and_crossed_ones_together(tmp_path):
    grid = [{"seed": [0, 1, 2]}, {"split": ["kfold:2", "kfold:3"]}]
    alone = read_grid(write(tmp_path, grid=grid))
    # The base, three seeds of which one is the base again, two splits.
    assert len(alone.points) == 1 + 3 + 2
    assert len(alone.runs) == 1 + 2 + 2
    assert len(read_grid(write(tmp_path, grid=grid, crossed=True)).runs) == 3 * 2
    repeated = read_grid(write(tmp_path, grid=[{"split": ["kfold:2"]}], repeat=[{"seed": [5, 6, 7]}]))
    assert len(repeated.runs) == 2 * 3


def test_keys_of_one_axis_move_together(tmp_path):
    axis = {"recipe": ["linear", "regressor"], "seed": [3, 4]}
    grid = read_grid(write(tmp_path, recipe=None, grid=[axis]))
    assert [(p.config.recipe.kind, p.config.seed) for p in grid.runs.values()] == [("linear", 3), ("regressor", 4)]


def test_a_label_says_in_words_what_a_point_sets_and_changes_nothing_else(tmp_path):
    data = {"data.options.n_train": [20, 30]}
    plain = {"seed": [3, 4], "recipe.setting": ["strict", "strict"]}
    bare = read_grid(write(tmp_path, grid=[plain, data], crossed=True))
    named = read_grid(write(tmp_path, grid=[{"label": ["one", "two"], **plain}, data], crossed=True))
    assert [p.label for p in named.points][:2] == ["one, data.options.n_train 20", "one, data.options.n_train 30"]
    digests = [[name.rpartition("-")[2] for name in grid.runs] for grid in (bare, named)]  # of configurations
    assert digests[0] == digests[1]
    assert all(name.startswith(("one,", "two,")) for name in named.runs)


def test_a_file_beside_can_be_a_point(tmp_path):
    (tmp_path / "mine.yaml").write_text(to_yaml({"recipe": {"kind": "linear"}, "seed": 9}))
    grid = read_grid(write(tmp_path, recipe=None, grid=[{"config": ["mine.yaml"]}]))
    (run,) = grid.runs.values()
    assert run.config.seed == 9
    assert grid.points[0].label == "config mine"


def test_a_file_can_stand_among_the_names_of_recipes(tmp_path):
    (tmp_path / "mine.yaml").write_text(to_yaml({"recipe": {"kind": "regressor"}, "seed": 9}))
    grid = read_grid(write(tmp_path, recipe=None, grid=[{"recipe": ["linear", "mine.yaml"]}], crossed=True))
    assert [(p.config.recipe.kind, p.config.seed) for p in grid.runs.values()] == [("linear", 0), ("regressor", 9)]
    assert [p.label for p in grid.points] == ["recipe linear", "recipe mine"]
    (tmp_path / "mine.yaml").write_text(to_yaml({"seed": 9}))
    with pytest.raises(ConfigError, match=r"write recipe\.kind into mine\.yaml"):
        read_grid(write(tmp_path, grid=[{"recipe": ["mine.yaml"]}]))
    with pytest.raises(ConfigError, match="name one"):
        read_grid(write(tmp_path, grid=[{"recipe": ["mine.yaml"], "config": ["mine.yaml"]}]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"grid": [{"seed": [1, 2], "split": ["a"]}]}, "equal length"),
        ({"grid": [{"seed": []}]}, "at least 1"),
        ({"grid": [{"recipe.nonsense": [1]}]}, "point 'recipe.nonsense=1'"),
        ({"recipe": None}, "no recipe is named"),
        ({"grids": []}, "grids"),
        ({"grid": [{"seed": [1]}], "repeat": [{"seed": [1]}], "crossed": True}, "two axes"),
        ({"grid": [{"label": ["a"], "seed": [1]}, {"recipe.setting": ["strict"]}], "crossed": True}, "no second axis"),
        ({"repeat": [{"label": ["a"], "seed": [1]}]}, "not a repetition"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(tmp_path, content, words):
    with pytest.raises(ConfigError, match=words):
        sweep(write(tmp_path, **content), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_run_is_an_ordinary_run(done):
    assert len(done.grid.runs) == 4
    for name, planned in done.grid.runs.items():
        run = RunFolder.existing(done.folder(name))
        assert run.manifest["seed"] == planned.config.seed
        assert set(run.table("scores.csv")["input"]) == {"brain", "shuffled"}


def test_nothing_is_made_twice_and_what_is_lost_is_made_again_to_the_bit(done):
    name = list(done.grid.runs)[1]
    scores = done.folder(name) / "scores.csv"
    before, touched = scores.read_bytes(), scores.stat().st_mtime_ns
    sweep(done.file, done.out)
    assert scores.stat().st_mtime_ns == touched
    (done.out / "done" / f"{name}.json").unlink()
    scores.unlink()
    sweep(done.file, done.out)
    assert scores.read_bytes() == before


@pytest.mark.slow
def test_several_processes_give_the_bits_of_one(done, tmp_path):
    again = sweep(done.file, tmp_path / "out", workers=2)
    for name in again.grid.runs:
        assert (again.folder(name) / "scores.csv").read_bytes() == (done.folder(name) / "scores.csv").read_bytes()


def test_runs_that_need_the_same_stage_fit_it_once(tmp_path):
    whole = sweep(write(tmp_path, grid=[{"recipe.curve.kind": ["none", "monotone"]}]), tmp_path / "out")
    logs = [(whole.folder(n) / "log.jsonl").read_text().splitlines() for n in whole.grid.runs]
    events = [json.loads(line) for log in logs for line in log]
    how = {stage: sorted(e["how"] for e in events if e.get("stage") == stage) for stage in ("standardise", "curve")}
    others = len(whole.grid.runs) - 1
    assert how["standardise"] == ["fitted"] + ["reused"] * others
    assert how["curve"] == ["fitted"] * (others + 1)


def test_one_failure_leaves_the_others_and_is_named(tmp_path):
    file = write(tmp_path, grid=[{"data.options": [BASE["data"]["options"], {"n_train": 2, "n_voxels": 20}]}])
    with pytest.raises(MachineError, match=r"1 of \d runs"):
        sweep(file, tmp_path / "out")
    whole = prepare(file, tmp_path / "out")
    states = [whole.is_done(n) for n in whole.grid.runs]
    assert sum(states) == len(states) - 1
    assert any(whole.failure(n) for n in whole.grid.runs)


def test_runs_that_fail_for_one_reason_are_told_together(tmp_path):
    file = write(tmp_path, grid=[{"seed": [0, 1, 2, 3, 4]}], base={**BASE, "data": {"name": str(tmp_path / "gone")}})
    with pytest.raises(MachineError) as told:
        sweep(file, tmp_path / "out")
    assert str(told.value).count(f"{tmp_path / 'gone'}") == 1
    assert "and 2 more: " in str(told.value)
    assert "phosphene.errors" not in str(told.value)


def test_another_process_at_a_run_is_respected(tmp_path):
    from phosphene.io.claims import claimed

    whole = prepare(write(tmp_path), tmp_path / "out")
    name = next(iter(whole.grid.runs))
    (whole.out / "claims").mkdir(parents=True)
    with claimed(whole.out / "claims" / name) as mine:
        assert mine
        assert not one(whole, name)
    assert not whole.is_done(name)


def test_the_interval_over_repetitions_is_students(done):
    values = np.array([0.2, 0.5, 0.4, 0.45])
    mean, low, high = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean, low, high], [values.mean(), expected.low, expected.high], rtol=1e-12)


@pytest.mark.parametrize("same_pictures", [True, False])
def test_the_interval_over_pictures_and_repetitions_covers(same_pictures):
    rng = np.random.default_rng(0)
    n = 50
    covered = []
    for _ in range(400):
        seeds = 0.02 * rng.standard_normal(2)
        pictures = 0.2 * rng.standard_normal((1 if same_pictures else 2, n))
        items = seeds[:, None] + pictures + 0.05 * rng.standard_normal((2, n))
        widths = 2 * 1.96 * items.std(axis=1, ddof=1) / np.sqrt(n)
        _, low, high = nested_interval(items.mean(axis=1), widths, np.full(2, n), same_pictures=same_pictures)
        covered.append(low <= 0 <= high)

    assert 0.9 < np.mean(covered) < 0.995


def test_differences_from_the_base_are_paired_over_repetitions(done):
    points = point_table(done)
    summary = summary_table(points, done.grid)
    row = summary[(summary["input"] == "brain") & (summary["metric"] == "pixcorr") & (summary["axis"] == 0)].iloc[-1]
    pixcorr = points[(points["input"] == "brain") & (points["metric"] == "pixcorr")]
    mine = pixcorr[pixcorr["point"] == row["point"]].sort_values("repeat")["value"].to_numpy()
    base = pixcorr[(pixcorr["point"] == "base")].sort_values("repeat")["value"].to_numpy()
    expected = stats.ttest_rel(mine, base).confidence_interval(0.95)
    np.testing.assert_allclose(row["difference"], (mine - base).mean())
    np.testing.assert_allclose([row["difference_low"], row["difference_high"]], [expected.low, expected.high])


def test_tables_and_figure_can_be_read(done):
    from PIL import Image

    assert "base" in text_table(done)
    assert len(pd.read_csv(done.out / "summary.csv"))
    with Image.open(done.out / "figure.png") as figure:
        assert min(figure.size) > 200


def test_a_job_that_travelled_to_a_node_makes_the_same_run(done, tmp_path):
    """What submitit does in a process of the node, done here: the job arrives as bytes, and is called with a name."""
    whole = prepare(done.file, tmp_path / "a folder; with $(odd) name")
    name = next(iter(whole.grid.runs))
    arrived = pickle.loads(pickle.dumps(Job(whole)))
    assert arrived(name)
    assert (whole.folder(name) / "scores.csv").read_bytes() == (done.folder(name) / "scores.csv").read_bytes()


@pytest.mark.slow
def test_a_job_array_makes_the_same_runs(done, tmp_path):
    pytest.importorskip("submitit")
    whole = prepare(done.file, tmp_path / "a folder; with $(odd) name")
    names = list(whole.grid.runs)[:2]
    jobs = submit(whole, names, {"timeout_min": 5}, cluster="local")
    assert [job.result() for job in jobs] == [True, True]
    for name in names:
        assert (whole.folder(name) / "scores.csv").read_bytes() == (done.folder(name) / "scores.csv").read_bytes()


def test_a_preempted_job_asks_to_be_queued_again_with_the_same_run(done):
    pytest.importorskip("submitit")
    again = Job(done).checkpoint("some-run")
    assert again.args == ("some-run",)
    assert again.function.whole == done


def test_without_a_cluster_the_error_says_what_to_do(done):
    pytest.importorskip("submitit")
    with pytest.raises(NotAvailable, match="sbatch"):
        submit(done, list(done.grid.runs), {}, cluster="slurm")


def test_done_means_made_by_this_version(done):
    name = next(iter(done.grid.runs))
    record = done.out / "done" / f"{name}.json"
    kept = record.read_text()
    record.write_text(json.dumps({"phosphene": "0.0.0", "seconds": 1}))
    assert not done.is_done(name)
    record.write_text(kept)


@pytest.mark.fault(121)
@pytest.mark.parametrize(
    "bad",
    [
        {"slurm_comment": "x\ntouch gone"},
        {"slurm_setup": ["module load", "a\rb"]},
        {"x; touch gone": 1},
        {"slurm_time\n": 3},
    ],
)
def test_a_line_break_in_a_job_option_is_refused_before_anything_is_submitted(done, bad):
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match=r"line break|no option"):
        submit(done, list(done.grid.runs), bad, cluster="slurm")


@pytest.mark.fault(121)
@pytest.mark.parametrize(
    "text", ["$(touch gone)", "`touch gone`", "a; touch gone", "a' && touch gone #", "a | tee gone", 'a"b']
)
def test_shell_signs_in_options_folders_and_names_reach_a_job_script_as_text(text, tmp_path):
    submitit = pytest.importorskip("submitit")
    from submitit.slurm.slurm import _make_sbatch_string

    from phosphene.sweeps.cluster import _job_name, _refuse_lines

    folder = tmp_path / text.replace("/", "_")
    folder.mkdir()
    _refuse_lines({"the sweep's folder": str(folder), "slurm_comment": text})
    script = _make_sbatch_string("true", folder / "jobs", job_name=_job_name(folder), comment=text)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "gone").exists()
    assert submitit.__version__
    assert set(_job_name(folder)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def doomed(whole, name, threads):
    """In place of a worker: killed, the first time or every time."""
    import os
    import signal

    mark = whole.out / f"{name}.killed"
    if "always" in whole.file.name or not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)

    (whole.out / "made").mkdir(exist_ok=True)
    (whole.out / "made" / name).write_text(str(threads))


@pytest.mark.parametrize("kind", ["once", "always"])
def test_a_worker_that_is_killed_is_noted_and_its_run_tried_once_more(tmp_path, monkeypatch, capsys, kind):
    """The processes are real, and so is the signal; the work alone is short."""
    from phosphene.io.progress import Progress
    from phosphene.sweeps import execution

    monkeypatch.setattr(execution, "_quietly", doomed)
    whole = execution.Sweep(tmp_path / f"{kind}.yaml", tmp_path / "out")
    whole.out.mkdir()
    execution._in_processes(whole, ["a", "b"], 2, Progress())
    told = capsys.readouterr().err
    assert told.count("was killed (signal 9") == (2 if kind == "once" else 4)
    if kind == "once":
        assert sorted(path.name for path in (whole.out / "made").iterdir()) == ["a", "b"]
    else:
        assert "was killed (signal 9" in whole.failure("a")
        assert whole.failure("a").endswith("twice")


def test_an_element_of_an_array_that_was_skipped_fails(tmp_path, monkeypatch):
    from phosphene.io.claims import claimed
    from phosphene.sweeps import cluster

    monkeypatch.setattr(cluster, "LEASE", 0.0)
    monkeypatch.setattr(cluster, "BEAT", 0.0)
    whole = prepare(write(tmp_path), tmp_path / "out")
    name = next(iter(whole.grid.runs))
    (whole.out / "claims").mkdir(parents=True)
    with claimed(whole.out / "claims" / name), pytest.raises(MachineError, match="another process, which lives"):
        cluster.Job(whole)(name)


def test_a_sweep_says_the_same_of_looks_in_whichever_order(done):
    verdicts = {}
    for name in done.grid.runs:
        row = RunFolder(done.folder(name)).table("validity.csv").set_index("id").loc["L6"]
        verdicts[name] = (row["verdict"], row["value"])
    assert len(set(verdicts.values())) == 1, verdicts
