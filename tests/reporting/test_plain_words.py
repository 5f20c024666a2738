"""Plain words, numbers and what is hidden."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from phosphene.metrics.registry import METRICS
from phosphene.reporting import figures
from phosphene.reporting import plain_words as words


@pytest.mark.parametrize("module", [words, figures])
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_title_and_plain_words_besides_its_definition(name):
    full = name.replace("{space}", "clip").replace("{n}", "16")
    found = words.metric_words(full)
    assert found.title != full
    assert "{" not in found.title + found.text
    assert not found.text.startswith("Exactly")
    assert METRICS[name].definition in found.text
    assert found.lower_is_better == (METRICS[name].better == "lower")


def test_what_is_seen_in_pictures_is_told_from_latents():
    assert words.metric_words("two_way.clip_lab").title == "Two-way · clip_lab"
    assert words.metric_words("two_way.pictures.clip_lab").title == "Two-way · clip_lab on pictures"
    assert words.metric_words("nway16_top1_class.scenes").title == "16-way class, top 1 · scenes"
    assert "mostly bias" in words.metric_words("fid.pictures.scenes").text


def test_an_unknown_metric_goes_by_its_own_name():
    assert words.metric_words("brightness.v2").title == "brightness.v2"
    assert words.metric_words("distance.swav").lower_is_better


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (-0.25, "−0.250"), (np.nan, "–"), (None, "–"), ("x", "–"), (np.inf, "∞"), (123.456, "123.46")],
)
def test_numbers_are_printed_for_people(value, text):
    assert words.number(value) == text


@pytest.mark.fault(125)
@pytest.mark.parametrize(("p", "text"), [(0.0, "0 (invalid)"), (1e-4, "0.0001"), (2e-6, "2e-06"), (0.5, "0.50")])
def test_p_is_never_printed_as_zero(p, text):
    assert words.p_value(p) == text


@pytest.mark.fault(119)
def test_homes_are_shortened_only_at_a_path_boundary(monkeypatch):
    monkeypatch.setenv("HOME", "/data/ada")
    assert words.redact("/data/ada/x /data/adam/x /data/ada") == "~/x /data/adam/x ~"
    assert words.redact("C:\\Users\\Ada L\\runs, C:\\Users\\ada") == "~\\runs, ~"
    assert words.redact("file:/home/ada/x and /homework/ada") == "file:~/x and /homework/ada"


@pytest.mark.fault(119)
@pytest.mark.parametrize("key", ["hub_token", "API_KEY", "password", "aws.secret"])
def test_keys_of_secrets_are_known(key):
    assert words.is_secret(key)
    assert not words.is_secret("recipe.alpha")
