"""phosphene: brain activity to the image that was seen, and an image to the brain activity it evokes.

brain <-> latent <-> image. Every published system is some choice for each arrow; here they are parts of one flow:

    data       what was shown and what was measured: Trials and Stimuli, splits, standardisation
    betas      BOLD time series to single-trial betas
    features   pictures and captions to target latents
    align      latents to latents: ridge and its relatives
    models     networks, one file per architecture: of brain responses, of latents, and latents to pictures
    recipes    whole systems, one file per paper: fit, decode (brain to image), encode (image to brain)
    metrics    scores with intervals and chance
    validity   checks of splits, leakage, brain and measures, which run by default
    analysis   what a fitted run can be asked beyond its scores
    reporting  one self-contained page
    flow       the verbs on a run folder: fit, decode, encode, evaluate

    >>> import phosphene
    >>> run = phosphene.fit("linear", "runs/mine", data="insilico", values={"data.options": {"size": "small"}})
    >>> pictures = phosphene.decode(run)
    >>> responses = phosphene.encode(run)
    >>> scores = phosphene.evaluate(run)
    >>> page = phosphene.report(run)
    >>> table = phosphene.score("seen", "decoded")  # doctest: +SKIP

A verb is a function, a noun is a folder. Names are imported when they are first used, so that importing phosphene loads
nothing heavy; ``__init__.pyi`` says where each comes from.
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
