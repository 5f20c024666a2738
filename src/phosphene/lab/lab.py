"""Make a simulated study: pictures, a subject, betas, and everything that is true of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from phosphene.io import memory
from phosphene.lab import scenes
from phosphene.lab.designs import LabDesign, design, schedule
from phosphene.lab.scene_captions import truth
from phosphene.lab.scenes import Scene
from phosphene.lab.subject import TYPICAL_VOXELS, Subject
from phosphene.lab.whole import MOST_VOXELS, whole
from phosphene.types import Split

_VOXEL_BYTES = 20_000  # receptive field and tuning of a voxel, while a person is made
_SCENE_BYTES = 3_000  # description, captions and rows of tables


@dataclass(frozen=True)
class Simulation:
    """One simulated subject's study.

    Attributes
    ----------
    name : str
        ``insilico-DESIGN``
    subject : Subject
        the :class:`Subject`, who knows every ceiling
    design : LabDesign
        which scenes were shown how often
    ids : ndarray of shape (n_stimuli,), str
        such as ``scene-0-000042``
    images : ndarray of shape (n_stimuli, size, size, 3), uint8
        RGB
    scenes : tuple of Scene
        what they show
    captions, caption_truth : tuple of tuple of str
        five captions per picture, and which of them are ``good``, ``vague`` or ``wrong``
    labels : DataFrame
        (n_stimuli, 26) boolean table
    category : ndarray of shape (n_stimuli,), str
        main category
    signal : ndarray of shape (n_stimuli, n_voxels), float32
        noiseless responses to a first showing, percent signal change
    trials : DataFrame
        table: trial, stimulus (id), session, run, repeat (0 for a first showing), in the order of time
    betas : ndarray of shape (n_trials, n_voxels), float32
        percent signal change
    voxels : DataFrame
        table of :class:`Subject`, whose ceilings are those of the lab at large
    split : Split
        training and test ids
    """

    name: str
    subject: Subject
    design: LabDesign
    ids: np.ndarray
    images: np.ndarray
    scenes: tuple[Scene, ...]
    captions: tuple[tuple[str, ...], ...]
    caption_truth: tuple[tuple[str, ...], ...]
    labels: pd.DataFrame
    category: np.ndarray
    signal: np.ndarray
    trials: pd.DataFrame
    betas: np.ndarray
    voxels: pd.DataFrame
    split: Split


def make(
    name: str = "nsd",
    *,
    n_train: int = 600,
    n_test: int = 60,
    n_voxels: int | None = 1000,
    train_repeats: int | None = None,
    test_repeats: int | None = None,
    size: int = 32,
    snr: str | None = None,
    subject: int = 1,
    seed: int = 0,
    trials_per_run: int = 50,
    runs_per_session: int = 8,
) -> Simulation:
    """Simulate a study.

    Parameters
    ----------
    name : str, default "nsd"
        design: ``nsd``, ``god``, ``bold5000`` or ``clusters`` (see :mod:`~phosphene.lab.designs`)
    n_train, n_test : int, optional
        pictures, 1 to 200,000 each
    n_voxels : int or None, default 1000
        voxels, 50 to 50,000; None for about 4,000, differing by subject
    train_repeats, test_repeats : int, optional
        how often each picture is shown; by default as in the study imitated
    size : int, default 32
        pixels along a picture's side
    snr : str, optional
        ``nsd`` or ``3t``; by default as in the study imitated
    subject : int, default 1
        number of the person, 1 to 999
    seed : int, default 0
        of the world, at least 0: scenes, and with `subject` the person, the order of the trials and the noise
    trials_per_run, runs_per_session : int, optional
        how the study is divided

    Returns
    -------
    Simulation
        with everything that is true of it

    Raises
    ------
    ConfigError
        for a design or quality that does not exist, or numbers out of range
    DataError
        for a size out of range
    MachineError
        when this machine's memory cannot hold the study

    Examples
    --------
    >>> study = make(n_train=20, n_test=5, n_voxels=100)
    >>> study.betas.shape, study.images.shape
    ((35, 100), (25, 32, 32, 3))
    """
    # A design has numbers of repeats of its own, which stay where none is given.
    repeats = {}
    if train_repeats is not None:
        repeats["train_repeats"] = train_repeats
    if test_repeats is not None:
        repeats["test_repeats"] = test_repeats

    plan = design(name, n_train=n_train, n_test=n_test, seed=seed, subject=subject, **repeats)

    _refuse_what_does_not_fit(plan, n_voxels, scenes.checked_size(size))
    person = Subject(1000 * int(seed) + int(subject), n_voxels, snr or plan.snr)
    # Two independent generators: another order of trials leaves the noise of each trial as it was.
    order_rng, noise_rng = np.random.default_rng([int(seed), int(subject), 0x4C4142]).spawn(2)
    images = scenes.render_many(seed, plan.indices, size)
    described = tuple(scenes.describe_many(seed, plan.indices))
    ids = np.array([f"scene-{seed}-{index:06d}" for index in plan.indices], dtype=object)
    signal = person.signal(images, described)
    order = schedule(plan.shown, order_rng, trials_per_run, runs_per_session)
    betas = person.measure(
        signal,
        order["session"].to_numpy(),
        order["run"].to_numpy(),
        order["repeat"].to_numpy(),
        noise_rng,
        rows=order["row"].to_numpy(),
    )

    order.insert(1, "stimulus", ids[order.pop("row").to_numpy()])
    labels = scenes.labels(described)
    labels.index = pd.Index(ids, name="stimulus")

    return Simulation(
        name=f"insilico-{name}",
        subject=person,
        design=plan,
        ids=ids,
        images=images,
        scenes=described,
        captions=tuple(scenes.captions_many(described)),
        caption_truth=tuple(truth(described)),
        labels=labels,
        category=np.array([scene.main for scene in described], dtype=object),
        signal=signal,
        trials=order,
        betas=betas,
        voxels=person.voxels,
        split=plan.split(ids),
    )


def _refuse_what_does_not_fit(plan: LabDesign, n_voxels: int | None, size: int) -> None:
    """Before anything is drawn: pictures, signals, betas, and receptive fields with their weights."""
    if n_voxels is None:
        voxels = TYPICAL_VOXELS
    else:
        voxels = whole("n_voxels", n_voxels, 50, MOST_VOXELS)

    trials = int(plan.shown.sum())
    pictures = len(plan.indices)
    needed = voxels * (4 * (trials + pictures) + _VOXEL_BYTES) + pictures * (3 * size**2 + _SCENE_BYTES)
    memory.require_memory(
        needed,
        f"{pictures:,} pictures of {size} x {size} and {trials:,} trials of {voxels:,} voxels",
        "Lower n_train, n_test, train_repeats, test_repeats, n_voxels or the size of pictures.",
    )
