"""Many runs from one file: recipes, subjects, seeds and ablations; resumable, on this machine or as cluster jobs.

>>> from phosphene.sweeps.execution import sweep                                     # doctest: +SKIP
>>> sweep("configs/lea_ablation.yaml", "runs/lea_ablation", workers=2)        # doctest: +SKIP

The layout of a sweep file is explained in `configs/README.md`, that of the folder in `run.py`.
"""
