"""The page of a real run: handwritten digits decoded from visual cortex by the flow itself."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from phosphene import flow
from phosphene.io.run_folder import RunFolder
from phosphene.reporting import report


@pytest.fixture(scope="module")
def digits(shared_data: Path, tmp_path_factory) -> tuple[RunFolder, str]:
    folder = tmp_path_factory.mktemp("digits") / "run"
    root = str(shared_data / "digits69")
    config, origins = flow.configure("linear", [("command line", {"data.name": "digits69", "data.root": root})])
    opened = flow.fit(config, folder, origins=origins)
    flow.decode(opened)
    flow.encode(opened)
    flow.evaluate(opened)
    run = RunFolder(folder)
    raw = report(run).read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", raw, flags=re.DOTALL))
    return run, " ".join(text.split())


def test_every_part_of_a_real_run_is_understood(digits):
    _, text = digits
    assert "cannot be" not in text
    assert "Run: phosphene" not in text
    assert "fitted on 90 pictures and tested on 10 set aside" in text
    for title in (
        "Seen and decoded",
        "Scores",
        "Beside published numbers",
        "Which picture was it?",
        "From picture to brain",
    ):
        assert title in text


def test_conclusions_scores_and_verdicts_of_a_real_run_are_all_there(digits):
    run, text = digits
    for line in (run.evaluation() / "conclusions.txt").read_text().splitlines():
        assert line in text or line.startswith(("Check ", "Not tested"))  # those stand beside their verdicts
    brain = run.table("scores.csv").query("input == 'brain'")
    for row in brain.itertuples():
        assert row.metric in text
        if row.metric != "mse":
            assert f"{row.value:.3f}".replace("-", "−") in text
    for row in run.table("validity.csv").itertuples():
        assert row.title in text


def test_every_metric_of_a_real_run_is_explained(digits):
    run, text = digits
    methods = text.split("How the scores were computed", 1)[1]
    for metric in set(run.table("scores.csv")["metric"]):
        assert metric in methods
