"""What is planned to be downloaded, and that the table of downloads can be believed."""

from __future__ import annotations

import csv
import io
from urllib.parse import urlsplit

import pandas as pd
import pytest
from typer.testing import CliRunner

from phosphene.cli.data import app
from phosphene.data import bold5000, god, hcp, plan
from phosphene.data import nsd as nsd_subject
from phosphene.data.digits69 import SHA256
from phosphene.data.fetch import default_policy
from phosphene.data.sections import render
from phosphene.errors import ConfigError, NotAvailable
from phosphene.models.backbones import PUBLIC
from phosphene.models.public_clip import PINNED
from tests.data.nsd_layout import make as nsd_layout

SETS = ("bold5000", "digits69", "god", "hcp", "miyawaki", "nsd", "weights")


def everything(name, root):
    parts = list(dict.fromkeys(e.part for e in plan.downloads().sets[name].files))
    return plan.make(name, root=root, parts=parts).items


@pytest.mark.parametrize("name", SETS)
def test_every_address_of_the_table_is_allowed_encrypted_or_left_to_a_person(name, tmp_path):
    rule = default_policy()
    for item in everything(name, tmp_path):
        if item.access == "manual":
            assert urlsplit(item.url).scheme
            continue
        rule.check(item.url)  # raises for an unknown host or http
        assert item.path.is_relative_to(tmp_path)
        assert "{" not in f"{item.path}{item.url}"


@pytest.mark.fault(110)
@pytest.mark.parametrize("name", SETS)
def test_whatever_is_under_terms_says_where_they_are(name, tmp_path):
    made = plan.make(name, root=tmp_path)
    assert made.about.licence
    if any(i.access == "terms" for i in made.items):
        assert made.about.terms
        assert f"data fetch {name} --accept-terms" in " ".join(render(plan.sections(made)).split())


def test_the_table_covers_the_readers_and_no_name_twice(tmp_path):
    assert set(SETS) == set(plan.downloads().sets)
    for name in SETS:
        paths = [i.path for i in everything(name, tmp_path)]
        assert len(set(paths)) == len(paths)


@pytest.mark.fault(110)
def test_no_host_of_people_or_accounts_is_fetched_from(tmp_path):
    assert {i.access for i in everything("hcp", tmp_path)} == {"manual"}
    assert {i.access for i in everything("nsd", tmp_path)} == {"terms", "manual"}
    assert {i.access for i in everything("digits69", tmp_path)} == {"open"}


def test_weights_are_those_that_the_scores_and_features_look_for(tmp_path):
    items = {i.path.relative_to(tmp_path).as_posix(): i for i in everything("weights", tmp_path)}
    for name, public in PUBLIC.items():
        if public.package is None:
            assert items[public.file].sha256 == public.sha256, name
            assert "NC" not in public.licence or items[public.file].access == "terms"
    clip = [i for p, i in items.items() if p.startswith("clip-vit-large-patch14/")]
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {i.path.name for i in clip}
    assert all(
        f"openai/clip-vit-large-patch14/resolve/{PINNED['openai/clip-vit-large-patch14']}/" in i.url for i in clip
    )


def test_the_digits_have_the_checksum_their_reader_knows(tmp_path):
    (item,) = everything("digits69", tmp_path)
    assert item.sha256 == SHA256


def test_nsd_is_planned_where_its_reader_looks(tmp_path):
    layout = nsd_layout(tmp_path / "nsd", sessions=(1, 2))
    for k in (1, 2):
        layout.beta_folder().joinpath(f"betas_session{k:02d}.hdf5").rename(
            layout.beta_folder() / f"betas_session{k:02d}.nii.gz"
        )
    for root in (tmp_path, tmp_path / "nsd"):  # the folder of all sets, or its own
        made = plan.make("nsd", root=root, subjects=["subj01"], sessions=3)
        missing = [i.path.name for i in made.missing]
        assert missing == ["nsd_stim_info_merged.csv", "betas_session03.nii.gz", "COCO_73k_annots_curated.npy"]


def test_sessions_and_subjects_of_nsd_are_as_its_reader_knows_them(tmp_path):
    for subject, n in nsd_subject.SESSIONS.items():
        betas = plan.make(f"nsd:{subject}", root=tmp_path, parts=["betas"]).items
        assert sum("session" in i.path.name for i in betas) == n
        assert {i.subject for i in betas} == {subject}
    both = plan.make("nsd", root=tmp_path, subjects=["subj01", "subj02"], parts=["rois"]).items
    assert len(both) == 2 * len([*nsd_subject.LABELS, "nsdgeneral"])


def test_sizes_are_summed_and_unknown_ones_counted_not_guessed(tmp_path):
    items = plan.make("nsd", root=tmp_path, subjects=["subj01"], parts=["betas"], sessions=2).items
    # 81 x 104 x 83 voxels x 750 trials x 2 bytes, twice; ncsnr has no published size
    assert plan.Plan("nsd", tmp_path, items, plan.downloads().sets["nsd"]).size() == (0, 2 * 81 * 104 * 83 * 1500, 1)
    text = render(plan.sections(plan.make("god", root=tmp_path)))
    assert "files whose size is not published" in text
    assert " bytes" not in text


