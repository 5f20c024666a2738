"""`phosphene score` as somebody with two folders of pictures types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from phosphene.reporting import run_comparison

from .test_cli import called


@pytest.fixture
def folders(tmp_path):
    """Seen, decoded and training pictures of 12 x 12 pixels."""
    rng = np.random.default_rng(0)
    for name in ("seen", "decoded", "better", "train"):
        (tmp_path / name).mkdir()

    for i in range(12):
        seen = np.asarray(Image.fromarray(rng.integers(20, 236, (3, 3, 3), dtype=np.uint8)).resize((12, 12)))
        Image.fromarray(seen).save(tmp_path / "seen" / f"{i}.png")
        for name, sd in (("decoded", 60), ("better", 10)):
            noisy = np.clip(seen + rng.normal(0, sd, seen.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / name / f"{i}.png")

        Image.fromarray(seen[::-1, ::-1] // 2 + 40).save(tmp_path / "train" / f"t{i}.jpg")

    return tmp_path


def test_two_folders_give_an_honest_page_in_one_command(capsys, folders):
    run = folders / "run"
    status, out, errors = called(
        capsys, "score", folders / "seen", folders / "decoded", "--train", folders / "train", "--out", run, "-q"
    )
    assert status == 0, errors
    assert "two_way.pixels" in out
    assert "Cannot be known from outside: S4, S5" in out
    assert out.splitlines()[-1] == f"next: phosphene report {run}"
    assert called(capsys, "report", run)[0] == 0
    page = (run / "report.html").read_text()
    assert "cannot be known from outside" in page
    assert "cannot be used" not in page  # nothing of the folder is missing or damaged to the page
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["origin"], manifest["state"]) == ("elsewhere", "scored")
    assert len(list((run / "decoded" / "test" / "brain" / "images").glob("*.png"))) == 12

    # A second decoder beside it, and every verb that needs a recipe says why it cannot.
    other = folders / "other"
    status, out, errors = called(
        capsys, "score", folders / "seen", folders / "better", "--out", other, "--against", run, "-q", "--strict"
    )
    assert status == 0, errors
    assert "other minus the other" in out
    assert "other is better than run" in run_comparison.text_table(run_comparison.against(other, [run]))
    for verb in ("decode", "encode", "evaluate"):
        status, _, errors = called(capsys, verb, run)
        assert status == 6
        assert "made elsewhere" in errors


def test_mistakes_end_in_one_sentence_and_write_nothing(capsys, folders):
    out = folders / "run"
    cases = [
        (["seen", "nowhere"], 4, "is not there"),
        (["seen", "decoded", "--size", "big"], 3, "SIDE or HEIGHTxWIDTH"),
        (["seen", "decoded", "--data", "nsdd"], 3, "Did you mean 'nsd'"),
        (["seen", "decoded", "--layout", "CHWN"], 3, "Known: NHWC, NCHW"),
        (["seen", "decoded", "--setting", "lenient"], 3, "strict, relax"),
        (["seen", "train"], 4, "no name of the decoded pictures"),
    ]
    for (seen, decoded, *options), status, says in cases:
        code, _, errors = called(capsys, "score", folders / seen, folders / decoded, *options, "--out", out, "-q")
        assert (code, says in errors) == (status, True), errors
        assert not out.exists()
