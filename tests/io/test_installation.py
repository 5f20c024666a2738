"""The doctor, on folders of installed packages as pip leaves them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from phosphene.io.installation import examine


def install(place, name, version, requires=(), code=None):
    """A package as pip leaves it: its record, and its code."""
    info = place / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    if code is not None:
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(code)


def remark(place, what):
    (found,) = [r for r in examine([place]) if r.what == what]
    return found


@pytest.mark.fault(86)
@pytest.mark.parametrize(
    ("version", "requires", "code", "said"),
    [
        ("0.26.0", ["torch==2.11.0"], "", "was built for torch 2.11.0, but torch 2.13.0"),
        ("0.28.0+cu128", ["torch==2.13.0"], "", "different builds"),
        (
            "0.28.0+cpu",
            ["torch==2.13.0"],
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "nms does not",
        ),
    ],
    ids=["another release", "another build", "cannot be imported"],
)
def test_a_broken_torchvision_is_named_with_the_command_that_removes_it(tmp_path, version, requires, code, said):
    install(tmp_path, "torch", "2.13.0+cpu")
    install(tmp_path, "torchvision", version, requires, code)
    found = remark(tmp_path, "torchvision")
    assert found.level == "problem" and said in found.detail
    assert "pip uninstall -y torchvision" in found.mend


@pytest.mark.fault(86)
def test_a_torchvision_that_works_is_left_in_peace(tmp_path):
    install(tmp_path, "torch", "2.13.0+cpu")
    install(tmp_path, "torchvision", "0.28.0+cpu", ["torch==2.13.0"], "")
    assert remark(tmp_path, "torchvision").level == "ok"


@pytest.mark.fault(86)
def test_cuda_libraries_of_two_releases_are_named_and_those_of_the_build_are_kept(tmp_path):
    install(tmp_path, "torch", "2.13.0+cu128")
    for name in ("nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cublas-cu11"):
        install(tmp_path, name, "1.0")
    found = remark(tmp_path, "CUDA")
    assert found.level == "problem"
    assert (
        "pip uninstall -y nvidia-cublas-cu11 " in found.mend
        and "cublas-cu12" not in found.mend
        and "cudnn" not in found.mend
    )
    (tmp_path / "nvidia_cublas_cu11-1.0.dist-info" / "METADATA").unlink()
    assert remark(tmp_path, "CUDA").level == "ok"


@pytest.mark.fault(86)
def test_cuda_libraries_of_another_release_than_torch_was_built_for_are_named(tmp_path):
    install(tmp_path, "torch", "2.13.0+cu130")
    install(tmp_path, "nvidia-cublas-cu12", "1.0")
    assert "built for CUDA 13" in remark(tmp_path, "CUDA").detail


def test_missing_packages_are_listed_with_the_command_that_installs_them(tmp_path):
    install(tmp_path, "torch", "2.13.0")
    (_, problem) = [r for r in examine([tmp_path]) if r.what == "packages"]
    assert problem.level == "problem" and "pip install numpy scipy" in problem.mend


def test_the_command_says_what_is_here():
    done = subprocess.run([sys.executable, "-m", "phosphene", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 7), done.stderr
    assert "torch" in done.stdout and "temporary" in done.stdout
    assert (done.returncode == 7) == ("problem:" in done.stdout)
