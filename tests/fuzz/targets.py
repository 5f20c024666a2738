"""What is read: one valid file or folder of each kind, made by the fixtures of the tests, and everything a reader does."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image


@dataclass(frozen=True)
class Target:
    """A reader of foreign bytes.

    Parameters
    ----------
    name : of the reader
    make : fills a folder with valid files
    read : reads everything of the folder; its result is dropped
    only : parts of the names of the files that are damaged; all by default
    never : parts of the names of files that are left alone
    writes : whether reading changes files, so that each case needs a copy of its own
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    writes: bool = False


def _everything(dataset: Any) -> None:
    """Read what a reader only promised to read."""
    for name in list(dataset)[:2]:
        trials = dataset.trials(name)
        betas = np.asarray(trials.betas)
        assert betas.shape == (len(trials), trials.n_voxels), "betas of another shape than announced"
        assert betas.dtype.kind == "f", "betas that are no numbers"
        assert len(trials.table) == len(trials), "a table of another length"
        for roi in trials.rois[:3]:
            assert trials.roi(roi).shape == (trials.n_voxels,)
    stimuli = dataset.stimuli
    if stimuli.images is not None:
        here = np.flatnonzero(stimuli.present)[:6] if stimuli.present is not None else slice(0, 6)
        pixels = stimuli.pixels(here)
        assert pixels.dtype == np.uint8 and pixels.ndim == 4, "pictures that are none"


def _open(name: str, root: str = "", **options: Any) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from phosphene.data import open_dataset
        from phosphene.reporting.describe import check

        _everything(open_dataset(name, root=folder / root if root else folder, options=options))
        check(name, root=folder / root if root else folder, options=options)

    return read


# -- data sets ---------------------------------------------------------------------------------------------------------


def _nsd(folder: Path) -> None:
    from tests.data import nsd_layout

    layout = nsd_layout.make(folder / "nsd", sessions=(1, 2))
    layout.write_stim_info()
    layout.write_session(2, "nii.gz")
    (layout.beta_folder() / "betas_session02.hdf5").unlink()


def _god(folder: Path) -> None:
    from tests.data import test_god

    before, test_god.SIDE = test_god.SIDE, 32
    try:
        layout = test_god.make_god(folder)
    finally:
        test_god.SIDE = before
    assert layout.root.name == "god"


def _god_lab(folder: Path) -> None:
    from tests.data import test_god

    test_god.make_lab(test_god.make_god(folder))
    (folder / "god" / "images_256.npz").unlink()


def _bold5000(folder: Path) -> None:
    from tests.data.test_bold5000 import make_bold

    make_bold(folder)


def _miyawaki(folder: Path) -> None:
    from tests.data import miyawaki_layout

    miyawaki_layout.make(folder / "miyawaki2008", n_random=2, n_figure=1, blocks=3)


