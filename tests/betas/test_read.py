import gzip
import json
import shutil
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from phosphene.betas import BetaOptions, betas_from_folder, onset_shift, read_runs, single_trial_betas
from phosphene.betas.read import locate_runs
from phosphene.data import read_dataset
from phosphene.errors import ConfigError, DataError, PhospheneWarning
from phosphene.lab import make
from phosphene.lab.bold import Scanner
from phosphene.lab.bold_files import write_bids, write_openfmri


@pytest.fixture(scope="module")
def study():
    return make("nsd", n_train=20, n_test=30, n_voxels=120, trials_per_run=44, runs_per_session=2)


@pytest.fixture(scope="module")
def scanner():
    return Scanner(extra_volumes=5)


@pytest.fixture(scope="module")
def written(study, scanner, tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    bids = write_bids(study, root / "bids", scanner=scanner, dtype="float32")
    return root, bids, write_openfmri(study, root / "openfmri", scanner=scanner, dtype="float32")


def copied(root, name, tmp_path):
    for part in (name, f"{name}-truth"):
        shutil.copytree(root / part, tmp_path / part)
    return tmp_path / name


@pytest.fixture
def bids(written, tmp_path):
    return copied(written[0], "bids", tmp_path), written[1]


@pytest.fixture
def openfmri(written, tmp_path):
    return copied(written[0], "openfmri", tmp_path), written[2]


def by_voxel(found, folder):
    """Which row of the simulation each voxel read is."""
    truth = pd.read_csv(folder.with_name(folder.name + "-truth") / "voxels.tsv", sep="\t")
    cells = {tuple(c): row for row, c in enumerate(truth[["i", "j", "k"]].to_numpy())}
    return np.array([cells[tuple(c)] for c in found.voxels[["i", "j", "k"]].to_numpy()])


@pytest.mark.parametrize("layout", ["bids", "openfmri"])
def test_a_folder_gives_back_the_runs_it_was_written_from(layout, request, study):
    folder, bold = request.getfixturevalue(layout)
    found = read_runs(folder, "01" if layout == "bids" else "001", confounds=True)
    rows = by_voxel(found, folder)
    assert len(found.runs) == len(bold)
    for ours, truth in zip(found.runs, bold, strict=True):
        np.testing.assert_array_equal(ours.volumes, truth.volumes[:, rows])
        assert ours.tr_s == pytest.approx(truth.tr_s)
        np.testing.assert_allclose(ours.events["onset"], truth.trials["onset_s"], atol=1e-4)
        assert ours.events["stimulus"].tolist() == truth.trials["stimulus"].tolist()
        assert ours.confounds.shape == (len(truth), 6)
    if layout == "bids":
        assert [(r.session, r.run) for r in found.runs] == [(r.session, r.run) for r in bold]
    np.testing.assert_allclose(found.voxels[["x", "y", "z"]], study.voxels[["x", "y", "z"]].to_numpy()[rows], atol=6)
    np.testing.assert_array_equal(found.voxels["roi.V1"], study.voxels["roi.V1"].to_numpy(bool)[rows])
    assert found.categories[study.ids[0]] == study.category[0]


def test_a_folder_that_is_no_study_is_told_from_a_study_without_the_subject(bids, tmp_path):
    with pytest.raises(DataError, match="is no BIDS or OpenfMRI study"):
        locate_runs(tmp_path, "01")
    with pytest.raises(DataError, match="has no subject '77'"):
        locate_runs(bids[0], "77")


def test_a_study_becomes_a_data_set_with_the_same_betas(bids, tmp_path):
    folder, bold = bids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = betas_from_folder(folder, "sub-01", tmp_path / "out", BetaOptions(kind="d"))
    dataset = read_dataset(tmp_path / "out")
    trials = dataset.trials("sub-01")
    np.testing.assert_array_equal(trials.betas, result.trials.betas)
    direct = single_trial_betas(read_runs(folder, "01").runs, BetaOptions(kind="d")).trials
    np.testing.assert_array_equal(trials.betas, direct.betas)
    assert trials.table["trial"].tolist() == bold.trials["trial"].astype(str).tolist()
    assert trials.rois
    assert {"hrf", "fraction", "r2", "noise_ceiling"} <= set(trials.voxels)
    assert trials.provenance["options"]["kind"] == "d"
    assert dataset.stimuli.category is not None


def test_betas_larger_than_memory_come_from_the_written_folder(bids, tmp_path):
    small = betas_from_folder(bids[0], "01", tmp_path / "small", BetaOptions(kind="b", memory_gb=1e-6))
    large = betas_from_folder(bids[0], "01", tmp_path / "large", BetaOptions(kind="b"))
    np.testing.assert_allclose(small.trials.betas, large.trials.betas, atol=1e-3)  # float32 sums in another order


def test_a_folder_that_holds_something_is_left_alone_before_any_work(bids, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        betas_from_folder(tmp_path / "no-such-study", "01", tmp_path / "out")


def test_preprocessed_images_find_the_events_of_the_study_above(bids):
    folder, bold = bids
    prep = folder / "derivatives" / "prep"
    for path in folder.glob("sub-01/**/*_bold.nii.gz"):
        place = prep / path.parent.relative_to(folder)
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name.replace("_bold", "_space-T1w_desc-preproc_bold"))
    mask = first(folder, "derivatives/phosphene/**/*brain_mask.nii.gz")
    found = read_runs(prep, "01", mask=mask, pattern="*_space-T1w_desc-preproc_bold.nii.gz")
    assert len(found.runs) == len(bold)
    assert found.runs[1].events["stimulus"].tolist() == bold[1].trials["stimulus"].tolist()
    assert found.runs[0].tr_s == pytest.approx(bold.tr_s, abs=1e-5)  # of the header


def test_some_sessions_can_be_read_alone(bids):
    found = read_runs(bids[0], "01", sessions=[2])
    assert {run.session for run in found.runs} == {2}
    with pytest.raises(DataError, match="no session 9"):
        read_runs(bids[0], "01", sessions=[9])


# -- timing ------------------------------------------------------------------------------------------------------------


def test_onsets_filed_late_are_found_without_knowing_what_was_shown(study, tmp_path):
    scanner = Scanner(noise_sd=0.3, lead_slots=4, blank_share=0.3)
    write_bids(study, tmp_path / "late", scanner=scanner, onset_shift_s=5.0)
    with pytest.warns(PhospheneWarning, match="late"):
        result = betas_from_folder(tmp_path / "late", "01", tmp_path / "out", BetaOptions(kind="lsa"))
    assert "onset_shift_s=-" in result.trials.provenance["onset_check"]
    shift = onset_shift(read_runs(tmp_path / "late", "01").runs)
    assert shift.best_s == pytest.approx(
        -5.0, abs=1.0
    )  # voxels respond up to a second earlier or later than is assumed


def test_haxby_s_onsets_are_found_to_be_late(shared_data):
    found = read_runs(shared_data / "haxby2001_slice" / "haxby2001", "001", pattern="bold_1slice.nii.gz")
    assert len(found.runs) == 12
    assert found.runs[0].n_voxels == 530
    assert found.runs[0].events["stimulus"].nunique() == 8
    shift = onset_shift(found.runs)
    assert shift.is_suspect
    assert shift.best_s == pytest.approx(-6.25, abs=1.5)  # a block of 22.5 s is seen late or early with other responses
    assert shift.r2.max() > 3 * shift.r2_as_filed


def accuracy(result) -> float:
    """Eight categories, leaving one run out, shrinkage discriminant analysis, betas standardised in each run."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = result.trials.betas.astype(float), result.trials.stimuli.astype(str)
    run = result.trials.table["run"].to_numpy()
    for r in np.unique(run):
        x[run == r] = (x[run == r] - x[run == r].mean(axis=0)) / (x[run == r].std(axis=0) + 1e-9)
    right = []
    for r in np.unique(run):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x[run != r], y[run != r])
        right += (model.predict(x[run == r]) == y[run == r]).tolist()
    return float(np.mean(right))


def test_haxby_s_categories_are_decoded_as_well_as_published_baselines_and_worse_as_filed(shared_data):
    runs = read_runs(shared_data / "haxby2001_slice" / "haxby2001", "001", pattern="bold_1slice.nii.gz").runs
    moved = accuracy(single_trial_betas(runs, BetaOptions(kind="b", onset_shift_s=-6.25)))
    assert moved > 0.896  # LSS with the same classifier; one model of all blocks gives 0.958
    assert accuracy(single_trial_betas(runs, BetaOptions(kind="lsa"))) < moved - 0.15


# -- files that are wrong ----------------------------------------------------------------------------------------------


def first(folder, pattern):
    return sorted(folder.glob(pattern))[0]


@pytest.mark.fault(35)
def test_an_image_cut_short_is_named(bids):
    path = first(bids[0], "sub-01/**/*_bold.nii.gz")
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes())[:-5000])
    path.unlink()
    with pytest.raises(DataError, match=rf"{plain.name} cannot be read whole"):
        read_runs(bids[0], "01")


@pytest.mark.fault(36)
def test_a_compressed_image_cut_short_is_named(bids):
    path = first(bids[0], "sub-01/**/*_bold.nii.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be read whole"):
        read_runs(bids[0], "01")


@pytest.mark.fault(39)
def test_a_flipped_byte_is_found(bids):
    path = first(bids[0], "sub-01/**/*_bold.nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be read whole"):
        read_runs(bids[0], "01")


@pytest.mark.fault(40)
def test_a_mask_of_another_place_or_size_is_refused(bids, tmp_path):
    path = first(bids[0], "derivatives/**/*brain_mask.nii.gz")
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), tmp_path / "moved.nii.gz")
    with pytest.raises(DataError, match="lie elsewhere"):
        read_runs(bids[0], "01", mask=tmp_path / "moved.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), image.affine), tmp_path / "small.nii.gz")
    with pytest.raises(DataError, match="resample"):
        read_runs(bids[0], "01", mask=tmp_path / "small.nii.gz")


@pytest.mark.fault(41)
def test_minus_one_in_a_mask_is_outside(bids, tmp_path):
    path = first(bids[0], "derivatives/**/*brain_mask.nii.gz")
    image = nib.load(path)
    values = np.asarray(image.dataobj).astype(np.int16)
    nib.save(nib.Nifti1Image(np.where(values > 0, values, -1), image.affine), tmp_path / "m.nii.gz")
    assert read_runs(bids[0], "01", mask=tmp_path / "m.nii.gz").voxels.shape == read_runs(bids[0], "01").voxels.shape
    nib.save(nib.Nifti1Image(-np.ones_like(values), image.affine), tmp_path / "none.nii.gz")
    with pytest.raises(DataError, match="nowhere above 0"):
        read_runs(bids[0], "01", mask=tmp_path / "none.nii.gz")


@pytest.mark.fault(45)
def test_a_run_where_a_mask_belongs_is_refused(bids):
    with pytest.raises(DataError, match="3 dimensions"):
        read_runs(bids[0], "01", mask=first(bids[0], "sub-01/**/*_bold.nii.gz"))


@pytest.mark.fault(46)
def test_a_time_between_volumes_in_milliseconds_is_refused(bids):
    path = first(bids[0], "sub-01/**/*_bold.json")
    path.write_text(json.dumps({"RepetitionTime": 1333.3}))
    with pytest.raises(DataError, match="milliseconds"):
        read_runs(bids[0], "01")


def test_the_header_is_believed_where_no_file_says_the_time(bids):
    for path in bids[0].glob("sub-01/**/*_bold.json"):
        path.unlink()
    assert read_runs(bids[0], "01").runs[0].tr_s == pytest.approx(4 / 3, abs=1e-5)


@pytest.mark.fault(54)
def test_what_file_managers_leave_behind_is_ignored(bids):
    func = first(bids[0], "sub-01/**/func")
    for name in (".DS_Store", "._sub-01_ses-01_task-scenes_run-01_bold.nii.gz", "Thumbs.db", "x_bold.nii.gz.part"):
        (func / name).write_bytes(b"junk")
    assert len(read_runs(bids[0], "01").runs) == len(bids[1])


def test_missing_things_are_named(bids, tmp_path):
    with pytest.raises(DataError, match=r"no subject '07'. .*sub-01"):
        read_runs(bids[0], "07")
    with pytest.raises(DataError, match="no folder"):
        read_runs(tmp_path / "nowhere", "01")
    path = first(bids[0], "sub-01/**/*_events.tsv")
    table = pd.read_csv(path, sep="\t")
    table.drop(columns="onset").to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match="column 'onset'"):
        read_runs(bids[0], "01")
    table.drop(columns=["stimulus", "stim_file", "trial_type"]).to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match="says what was shown"):
        read_runs(bids[0], "01")
    path.unlink()
    with pytest.raises(DataError, match="no table of events belongs to"):
        read_runs(bids[0], "01")


def test_onsets_per_condition_serve_where_there_is_no_table(openfmri):
    folder, bold = openfmri
    for path in folder.glob("sub001/BOLD/*/bold_events.tsv"):
        path.unlink()
    found = read_runs(folder, "1".zfill(3))
    assert found.runs[0].events["stimulus"].tolist() == bold[0].trials["category"].tolist()
    np.testing.assert_allclose(found.runs[0].events["onset"], bold[0].trials["onset_s"], atol=1e-4)
