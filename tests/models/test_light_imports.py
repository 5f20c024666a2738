"""Networks whose sizes can be read without the heavy packages that build them."""

from __future__ import annotations

import subprocess
import sys

NETWORKS = ("dual_guided", "ldm", "maskgit", "stylegan2", "vdvae")


def test_sizes_load_without_diffusers():
    # One process for all, which starts torch once; it names the networks with which diffusers came.
    code = (
        "import importlib, sys\n"
        f"for name in {NETWORKS}:\n"
        "    importlib.import_module(f'phosphene.models.{name}')\n"
        "    if 'diffusers' in sys.modules:\n"
        "        print(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
