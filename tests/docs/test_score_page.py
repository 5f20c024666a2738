"""docs/score.md prints what it says it prints."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from phosphene import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "score.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_in_python_prints_what_the_page_says():
    names: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(blocks("python")[0], names)

    assert printed.getvalue().split() == blocks("text")[1].split()
    exec(blocks("python")[1], names)


@pytest.mark.slow
def test_the_example_in_the_shell_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script = blocks("sh")[1].replace("\\\n", " ")
    printed = ""
    for line in script.splitlines():
        with pytest.raises(SystemExit) as end:
            cli.main([*shlex.split(line)[1:], *(["-q"] if " report " not in line else [])])

        assert not end.value.code
        out = capsys.readouterr().out
        if " score " in line:
            printed = out

    assert printed.split() == blocks("text")[0].split()
