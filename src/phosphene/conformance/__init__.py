"""Does a plug-in keep its promises? One function per kind of part, for pytest or plain Python.

>>> from phosphene.conformance import check_recipe
>>> check_recipe("linear")                                             # doctest: +SKIP

==================  ================================================================================
`check_recipe`      a recipe: fitted on a tiny simulated study, whose test trials it may not touch
`check_reader`      a reader of a data set, on a small folder of that layout
`check_feature`     target latents of pictures
`check_brain_model` a fitted model from betas to latents
`check_generator`   latents to pictures
`check_metric`      an entry of the table of metrics
`tiny_study`        the simulated study, for a check of your own; `Checklist` gathers its claims
==================  ================================================================================

Each runs every claim it can, and then raises one `NonConforming` that lists all that do not hold, what was expected and
what came. ``waived={"NAME": "why"}`` lets a claim fail that you know of, and complains once it holds.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
