"""The gates on docstrings: a bad docstring of a public name fails, one of a private name does not."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import docstrings

GOOD = '''
def scale(x, by=1.0):
    """Multiply rows.

    Parameters
    ----------
    x : ndarray of shape (n, p)
        The rows.
    by : float, default 1.0
        The factor.

    Returns
    -------
    ndarray of shape (n, p)
        The products.
    """
    return x * by
'''

NUMBERS = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """Write a package that lists ``scale``; each has a name of its own, since Python keeps what it imported."""
    name = f"documented_{next(NUMBERS)}"
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str, listed: tuple[str, ...] = ("scale",)) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "work.py").write_text(text)
        names = ", ".join(listed)
        lists = f"from {name}.work import {names}\n\n__all__ = {list(listed)!r}\n"
        (tmp_path / name / "__init__.py").write_text(lists)
        return name

    return write


def complaints(name: str, capsys) -> tuple[int, list[str]]:
    status = docstrings.main([name])
    lines = capsys.readouterr().out.splitlines()
    return status, re.findall(r"work\.py:\d+: (\w+) ", "\n".join(lines))


def test_a_good_docstring_passes(package, capsys):
    assert complaints(package(GOOD), capsys) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("float, default 1.0\n        The factor.", "the factor", "PR07"),
        ("float, default 1.0", "the factor of rows", "PT01"),
        ("    by : float, default 1.0\n        The factor.\n", "", "PR01"),
        ("    by : float", "    times : float", "PR02"),
        ("Multiply rows.", "multiply rows.", "SS02"),
        ("Multiply rows.", "Multiply rows", "SS03"),
        ("Multiply rows.", "Multiply rows\n    by one number.", "SS06"),
        ("    Returns\n    -------\n    ndarray of shape (n, p)\n        The products.\n", "", "RT01"),
        ("        The products.\n", "", "RT03"),
        ("    Returns\n    -------", "    Output\n    ------", "GL06"),
    ],
)
def test_a_bad_docstring_of_a_public_name_fails(package, capsys, old: str, new: str, code: str):
    assert old in GOOD

    status, codes = complaints(package(GOOD.replace(old, new)), capsys)

    assert status == 1
    assert code in codes


def test_no_docstring_of_a_public_name_fails(package, capsys):
    assert complaints(package("def scale(x):\n    return x\n"), capsys) == (1, ["GL08"])


def test_a_private_helper_is_left_alone(package, capsys):
    helper = '\n\ndef _helper(x, y):\n    """no capital, no period"""\n    return x\n'

    assert complaints(package(GOOD + helper), capsys) == (0, [])


def test_a_public_method_is_held_and_a_private_one_is_not(package, capsys):
    text = '''
class Scaler:
    """Multiply rows."""

    def scale(self, x, by):
        """Multiply rows."""
        return x * by

    def _scale(self, x, by):
        return x * by
'''
    status, codes = complaints(package(text, ("Scaler",)), capsys)

    assert status == 1
    assert sorted(codes) == ["PR01", "RT01"]


def test_one_line_is_enough_for_one_parameter(package, capsys):
    text = 'def scale(x):\n    """Double the rows."""\n    return 2 * x\n'

    assert complaints(package(text), capsys) == (0, [])


def test_one_line_is_not_enough_for_two_parameters(package, capsys):
    text = 'def scale(x, by):\n    """Multiply the rows."""\n    return x * by\n'

    assert complaints(package(text), capsys) == (1, ["PR01", "RT01"])


def test_fields_may_be_described_as_attributes_or_by_themselves(package, capsys):
    text = '''
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field


@dataclass
class Point:
    """A point.

    Attributes
    ----------
    x, y : float
        Where it is.
    """

    x: float
    y: float


class Config(BaseModel):
    """What can be set."""

    kind: Literal["ridge"] = "ridge"
    alpha: float = Field(default=1.0, description="Penalty above 0.")


class Bare(BaseModel):
    """What can be set."""

    alpha: float = 1.0
'''
    status, codes = complaints(package(text, ("Bare", "Config", "Point")), capsys)

    assert status == 1
    assert codes == ["PR01"]


def test_a_method_without_docstring_inherits_one(package, capsys):
    text = '''
class Base:
    """A base."""

    def fit(self):
        """Fit."""


class Derived(Base):
    """A derived class."""

    def fit(self):
        pass
'''
    assert complaints(package(text, ("Derived",)), capsys) == (0, [])


def test_a_listed_name_that_is_not_there_fails(package, capsys, tmp_path: Path):
    name = package(GOOD)
    listing = tmp_path / name / "__init__.py"
    listing.write_text(listing.read_text() + "__all__.append('absent')\n")

    assert docstrings.main([name]) == 1
    assert f"ALL1 {name}.absent is listed but not there" in capsys.readouterr().out


def numpydoc_lint(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the line of the Makefile on one file."""
    makefile = (docstrings.ROOT / "Makefile").read_text()
    ignored = re.search(r"numpydoc lint --ignore (\S+)", makefile)
    assert ignored
    command = [sys.executable, "-m", "numpydoc", "lint", "--config", str(docstrings.ROOT), "--ignore", ignored[1]]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)


def test_numpydoc_lint_as_configured_fails_on_a_bad_file_and_passes_a_good_one(tmp_path: Path):
    good = tmp_path / "good.py"
    bad = tmp_path / "bad.py"
    good.write_text('"""A file."""\n' + GOOD)
    bad.write_text('"""A file."""\n' + GOOD.replace("float, default 1.0\n        The factor.", "the factor"))

    assert numpydoc_lint(good).returncode == 0
    failed = numpydoc_lint(bad)
    assert failed.returncode == 1
    assert "bad.py:3: PR07" in failed.stdout + failed.stderr
