"""Names and paths to data sets."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phosphene.data import locate, open_dataset, registry, write_dataset
from phosphene.data.reader import Reader
from phosphene.errors import ConfigError, DataError, NotAvailable
from phosphene.types import Dataset, Stimuli, Trials


@pytest.fixture
def dataset() -> Dataset:
    betas = np.arange(6, dtype="f4").reshape(3, 2)
    table = pd.DataFrame({"stimulus": ["a", "b", "a"]})
    subjects = {s: Trials(betas * k, table, subject=s) for k, s in ((1, "ann"), (2, "bob"))}
    return Dataset("small", Stimuli(np.array(["a", "b"], dtype=object)), subjects)


def test_every_registered_reader_states_its_facts_and_options():
    for name in [*registry.READERS, *registry.FROM_ABOVE, *registry.FORMATS]:
        found = registry.reader(name)
        assert isinstance(found, Reader)
        assert found.title
        found.options()  # every option has a default


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'digits69'"):
        open_dataset("digit69")


def test_without_a_root_the_message_says_how_to_give_one(monkeypatch):
    monkeypatch.delenv("PHOSPHENE_DATA", raising=False)
    with pytest.raises(ConfigError, match="PHOSPHENE_DATA"):
        open_dataset("digits69")


def test_a_root_that_is_not_there_is_named_with_its_origin(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="--root names"):
        open_dataset("digits69", root=tmp_path / "no")
    monkeypatch.setenv("PHOSPHENE_DATA", str(tmp_path / "no"))
    with pytest.raises(DataError, match="environment variable PHOSPHENE_DATA"):
        open_dataset("digits69")


@pytest.mark.fault(54)
def test_a_root_without_the_file_lists_what_is_there_but_no_litter(tmp_path):
    for name in (".DS_Store", "other.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"which holds other\.txt\."):
        open_dataset("digits69", root=tmp_path)


def test_a_folder_is_opened_by_path_and_by_name_below_the_root(dataset, tmp_path):
    write_dataset(dataset, tmp_path / "mine")
    assert list(open_dataset(tmp_path / "mine")) == ["ann", "bob"]
    assert list(open_dataset("mine:bob", root=tmp_path)) == ["bob"]
    assert list(open_dataset(f"{tmp_path / 'mine'}:ann")) == ["ann"]


@pytest.mark.fault(61)
def test_paths_with_spaces_colons_and_foreign_letters_are_taken_literally(dataset, tmp_path, monkeypatch):
    for name in ("my data", "a:b", "пример é"):
        write_dataset(dataset, tmp_path / name)
        assert open_dataset(str(tmp_path / name)).name == "small"
        assert list(open_dataset(f"{tmp_path / name}:bob")) == ["bob"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset("~/my data").name == "small"


def test_an_unknown_subject_is_named_with_those_that_exist(dataset, tmp_path):
    write_dataset(dataset, tmp_path / "mine")
    with pytest.raises(DataError, match=r"no subject 'bop'\. Did you mean 'bob'"):
        open_dataset(f"{tmp_path / 'mine'}:bop")


def test_a_folder_that_is_no_dataset_says_what_to_do(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="phosphene data import"):
        open_dataset(tmp_path)


def test_a_path_that_does_not_exist_or_has_another_ending_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        open_dataset(tmp_path / "no.mat")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"ending '\.csv'"):
        open_dataset(tmp_path / "x.csv")


@pytest.mark.fault(122)
def test_a_plug_in_is_imported_only_when_named(tmp_path, monkeypatch):
    info = tmp_path / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[phosphene.readers]\nextra = extra_reader:Extra\n")
    (tmp_path / "extra_reader.py").write_text(
        "from phosphene.data.pairs import PairFile\nclass Extra(PairFile):\n    title = 'from elsewhere'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "extra" in registry.known()
    with pytest.raises(ConfigError):
        open_dataset("extr")
    assert "extra_reader" not in sys.modules
    assert registry.reader("extra").title == "from elsewhere"
    assert "extra_reader" in sys.modules


def test_own_data_sets_stand_in_the_order_of_the_alphabet():
    own = ["bold5000", "digits69", "god", "hcp", "insilico", "miyawaki", "mosaic", "nsd", "openfmri"]
    assert list(registry.known())[: len(own)] == own


def test_own_readers_from_rooms_above_are_entry_points_of_the_package():
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert set(project["entry-points"][registry.PLUGINS]) == set(registry.FROM_ABOVE)


def test_without_the_metadata_of_the_package_the_message_says_to_install_it(monkeypatch):
    monkeypatch.setattr(registry, "plugins_of", lambda group: {})
    with pytest.raises(
        NotAvailable, match=r"the reader 'insilico' comes with phosphene.*phosphene\.readers.*Install it again"
    ):
        open_dataset("insilico")
    with pytest.raises(ConfigError, match="Did you mean 'insilico'"):
        open_dataset("insilicon")


def test_split_spec_takes_the_subject_off():
    assert registry.split_spec("nsd:subj01") == ("nsd", "subj01")
    assert registry.split_spec("nsd") == ("nsd", None)
    with pytest.raises(ConfigError, match="NAME:SUBJECT"):
        registry.split_spec("nsd:")


def test_locating_reads_nothing(tmp_path):
    path = tmp_path / "broken.mat"
    path.write_bytes(b"not read yet")
    assert locate(path).path == path


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, phosphene.data.registry, phosphene.data.splits\n"
        "print([m for m in ('torch', 'h5py', 'scipy', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
