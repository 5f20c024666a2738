"""The machinery that measures: no figure is asserted here, only that what was measured is what is shown."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.__main__ import BENCHMARKS, take
from benchmarks.bars import BARS, MET, NOT_MEASURED, NOT_MET, judge
from benchmarks.figure import draw
from benchmarks.measure import Clock, Missing, need, summary
from benchmarks.page import write
from benchmarks.record import Record, Step, growth, slope

from tests.benchmarks import absent

MODULES = {name: importlib.import_module(f"benchmarks.{name}") for name in BENCHMARKS}


def law(record: Record, exponent: float, who: str = "ours", benchmark: str = "nway", factor: float = 2e-3) -> None:
    for items in (10, 100, 1000):
        record.add(benchmark=benchmark, who=who, along="items", items=items, rounds=1, ratio=1.0,
                   cpu_s=factor * items**exponent)  # fmt: skip
    record.fit()


# -- the record --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_slope_of_a_power_law_is_its_exponent(exponent):
    size = np.array([3, 10, 50, 400])
    assert slope(size, 7e-4 * size**exponent) == pytest.approx(exponent, abs=1e-9)  # exact but for rounding


def test_record_shows_the_exponent_at_the_largest_size_alone(tmp_path):
    record = Record(tmp_path)
    law(record, 1.5)
    assert record.rows.set_index("items")["slope"].dropna().to_dict() == {1000: pytest.approx(1.5)}


def test_record_goes_on_with_what_was_written_and_replaces_what_is_measured_again(tmp_path):
    record = Record(tmp_path)
    law(record, 1.0)
    record.write()
    again = Record(tmp_path)
    pd.testing.assert_frame_equal(again.rows, record.rows, check_dtype=False)
    again.add(benchmark="nway", who="ours", along="items", items=100, rounds=1, cpu_s=9.0)
    assert sorted(again.rows["items"]) == [10, 100, 1000]
    assert again.rows.set_index("items")["cpu_s"][100] == 9


def test_growth_leaves_out_a_rival_beyond_what_it_can_afford():
    steps = growth("items", {10: 0, 100: 1}, ("ours", "slow"), {"pixels": 8}, {"slow": 10})
    assert [(s.sizes, s.cases, s.level) for s in steps] == [
        ({"pixels": 8, "items": 10}, ("ours", "slow"), 0),
        ({"pixels": 8, "items": 100}, ("ours",), 1),
    ]


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_what_a_part_took_is_scaled_to_the_whole():
    runs = [
        {"cpu_s": s, "wall_s": 2 * s, "memory_mb": m, "extra_mb": 0.0, "part": 0.25}
        for s, m in ((1, 5), (3, 9), (2, 7))
    ]
    found = summary(runs)
    assert (found["cpu_s"], found["cpu_min"], found["cpu_max"], found["wall_s"]) == (8, 4, 12, 16)
    assert found["memory_mb"] == 9  # the largest, not scaled


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system does not tell the peak of memory anew"
)
def test_clock_sees_memory_that_was_given_back_before_the_end():
    clock = Clock()
    with clock:
        np.ones(20_000_000).sum()  # 160 MB
    assert 150e6 < clock.extra < 400e6  # what else the process does is far below the rest
    with clock:
        np.ones(10).sum()
    assert clock.extra < 400e6


def test_a_rival_that_is_absent_is_left_unmeasured_and_the_table_says_why(tmp_path, capsys):
    with pytest.raises(Missing, match="no_such_rival"):
        need("no_such_rival")
    record = Record(tmp_path)
    take("absent", absent, absent.STEPS[0], tmp_path, record)  # a real process each, as ever
    rows = record.rows.set_index("who")
    assert "no_such_rival" in rows["note"]["a rival"] and pd.isna(rows["cpu_s"]["a rival"])
    assert rows["part"]["ours"] == 0.5 and rows["cpu_s"]["ours"] >= 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A real benchmark at a tiny size."""
    record = Record(tmp_path_factory.mktemp("benchmarks"))
    step = Step({"items": 8, "features": 30}, ("ours", "numpy.corrcoef"), along="items")
    take("two_way", MODULES["two_way"], step, tmp_path_factory.mktemp("scratch"), record)
    return record


def test_a_real_benchmark_gives_every_figure(measured):
    rows = measured.rows.set_index("who")
    assert len(rows) == 2 and (rows[["cpu_s", "wall_s", "memory_mb"]] > 0).all(axis=None)
    assert rows["ratio"]["ours"] == 1 and rows["ratio"]["numpy.corrcoef"] == pytest.approx(
        rows["cpu_s"]["numpy.corrcoef"] / rows["cpu_s"]["ours"]
    )
    assert rows["difference"]["ours"] < 1e-5  # both sides compute the same; ours in float32


def test_table_and_figure_show_what_was_measured(measured, tmp_path):
    law(measured, 1.0)
    judged = judge(measured)
    write(measured, judged, {"cores": 2}, tmp_path / "table.md")
    draw(measured, tmp_path / "figure.png")
    page = (tmp_path / "table.md").read_text()
    for bar in BARS:
        assert f"| {bar.what} | {bar.goal} |" in page
    assert page.count(" | met |") + page.count(" | not met |") + page.count(" | not measured |") == len(BARS)
    assert "| numpy.corrcoef |" in page
    head = (tmp_path / "figure.png").read_bytes()[:24]
    width, height = struct.unpack(">II", head[16:])
    assert head[1:4] == b"PNG" and width > 400 and height > 300


# -- the bars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bar", [b for b in BARS if b.row], ids=lambda b: f"{b.what}: {b.goal}")
def test_every_bar_is_measured_by_some_step(bar):
    module = MODULES[bar.row["benchmark"]]
    wanted = {k: v for k, v in bar.row.items() if k not in ("benchmark", "who")}
    assert bar.row["who"] in module.CASES
    assert any(
        bar.row["who"] in step.cases
        and wanted.items() <= ({"task": step.task, "threads": step.threads} | step.sizes).items()
        for step in module.STEPS
    )


def test_every_case_of_every_step_exists():
    for module in MODULES.values():
        for step in module.STEPS:
            assert set(step.cases) <= set(module.CASES)
            assert step.cases[0].startswith(("ours", "LEA"))


def test_bars_without_figures_are_not_measured_and_say_what_they_need(tmp_path):
    judged = judge(Record(tmp_path))
    assert len(judged) == len(BARS) and (judged["verdict"] == NOT_MEASURED).all() and (judged["measured"] != "").all()


@pytest.mark.parametrize(("ratio", "verdict"), [(10_001, MET), (10_000, MET), (9_999, NOT_MET)])
def test_a_bar_is_met_from_its_limit_on(tmp_path, ratio, verdict):
    record = Record(tmp_path)
    record.add(benchmark="nway", who="as published", items=1000, rounds=3, ratio=ratio)
    record.add(benchmark="nway", who="as published", items=100, rounds=3, ratio=1)  # another size: of no concern
    judged = judge(record).set_index("what")
    assert judged["verdict"]["n-way top-k of a picture"] == verdict
    assert record.rows["verdict"].tolist() == [verdict, ""]


def test_a_bar_from_above_is_met_up_to_its_limit(tmp_path):
    for seconds, verdict in ((119, MET), (121, NOT_MET)):
        record = Record(tmp_path / verdict)
        record.add(benchmark="imports", who="ours", task="import", trials=27_750, rounds=1, cpu_s=seconds)
        assert judge(record).set_index("what")["verdict"]["import of them, once"] == verdict
