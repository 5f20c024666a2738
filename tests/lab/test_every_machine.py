"""The lab is the same on every machine: pictures, captions, truth, betas and scanner runs, whatever the BLAS does."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from phosphene.lab import make
from phosphene.lab.bold import scan
from phosphene.lab.designs import DESIGNS
from phosphene.lab.exact import exact_product, rounded
from phosphene.types import digest_of

FOLDER = Path(sys.modules[make.__module__].__file__).parent

OPENBLAS = [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]
X86 = any(pool["architecture"] in ("SkylakeX", "Cooperlake", "Haswell", "Zen", "Sandybridge") for pool in OPENBLAS)


def digests(names=tuple(DESIGNS)):
    """Digests of all that is true of a small study of each design, and of its first scanner run."""
    result = {}
    for name in names:
        study = make(name, n_train=40, n_test=8, n_voxels=250, size=48, trials_per_run=20)
        run = scan(study)[0]
        noise = study.subject.noise
        parts = {
            "pictures": digest_of(study.images),
            "captions": digest_of(repr((study.captions, study.caption_truth, study.scenes))),
            "signal": digest_of(study.signal),
            "betas": digest_of(study.betas),
            "voxels": digest_of(study.voxels),
            "trials": digest_of(study.trials),
            "noise": digest_of(noise.sd, noise.white, noise.local, noise.shared, noise.slow, noise.echo),
            "ceilings": digest_of(study.subject.ceiling(3), study.subject.ceiling(2, study.signal, standardised=False)),
            "scanner": digest_of(run.evoked, run.noise, *run.drift, *run.physiology, *run.motion, run.shift),
            "volumes": digest_of(run.volumes),
        }
        result.update({f"{name} {part}": digest for part, digest in parts.items()})
    return result


def digests_elsewhere(**environment):
    """The same in a fresh process, and the BLAS it ran with: architectures and numbers of threads."""
    code = (
        "import json; from threadpoolctl import threadpool_info; import scipy.linalg; "
        "from tests.lab.test_every_machine import digests; "
        "pools = [p for p in threadpool_info() if p['user_api'] == 'blas']; "
        "print(json.dumps([digests(), [p.get('architecture') for p in pools], [p['num_threads'] for p in pools]]))"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def here():
    return digests()


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_threads_set_while_running_change_no_bit(here, n_threads):
    with threadpool_limits(n_threads, user_api="blas"):
        result = digests(["nsd"])
    assert result == {name: digest for name, digest in here.items() if name.startswith("nsd ")}


@pytest.mark.skipif(not OPENBLAS, reason="numpy's BLAS is not OpenBLAS, and has other variables")
@pytest.mark.parametrize(
    "n_threads", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_threads_set_by_the_environment_change_no_bit(here, n_threads):
    variables = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), str(n_threads))
    result, _, threads = digests_elsewhere(**variables)
    assert set(threads) <= {n_threads, os.cpu_count()}
    assert result == here


@pytest.mark.skipif(not X86, reason="these kernels are for x86-64 with OpenBLAS")
@pytest.mark.parametrize("kernel", ["Nehalem", "Haswell", pytest.param("SkylakeX", marks=pytest.mark.slow)])
def test_kernels_of_other_processors_change_no_bit(here, kernel):
    if kernel == "SkylakeX" and "avx512f" not in _processor_flags():
        pytest.skip("this processor has no AVX-512")
    result, architectures, _ = digests_elsewhere(OPENBLAS_CORETYPE=kernel)
    assert kernel in architectures
    assert result == here


def _processor_flags():
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def test_best_linear_decoder_is_the_same_up_to_rounding_errors():
    study = make(n_train=80, n_test=20, n_voxels=300)
    pixels = study.images.reshape(len(study.images), -1) / 255
    scores = []
    for n_threads in (1, 4):
        with threadpool_limits(n_threads, user_api="blas"):
            scores.append(study.subject.bayes_linear(study.signal, pixels).learned.correlation)
    assert np.allclose(*scores, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_terms", [1, 3, 224, 4608])
def test_exact_product_is_exact_in_any_order_and_close_to_the_product(n_terms):
    rng = np.random.default_rng(n_terms)
    left = rng.lognormal(0, 3, (5, n_terms)) * rng.choice([-1, 1], (5, n_terms))
    right = rng.lognormal(0, 3, (n_terms, 7))
    product = exact_product(left, right)

    order = rng.permutation(n_terms)
    assert np.array_equal(exact_product(left[:, order], right[order]), product)

    # In whole numbers of any size, as Python has them.
    whole_left = (rounded(left, -1) * 2.0**40).astype(object)
    whole_right = (rounded(right, -2) * 2.0**40).astype(object)
    for i in range(5):
        for j in range(7):
            total = sum(int(a) * int(b) for a, b in zip(whole_left[i], whole_right[:, j], strict=True))
            assert product[i, j] == total / 2**80

    largest = np.abs(left).max(axis=1)[:, None] * np.abs(right).max(axis=0)
    assert (np.abs(product - left @ right) <= n_terms * largest * 2.0**-19).all()


def test_rounded_operands_fit_into_float32_and_nothing_is_lost_where_all_is_zero():
    values = np.random.default_rng(0).normal(size=(3, 2))
    assert np.array_equal(rounded(values, -1), rounded(values, -1).astype(np.float32))
    assert np.array_equal(exact_product(np.zeros((2, 3)), np.ones((3, 2))), np.zeros((2, 2)))
    assert exact_product(np.zeros((4, 0)), np.zeros((0, 2))).shape == (4, 2)


def test_lab_multiplies_matrices_in_one_way_only():
    # A plain product or decomposition differs by machine. Allowed: the best linear decoder and covariances computed from the
    # noise, which are compared up to rounding errors above, and products of rounded operands.
    allowed = {"covariance", "whiten", "exact_product", "_weighted", "sample"}
    for path in sorted(FOLDER.glob("*.py")):
        if path.name == "bayes.py":
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or function.name in allowed:
                continue
            for node in ast.walk(function):
                where = f"{path.name}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.BinOp):
                    assert not isinstance(node.op, ast.MatMult), f"{where} {ast.unparse(node)}"
                if isinstance(node, ast.Attribute):
                    plain = ("dot", "matmul", "tensordot", "einsum", "linalg", "inner", "svd", "eigh", "solve", "lstsq")
                    assert node.attr not in plain, f"{where} {ast.unparse(node)}"