def test_states_tell_whole_partial_wrong_and_absent_files(tmp_path):
    (item,) = plan.make("digits69", root=tmp_path).items
    assert item.state == "not there"
    plan.partial_path(item.path).write_bytes(b"x")
    assert item.state == "part of it"
    item.path.write_bytes(b"xx")
    assert item.state == "wrong: 2 bytes"
    item.path.write_bytes(b"")
    assert item.state == "wrong: empty"


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"name": "ndd"}, "Did you mean 'nsd'"),
        ({"name": "nsd", "subjects": ["subj9"]}, "no subject 'subj9' to choose. Did you mean"),
        ({"name": "digits69:S1"}, "Its files are those of everyone"),
        ({"name": "hcp", "subjects": ["../x"]}, "expected a name such as 100307"),
        ({"name": "nsd", "parts": ["beta"]}, "Did you mean 'betas'"),
        ({"name": "nsd", "sessions": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_nearest_name(tmp_path, how, match):
    with pytest.raises(ConfigError, match=match):
        plan.make(**{"root": tmp_path, **how})


@pytest.mark.fault(111)
@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\\b"])
def test_a_table_cannot_name_files_outside_its_folder(tmp_path, path):
    entry = {"part": "a", "path": path, "url": "https://a.org/x", "access": "open"}
    table = plan.Downloads.model_validate(
        {"hosts": {}, "sets": {"s": {"title": "", "folder": "s", "licence": "", "files": [entry]}}}
    )
    with pytest.raises(ConfigError, match="must stay inside"):
        plan.make("s", root=tmp_path, table=table)


def test_without_a_root_the_environment_says_where(tmp_path, monkeypatch):
    monkeypatch.delenv("PHOSPHENE_DATA", raising=False)
    monkeypatch.delenv("PHOSPHENE_WEIGHTS", raising=False)
    with pytest.raises(ConfigError, match="PHOSPHENE_DATA"):
        plan.make("nsd")
    with pytest.raises(ConfigError, match="PHOSPHENE_WEIGHTS"):
        plan.make("weights")
    monkeypatch.setenv("PHOSPHENE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path / "weights"))
    assert plan.make("nsd").root == tmp_path / "data" / "nsd"
    assert plan.make("weights").root == tmp_path / "weights"


def test_archives_become_the_folders_that_readers_look_for(tmp_path):
    from phosphene.data.registry import reader

    (item,) = everything("miyawaki", tmp_path)
    (item.unpack / "func").mkdir(parents=True)
    assert reader("miyawaki").find(tmp_path) == item.unpack
    for scan in plan.make("hcp", root=tmp_path / "hcp", subjects=["100307"], parts=["resting"]).items:
        scan.path.parent.mkdir(parents=True)
        scan.path.write_bytes(b"x")
    assert reader("hcp").find(tmp_path) == tmp_path / "hcp"


def test_published_counts_are_those_that_the_readers_compare_with():
    table = pd.read_csv(plan.files("phosphene.data") / "counts.csv", dtype=str)
    assert not table.duplicated(["dataset", "subject", "what"]).any()
    told = {(d, s, w): int(v) for d, s, w, v in table[["dataset", "subject", "what", "value"]].to_numpy()}
    for subject, n in nsd_subject.VOXELS.items():
        assert told["nsd", subject, "voxels"] == n
        assert told["nsd", subject, "sessions"] == nsd_subject.SESSIONS[subject]
        assert told["nsd", subject, "trials"] == 750 * nsd_subject.SESSIONS[subject]
    for subject, sizes in god.SIZES.items():
        assert told["god", subject, "voxels"] == sum(sizes)
    for roi, size in hcp.SIZES.items():
        assert told["hcp", "each", f"ROI {roi}"] == size
    for subject, n in bold5000.VOXELS.items():
        assert told["bold5000", subject, "voxels"] == n
        assert told["bold5000", subject, "trials"] == bold5000.TRIALS[subject]
        for roi, size in bold5000.SIZES[subject].items():
            assert told["bold5000", subject, f"ROI {roi}"] == size


def test_the_command_lists_every_address_as_csv(tmp_path):
    done = CliRunner().invoke(app, ["plan", "god", "--root", str(tmp_path), "--subject", "sbj_2", "--csv"])
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [r["address"] for r in rows] == [
        "https://ndownloader.figshare.com/files/24080123",
        "https://forms.gle/ujvA34948Xg49jdn9",
    ]
    assert [(r["path"], r["bytes"], r["state"]) for r in rows] == [
        ("Subject2.h5", "", "not there"),
        ("images", "", "not there"),
    ]


@pytest.mark.fault(110)
def test_the_command_fetches_nothing_under_terms_without_a_word(tmp_path):
    done = CliRunner().invoke(app, ["fetch", "nsd", "--root", str(tmp_path / "nsd"), "--subject", "subj01"])
    assert isinstance(done.exception, NotAvailable)
    assert "--accept-terms" in str(done.exception)
    assert not (tmp_path / "nsd").exists()
