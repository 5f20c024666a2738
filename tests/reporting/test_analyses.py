"""The section of analyses: shows whatever `phosphene analyse` filed, knows none by name, survives damage."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from phosphene.reporting import drawing, report
from tests.reporting.test_html import EVIL, assert_inert, read


def file_analysis(run, name="tuning", *, svg=True, **record):
    """An analysis nobody has written yet, filed as the station files them."""
    place = run.path / "analysis" / name
    place.mkdir(parents=True)
    rows = [
        ("brain", "r", 0.51234, 0.4, 0.6, 30),
        ("noise", "r", 0.02, np.nan, np.nan, 30),
        ("brain", "odd", 7.0, 6.5, 7.5, 3),
    ]
    table = pd.DataFrame(rows, columns=["input", "measure", "value", "ci_low", "ci_high", "n"])
    run.write_table(table, "analysis", name, "table.csv")
    with drawing.style():
        figure = drawing.empty(2, 1)
    (place / "curve.png").write_bytes(drawing.png(figure))
    if svg:
        (place / "curve.svg").write_text(drawing.svg(figure))
    (place / "summary.txt").write_text("First thing.\nSecond thing.\n")
    about = {
        "title": "How tuned it is", "options": {"n": 30, "empty": None}, "seed": 4,
        "inputs": {"brain": "the brain", "noise": "some noise"}, "measures": {"r": "Correlation"},
        "notes": {"r": "of what with what"}, "figures": [{"file": "curve", "alt": "a curve", "caption": "The curve."}],
    }  # fmt: skip
    (place / "analysis.json").write_text(json.dumps({**about, **record}))
    return place


@pytest.mark.parametrize("svg", [True, False])
def test_sentences_table_and_figure_of_an_unknown_analysis_are_shown(made, svg):
    file_analysis(made.run, svg=svg)
    page = read(report(made.run))
    assert_inert(page)
    for text in (
        "How tuned it is", "First thing.", "Second thing.", "the brain", "some noise", "Correlation", "0.512", "0.020",
        "[0.400, 0.600]", "The curve.", "of what with what", "with seed 4", "n 30", "7.000",
    ):  # fmt: skip
        assert text in page.text, text
    drawn = next(a for a in page.all("img") if a["alt"] == "a curve")
    assert drawn["src"].startswith(f"data:image/{'svg+xml' if svg else 'png'};base64,")
    assert (drawn["width"], drawn["height"]) == ("192", "96")  # 2 x 1 inches at 96 pixels
    assert "#analyses" in {a.get("href") for a in page.all("a")}


def test_without_analyses_there_is_no_section(made):
    page = read(report(made.run))
    assert "#analyses" not in {a.get("href") for a in page.all("a")}
    assert not [a for a in page.all("section") if a.get("id") == "analyses"]


@pytest.mark.fault(115)
def test_script_in_any_text_of_an_analysis_stays_text(made):
    place = file_analysis(
        made.run, title=EVIL, options={EVIL: EVIL}, inputs={"brain": EVIL}, measures={"r": EVIL}, notes={"r": EVIL},
        figures=[{"file": "../../x", "alt": EVIL, "caption": EVIL}, {"file": "curve", "alt": EVIL, "caption": EVIL}],
    )  # fmt: skip
    (place / "summary.txt").write_text(f"{EVIL}\n")
    page = read(report(made.run))
    assert_inert(page)
    assert "<script" not in page.raw
    assert "onerror" in page.text


@pytest.mark.fault(119)
def test_homes_and_secrets_in_options_do_not_reach_the_page(made, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/people/ada.l")
    file_analysis(made.run, options={"images": "/srv/people/ada.l/pictures", "hub_token": "tok-1234567"})
    page = read(report(made.run))
    assert "ada.l" not in page.raw
    assert "tok-1234567" not in page.raw


@pytest.mark.parametrize("part", ["analysis.json", "table.csv", "curve.png"])
@pytest.mark.parametrize("content", [b"", b'\x00\xff{[garbage,\n"\x93,,,\n' * 3], ids=["empty", "garbage"])
def test_a_damaged_part_is_named_and_the_rest_is_shown(made, part, content):
    (file_analysis(made.run) / part).write_bytes(content)
    text = read(report(made.run)).text
    assert "Can it be believed?" in text
    if part != "analysis.json":
        assert "First thing." in text
    if content or part != "table.csv":  # an empty table is a table without rows to the rest of the page, too
        assert part in text


@pytest.mark.parametrize(
    "record", [{"figures": 7}, {"inputs": None, "measures": [1]}, {"options": "x"}, {"title": None}]
)
def test_a_record_of_another_make_is_shown_as_far_as_it_goes(made, record):
    file_analysis(made.run, **record)
    assert "First thing." in read(report(made.run)).text
