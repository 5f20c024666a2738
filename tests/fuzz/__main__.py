"""Fuzzing of every reader of foreign bytes.

    python -m tests.fuzz --minutes 60 --seed 1 --out fuzz.json          # all readers, in turn
    python -m tests.fuzz --again nsd:1:42 --out case                    # makes one damaged folder again and reads it here

The counts are written every minute; each finding says which case makes it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

BATCH = 25
"""Cases of one reader before the next has its turn."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON of the counts; with --again, a folder")
    parser.add_argument("--only", nargs="*", default=None, help="names of readers")
    parser.add_argument("--cases", type=int, default=0, help="at most so many for each reader; 0 for no end")
    parser.add_argument("--again", default="", help="READER:SEED:CASE")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ |= {"PHOSPHENE_DATA": "", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    from tests.fuzz import engine
    from tests.fuzz.targets import TARGETS

    if options.again:
        name, seed, case = options.again.rsplit(":", 2)
        return _again(TARGETS[name], int(seed), int(case), options.out)
    warm()
    chosen = [TARGETS[n] for n in (options.only or TARGETS)]
    result, start = engine.Result(), time.monotonic()
    told, first, batch = -1e9, 0, min(BATCH, options.cases or BATCH)

    def tell() -> None:
        nonlocal told
        told = time.monotonic()
        counts = {name: asdict(c) for name, c in sorted(result.counts.items())}
        total = {k: sum(c[k] for c in counts.values()) for k in ("reads", "refused", "accepted", "findings")}
        findings = sorted((asdict(f) for f in result.findings.values()), key=lambda f: (f["target"], -f["count"]))
        report = {"seed": options.seed, "seconds": round(told - start), "pid": os.getpid(), "total": total,
                  "distinct_findings": len(findings), "readers": counts, "findings": findings}  # fmt: skip
        temporary = options.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        os.replace(temporary, options.out)

    with tempfile.TemporaryDirectory(prefix="fuzz-valid-") as root:
        while time.monotonic() - start < 60 * options.minutes and (not options.cases or first < options.cases):
            for target in chosen:
                if time.monotonic() - start >= 60 * options.minutes:
                    break
                engine.run(target, Path(root), options.seed, range(first, first + batch), result)
                if time.monotonic() - told > 60:
                    tell()
            first += batch
        tell()
    return 1 if result.findings else 0


def warm() -> None:
    """Import once what the children would import again and again."""
    import h5py
    import nibabel.cifti2
    import PIL.Image
    import scipy.io
    import torch
    import transformers.models.clip
    from diffusers import AutoencoderKL, VQModel

    import phosphene.flow
    import phosphene.models
    import phosphene.reporting

    for plugin in (PIL.Image.preinit, PIL.Image.init):
        plugin()
    torch.set_num_threads(1)
    assert all(
        (h5py, nibabel.cifti2, scipy.io, transformers, AutoencoderKL, VQModel, phosphene.models, phosphene.report)
    )


def _again(target, seed: int, case: int, out: Path) -> int:
    from tests.fuzz import engine

    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as root:
        valid = engine.prepared(target, Path(root))
        file, data = engine.damage(target, valid, seed, case)
        shutil.copytree(valid, out)
        if file is not None:
            (out / file.relative_to(valid)).write_bytes(data)
            print(f"damaged: {file.relative_to(valid)}, {file.stat().st_size} bytes -> {len(data)}", file=sys.stderr)
    target.read(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
