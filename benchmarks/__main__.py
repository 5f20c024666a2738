"""All benchmarks, one after the other, each in its own process: python -m benchmarks

``python -m benchmarks NAME ...`` runs one of this folder alone, with what follows; known_answers is only run so.

Every figure is measured beside a peer in one run and given as a ratio. Leave the machine alone meanwhile. The full-size
ridge (``python benchmarks/ridge.py --full``: 13 GB of disk, about 10 minutes) is run by hand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = (
    ("n-way top-k, exact against drawn", ["nway.py"]),
    ("two-way identification, against numpy.corrcoef", ["two_way.py"]),
    ("all-pairs SSIM, against scikit-image", ["ssim.py"]),
    ("fMRI masked autoencoders at published size, against MinD-Vis", ["mae_step.py"]),
    ("single-trial betas, against GLMsingle where GLMSINGLE names a checkout", ["betas.py", "--voxels", "5000"]),
    ("validity checks for 1,000 test items, one by one", ["checks.py"]),
    ("ridge at one eighth of NSD, against every rival", ["ridge.py", "--scale", "8", "--rounds", "3"]),
)

if __name__ == "__main__":
    if sys.argv[1:]:
        command = [sys.executable, "-m", f"{HERE.name}.{sys.argv[1]}", *sys.argv[2:]]
        sys.exit(subprocess.run(command, cwd=HERE.parent, check=False).returncode)
    for title, command in RUNS:
        print(f"\n== {title}", flush=True)
        subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=True)
