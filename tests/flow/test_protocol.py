"""A score belongs to a protocol: what may stand side by side, what counts as published data, what a failed check ends with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phosphene import flow
from phosphene.cli import main
from phosphene.data import write_dataset
from phosphene.errors import SplitError
from phosphene.reporting.contents import Contents
from phosphene.reporting.run_comparison import check_comparable
from phosphene.types import Dataset, Split, Stimuli, Trials

from .conftest import write_pair_file


def scored(folder, out, *, name="set", seed=0, size=12):
    """A run on pictures that are called the same whatever they are."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"p{n:02d}" for n in range(32)], dtype=object)
    pictures = rng.integers(0, 256, (32, size, size, 1), dtype=np.uint8)
    betas = pictures.reshape(32, -1).astype(np.float32) @ rng.standard_normal((size * size, 30)).astype(np.float32)
    trials = Trials(betas, pd.DataFrame({"stimulus": ids}), subject="sub-01")
    split = Split("file", tuple(ids[:24]), tuple(ids[24:]))
    write_dataset(Dataset(name, Stimuli(ids, pictures), {"sub-01": trials}, {"file": split}), folder)
    layers = [("test", {"data.name": str(folder), "recipe.curve.kind": "none", "recipe.pixels.n_components": 8})]
    opened = flow.fit(flow.configure("linear", layers)[0], out)
    flow.decode(opened)
    flow.evaluate(opened)

    return opened


def test_pictures_that_are_only_called_the_same_are_another_protocol(tmp_path):
    runs = [scored(tmp_path / f"set{n}", tmp_path / f"run{n}", seed=n) for n in range(2)]
    with pytest.raises(SplitError, match="differ in the test pictures"):
        check_comparable([Contents(run.folder) for run in runs])


def test_a_folder_called_digits69_is_not_digits69(tmp_path):
    opened = scored(tmp_path / "set", tmp_path / "run", name="digits69")
    table = opened.folder.table("evaluation", "test", "published.csv")
    assert len(table)
    assert not table["comparable"].astype(bool).any()
    assert table["difference"].str.contains("other pictures than those of digits69").all()


def test_no_place_on_this_machine_is_published(tmp_path):
    opened = scored(tmp_path / "set", tmp_path / "run", name="digits69")
    text = (opened.folder.evaluation("test") / "published.csv").read_text()
    text += (opened.folder.evaluation("test") / "protocol.json").read_text()
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("repeat_across", "status"), [(0, 0), (4, 9)])
def test_strict_ends_with_a_status_of_its_own_when_a_check_fails(tmp_path, capsys, repeat_across, status):
    file = write_pair_file(tmp_path / "pairs.npz", n_test=16, repeat_across=repeat_across)
    layers = [("test", {"data.name": str(file), "recipe.curve.kind": "none"})]
    opened = flow.fit(flow.configure("linear", layers)[0], tmp_path / "run")
    flow.decode(opened)
    with pytest.raises(SystemExit) as plain:
        main(["evaluate", str(tmp_path / "run"), "-q"])

    with pytest.raises(SystemExit) as strict:
        main(["evaluate", str(tmp_path / "run"), "-q", "--strict"])

    assert (plain.value.code, strict.value.code) == (0, status)
    assert ("S1" in capsys.readouterr().err) == bool(status)


def test_a_warning_that_comes_again_is_shown_once_and_counted(tmp_path, capsys):
    file = write_pair_file(tmp_path / "pairs.npz", n_test=16)
    base = ["fit", "linear", "--data", str(file), "--out", str(tmp_path / "run"), "-q", "--split", "kfold:4"]
    with pytest.raises(SystemExit) as ended:
        main([*base, "--set", "recipe.alphas=[1000.0,1e7]", "--set", "recipe.curve.kind=none"])

    assert ended.value.code == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "chosen penalty" in line]
    assert len(lines) == 2
    assert lines[1].startswith("warning: ")
    assert "times in all" in lines[1]
