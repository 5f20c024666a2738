"""Features of a whole data set by several workers, on one machine or as an array of jobs.

Every worker gets the same short description of the job, opens the data set itself, and takes chunk after chunk of the one
store that all of them fill (:mod:`phosphene.io.store`). A worker that is killed leaves the chunk it was at, which another
takes over; the same call after an interrupt computes what is missing.

Examples
--------
One machine::

    job = FeatureJob("nsd01", {"kind": "clip", "name": "openai/clip-vit-large-patch14", "output": "tokens"}, "cache")
    fill(job, workers=4)

A cluster, with submitit::

    executor.map_array(job, range(64))
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from phosphene.data.registry import open_dataset
from phosphene.errors import ConfigError, did_you_mean
from phosphene.io.atomic import checked_path
from phosphene.io.progress import Progress

EXTRACTORS = {
    "clip": "phosphene.features.clip:ClipFeatures",
    "vdvae": "phosphene.features.vdvae_latents:VdvaeFeatures",
}
"""Kind of features to the class that computes them."""


@dataclass(frozen=True)
class FeatureJob:
    """What one worker does: fill the store until nothing is missing. Small enough to be pickled for a cluster.

    Parameters
    ----------
    data : str
        data set, or path, as ``--data`` takes it
    extractor : mapping of str to object
        its ``kind`` (clip or vdvae), and arguments of that class
    cache : str or Path
        folder of stores, which all workers see
    what : {"images", "captions"}, default "images"
        pictures, or the mean of each one's captions (clip alone)
    root : str or Path, optional
        of the data set
    options : mapping of str to object, optional
        of the data set
    """

    data: str
    extractor: Mapping[str, Any]
    cache: str | Path
    what: Literal["images", "captions"] = "images"
    root: str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, worker: int = 0) -> Path:
        """Work until the store is complete, whoever computes its rows.

        Parameters
        ----------
        worker : int, default 0
            number of this one; the first reports its progress

        Returns
        -------
        Path
            folder of the store

        Raises
        ------
        ConfigError
            For an unknown kind, or features that cannot be made of `what`.
        DataError, ModelError, MachineError
            As the data set, the extractor and the store say.
        """
        features = self._features()
        methods = {"images": "image_store", "captions": "caption_mean_store"}
        make_store = getattr(features, methods.get(self.what, ""), None)
        if make_store is None:
            raise ConfigError(f"{self.extractor['kind']} makes no features of '{self.what}'; ask for images.")

        stimuli = open_dataset(self.data, root=self.root, options=self.options).stimuli
        store = make_store(stimuli, checked_path(self.cache), Progress(quiet=worker > 0))

        return store.folder

    def checkpoint(self, worker: int = 0) -> Any:
        """Called by submitit when a job is about to be preempted: the same again."""
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]  # an extra

        return DelayedSubmission(self, worker)

    def _features(self) -> Any:
        """The extractor that the job names."""
        arguments = dict(self.extractor)
        kind = arguments.pop("kind", None)
        if kind not in EXTRACTORS:
            raise ConfigError(f"there are no features of kind '{kind}'. {did_you_mean(str(kind), EXTRACTORS)}")

        module, _, name = EXTRACTORS[kind].partition(":")
        try:
            return getattr(import_module(module), name)(**arguments)
        except TypeError as error:
            raise ConfigError(f"features of kind '{kind}' cannot be made so: {error}.") from error


def fill(job: FeatureJob, workers: int = 1) -> Path:
    """Do a job with several processes of this machine; this one is among them, and finishes what killed ones leave.

    A script that calls this needs the line ``if __name__ == "__main__":`` before it.

    Parameters
    ----------
    job : FeatureJob
        what each does
    workers : int, default 1
        how many; each holds the network in memory

    Returns
    -------
    Path
        folder of the complete store
    """
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, but is {workers}.")

    context = multiprocessing.get_context("spawn")  # a forked process may hang in torch's threads
    others = []
    for number in range(1, workers):
        other = context.Process(target=job, args=(number,), daemon=True)
        other.start()
        others.append(other)

        # Waited for from the start: a dead process counts as alive until someone has.
        threading.Thread(target=other.join, daemon=True).start()

    try:
        return job(0)
    except BaseException:
        for other in others:
            other.terminate()

        raise
    finally:
        for other in others:
            other.join()
