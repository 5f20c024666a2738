"""BIDS as people have it: which file belongs to which, what was shown, when, and where. Wrong betas never come without a word."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, SeriesAxis
from PIL import Image

from phosphene.betas.bids_files import BidsFolder, BidsName
from phosphene.betas.events import Shown, Told, chosen_rows, read_events, trials_of
from phosphene.data import read_dataset
from phosphene.errors import ConfigError, DataError

from .small_bids import (
    AFFINE,
    STIMULI,
    STRENGTH,
    files,
    made,
    plain,
    series,
    trials,
    truth,
    write_bold,
    write_json,
    write_mask,
    write_study,
    write_tsv,
)

WELL = 0.98


def columns(*names):
    """A table of events made by a function of one trial, under these columns."""

    def decorated(of_trial):
        def rows(events, run):
            made_rows = []
            for onset, duration, stimulus in events:
                made_rows += of_trial(onset, duration, stimulus, run)

            return names, made_rows

        return rows

    return decorated


# -- which file belongs to which ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("task-see_bold.json", {"RepetitionTime": 2.0}),
        ("bold.json", {"RepetitionTime": 2.0}),
        ("sub-01/sub-01_task-see_bold.json", {"RepetitionTime": 2.0}),
        ("sub-01/func/sub-01_task-see_bold.json", {"RepetitionTime": 2.0}),
    ],
)
def test_the_tr_may_be_said_at_every_level(tmp_path, place, told):
    root = write_study(tmp_path / "s", runs=(1, 2), tr_json=None, header_tr=1.0)
    write_json(root / place, **told)
    assert truth(made(root, tmp_path / "o")[0]) > WELL


@pytest.mark.parametrize(
    "other", ["task-seescenes_bold.json", "acq-fast_task-see_bold.json", "task-see_run-9_bold.json"]
)
def test_json_of_another_task_acquisition_or_run_says_nothing(tmp_path, other):
    root = write_study(tmp_path / "s", runs=(1, 2), tr_json=None)
    write_json(root / "task-see_bold.json", TaskName="see")
    write_json(root / other, RepetitionTime=2.5)
    assert truth(made(root, tmp_path / "o")[0]) > WELL


def test_the_more_specific_json_wins(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2), header_tr=1.0, tr_json=9.0)
    write_json(root / "sub-01/func/sub-01_task-see_bold.json", RepetitionTime=7.0)
    write_json(root / "sub-01/func/sub-01_task-see_run-01_bold.json", RepetitionTime=2.0)  # run-1 of the image
    write_json(root / "sub-01/func/sub-01_task-see_run-2_bold.json", RepetitionTime=2.0)
    assert truth(made(root, tmp_path / "o")[0]) > WELL


def test_two_json_files_that_belong_as_closely_and_disagree_are_named(tmp_path):
    root = write_study(tmp_path / "s", runs=(1,), middle="acq-fast", tr_json=None)
    write_json(root / "task-see_bold.json", RepetitionTime=2.0)
    write_json(root / "acq-fast_bold.json", RepetitionTime=2.5)
    with pytest.raises(DataError, match=r"acq-fast_bold\.json.*task-see_bold\.json.*disagree about RepetitionTime"):
        made(root, tmp_path / "o")


def test_json_and_image_that_disagree_are_refused_until_one_is_said(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2), tr_json=2.2)
    with pytest.raises(DataError, match=r"JSON says 2\.2 s .* image 2 s.*--tr SECONDS"):
        made(root, tmp_path / "o")

    assert truth(made(root, tmp_path / "o", tr_s=2.0)[0]) > WELL


@pytest.mark.parametrize("place", ["task-see_events.tsv", "sub-01/sub-01_task-see_events.tsv"])
def test_events_may_be_those_of_the_whole_study(tmp_path, place):
    root = write_study(tmp_path / "s", runs=())
    for run in (1, 2):
        volumes = series(trials(1), seed=run)
        write_bold(root / f"sub-01/func/sub-01_task-see_run-{run}_bold.nii.gz", volumes)

    write_tsv(root / place, *plain(trials(1), 0))
    assert truth(made(root, tmp_path / "o")[0]) > WELL


def test_every_run_is_cleaned_of_its_own_motion(tmp_path):
    root = write_study(tmp_path / "s", runs=())
    rng = np.random.default_rng(0)
    for run in (1, 2, 10):
        motion = rng.normal(size=(150, 6)).cumsum(axis=0)
        motion /= motion.std(axis=0)
        name = f"sub-01/func/sub-01_task-see_run-{run}"
        moved = 40 * motion @ [1, -0.5, 0.3, 0.2, 0.7, 0.1]
        write_bold(root / f"{name}_bold.nii.gz", series(trials(run), seed=run, n=150, add=moved))
        write_tsv(root / f"{name}_events.tsv", *plain(trials(run), 0))
        names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
        write_tsv(root / f"{name}_desc-confounds_timeseries.tsv", names, motion.round(6).tolist())

    result, _ = made(root, tmp_path / "o", options={"confounds": True})
    assert min(truth(result, run=run) for run in (1, 2, 10)) > WELL


def test_the_resolver_compares_runs_as_numbers_and_keeps_them_as_written(tmp_path):
    image = tmp_path / "sub-01/func/sub-01_task-a_run-01_bold.nii.gz"
    for name in ("sub-01_task-a_run-1_events.tsv", "sub-01_task-a_run-10_events.tsv", "sub-01_task-a_events.tsv"):
        write_tsv(image.parent / name, ("onset", "duration"), [])

    found = BidsFolder(tmp_path).table(image, ("events",))
    assert found is not None
    assert found.name == "sub-01_task-a_run-1_events.tsv"
    assert BidsName.of(image).entities["run"] == "01"


# -- what was shown ----------------------------------------------------------------------------------------------------


@columns("onset", "duration", "event_type", "stimulus_name")
def with_rest(onset, duration, stimulus, run):
    return [(onset, duration, "stimulus", stimulus), (onset + 3, 1, "rest", "n/a")]


def test_column_and_rows_can_be_said(tmp_path):
    root = write_study(tmp_path / "s", rows=with_rest)
    with pytest.raises(DataError, match=r"event_type, stimulus_name\. Name the one that does with --stimulus"):
        made(root, tmp_path / "o")

    result, told = made(root, tmp_path / "o", stimulus="stimulus_name", rows="event_type == 'stimulus'")
    assert truth(result) > WELL
    assert any("60 of 120 rows of the events are no trials: not event_type == 'stimulus'" in one for one in told)


@columns("onset", "duration", "trial_type", "file_path")
def with_phases(onset, duration, stimulus, run):
    return [(onset, duration, ("exp", "test", "catch")[int(stimulus[1:]) % 3], f"{stimulus}.png")]


def test_a_richer_column_is_named(tmp_path):
    root = write_study(tmp_path / "s", rows=with_phases)
    _, told = made(root, tmp_path / "o")
    assert any("--stimulus file_path takes these" in one for one in told)

    result, told = made(root, tmp_path / "p", stimulus="file_path")
    assert truth(result, name=lambda stimulus: stimulus.removesuffix(".png")) > WELL
    assert not any("--stimulus" in one for one in told)


@columns("onset", "duration", "trial_type", "stim_file")
def with_triggers(onset, duration, stimulus, run):
    return [(onset, duration, "picture", stimulus), (onset, 0.2, "trigger", "trigger")]


def test_a_second_event_at_the_onset_is_left_out_by_rows(tmp_path):
    root = write_study(tmp_path / "s", rows=with_triggers)
    with pytest.raises(DataError, match="both start at"):
        made(root, tmp_path / "o")

    assert truth(made(root, tmp_path / "o", rows="trial_type == 'picture'")[0]) > WELL


@columns("onset", "duration", "trial_type")
def with_answers(onset, duration, stimulus, run):
    return [(onset, duration, stimulus), (onset + 3, 0.5, "n/a")]


def test_rows_without_a_stimulus_are_counted(tmp_path):
    result, told = made(write_study(tmp_path / "s", rows=with_answers), tmp_path / "o")
    assert truth(result) > WELL
    assert any("60 of 120 rows of the events are no trials: trial_type is n/a" in one for one in told)


def test_several_tasks_of_one_experiment(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2), task="train")
    write_study(tmp_path / "t", runs=(1, 2), task="test")
    for path in (tmp_path / "t/sub-01/func").iterdir():
        shutil.copy(path, root / "sub-01/func" / path.name)

    with pytest.raises(DataError, match="--task NAME,NAME"):
        made(root, tmp_path / "o")

    with pytest.raises(DataError, match=r"no task 'tset'.*test"):
        made(root, tmp_path / "o", task="train,tset")

    result, _ = made(root, tmp_path / "o", task="train,test")
    assert truth(result) > WELL
    assert result.trials.table.groupby(["session", "run"]).size().tolist() == [20] * 4


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("kind == 'a'", [True, False, False, True]),
        ("kind != 'a'", [False, True, True, False]),
        ("number >= 2 and kind in ['a', 'b']", [False, True, False, True]),
        ("not (number < 3)", [False, False, True, True]),
        ("kind == 'a' or number == -1", [True, False, False, True]),
        ("kind not in ('a',)", [False, True, True, False]),
        ("id == '007'", [True, False, False, False]),
        ("id == 7", [True, True, False, False]),
    ],
)
def test_rows_are_chosen_by_comparisons(tmp_path, condition, expected):
    rows = [(0, 1, "a", 1, "007"), (1, 1, "b", 2, "7"), (2, 1, "n/a", 3, "n/a"), (3, 1, "a", 4, "x")]
    write_tsv(tmp_path / "e.tsv", ("onset", "duration", "kind", "number", "id"), rows)
    assert chosen_rows(read_events(tmp_path / "e.tsv"), condition).tolist() == expected


@pytest.mark.parametrize(
    "condition",
    [
        "__import__('os').system('true')", "kind.upper() == 'A'", "kind == other", "kind", "1 == 1", "kind == 'a'; 2",
        "lambda: 1", "kind == [x for x in ()]", "'a' < kind < 'c'", "kind == 'a' if 1 else 2", "kind @ 2", "",
    ],
)  # fmt: skip
def test_nothing_but_comparisons_can_be_said(tmp_path, condition):
    write_tsv(tmp_path / "e.tsv", ("onset", "duration", "kind"), [(0, 1, "a")])
    with pytest.raises(ConfigError, match=r"is not understood\. Compare columns"):
        chosen_rows(read_events(tmp_path / "e.tsv"), condition)


def test_a_column_that_is_not_there_is_named(tmp_path):
    write_tsv(tmp_path / "e.tsv", ("onset", "duration", "kind"), [(0, 1, "a")])
    with pytest.raises(ConfigError, match=r"'kinds', which is not there.*kind"):
        chosen_rows(read_events(tmp_path / "e.tsv"), "kinds == 'a'")


# -- identifiers -------------------------------------------------------------------------------------------------------


def test_identifiers_are_texts_and_only_n_a_is_none(tmp_path):
    names = ["007", "10e1", "1518878.000010", "NA", "null", "None", "nan", "n/a", "1", "1.0"]
    write_tsv(tmp_path / "e.tsv", ("onset", "duration", "stimulus"), [(8 * i, 1, name) for i, name in enumerate(names)])
    told = Told()
    found, _ = trials_of(read_events(tmp_path / "e.tsv"), Shown(), "run", told)
    assert found["stimulus"].tolist() == [name for name in names if name != "n/a"]
    assert told.left_out == {"stimulus is n/a": 1}


def numbers(events, run):
    """Whole numbers, in one run with a row of n/a, which would make decimals of them all."""
    rows = [(onset, duration, int(stimulus[1:])) for onset, duration, stimulus in events]
    if run == 1:
        rows.append((events[-1][0] + 7, 2, "n/a"))

    return ("onset", "duration", "stimulus"), rows


def test_a_blank_row_makes_no_other_stimuli(tmp_path):
    result, _ = made(write_study(tmp_path / "s", rows=numbers), tmp_path / "o")
    assert sorted(map(int, result.trials.stimulus_ids)) == list(range(20))


def write_pictures(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        value = 10 * int("".join(x for x in name if x.isdigit()))
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(folder / name)


@pytest.mark.parametrize(
    ("in_table", "in_folder"),
    [
        ("{0}", "{0}.png"),
        ("stimuli/{0}.png", "{0}.png"),
        ("stimuli/images/{0}.png", "images/{0}.png"),
        ("images\\{0}.PNG", "images/{0}.png"),
        ("./IMAGES/{0}.jpg", "images/{0}.png"),
    ],
)
def test_pictures_are_found_however_tables_call_them(tmp_path, in_table, in_folder):
    def rows(events, run):
        return ("onset", "duration", "stim_file"), [(o, d, in_table.format(s)) for o, d, s in events]

    root = write_study(tmp_path / "s", rows=rows)
    names = [in_folder.format(stimulus) for stimulus in STIMULI]
    (root / "stimuli/images").mkdir(parents=True)
    write_pictures(root / "stimuli", names)
    result, told = made(root, tmp_path / "o")
    stimuli = read_dataset(result.folder).stimuli
    assert stimuli.images is not None
    assert not told
    for stimulus, picture in zip(stimuli.ids, stimuli.pixels(), strict=True):
        number = int("".join(x for x in stimulus.rsplit("s", 1)[-1] if x.isdigit()))
        assert picture.mean() == 10 * number


def test_pictures_that_are_not_there_are_counted(tmp_path):
    root = write_study(tmp_path / "s")
    write_pictures(root / "stimuli", [f"{stimulus}.png" for stimulus in STIMULI[:17]])
    _, told = made(root, tmp_path / "o")
    assert any("3 of 20 stimuli have no picture" in one and "s17" in one for one in told)


def test_a_picture_that_cannot_be_read_is_named_before_the_fit(tmp_path):
    root = write_study(tmp_path / "s")
    write_pictures(root / "stimuli", [f"{stimulus}.png" for stimulus in STIMULI])
    (root / "stimuli/s07.png").write_bytes(b"")
    done = []
    with pytest.raises(DataError, match=r"s07\.png has 0 bytes"):
        made(root, tmp_path / "o", progress=lambda what, share: done.append(what))

    assert "betas" not in done


def with_kinds(*kinds):
    def rows(events, run):
        made_rows = []
        for onset, duration, stimulus in events:
            kind = kinds[run % len(kinds)]
            if stimulus == "s03" and len(kinds) == 1:
                kind = "n/a"

            made_rows.append((onset, duration, kind, stimulus))

        return ("onset", "duration", "trial_type", "stim_file"), made_rows

    return rows


def test_no_trial_type_is_no_category(tmp_path):
    result, _ = made(write_study(tmp_path / "s", rows=with_kinds("face")), tmp_path / "o")
    stimuli = read_dataset(result.folder).stimuli
    assert stimuli.category is not None
    assert dict(zip(stimuli.ids, stimuli.category, strict=True))["s03"] == ""
    assert set(stimuli.category) == {"", "face"}


def test_a_trial_type_that_changes_is_no_category(tmp_path):
    result, told = made(write_study(tmp_path / "s", rows=with_kinds("new", "old", "lure")), tmp_path / "o")
    stimuli = read_dataset(result.folder).stimuli
    assert set(stimuli.category) == {""}
    assert any("20 of 20 stimuli came with several trial types" in one for one in told)
    assert set(result.trials.table["trial_type"]) == {"new", "old", "lure"}


# -- time --------------------------------------------------------------------------------------------------------------


def test_slices_moved_to_the_middle_move_the_onsets(tmp_path):
    root = write_study(tmp_path / "s", late_s=1.0)
    write_json(root / "task-see_bold.json", RepetitionTime=2.0, SliceTimingCorrected=True, StartTime=1.0)
    result, told = made(root, tmp_path / "o")
    assert truth(result) > WELL
    assert any("1 s after their beginning (StartTime" in one for one in told)


def test_slices_moved_to_nobody_knows_where_are_said(tmp_path):
    root = write_study(tmp_path / "s", runs=(1,))
    write_json(root / "task-see_bold.json", RepetitionTime=2.0, SliceTimingCorrected=True)
    _, told = made(root, tmp_path / "o")
    assert any("nothing says to which time" in one for one in told)


def test_volumes_at_uneven_times_are_refused_and_at_even_ones_read(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2), header_tr=1.0)
    write_json(root / "task-see_bold.json", VolumeTiming=[0, 2, 4, 10, 12, 14])
    with pytest.raises(DataError, match=r"uneven times \(VolumeTiming: 2 to 6 s apart\)"):
        made(root, tmp_path / "o")

    write_json(root / "task-see_bold.json", VolumeTiming=[2.0 * i for i in range(100)])
    assert truth(made(root, tmp_path / "o")[0]) > WELL


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            ("scanner stopped", "n/a", "s01"),
            r"events\.tsv, line 22: onset should be a number of seconds, but is 'scanner stopped'",
        ),
        (("130,5", "2", "s01"), r"line 22: onset .* '130,5'\. Decimals are written with a point"),
        (("n/a", "2", "s01"), r"trial 20 of .* has onset nan"),
    ],
)
def test_a_time_that_is_none_is_named_by_file_and_row(tmp_path, row, words):
    def rows(events, run):
        return ("onset", "duration", "stimulus"), [*events, row]

    with pytest.raises(DataError, match=words):
        made(write_study(tmp_path / "s", runs=(1,), rows=rows), tmp_path / "o")


def test_a_remark_below_the_trials_is_no_trial(tmp_path):
    def rows(events, run):
        return ("onset", "duration", "stimulus"), [*events, ("scanner stopped", "n/a", "n/a")]

    result, _ = made(write_study(tmp_path / "s", runs=(1, 2), rows=rows), tmp_path / "o")
    assert truth(result) > WELL


def test_durations_in_milliseconds_are_refused_and_can_be_said(tmp_path):
    def rows(events, run):
        return ("onset", "duration", "stimulus"), [(o, 1000 * d, s) for o, d, s in events]

    root = write_study(tmp_path / "s", runs=(1, 2), rows=rows)
    with pytest.raises(DataError, match="durations seem to be in milliseconds"):
        made(root, tmp_path / "o")

    assert truth(made(root, tmp_path / "o", duration_s=2.0)[0]) > WELL


def test_sessions_may_have_names(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2), sessions=("pre1", "post1", "01b"))
    result, _ = made(root, tmp_path / "o")
    assert truth(result) > WELL
    assert result.trials.table.groupby("session")["session_name"].unique().map(len).tolist() == [1, 1, 1]

    one, _ = made(root, tmp_path / "p", sessions=("post1",))
    assert set(one.trials.table["session_name"]) == {"post1"}
    with pytest.raises(DataError, match=r"no session post2; it has 01b, post1, pre1"):
        made(root, tmp_path / "q", sessions=("post2",))


# -- signals and masks -------------------------------------------------------------------------------------------------


def test_voxels_that_are_not_finite_are_left_out_and_counted(tmp_path):
    def change(volumes):
        volumes[0, 0, 0] = np.nan
        volumes[3, 3, 2, 5] = np.inf
        return volumes

    result, told = made(write_study(tmp_path / "s", change=change), tmp_path / "o")
    assert truth(result) > WELL
    assert result.trials.n_voxels == 46
    assert any("2 of 48 voxels of the mask are NaN or infinite" in one for one in told)


@pytest.mark.parametrize("kind", ["lsa", "d"])
@pytest.mark.parametrize("scale", [1, "z"])
def test_signals_without_a_mean_are_in_their_own_units(tmp_path, kind, scale):
    def change(volumes):
        volumes = volumes - volumes.mean(axis=-1, keepdims=True)
        if scale == "z":
            volumes = volumes / volumes.std(axis=-1, keepdims=True)

        return volumes

    result, told = made(write_study(tmp_path / "s", change=change), tmp_path / "o", kind=kind)
    assert np.abs(result.trials.betas).max() < 1000
    assert truth(result) > 0.95
    assert any("no percentage of it can be taken" in one for one in told)
    assert result.trials.provenance["unit"] == "arbitrary, as in the file"


def derivative(root, place):
    """Images moved to a derivative with masks in its spaces: of each run, and of the T1w image with other cells."""
    raw = write_study(root / "study")
    target = (raw / place).resolve()
    func = target / "sub-01/func"
    for path in files(raw, "sub-01/func/*bold.nii.gz"):
        write_mask(func / path.name.replace("_bold", "_space-T1w_desc-brain_mask"))
        shutil.move(path, func / path.name.replace("_bold", "_space-T1w_desc-preproc_bold"))

    write_mask(target / "sub-01/anat/sub-01_desc-brain_mask.nii.gz", (8, 9, 8))
    return raw, target


PREPROCESSED = "*space-T1w_desc-preproc_bold.nii.gz"


@pytest.mark.parametrize("place", ["derivatives/fmriprep", "../fmriprep"])
def test_a_derivative_needs_no_mask_and_finds_its_study(tmp_path, place):
    raw, target = derivative(tmp_path, place)
    write_pictures(raw / "stimuli", [f"{stimulus}.png" for stimulus in STIMULI])
    result, told = made(target, tmp_path / "o", mask=None, pattern=PREPROCESSED)
    assert truth(result) > WELL
    assert read_dataset(result.folder).stimuli.images is not None
    assert not told


def test_of_several_studies_beside_a_derivative_one_must_be_said(tmp_path):
    raw, target = derivative(tmp_path, "../fmriprep")
    shutil.copytree(raw, tmp_path / "other")
    with pytest.raises(DataError, match=r"other and study beside it .*--study FOLDER"):
        made(target, tmp_path / "o", mask=None, pattern=PREPROCESSED)

    assert truth(made(target, tmp_path / "o", mask=None, pattern=PREPROCESSED, study=raw)[0]) > WELL


def test_two_spaces_of_one_run_are_not_two_runs(tmp_path):
    _, target = derivative(tmp_path, "derivatives/fmriprep")
    for path in files(target, "sub-01/func/*preproc_bold.nii.gz"):
        shutil.copy(path, path.with_name(path.name.replace("space-T1w", "space-MNI")))

    with pytest.raises(DataError, match="one run, processed in two ways. Choose one with --pattern"):
        made(target, tmp_path / "o", mask=None, pattern="*_bold.nii.gz")


@pytest.mark.parametrize(
    "name", ["{0}_space-T1w_label-brain_mask", "{0}_space-T1w_brainmask", "{0}_bold_space-T1w_brainmask"]
)
def test_old_names_of_masks(tmp_path, name):
    _, target = derivative(tmp_path, "derivatives/fmriprep")
    for path in files(target, "sub-01/func/*desc-brain_mask.nii.gz"):
        run = path.name.removesuffix("_space-T1w_desc-brain_mask.nii.gz")
        path.rename(path.with_name(f"{name.format(run)}.nii.gz"))

    result, told = made(target, tmp_path / "o", mask=None, pattern=PREPROCESSED)
    assert truth(result) > WELL
    assert not told


def test_masks_of_the_runs_are_used_where_all_of_them_are(tmp_path):
    _, target = derivative(tmp_path, "derivatives/fmriprep")
    first = files(target, "sub-01/func/*desc-brain_mask.nii.gz")[0]
    values = np.ones((4, 4, 3), np.uint8)
    values[3] = 0
    nib.save(nib.Nifti1Image(values, AFFINE), first)
    result, _ = made(target, tmp_path / "o", mask=None, pattern=PREPROCESSED)
    assert result.trials.n_voxels == 36


def test_without_any_mask_one_is_made_and_said(tmp_path):
    pytest.importorskip("nilearn")

    def change(volumes):
        brain = np.pad(volumes, ((8, 8), (8, 8), (8, 8), (0, 0)), mode="edge")
        noise = 20 + 3 * np.random.default_rng(5).normal(size=brain.shape)
        noise[5:-5, 5:-5, 5:-5] = brain[5:-5, 5:-5, 5:-5]
        return noise

    root = write_study(tmp_path / "s", change=change)
    result, told = made(root, tmp_path / "o", mask=None)
    assert any(
        "no mask has the cells of the images, so one was made" in one and "compute_epi_mask" in one for one in told
    )
    assert 200 < result.trials.n_voxels < 2000


def test_magnitudes_have_the_events_of_their_run_and_phases_are_left_out(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2))
    for path in files(root, "sub-01/func/*bold.nii.gz"):
        shutil.copy(path, path.with_name(path.name.replace("_bold", "_part-phase_bold")))
        path.rename(path.with_name(path.name.replace("_bold", "_part-mag_bold")))

    result, _ = made(root, tmp_path / "o")
    assert truth(result) > WELL
    assert len(result.trials) == 40


# -- the surface -------------------------------------------------------------------------------------------------------


def on_surface(root, how):
    """Runs of a study as images of the surface; vertices in the order of the voxels."""
    for path in files(root, "sub-01/func/*bold.nii.gz"):
        values = np.asarray(nib.load(path).dataobj).reshape(48, -1).astype(np.float32)  # (n_places, n_volumes)
        stem = path.name.removesuffix("_bold.nii.gz")
        if how == "cifti":
            left = BrainModelAxis.from_surface(np.arange(24), 30, "CortexLeft")
            right = BrainModelAxis.from_surface(np.arange(24), 30, "CortexRight")
            axes = SeriesAxis(0, 2.0, values.shape[1]), left + right
            name = f"{stem}_space-fsLR_den-91k_bold.dtseries.nii"
            nib.save(Cifti2Image(values.T, Cifti2Header.from_axes(axes)), path.with_name(name))
        else:
            for side, part in (("L", values[:24]), ("R", values[24:])):
                image = nib.GiftiImage(
                    darrays=[nib.gifti.GiftiDataArray(column, intent="NIFTI_INTENT_TIME_SERIES") for column in part.T]
                )
                nib.save(image, path.with_name(f"{stem}_hemi-{side}_space-fsaverage_bold.func.gii"))

        path.unlink()


@pytest.mark.parametrize(("how", "pattern"), [("cifti", "*dtseries.nii"), ("gifti", "*func.gii")])
def test_surface_images_are_read(tmp_path, how, pattern):
    root = write_study(tmp_path / "s", runs=(1, 2))
    on_surface(root, how)
    result, _ = made(root, tmp_path / "o", mask=None, pattern=pattern)
    voxels = result.trials.voxels
    assert voxels["hemisphere"].tolist() == ["L"] * 24 + ["R"] * 24
    assert voxels["vertex"].tolist() == [*range(24), *range(24)]

    betas = np.asarray(result.trials.betas)[:, :24].mean(axis=1)
    planted = [STRENGTH[stimulus] for stimulus in result.trials.table["stimulus"]]
    assert np.corrcoef(betas, planted)[0, 1] > WELL


def test_runs_on_different_surfaces_are_refused(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2))
    on_surface(root, "gifti")
    path = files(root, "sub-01/func/*hemi-R*")[1]
    image = nib.load(path)
    small = [nib.gifti.GiftiDataArray(array.data[:10]) for array in image.darrays]
    nib.save(nib.GiftiImage(darrays=small), path)
    with pytest.raises(DataError, match=r"has 34 vertices and voxels, and not those of the first run \(48\)"):
        made(root, tmp_path / "o", mask=None, pattern="*func.gii")


@columns("onset", "duration", "trial_type")
def with_blanks(onset, duration, stimulus, run):
    return [(onset, duration, stimulus), (onset + 3, 1, ("Rest", "blank", "fixation")[run])]


def test_rows_that_show_nothing_are_no_trials_unless_rows_says_so(tmp_path):
    root = write_study(tmp_path / "s", rows=with_blanks)
    result, told = made(root, tmp_path / "o")
    assert truth(result) > WELL
    assert len(result.trials) == 60
    assert any("20 of 120 rows of the events are no trials: trial_type is Rest (to keep them" in one for one in told)
    kept, _ = made(root, tmp_path / "p", rows="duration > 0")
    assert len(kept.trials) == 120


def test_volumes_that_begin_late_move_the_onsets(tmp_path):
    root = write_study(tmp_path / "s", runs=(1, 2), late_s=1.0)
    write_json(root / "task-see_bold.json", VolumeTiming=[1.0 + 2.0 * i for i in range(100)])
    assert truth(made(root, tmp_path / "o")[0]) > WELL


def test_json_beside_a_dense_series_is_read(tmp_path):
    root = write_study(tmp_path / "s", runs=(1,), late_s=1.0)
    on_surface(root, "cifti")
    image = files(root, "sub-01/func/*.dtseries.nii")[0]
    write_json(image.with_name(image.name.replace(".dtseries.nii", ".dtseries.json")), StartTime=1.0)
    _, told = made(root, tmp_path / "o", mask=None, pattern="*dtseries.nii")
    assert any("1 s after their beginning (StartTime" in one for one in told)