def _pairs(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from tests.data.test_pairs import make_arrays, save

        save(folder, make_arrays(), kind)

    return make


def _read_pairs(folder: Path) -> None:
    from phosphene.data import open_dataset
    from phosphene.reporting.describe import check

    (file,) = folder.iterdir()
    _everything(open_dataset(str(file)))
    check(str(file))


def _mosaic(folder: Path) -> None:
    from tests.data.surface_layout import make_mosaic

    make_mosaic(folder / "mosaic", n_train=5, n_test=1, with_ceiling=True)


def _hcp(folder: Path) -> None:
    from tests.data.test_hcp import make_hcp

    make_hcp(folder)


def _read_hcp(folder: Path) -> None:
    from phosphene.data import open_dataset
    from phosphene.data.resting import resting_windows
    from phosphene.reporting.describe import check

    _everything(open_dataset("hcp", root=folder / "hcp"))
    check("hcp", root=folder / "hcp")
    resting_windows(folder / "hcp", folder / "cache")


def _bids(folder: Path) -> None:
    rng, n, grid = np.random.default_rng(0), 40, (3, 3, 2)
    func = folder / "study" / "sub-01" / "func"
    func.mkdir(parents=True)
    mask = folder / "study" / "derivatives" / "own" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz"
    mask.parent.mkdir(parents=True)
    import nibabel as nib

    nib.save(nib.Nifti1Image(np.ones(grid, np.uint8), np.eye(4)), mask)
    (folder / "study" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (folder / "study" / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    for run in (1, 2):
        series = rng.normal(100, 1, (*grid, n)).astype(np.float32)
        image = nib.Nifti1Image(series, np.eye(4))
        image.header.set_zooms((1, 1, 1, 2.0))
        image.header.set_xyzt_units("mm", "sec")
        stem = f"sub-01_task-see_run-{run:02d}"
        nib.save(image, func / f"{stem}_bold.nii.gz")
        (func / f"{stem}_bold.json").write_text(json.dumps({"RepetitionTime": 2.0, "TaskName": "see"}))
        shown = [f"p{k}.png" for k in rng.permutation(5)]
        events = pd.DataFrame(
            {"onset": 6.0 + 11 * np.arange(5), "duration": 2.0, "stim_file": shown, "trial_type": "a"}
        )
        events.to_csv(func / f"{stem}_events.tsv", sep="\t", index=False)
        confounds = pd.DataFrame(rng.normal(size=(n, 6)), columns=[f"{k}_{a}" for k in ("trans", "rot") for a in "xyz"])
        confounds.to_csv(func / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False)


def _read_bids(folder: Path) -> None:
    from phosphene.betas import read_runs
    from phosphene.data import open_dataset
    from phosphene.reporting.describe import check

    found = read_runs(folder / "study", "01", confounds=True)
    assert all(np.asarray(run.volumes).ndim == 2 for run in found.runs)
    check("openfmri", root=folder / "study", options={"kind": "lss"})
    _everything(open_dataset("openfmri", root=folder / "study", options={"kind": "lss"}))


def _openfmri(folder: Path) -> None:
    import nibabel as nib

    rng, grid, n = np.random.default_rng(0), (3, 3, 2), 40
    root = folder / "study"
    for run in (1, 2):
        bold = root / "sub001" / "BOLD" / f"task001_run{run:03d}"
        bold.mkdir(parents=True)
        nib.save(nib.Nifti1Image(rng.normal(100, 1, (*grid, n)).astype("f4"), np.eye(4)), bold / "bold.nii.gz")
        np.savetxt(bold / "bold_moest.txt", rng.normal(size=(n, 6)), fmt="%.4f")
        onsets = root / "sub001" / "model" / "model001" / "onsets" / f"task001_run{run:03d}"
        onsets.mkdir(parents=True)
        for c in (1, 2):
            (onsets / f"cond{c:03d}.txt").write_text(f"{6 * c}.0\t2.0\t1\n{30 + 6 * c}.0\t2.0\t1\n")
    nib.save(nib.Nifti1Image(np.ones(grid, np.uint8), np.eye(4)), folder / "mask.nii.gz")
    keys = root / "models" / "model001"
    keys.mkdir(parents=True)
    (keys / "condition_key.txt").write_text("task001 cond001 face\ntask001 cond002 house\n")
    (root / "task_key.txt").write_text("task001 seeing\n")
    (root / "scan_key.txt").write_text("TR 2.0\n")


def _read_openfmri(folder: Path) -> None:
    from phosphene.betas import read_runs

    found = read_runs(folder / "study", "001", mask=folder / "mask.nii.gz", confounds=True)
    assert found.runs and all(np.asarray(run.volumes).ndim == 2 for run in found.runs)


def _folder_format(folder: Path) -> None:
    from phosphene.data import write_dataset
    from tests.data.test_dataset_folder import make_dataset

    write_dataset(make_dataset(), folder / "set")


def _read_folder_format(folder: Path) -> None:
    from phosphene.data import read_dataset
    from phosphene.reporting.describe import check

    _everything(read_dataset(folder / "set"))
    check(folder / "set")


def _own(folder: Path) -> None:
    from tests.data.test_importing import make_own

    own = make_own(folder)
    assert own["trials"].name == "trials.csv"
    (folder / "captions.json").write_text(json.dumps({n: [f"a {n}", "x"] for n in ("cat", "dog", "car", "cup")}))
    (folder / "voxels.csv").write_text("x,y,z,roi.V1\n" + "".join(f"{i},{i},{i},{i % 2}\n" for i in range(5)))


def _read_own(folder: Path) -> None:
    from phosphene.data import import_table

    given = {"voxels": folder / "voxels.csv"}
    _everything(
        import_table(
            betas=folder / "betas.npy",
            trials=folder / "trials.csv",
            images=folder / "pictures",
            out=folder / "set",
            captions=folder / "captions.json",
            **given,
        )
    )


def _bdata(folder: Path) -> None:
    from tests.data.test_bdata import write

    rng = np.random.default_rng(0)
    keys = ["VoxelData", "ROI_V1", "voxel_x", "Run", "Label", "DataType"]
    values = np.full((6, 7), np.nan)
    values[0, :4], values[1, :2], values[2, :4] = 1, 1, [1, 2, 3, 4]
    values[3, 4] = values[4, 5] = values[5, 6] = 1
    label = np.arange(8) % 3 + 1
    data = np.c_[rng.normal(size=(8, 4)), np.arange(8) // 4 + 1, label, 1 + (label == 3)]
    write(folder / "one.h5", data, keys, values, {"Label": {1: "cat", 2: "dog", 3: "cup"}})


# -- single files ------------------------------------------------------------------------------------------------------


def _arrays(folder: Path) -> None:
    import scipy.io
    import scipy.sparse

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    names = np.empty(2, dtype=object)
    names[:] = ["ab", "c"]
    content = {"x": x, "s": {"f": x, "g": 1.0}, "cell": names, "sparse": scipy.sparse.eye(3, format="csc"), "t": "text"}
    scipy.io.savemat(folder / "a.mat", content)
    scipy.io.savemat(folder / "packed.mat", content, do_compression=True)
    scipy.io.savemat(folder / "old.mat", {"x": x}, format="4")
    np.savez(folder / "a.npz", x=x, i=np.arange(4), b=x > 0, u=np.array(["a", "b"]))
    np.savez_compressed(folder / "packed.npz", x=x)
    np.save(folder / "a.npy", x.astype("f4"))
    pd.DataFrame(x).to_csv(folder / "a.csv", index=False)
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["g/y"], file["t"] = x, np.arange(5), "text"
        file.create_dataset("packed", data=np.zeros((40, 30)), chunks=(10, 10), compression="gzip", fletcher32=True)
        file.create_dataset("s", data=np.array(["a", "bc"], dtype=h5py.string_dtype()))


def _read_arrays(folder: Path) -> None:
    from phosphene.data.arrays import narrow, open_arrays, real_matrix
    from phosphene.errors import PhospheneError

    problem: PhospheneError | None = None
    for path in sorted(folder.iterdir()):
        try:
            file = open_arrays(path)
        except PhospheneError as error:
            problem = error
            continue
        for key in [*file.shapes, *(["s.f"] if "s" in file.shapes and path.suffix == ".mat" else [])]:
            try:
                narrow(real_matrix(file[key], key), key)
            except PhospheneError as error:
                if "damaged" in str(error):
                    problem = error
    if problem:
        raise problem


def _nifti(folder: Path) -> None:
    import nibabel as nib

    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2, 2, 1])
    nib.save(nib.Nifti1Image(rng.integers(0, 3, (4, 3, 2)).astype(np.int16), affine), folder / "mask.nii")
    nib.save(nib.Nifti1Image(rng.normal(size=(4, 3, 2)).astype("f4"), affine), folder / "map.nii.gz")
    nib.save(nib.Nifti2Image(rng.normal(size=(4, 3, 2, 5)).astype("f4"), affine), folder / "series.nii.gz")


def _read_nifti(folder: Path) -> None:
    from phosphene.data import volumes

    for path in sorted(folder.iterdir()):
        n_axes = 4 if path.name.startswith("series") else 3
        if n_axes == 3:
            volumes.read_volume(path)
        else:
            session = volumes.open_session(path, (4, 3, 2))
            assert session.read(np.array([[0, 0, 0], [3, 2, 1]])).shape == (session.n_trials, 2)


def _pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"):
        rgb.save(folder / f"a.{suffix}")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("P").save(folder / "p.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (6, 5)).astype(np.uint16)).save(folder / "deep.png")
    rgb.save(folder / "moving.gif", save_all=True, append_images=[rgb.rotate(90)])
    rgb.save(folder / "turned.jpg", exif=_turned())


def _turned() -> Any:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _read_pictures(folder: Path) -> None:
    from phosphene.data.pictures import list_pictures, read_picture
    from phosphene.errors import PhospheneError

    problem: PhospheneError | None = None
    for path in list_pictures(folder):
        try:
            pixels = read_picture(path, (6, 6), channels=3).pixels
            assert pixels.shape == (6, 6, 3)
        except PhospheneError as error:
            problem = error
    if problem:
        raise problem


def _splits(folder: Path) -> None:
    from tests.data.test_splits import IDS

    (folder / "a.yaml").write_text(f"train: [{', '.join(IDS[:15])}]\ntest: [{', '.join(IDS[15:])}]\n")
    (folder / "b.json").write_text(json.dumps({"folds": [{"test": IDS[:10]}, {"test": IDS[10:]}]}))
    rows = [f"{i},{'test' if k > 14 else 'train'}\n" for k, i in enumerate(IDS)]
    (folder / "c.csv").write_text("stimulus,side\n" + "".join(rows))


def _read_splits(folder: Path) -> None:
    from phosphene.data.splits import from_file
    from phosphene.errors import PhospheneError
    from tests.data.test_splits import make_dataset, make_trials

    trials = make_trials()
    dataset, problem = make_dataset(trials), None
    for file in sorted(folder.iterdir()):
        try:
            for split in from_file(dataset, trials, file):
                split.apply(trials)
        except PhospheneError as error:
            problem = error
    if problem:
        raise problem


def _config(folder: Path) -> None:
    (folder / "deep.yaml").write_text(
        "# a comment\nrecipe:\n  kind: linear\n  curve: {kind: none}\n"
        "  pixels:\n    n_components: 4\n  decoder:\n    voxels: all\n"
        "data.name: insilico\ndata.options:\n  size: small\n  n_voxels: 60\nsplit: kfold:3\n"
    )
    (folder / "own.yaml").write_text(
        "recipe:\n  kind: linear\n  alphas: [1.0, 10.0]\nseed: 3\ndata:\n  name: insilico\n"
    )


def _read_config(folder: Path) -> None:
    from phosphene.errors import PhospheneError
    from phosphene.io.config import read_yaml
    from phosphene.run import configure

    problem: PhospheneError | None = None
    for file in sorted(folder.iterdir()):
        try:
            values = read_yaml(file)
            kind = (
                values.get("recipe", {}).get("kind", "linear")
                if isinstance(values.get("recipe", {}), dict)
                else "linear"
            )
            configure(kind if isinstance(kind, str) else "linear", [(str(file), values)])
        except PhospheneError as error:
            problem = error
    if problem:
        raise problem


def _grid(folder: Path) -> None:
    configs = Path(__file__).resolve().parents[2] / "configs"
    for name in ("lea_ablation", "gru_brains"):
        shutil.copy(configs / f"{name}.yaml", folder / f"{name}.yaml")
    (folder / "grid.yaml").write_text(
        "title: a\nrecipe: linear\nbase:\n  data.name: insilico\ngrid:\n"
        "  - recipe.alphas: [[1.0], [2.0]]\nrepeat:\n  - seed: [0, 1]\n"
    )


def _read_grid(folder: Path) -> None:
    from phosphene.errors import PhospheneError
    from phosphene.sweeps.grid import read_grid

    problem: PhospheneError | None = None
    for file in sorted(folder.iterdir()):
        try:
            read_grid(file)
        except PhospheneError as error:
            problem = error
    if problem:
        raise problem


def _archives(folder: Path) -> None:
    import tarfile
    import zipfile

    (folder / "in").mkdir()
    (folder / "in" / "a.txt").write_text("hello\n" * 50)
    (folder / "in" / "b.bin").write_bytes(bytes(range(256)))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (folder / "in").iterdir():
            archive.write(file, f"top/{file.name}")
    for mode in ("gz", "bz2", "xz", ""):
        with tarfile.open(folder / f"a.tar{'.' if mode else ''}{mode}", f"w:{mode}") as archive:
            archive.add(folder / "in", "top")
    shutil.rmtree(folder / "in")


def _read_archives(folder: Path) -> None:
    from phosphene.data.fetch_archive import unpack
    from phosphene.errors import PhospheneError

    problem: PhospheneError | None = None
    before = {p.name for p in folder.parent.iterdir()}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            try:
                unpack(path, folder / "out" / path.name)
            except PhospheneError as error:
                problem = error
    assert {p.name for p in folder.parent.iterdir()} == before, "something was written beside the folder"
    if problem:
        raise problem


def _hrf(folder: Path) -> None:
    from phosphene.betas import HrfLibrary

    library = HrfLibrary()
    np.savetxt(folder / "hrf.txt", library.responses(np.arange(0, 20, 0.1), 0.1).T, fmt="%.5f")
    if np.loadtxt(folder / "hrf.txt").shape[0] < 50:
        np.savetxt(folder / "hrf.txt", np.loadtxt(folder / "hrf.txt").T, fmt="%.5f")


def _hrf_array(folder: Path) -> None:
    from phosphene.betas import HrfLibrary

    np.save(folder / "hrf.npy", HrfLibrary().responses(np.arange(0, 20, 0.5), 0.1).T)


def _read_hrf_array(folder: Path) -> None:
    from phosphene.betas import HrfLibrary

    HrfLibrary.read(folder / "hrf.npy", 0.5)


def _read_hrf(folder: Path) -> None:
    from phosphene.betas import HrfLibrary

    HrfLibrary.read(folder / "hrf.txt")


# -- weights -----------------------------------------------------------------------------------------------------------


def _foreign(folder: Path) -> None:
    import torch

    from tests.io.test_foreign import weights

    what = {"model": weights(), "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(3)}}, "lr": 1e-3}}
    torch.save(what, folder / "zip.pth")
    torch.save(what, folder / "legacy.pth", _use_new_zipfile_serialization=False)


def _read_foreign(folder: Path) -> None:
    from phosphene.errors import PhospheneError
    from phosphene.io.foreign import read_foreign

    problem: PhospheneError | None = None
    for file in sorted(folder.iterdir()):
        try:
            read_foreign(file, "model")
        except PhospheneError as error:
            problem = error
    if problem:
        raise problem


def _sc_mbm(folder: Path) -> None:
    import torch

    from tests.models.test_patch_mae import network, published_layout

    torch.save({"model": published_layout(network(), n_patches=20), "epoch": 1}, folder / "fmri_encoder.pth")


def _read_sc_mbm(folder: Path) -> None:
    from phosphene.models.sc_mbm import load_sc_mbm, read_sc_mbm
    from tests.models.test_patch_mae import network

    load_sc_mbm(network(), read_sc_mbm(folder / "fmri_encoder.pth"))


def _stylegan(folder: Path) -> None:
    from tests.models import test_stylegan2 as made

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("the official loader was called")

    class EasyDict(dict):
        pass

    before = dict(sys.modules)
    try:
        for module, member in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
            own = types.ModuleType(module)
            member.__module__, member.__qualname__ = module, member.__name__
            setattr(own, member.__name__, member)
            sys.modules[module.partition(".")[0]] = types.ModuleType(module.partition(".")[0])
            sys.modules[module] = own
        made.write(folder, EasyDict)
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith(("torch_utils", "dnnlib")):
                del sys.modules[name]


def _read_stylegan(folder: Path) -> None:
    from phosphene.models.stylegan2 import read_networks

    read_networks(folder / "network.pkl")


def _stylegan_folder(folder: Path) -> None:
    from phosphene.models.stylegan2 import convert_pickle

    (folder / "x").mkdir()
    _stylegan(folder / "x")
    convert_pickle(folder / "x" / "network.pkl", folder / "converted")
    shutil.rmtree(folder / "x")


def _read_stylegan_folder(folder: Path) -> None:
    from phosphene.models.stylegan2 import read_converted

    read_converted(folder / "converted")


def _flax(folder: Path) -> None:
    from tests.io.test_flax_file import pack

    rng = np.random.default_rng(0)
    layer = {"kernel": rng.normal(size=(3, 4, 2)).astype(np.float32), "bias": rng.normal(size=4)}
    (folder / "checkpoint").write_bytes(
        pack({"params": {"c": layer, "d": layer}, "step": 1_000_000, "n": None, "f": 1.5})
    )


def _read_flax(folder: Path) -> None:
    from phosphene.io.flax_file import read_flax
    from phosphene.models.maskgit import flat_tree

    flat_tree(read_flax(folder / "checkpoint"))


def _ldm(folder: Path) -> None:
    import torch

    from tests.models.test_ldm import public_file

    torch.save({"state_dict": public_file()}, folder / "ldm.ckpt")


def _read_ldm(folder: Path) -> None:
    from phosphene.models import ldm as ldm_weights
    from tests.models.test_ldm import SMALL_VQ, TINY

    tensors = ldm_weights.read_public(folder / "ldm.ckpt")
    ldm_weights.public_network(tensors, TINY)
    ldm_weights.public_tokenizer(tensors, SMALL_VQ)


def _versatile(folder: Path) -> None:
    from tests.models import test_dual_guided as made

    made.make_versatile(folder)


def _read_versatile(folder: Path) -> None:
    from phosphene.models import dual_guided as files
    from tests.models.test_dual_guided import NOTHING

    files.read_versatile_diffusion(folder, *NOTHING)
    files.versatile_diffusion_digest(folder)


def _vdvae(folder: Path) -> None:
    from tests.features.test_vdvae_latents import converted

    converted(folder)


def _read_vdvae(folder: Path) -> None:
    from phosphene.models import vdvae as vdvae_weights
    from tests.features.test_vdvae_latents import TINY

    vdvae_weights.load_vdvae(folder / "vdvae-0")
    vdvae_weights.weights_digest(folder / "vdvae-0")
    vdvae_weights.convert(folder / "0.th", folder / "again", TINY)


def _clip(folder: Path) -> None:
    from tests.features.test_clip import make_checkpoint

    make_checkpoint(folder)


def _read_clip(folder: Path) -> None:
    from phosphene.models import public_clip as clip_files

    config = clip_files.read_clip_config(folder)
    clip_files.Preprocessing.of(folder, int(config["vision_config"]["image_size"]))
    clip_files.checkpoint_digest(folder)
    clip_files.load_clip(folder)
    tokenizer = clip_files.load_tokenizer(folder)
    if tokenizer is not None:
        tokenizer("a red circle")


def _zoo(folder: Path) -> None:
    from phosphene.lab import zoo

    for suffix in ("json", "safetensors"):
        shutil.copy(zoo.WEIGHTS / f"vdvae.{suffix}", folder / f"vdvae.{suffix}")


def _read_zoo(folder: Path) -> None:
    from phosphene.lab import zoo

    zoo.load("vdvae", folder=folder)


# -- our own folders, which somebody else may have sent ----------------------------------------------------------------


class Numbers:
    """A fitted part of two arrays."""

    def __init__(self, w: np.ndarray) -> None:
        self.w = w

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {"w": self.w}, {"n": len(self.w), "name": "x"}

    @classmethod
    def from_state(cls, tensors: dict[str, np.ndarray], meta: dict[str, Any]) -> Numbers:
        from phosphene.io.stages import take

        return cls(*take(tensors, ("w",), "numbers"))


def _stage(folder: Path) -> None:
    from phosphene.io.stages import save_part

    part = Numbers(np.arange(12.0).reshape(3, 4).astype("f4"))
    save_part(folder / "numbers", part, stage="numbers", digest="d" * 64, seconds=1.0, lineage=["s/1", "s/2"])


def _read_stage(folder: Path) -> None:
    from phosphene.io.stages import load_part, read_lineage, read_safetensors

    read_safetensors(folder / "numbers" / "weights.safetensors")
    read_lineage(folder / "numbers")
    load_part(folder / "numbers", Numbers)


def _store(folder: Path) -> None:
    from phosphene.io.store import RowStore

    store = RowStore.open_or_make(folder / "rows", {"what": "x"}, ["a", "b", "c", "d"], (3,), chunk=2)
    for rows in store.missing():
        store.write(rows, np.full((len(rows), 3), 1.5))


def _read_store(folder: Path) -> None:
    from phosphene.io.store import RowStore

    store = RowStore.open_or_make(folder / "rows", {"what": "x"}, ["a", "b", "c", "d"], (3,), chunk=2)
    assert store.read(["a", "d"]).tolist() == [[1.5] * 3] * 2, "rows that are not what was written"
    RowStore.open(folder / "rows").verify()


def _checkpoint(folder: Path) -> None:
    import torch

    from phosphene.training.checkpoint import Checkpoint, save_checkpoint

    for step in (1, 2):
        model = {"w": torch.full((3, 2), float(step))}
        record = {"config": {"lr": 0.1}, "curve": [1.0, 0.5]}
        save_checkpoint(folder, Checkpoint(step, model, {"exp_avg/w": torch.ones(3, 2)}, {"w": model["w"]}, record))


def _read_checkpoint(folder: Path) -> None:
    from phosphene.training.checkpoint import last_checkpoint

    found = last_checkpoint(folder)
    assert found is None or found.model["w"].shape == (3, 2)


def _run(folder: Path) -> None:
    from phosphene import flow

    values = {
        "recipe.curve.kind": "none", "recipe.alphas": [1.0, 100.0], "recipe.pixels.n_components": 4,
        "recipe.decoder.voxels": "all", "data.name": "insilico",
        "data.options": {"size": "small", "n_train": 24, "n_test": 6, "n_voxels": 60},
    }  # fmt: skip
    config = flow.configure("linear", [("test", values)])[0]
    opened = flow.fit(config, folder / "run")
    flow.decode(opened)
    flow.evaluate(flow.open_run(folder / "run"))


def _read_run(folder: Path) -> None:
    from phosphene import flow
    from phosphene.reporting import report

    opened = flow.open_run(folder / "run")
    opened.recipe(0)
    opened.folder.pixels()
    report([folder / "run"])


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("arrays", _arrays, _read_arrays),
        Target("nifti", _nifti, _read_nifti),
        Target("pictures", _pictures, _read_pictures),
        Target("nsd", _nsd, _open("nsd:subj01", "nsd")),
        Target("god.npz", _god, _open("god", "god")),
        Target("god.bdata", _god_lab, _open("god", "god")),
        Target("bdata", _bdata, _read_pairs),
        Target("bold5000", _bold5000, _open("bold5000:CSI2", "BOLD5000")),
        Target("miyawaki", _miyawaki, _open("miyawaki", "miyawaki2008")),
        Target("mosaic", _mosaic, _open("mosaic", "mosaic")),
        Target("hcp", _hcp, _read_hcp),
        *(Target(f"pairs.{k}", _pairs(k), _read_pairs) for k in ("mat", "mat73", "npz", "h5")),
        Target("bids", _bids, _read_bids),
        Target("openfmri", _openfmri, _read_openfmri),
        Target("folder", _folder_format, _read_folder_format),
        Target("import", _own, _read_own),
        Target("splits", _splits, _read_splits),
        Target("config", _config, _read_config),
        Target("sweep", _grid, _read_grid),
        Target("archives", _archives, _read_archives),
        Target("hrf", _hrf, _read_hrf),
        Target("hrf.npy", _hrf_array, _read_hrf_array),
        Target("foreign", _foreign, _read_foreign),
        Target("sc_mbm", _sc_mbm, _read_sc_mbm),
        Target("stylegan2.pickle", _stylegan, _read_stylegan),
        Target("stylegan2.folder", _stylegan_folder, _read_stylegan_folder),
        Target("flax", _flax, _read_flax),
        Target("ldm", _ldm, _read_ldm),
        Target("dual_guided", _versatile, _read_versatile),
        Target("vdvae", _vdvae, _read_vdvae),
        Target("clip", _clip, _read_clip),
        Target("zoo", _zoo, _read_zoo),
        Target("stage", _stage, _read_stage),
        Target("store", _store, _read_store, writes=True),
        Target("checkpoint", _checkpoint, _read_checkpoint),
        Target(
            "run",
            _run,
            _read_run,
            only=(".json", ".yaml", ".csv", ".npy", ".safetensors", ".txt", ".jsonl"),
            writes=True,
        ),
    )
}
