import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

from phosphene import cli
from phosphene.cli.common import shell


def phosphene(*arguments):
    """Run the command as a person would; returns (status, output, errors)."""
    done = subprocess.run(
        [sys.executable, "-m", "phosphene", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def called(capsys, *arguments):
    """The same in this process: faster, where a second one is not the point."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return exit_.value.code or 0, captured.out, captured.err


def test_importing_the_command_line_loads_no_heavy_package():
    code = (
        "import sys, phosphene, phosphene.cli; heavy = {'torch', 'numpy', 'pandas', 'scipy', 'matplotlib'}; "
        "print(heavy & set(sys.modules)); sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_six_commands_decode_real_digits(capsys, shared_data, tmp_path):
    # One of them in a process of its own, as a person runs it; the others here, which spares their start.
    root, run = shared_data / "digits69", tmp_path / "run"
    where = ("--root", root)
    assert called(capsys, "data", "check", "digits69", *where)[0] == 0
    status, out, errors = phosphene("fit", "linear", "--data", "digits69", *where, "--out", run)
    assert (status, out.splitlines()[0]) == (0, f"fitted: {run}")
    assert "\x1b" not in errors  # piped output stays plain
    assert "\r" not in errors
    for verb in ("decode", "encode", "evaluate", "report"):
        status, out, errors = called(capsys, verb, run)
        assert status == 0, errors
    scores = {
        tuple(r[:3]): float(r[3])
        for r in (line.split(",") for line in (run / "scores.csv").read_text().splitlines()[1:])
    }
    # The bar of an honest linear decoder on the file's split; the shared README has the controls.
    assert scores["test", "brain", "pixcorr"] > 0.80
    assert scores["test", "brain", "mse"] < 0.037
    assert scores["test", "brain", "ssim.2d"] > 0.51
    assert scores["test", "brain", "category.pixels"] == 1.0
    assert scores["test", "mean", "pixcorr"] == pytest.approx(0.655, abs=0.005)
    assert scores["test", "category", "pixcorr"] == pytest.approx(0.74, abs=0.01)
    page = (run / "report.html").read_text()
    assert "DGMM" in page
    assert json.loads((run / "manifest.json").read_text())["data"]["n_voxels"] == 3092


@pytest.mark.slow
def test_ten_folds_of_real_digits_reach_the_bar(shared_data, tmp_path):
    run = tmp_path / "run"
    where = ("--data", shared_data / "digits69" / "digit69_28x28.mat", "--split", "kfold:10")
    assert phosphene("fit", "linear", *where, "--out", run)[0] == 0
    for verb in ("decode", "evaluate"):
        assert phosphene(verb, run)[0] == 0
    rows = (line.split(",") for line in (run / "scores.csv").read_text().splitlines()[1:])
    brain = {r[2]: float(r[3]) for r in rows if r[1] == "brain"}
    assert brain["pixcorr"] > 0.757
    assert brain["mse"] < 0.042
    assert brain["ssim.2d"] > 0.437
    assert brain["two_way.pixels"] > 0.92
    assert brain["two_way_within_class.pixels"] > 0.86
    assert brain["category.pixels"] >= 0.95


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["fit", "lineer", "--data", "digits69", "--out", "x"], 3, "Did you mean 'linear'"),
        (["fit", "linear", "--data", "digits96", "--out", "x"], 3, "Did you mean 'digits69'"),
        (["fit", "linear", "--data", "digits69", "--root", "/nowhere", "--out", "x"], 4, "/nowhere"),
        (["fit", "linear", "--data", "x.mat", "--set", "recipe.alpha=1", "--out", "x"], 3, "Did you mean 'alphas'"),
        (["fit", "linear", "--data", "x.mat", "--set", "recipe.alphas=[-1]", "--out", "x"], 3, "greater than 0"),
        (["fit", "linear", "--data", "x.mat", "--out", "x\n"], 3, "control character"),
        (
            ["fit", "linear", "--data", "x.mat", "--set", "recipe.decoder.kind=x", "--out", "x"],
            3,
            "'recipe.decoder.kind' should",
        ),
        (
            ["fit", "linear", "--data", "x.mat", "--config", "x.yaml", "--out", "x"],
            3,
            "there is no configuration x.yaml",
        ),
        (["decode", "nowhere"], 6, "is not a run"),
        (["show", "recipe"], 3, "Did you mean 'recipes'"),
        (["fit", "linear"], 2, "--data"),
        (["fit", "linear", "--bogus"], 2, "--bogus"),
    ],
    ids=lambda v: " ".join(v).strip() if isinstance(v, list) else "",
)
def test_an_error_is_one_paragraph_with_its_own_status(capsys, tmp_path, monkeypatch, arguments, status, says):
    monkeypatch.chdir(tmp_path)
    code, _, errors = called(capsys, *arguments)
    assert code == status
    assert says in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_an_interrupted_command_says_how_to_go_on(capsys, monkeypatch):
    from phosphene import flow

    def ctrl_c(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "open_run", ctrl_c)
    status, _, errors = called(capsys, "decode", "run")
    assert status == 130
    assert "run the same command again" in errors


def test_the_next_command_can_be_typed_whatever_the_folder_is_called():
    assert shlex.split(shell("runs/my first größe's lab")) == ["runs/my first größe's lab"]
    assert shell("runs/größe") == "runs/größe"  # nothing is quoted without need


def test_a_sweep_takes_the_root_alone(capsys, tmp_path):
    (tmp_path / "grid.yaml").write_text("recipe: linear\nbase: {data: {name: digits69}}\ngrid: [{seed: [0, 1]}]\n")
    root = tmp_path / "not there"
    status, _, errors = called(capsys, "sweep", tmp_path / "grid.yaml", "--root", root, "--out", tmp_path / "out", "-q")
    assert status != 0
    assert str(root) in errors


def test_debug_shows_the_traceback():
    status, _, errors = phosphene("decode", "nowhere", "--debug")
    assert status != 0
    assert "Traceback" in errors


def test_show_config_names_the_origin_of_every_value(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("recipe:\n  curve:\n    kind: none\n")
    status, out, _ = called(
        capsys, "show", "config", "linear", "--config", tmp_path / "c.yaml", "--set", "recipe.per_session=true"
    )
    origin = {line.split()[0]: line.split(None, 2)[2] for line in out.splitlines() if len(line.split()) > 2}
    assert status == 0
    assert origin["recipe.curve.kind"] == str(tmp_path / "c.yaml")
    assert origin["recipe.per_session"] == "--set"
    assert origin["recipe.curve.n_folds"] == "default"


def test_metrics_and_checks_can_be_listed(capsys):
    from phosphene.metrics import METRICS
    from phosphene.validity import CHECKS

    _, out, _ = called(capsys, "show", "metrics")
    assert [line.split()[0] for line in out.splitlines()] == list(METRICS)
    _, out, _ = called(capsys, "show", "checks")
    assert [line.split()[0] for line in out.splitlines()] == list(CHECKS)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(capsys, shared_data, tmp_path):
    file = shared_data / "digits69" / "digit69_28x28.mat"
    status, out, _ = called(
        capsys, "fit", "linear", "--data", file, "--split", "kfold:10", "--out", tmp_path / "run", "--dry-run"
    )
    assert status == 0
    assert "10 folds" in out
    assert list(tmp_path.iterdir()) == []


def test_own_files_become_a_data_set_that_fits(capsys, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    names = [f"picture {i}" for i in range(12)]
    pictures = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{name}.png")
    betas = pictures.reshape(12, -1)[:, :20] / 50 + rng.standard_normal((12, 20))
    np.save(tmp_path / "betas.npy", betas.astype(np.float32))
    (tmp_path / "trials.csv").write_text("stimulus\n" + "\n".join(names) + "\n")
    out = tmp_path / "mine"
    own = ("--betas", tmp_path / "betas.npy", "--trials", tmp_path / "trials.csv", "--images", tmp_path / "pictures")
    assert called(capsys, "data", "import", *own, "--out", out)[0] == 0
    status, _, errors = called(
        capsys, "fit", "linear", "--data", out, "--split", "kfold:3", "--out", tmp_path / "run", "--quiet",
        "--set", "recipe.decoder.voxels=all", "--set", "recipe.curve.kind=none",
    )  # fmt: skip
    assert status == 0, errors
