"""No table that phosphene writes holds a formula, and every id comes back as it was."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phosphene.data.dataset_folder import read_dataset
from phosphene.data.importing import import_dataset, import_table
from phosphene.io.csv_table import csv_text, guarded, unguarded
from phosphene.io.run_folder import RunFolder

SOURCES = Path(__file__).parents[2] / "src" / "phosphene"

TEXTS = [
    "=1+1", "+1+1", "-1+1|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "\n=1", "'=1", "''=1", "'", "'a", "a'=", "plain", "007",
    "-", "=", '=HYPERLINK("http://x","y")', "a,b", 'a"b', "-5", "+5", "1e5", "-1e-5", "--5", "\uff1d1", "\u65e5\u672c", "NA",
]  # fmt: skip


def dangerous(cell: str) -> bool:
    if not re.match(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]", cell):
        return False

    try:
        float(cell)
    except ValueError:
        return True
    return False


def cells(file: Path) -> list[str]:
    with open(file, newline="", encoding="utf-8") as handle:
        return [cell for row in csv.reader(handle) for cell in row]


@pytest.mark.parametrize("text", TEXTS)
def test_a_guard_comes_off_again(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not dangerous(guarded(text))


@pytest.mark.parametrize("value", [-1, -0.5, np.float32(-2), float("-inf"), None, True])
def test_numbers_stay_numbers(value: object) -> None:
    assert guarded(value) is value


def test_a_run_s_table(tmp_path: Path) -> None:
    table = pd.DataFrame({"stimulus": TEXTS, "=cmd": TEXTS, "value": -np.arange(len(TEXTS), dtype=float)})
    table["kind"] = pd.Categorical(TEXTS)
    run = RunFolder(tmp_path)
    run.write_table(table, "table.csv")

    assert not any(map(dangerous, cells(tmp_path / "table.csv")))
    back = run.table("table.csv")
    assert list(back.stimulus) == TEXTS
    assert list(back["=cmd"]) == TEXTS
    assert list(back.columns) == list(table.columns)
    assert np.array_equal(back.value, table.value)


def test_a_table_with_one_name_twice_and_one_without_rows() -> None:
    table = pd.DataFrame([["=1", "=2"]], columns=["a", "a"])
    assert csv_text(table) == "a,a\n'=1,'=2\n"
    assert csv_text(table.iloc[:0]) == "a,a\n"


def test_an_imported_data_set_keeps_its_ids(tmp_path: Path) -> None:
    names = ["=1+1", "+a", "-b", "@c", "'=d", "e"]
    (tmp_path / "pictures").mkdir()
    for n, name in enumerate(names):
        Image.new("L", (8, 8), n * 40).save(tmp_path / "pictures" / f"{name}.png")

    np.save(tmp_path / "betas.npy", np.arange(12.0).reshape(6, 2))
    (tmp_path / "trials.csv").write_text("stimulus,category\n" + "".join(f'"{n}","={n}"\n' for n in names))
    first = import_table(
        betas=tmp_path / "betas.npy", trials=tmp_path / "trials.csv", images=tmp_path / "pictures", out=tmp_path / "a"
    )
    second = import_dataset(tmp_path / "a", tmp_path / "b")

    for dataset in (first, second, read_dataset(tmp_path / "b")):
        assert sorted(dataset.stimuli.ids) == sorted(first.stimuli.ids)
        assert {n.lstrip("'") for n in dataset.stimuli.ids} == {n.lstrip("'") for n in names}

    for file in tmp_path.glob("[ab]/**/*.csv"):
        assert not any(map(dangerous, cells(file))), file


def test_nothing_else_writes_csv() -> None:
    others = []
    for file in SOURCES.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if re.search(r"\.to_csv\(|csv\.(writer|DictWriter)|from csv|savetxt|to_excel|to_markdown", text):
            others.append(file.relative_to(SOURCES).as_posix())

    # A run's timing becomes part of a digest there, and no file.
    assert sorted(others) == ["betas/read.py", "io/csv_table.py"], "write tables with phosphene.io.csv_table.csv_text"
