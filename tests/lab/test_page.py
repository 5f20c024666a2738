"""The lab's page in the documentation says what the cards of the zoo say."""

import re
from pathlib import Path

import pytest

from phosphene.lab import zoo

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "insilico.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*\d M \|.*) \|$", PAGE, flags=re.MULTILINE))


def test_the_page_has_a_row_for_the_networks_it_describes():
    assert {"clip", "vq", "kl", "mae", "maskgit", "classifier"} <= set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_every_number_of_a_row_is_one_of_the_card(name):
    about = zoo.record(name)
    known = [about["weights"] / 1e6, *about["scores"].values()]
    numbers = re.findall(r"(?<![\d.])\d*\.\d+", ROWS[name])
    assert len(numbers) >= 3
    for number in numbers:
        half = 0.5 * 10.0 ** -len(number.partition(".")[2])  # of the last digit; cards keep four
        assert any(abs(float(number) - value) <= half + 6e-5 for value in known), f"{name}: {number}"
