"""Every reader on a small folder of its layout, and readers that are broken in one way each."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from phosphene.conformance import NonConforming, check_reader
from phosphene.data import write_dataset
from phosphene.data.findings import Finding
from phosphene.data.reader import ReaderOptions, about, find_file
from phosphene.data.registry import FROM_ABOVE, READERS
from phosphene.errors import DataError, did_you_mean
from phosphene.types import ROI, Dataset, Split, Stimuli, Trials
from tests.data.layouts import ELSEWHERE, LAYOUTS
from tests.data.test_hcp import hcp  # noqa: F401  a fixture

WAIVED: dict[str, dict[str, str]] = {
    "bold5000": {
        "check": "differences from the published sizes come without a next step: the layout here is small on purpose",
    },
}
"""What a reader does not keep, and why that is borne."""


@pytest.mark.filterwarnings("ignore::phosphene.errors.PhospheneWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_reader_keeps_its_promises(layout, tmp_path):
    values = LAYOUTS[layout](tmp_path)
    name, root = (
        ("pairs", values["data.name"]) if layout == "a pair file" else (values["data.name"], values["data.root"])
    )
    check_reader(name, root, options=values.get("data.options"), waived=WAIVED.get(layout))


def test_every_registered_reader_is_checked_here():
    assert {name.split(",")[0] for name in LAYOUTS} | {"insilico", "hcp"} >= {*READERS, *FROM_ABOVE}
    assert set(ELSEWHERE) == {"insilico", "hcp"}


def test_the_simulated_reader_keeps_its_promises():
    options = {"n_train": 20, "n_test": 4, "n_voxels": 50, "n_subjects": 2}
    check_reader("insilico", options=options, waived=WAIVED.get("insilico"))


def test_the_reader_of_scans_at_rest_keeps_its_promises(hcp):  # noqa: F811
    check_reader("hcp", hcp.root, waived=WAIVED.get("hcp"))


def _dataset() -> Dataset:
    """Two people who saw the same eight pictures."""
    rng, ids = np.random.default_rng(0), [f"p{k}" for k in range(8)]
    table = pd.DataFrame({"stimulus": [*ids, *ids[:3]], "session": [1] * 6 + [2] * 5})
    voxels = pd.DataFrame(
        {"x": np.arange(5.0), "noise_ceiling": np.linspace(0, 0.8, 5), ROI + "V1": [True] * 3 + [False] * 2}
    )
    people = {
        who: Trials(rng.standard_normal((11, 5)).astype(np.float32), table, voxels, subject=who)
        for who in ("ann", "bob")
    }
    pictures = Stimuli(np.array(ids, dtype=object), rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8))
    split = Split("half", tuple(ids[:5]), tuple(ids[5:]))
    return Dataset("mine", pictures, people, {"half": split}, {"title": "mine"})


def test_the_format_of_our_own_keeps_its_promises(tmp_path):
    write_dataset(_dataset(), tmp_path / "mine")
    check_reader("folder", tmp_path / "mine", waived=WAIVED.get("folder"))


class Numbers:
    """A data set in one file, which holds nothing but says where it is."""

    title, citation, licence, url, files = "Numbers", "", "CC0", "", "numbers.txt"
    options = ReaderOptions

    def find(self, root):
        return find_file(root, ("numbers.txt",), self.title)

    def subjects(self, path, options):
        return ("ann", "bob")

    def load(self, path, options, subject=None):
        data = _dataset()
        if subject is not None and subject not in data.subjects:
            raise DataError(f"Numbers has no subject '{subject}'. {did_you_mean(subject, data.subjects)}")
        people = {who: t for who, t in data.subjects.items() if subject in (None, who)}
        return self.finish(replace(data, subjects=people, about=about(self)), path)

    def finish(self, data, path):
        return data

    def check(self, path, options):
        if path.is_file():
            return [Finding("ok", "file", "is there")]
        return [Finding("problem", "file", "numbers.txt is not there", "Put it there.")]


class Nameless(Numbers):
    """Has no title."""

    title = ""


class Infinite(Numbers):
    """Gives infinite betas."""

    def finish(self, data, path):
        people = {who: t.with_betas(np.where(t.betas > 1, np.inf, t.betas)) for who, t in data.subjects.items()}
        return replace(data, subjects=people)


class Misfiled(Numbers):
    """Shows pictures that are not among the stimuli."""

    def finish(self, data, path):
        return replace(data, stimuli=data.stimuli.select(data.stimuli.ids[:-1]))


class Optimistic(Numbers):
    """Has noise ceilings in percent."""

    def finish(self, data, path):
        people = {
            who: replace(t, voxels=t.voxels.assign(noise_ceiling=100 * t.voxels["noise_ceiling"]))
            for who, t in data.subjects.items()
        }
        return replace(data, subjects=people)


class Random(Numbers):
    """Is another data set each time."""

    def finish(self, data, path):
        rng = np.random.default_rng()
        return replace(data, subjects={w: t.with_betas(rng.random(t.betas.shape)) for w, t in data.subjects.items()})


class Littering(Numbers):
    """Writes among the data."""

    def finish(self, data, path):
        (path.parent / "cache.bin").write_bytes(b"x")
        return data


class Talkative(Numbers):
    """Raises where it should report."""

    def check(self, path, options):
        return [Finding("ok", "file", (path / "x" if path.is_dir() else path).read_text())]


class Crowded(Numbers):
    """Promises a subject that is not there."""

    def subjects(self, path, options):
        return ("ann", "bob", "cat")


def test_a_sound_reader_passes(tmp_path):
    (tmp_path / "numbers.txt").write_text("1")
    check_reader(Numbers(), tmp_path)


@pytest.mark.parametrize(
    ("broken", "claims"),
    [
        (Nameless, {"facts", "about"}),
        (Infinite, {"betas"}),
        (Misfiled, {"stimuli"}),
        (Optimistic, {"voxels"}),
        (Random, {"one subject", "repeat"}),
        (Littering, {"read only"}),
        (Talkative, {"absent"}),
        (Crowded, {"load"}),
    ],
)
def test_a_reader_broken_in_one_way_is_caught_and_the_way_is_named(broken, claims, tmp_path):
    (tmp_path / "numbers.txt").write_text("1")
    with pytest.raises(NonConforming) as caught:
        check_reader(broken(), tmp_path)
    assert set(caught.value.failures) & claims
    assert set(caught.value.failures) <= claims, str(caught.value)
