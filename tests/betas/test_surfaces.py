"""BOLD on the surface as programs write it, with a known answer, and what is wrong with such files by name."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import Cifti2Header, Cifti2Image
from nibabel.cifti2.cifti2_axes import BrainModelAxis, ParcelsAxis, ScalarAxis, SeriesAxis

from phosphene.betas.surfaces import is_surface, read_surface
from phosphene.errors import DataError
from tests.betas.small_bids import AFFINE, SHAPE, STRENGTH, TR_S, files, made, write_study

WELL = 0.98
N_PLACES = int(np.prod(SHAPE))
HALF = N_PLACES // 2
LEFT = BrainModelAxis.from_surface(np.arange(HALF), 30, "CortexLeft")
RIGHT = BrainModelAxis.from_surface(np.arange(HALF), 30, "CortexRight")


def runs_of(root):
    """Stem and (n_places, n_volumes) of every run, whose image of voxels is taken away."""
    for path in files(root, "sub-01/func/*bold.nii.gz"):
        values = np.asarray(nib.load(path).dataobj, dtype=np.float32).reshape(N_PLACES, -1)
        path.unlink()
        yield path.with_name(path.name.removesuffix("_bold.nii.gz")), values


def write_cifti(path, values, places, *, step=TR_S, unit="SECOND"):
    axis = SeriesAxis(0, step, values.shape[1], unit)
    nib.save(Cifti2Image(values.T, Cifti2Header.from_axes((axis, places))), path)


def write_gifti(path, arrays, *, meta=None, inside=""):
    """One array for each item; `inside` is what the file says of its hemisphere."""
    made_of = []
    for values in arrays:
        texts = nib.gifti.GiftiMetaData(meta or {})
        made_of.append(
            nib.gifti.GiftiDataArray(np.ascontiguousarray(values), intent="NIFTI_INTENT_TIME_SERIES", meta=texts)
        )

    whole = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": inside} if inside else {})
    nib.save(nib.GiftiImage(darrays=made_of, meta=whole), path)


def write_mgh(path, values):
    image = nib.MGHImage(values.reshape(len(values), 1, 1, -1), np.eye(4))
    image.header.set_zooms((1, 1, 1, 1000 * TR_S))
    nib.save(image, path)


def on_both_sides(root, name, write):
    """A file for each hemisphere of each run; `name` has places for the stem and the hemisphere."""
    for stem, values in runs_of(root):
        for side, part in (("L", values[:HALF]), ("R", values[HALF:])):
            write(stem.with_name(name.format(stem.name, side)), part)


def truth(result):
    """The left hemisphere answers; it holds the half of the voxels that does."""
    betas = np.asarray(result.trials.betas)[:, :HALF].mean(axis=1)
    planted = [STRENGTH[stimulus] for stimulus in result.trials.table["stimulus"]]
    return float(np.corrcoef(betas, planted)[0, 1])


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "study", runs=(1, 2))


@pytest.fixture
def silent(tmp_path):
    """Without a JSON file, so that only the images say the time between volumes."""
    return write_study(tmp_path / "study", runs=(1, 2), tr_json=None)


# -- CIFTI -------------------------------------------------------------------------------------------------------------


def below_the_cortex(first):
    """Half as many voxels of a structure, from a cell on."""
    inside = np.zeros(SHAPE, dtype=bool)
    inside.ravel()[first : first + HALF] = True
    return BrainModelAxis.from_mask(inside, "ThalamusLeft", AFFINE)


def test_voxels_below_the_cortex_keep_their_cells(silent, tmp_path):
    for stem, values in runs_of(silent):
        write_cifti(
            stem.with_name(f"{stem.name}_space-fsLR_den-91k_bold.dtseries.nii"), values, LEFT + below_the_cortex(3)
        )

    result, told = made(silent, tmp_path / "out", mask=None, pattern="*dtseries.nii")
    voxels = result.trials.voxels
    assert not told
    assert truth(result) > WELL
    assert voxels["structure"].tolist() == ["CORTEX_LEFT"] * HALF + ["THALAMUS_LEFT"] * HALF
    cells = voxels[["voxel_i", "voxel_j", "voxel_k"]].to_numpy()
    assert (cells[:HALF] == -1).all()
    np.testing.assert_array_equal(np.ravel_multi_index(cells[HALF:].T, SHAPE), np.arange(3, 3 + HALF))


def test_runs_with_other_voxels_of_a_structure_are_refused(study, tmp_path):
    """There are as many, so that only their cells tell them apart."""
    for number, (stem, values) in enumerate(runs_of(study)):
        write_cifti(stem.with_name(f"{stem.name}_bold.dtseries.nii"), values, LEFT + below_the_cortex(3 + number))

    with pytest.raises(
        DataError, match=r"run-2_bold\.dtseries\.nii has 48 vertices and voxels, and not those of the first"
    ):
        made(study, tmp_path / "out", mask=None, pattern="*dtseries.nii")


@pytest.mark.parametrize("step", [0.0, 2000.0])
def test_a_series_that_does_not_say_its_step_is_refused_until_it_is_said(silent, tmp_path, step):
    for stem, values in runs_of(silent):
        write_cifti(stem.with_name(f"{stem.name}_bold.dtseries.nii"), values, LEFT + RIGHT, step=step)

    with pytest.raises(DataError, match="needs the time between volumes in seconds|in milliseconds, not seconds"):
        made(silent, tmp_path / "out", mask=None, pattern="*dtseries.nii")

    result, _ = made(silent, tmp_path / "out", mask=None, pattern="*dtseries.nii", tr_s=TR_S)
    assert truth(result) > WELL


def test_frequencies_are_no_seconds(tmp_path):
    write_cifti(tmp_path / "a.dtseries.nii", np.ones((N_PLACES, 5), np.float32), LEFT + RIGHT, unit="HERTZ")
    assert read_surface([tmp_path / "a.dtseries.nii"]).tr_s is None


@pytest.mark.fault(35)
@pytest.mark.parametrize("n_bytes", [-2000, 700])
def test_a_file_that_was_cut_short_is_named_before_its_values_are_read(tmp_path, n_bytes):
    path = tmp_path / "a.dtseries.nii"
    write_cifti(path, np.ones((N_PLACES, 60), np.float32), LEFT + RIGHT)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(DataError, match=r"a\.dtseries\.nii (is truncated|cannot be opened)"):
        read_surface([path])


PARCELS = ParcelsAxis.from_brain_models(
    [(f"area {i}", BrainModelAxis.from_surface([i], 60, "CortexLeft")) for i in range(N_PLACES)]
)


@pytest.mark.parametrize(
    ("name", "axes", "words"),
    [
        ("a.dscalar.nii", (ScalarAxis([str(i) for i in range(5)]), LEFT + RIGHT), "ScalarAxis and BrainModelAxis"),
        ("a.ptseries.nii", (SeriesAxis(0, 2, 5), PARCELS), "SeriesAxis and ParcelsAxis"),
        ("a.dtseries.nii", (SeriesAxis(0, 2, 1), LEFT + RIGHT), "48 vertices and voxels in 1 volumes"),
    ],
)
def test_what_is_no_dense_series_is_said(tmp_path, name, axes, words):
    values = np.ones((axes[0].size, N_PLACES), np.float32)
    nib.save(Cifti2Image(values, Cifti2Header.from_axes(axes)), tmp_path / name)
    with pytest.raises(DataError, match=words):
        read_surface([tmp_path / name])


def test_values_are_not_read_for_the_header_alone(tmp_path):
    """A run of a whole cortex has hundreds of megabytes, and its step is asked for before its values."""
    path = tmp_path / "a.dtseries.nii"
    values = np.random.default_rng(0).normal(size=(N_PLACES, 5)).astype(np.float32)
    write_cifti(path, values, LEFT + RIGHT)
    series = read_surface([path])
    assert series.tr_s == TR_S
    np.testing.assert_array_equal(series.values, values)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        _ = series.values


# -- a file for each hemisphere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{}_hemi-{}_space-fsaverage_bold.func.gii", "*func.gii"),
        ("{}_space-fsaverage5_hemi-{}.func.gii", "*func.gii"),
        ("{}_hemi-{}_space-fsnative_bold.gii", "*_bold.gii"),
    ],
)
def test_names_of_several_years(study, tmp_path, name, pattern):
    on_both_sides(study, name, lambda path, values: write_gifti(path, values.T))
    result, _ = made(study, tmp_path / "out", mask=None, pattern=pattern)
    assert truth(result) > WELL
    assert result.trials.voxels["hemisphere"].tolist() == ["L"] * HALF + ["R"] * HALF
    assert set(result.trials.voxels["structure"]) == {"CORTEX_LEFT", "CORTEX_RIGHT"}


ARRAYS = {
    "an array a volume": lambda values: values.T,
    "one array": lambda values: [values],
    "columns": lambda values: values.T[:, :, None],
}


@pytest.mark.parametrize("step", ["2000.000000", "2.0"])
@pytest.mark.parametrize("how", ["an array a volume", "one array", "columns"])
def test_every_way_to_write_gifti(silent, tmp_path, how, step):
    """The standard asks for milliseconds, and some programs write seconds."""

    def write(path, values):
        write_gifti(path, ARRAYS[how](values), meta={"TimeStep": step})

    on_both_sides(silent, "{}_hemi-{}_bold.func.gii", write)
    result, _ = made(silent, tmp_path / "out", mask=None, pattern="*func.gii")
    assert truth(result) > WELL


@pytest.mark.parametrize("step", ["unknown", "nan", "0", ""])
def test_a_step_that_is_none_is_asked_for(silent, tmp_path, step):
    def write(path, values):
        write_gifti(path, values.T, meta={"TimeStep": step})

    on_both_sides(silent, "{}_hemi-{}_bold.func.gii", write)
    with pytest.raises(DataError, match="needs the time between volumes in seconds"):
        made(silent, tmp_path / "out", mask=None, pattern="*func.gii")


def test_freesurfer_s_own_format(silent, tmp_path):
    on_both_sides(silent, "{}_hemi-{}_space-fsaverage_bold.mgz", write_mgh)
    result, told = made(silent, tmp_path / "out", mask=None, pattern="*bold.mgz")
    assert not told
    assert truth(result) > WELL
    assert result.trials.voxels["hemisphere"].tolist() == ["L"] * HALF + ["R"] * HALF


def test_a_volume_in_freesurfer_s_format_is_no_surface(tmp_path):
    nib.save(nib.MGHImage(np.ones((4, 4, 3, 6), np.float32), np.eye(4)), tmp_path / "a.mgz")
    with pytest.raises(DataError, match=r"its shape is \(4, 4, 3, 6\). Convert volumes to NIfTI: mri_convert"):
        read_surface([tmp_path / "a.mgz"])


@pytest.mark.fault(36)
def test_a_packed_series_that_was_cut_short_is_named(tmp_path):
    path = tmp_path / "a_hemi-L.mgz"
    write_mgh(path, np.random.default_rng(0).normal(size=(HALF, 200)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"a_hemi-L\.mgz cannot be read"):
        _ = read_surface([path]).values


def test_a_file_that_says_the_other_hemisphere_is_refused(tmp_path):
    path = tmp_path / "sub-01_hemi-R_bold.func.gii"
    write_gifti(path, np.ones((5, HALF), np.float32), inside="CortexLeft")
    with pytest.raises(DataError, match="its name says hemi-R and inside it says CortexLeft"):
        read_surface([path])


def test_what_stands_inside_tells_the_hemisphere_where_the_name_does_not(tmp_path):
    write_gifti(tmp_path / "bold.func.gii", np.ones((5, HALF), np.float32), inside="CortexRight")
    assert set(read_surface([tmp_path / "bold.func.gii"]).places["hemisphere"]) == {"R"}


def test_two_files_of_one_hemisphere_are_refused(tmp_path):
    paths = [tmp_path / "a_hemi-L_bold.func.gii", tmp_path / "b_hemi-L_bold.func.gii"]
    write_gifti(paths[0], np.ones((5, HALF), np.float32))
    shutil.copy(*paths)
    with pytest.raises(DataError, match="are both of hemisphere L"):
        read_surface(paths)


def test_hemispheres_of_different_lengths_are_refused(study, tmp_path):
    on_both_sides(study, "{}_hemi-{}_bold.func.gii", lambda path, values: write_gifti(path, values.T))
    short = files(study, "sub-01/func/*hemi-R*")[1]
    write_gifti(short, [array.data for array in nib.load(short).darrays[:-5]])
    with pytest.raises(DataError, match=r"different numbers of volumes"):
        made(study, tmp_path / "out", mask=None, pattern="*func.gii")


MESH = [np.ones((HALF, 3), np.float32), np.zeros((HALF, 3), np.int32)]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([np.ones(5, np.float32), np.ones(6, np.float32)], r"its arrays have the shapes \[\(5,\), \(6,\)\]"),
        (MESH, "its arrays have the shapes"),
        ([np.ones(HALF, np.float32)], "24 vertices in 1 volumes"),
    ],
    ids=["shapes", "mesh", "one volume"],
)
def test_gifti_that_is_no_series_is_said(tmp_path, arrays, words):
    write_gifti(tmp_path / "a.func.gii", arrays)
    with pytest.raises(DataError, match=words):
        read_surface([tmp_path / "a.func.gii"])


@pytest.mark.parametrize("name", ["a.func.gii", "a.dtseries.nii", "a.mgz"])
def test_junk_and_missing_files_are_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(DataError, match=r"a\.[a-z.]+ (does not exist|is not there)"):
        read_surface([path])

    path.write_bytes(b"<html>no such file</html>")
    with pytest.raises(DataError, match=r"a\.[a-z.]+ (cannot be|should be)"):
        read_surface([path])


def test_the_medial_wall_gets_0_and_is_counted(study, tmp_path):
    def write(path, values):
        values[20:] = 0
        write_gifti(path, values.T)

    on_both_sides(study, "{}_hemi-{}_bold.func.gii", write)
    result, told = made(study, tmp_path / "out", mask=None, pattern="*func.gii")
    assert len([one for one in told if "8 of 48 voxels are the same in all volumes of a run" in one]) == 1
    assert truth(result) > WELL
    assert (np.asarray(result.trials.betas)[:, 20:HALF] == 0).all()


def test_images_of_voxels_are_none_of_the_surface(tmp_path):
    assert not is_surface(tmp_path / "sub-01_task-see_bold.nii.gz")
    assert not is_surface(tmp_path / "sub-01_task-see_bold.nii")
    assert is_surface(tmp_path / "sub-01_hemi-L_bold.func.gii.gz")
