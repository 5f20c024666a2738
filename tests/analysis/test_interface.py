"""An analysis is filed whole or not at all, and the registry, the command and the report find it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from phosphene import analysis, cli
from phosphene.analysis.interface import COLUMNS, Analysis, Findings
from phosphene.errors import ConfigError
from phosphene.flow import analyse
from phosphene.io.config import Config
from phosphene.reporting import drawing, presentation
from phosphene.reporting.presentation import Drawing, Presentation
from phosphene.run import open_run
from tests.analysis.conftest import fitted
from tests.flow.conftest import write_pair_file


class PokeOptions(Config):
    word: str = "first"
    end: str = "well"


@dataclass(frozen=True, kw_only=True, eq=False)
class PokeFindings(Findings):
    word: str
    end: str


class Poke(Analysis[PokeOptions]):
    """Finds a word; may die while its figure is being written."""

    name, title, options_class = "poke", "Poke", PokeOptions

    def run(self, opened, progress):
        table = pd.DataFrame([("brain", "r", 0.5, 0.4, 0.6, 9)], columns=list(COLUMNS))
        return PokeFindings(table=table, word=self.options.word, end=self.options.end)


def present_poke(found: PokeFindings) -> Presentation:
    figure = {"well": _empty, "raise": _Raising, "kill": _Killing}[found.end]()
    return Presentation([f"={found.word}"], {"brain": "brain"}, {"r": "r"}, {"dot": Drawing(figure, "a", "c")})


def _empty():
    with drawing.style():
        return drawing.empty(1, 1)


class _Raising:
    def savefig(self, *_, **__):
        raise OSError(28, "No space left on device")


class _Killing:
    def savefig(self, *_, **__):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(analysis.ANALYSES, "poke", f"{__name__}:Poke")
    monkeypatch.setitem(presentation.PRESENTERS, "poke", f"{__name__}:present_poke")
    return fitted("linear", tmp_path / "run", {"data.name": str(write_pair_file(tmp_path / "pairs.npz"))})


def said(opened) -> str:
    return (opened.folder.path / "analysis" / "poke" / "summary.txt").read_text()


def leftovers(opened) -> list[Path]:
    return [p for p in opened.folder.path.rglob("*") if ".partial" in p.name or p.name == ".lock"]


def test_a_failed_write_leaves_the_earlier_result_and_nothing_else(run):
    analyse(run, "poke")
    with pytest.raises(Exception, match="full"):
        analyse(run, "poke", {"word": "second", "end": "raise"})
    assert said(run) == "=first\n"
    assert leftovers(run) == []


def test_a_killed_analysis_leaves_the_earlier_result_and_the_same_command_goes_on(run):
    analyse(run, "poke")
    code = (
        "from phosphene import analysis, flow\n"
        "from phosphene.reporting import presentation\n"
        f"analysis.ANALYSES['poke'] = '{__name__}:Poke'\n"
        f"presentation.PRESENTERS['poke'] = '{__name__}:present_poke'\n"
        f"flow.analyse(flow.open_run({str(run.folder.path)!r}), 'poke', {{'word': 'second', 'end': 'kill'}})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert said(run) == "=first\n"
    assert leftovers(run)
    analyse(open_run(run.folder.path), "poke", {"word": "third"})
    assert said(run) == "=third\n"
    assert leftovers(run) == []


def test_every_registered_analysis_says_what_it_is_and_takes_its_defaults():
    for name in analysis.analysis_names():
        cls = analysis.analysis(name)
        assert cls.name == name
        assert cls.title
        assert cls.__module__.rpartition(".")[2] == name
        assert cls().options == cls.options_class()
        assert name in presentation.PRESENTERS
        assert set(cls.needs) <= {"decode", "encode", "refine"}


def test_an_unknown_analysis_or_option_names_the_nearest(run):
    with pytest.raises(ConfigError, match="Did you mean 'reliability'"):
        analyse(run, "reliabilty")
    with pytest.raises(ConfigError, match="Did you mean 'word'"):
        analyse(run, "poke", {"wrod": 1})


def test_the_command_runs_an_analysis_and_the_report_shows_it(tmp_path):
    file, folder = write_pair_file(tmp_path / "pairs.npz"), tmp_path / "run"
    runner = CliRunner()
    for command in (
        ["fit", "linear", "--data", str(file), "--out", str(folder), "-q"],
        ["analyse", str(folder), "reliability", "--set", "far=5", "-q"],
        ["analyse", str(folder), "cycle", "--seed", "4", "-q"],
        ["report", str(folder)],
    ):
        done = runner.invoke(cli.app, command)
        assert done.exit_code == 0, done.output
    page = (folder / "report.html").read_text()
    for sentence in (folder / "analysis" / "reliability" / "summary.txt").read_text().splitlines():
        assert sentence.replace("'", "&#39;").replace('"', "&#34;") in page
    assert "Pictures from noise" in page
    assert "noise, 5 times as large" in page
    assert "Picture to brain to picture" in page
    assert "with seed 4" in page
