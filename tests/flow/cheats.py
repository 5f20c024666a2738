"""Decoders that know more than a brain told them, each by one way; and a sampler that does not."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from phosphene.recipes.linear import Linear, LinearConfig
from phosphene.types import Images, NoiseKey

from .side_door import KNOWN


class CheatConfig(LinearConfig):
    """Configuration of all of them."""

    kind: Literal["cheat"] = "cheat"


class Honest(Linear):
    """Linear, under the name of the cheats."""

    config_class = CheatConfig


class ByName(Linear):
    """Looks the true picture up by the name of the stimulus."""

    config_class = CheatConfig

    def decode(self, trials):
        """The truth."""
        return Images(trials.stimuli, np.stack([KNOWN["pictures"][name] for name in trials.stimuli]))


class ByNameOrBrain(Linear):
    """Looks the true picture up where it knows the name."""

    config_class = CheatConfig

    def decode(self, trials):
        """The truth, or what linear decodes."""
        images = super().decode(trials)
        pixels = [KNOWN["pictures"].get(name, one) for name, one in zip(trials.stimuli, images.pixels, strict=True)]
        return Images(trials.stimuli, np.stack(pixels))


class ByTable(Linear):
    """Reads the table that comes with the responses."""

    config_class = CheatConfig

    def decode(self, trials):
        """The truth by the trial's id."""
        known = dict(zip(KNOWN["trials"].table["trial"], KNOWN["trials"].stimuli, strict=True))
        return Images(trials.stimuli, np.stack([KNOWN["pictures"][known[t]] for t in trials.table["members"]]))


class ByOrder(Linear):
    """Takes rows for the test pictures in the order of the data set."""

    config_class = CheatConfig
    share = 1.0

    def decode(self, trials):
        """A share of the truth of the same place."""
        images = super().decode(trials)
        true = KNOWN["test"][: len(trials)]
        return Images(trials.stimuli, (1 - self.share) * images.pixels + self.share * true)


class HalfByOrder(ByOrder):
    """Half brain, half order."""

    share = 0.5


class BatchInMemory(Linear):
    """Standardises by the first batch it sees and keeps its statistics in the class."""

    config_class = CheatConfig
    kept: dict = {}  # noqa: RUF012  what it is about

    def moments(self, betas):
        """Mean and spread of the first batch."""
        if "moments" not in self.kept:
            self.kept["moments"] = (betas.mean(axis=0), betas.std(axis=0) + 1e-6)

        return self.kept["moments"]

    def _components(self, trials):
        mean, std = self.moments(trials.betas)
        return self.to_pixels_.predict((trials.betas - mean) / std)


class BatchInObject(BatchInMemory):
    """The same, kept in the object."""

    @property
    def kept(self):
        """A place of its own."""
        return self.__dict__.setdefault("_kept", {})


class BatchWhereMany(Linear):
    """Statistics of the batch, but only where that is large."""

    config_class = CheatConfig

    def _components(self, trials):
        components = super()._components(trials)
        if len(trials) > 10:
            components = components - components.mean(axis=0) + self.to_pixels_.predict(np.zeros((1, trials.n_voxels)))

        return components


class BatchInFile(BatchInMemory):
    """The same, kept in a file."""

    def moments(self, betas):
        """From the file, or into it."""
        file = Path(tempfile.gettempdir()) / f"moments-{KNOWN['token']}.npy"
        if not file.is_file():
            np.save(file, np.stack([betas.mean(axis=0), betas.std(axis=0) + 1e-6]))

        return np.load(file)


class TestPictures(Linear):
    """Puts test pictures into the components."""

    config_class = CheatConfig
    __test__ = False
    way = "ids"

    def fit_pixels(self, trials, stimuli):
        """Of pictures that it should not have."""
        if self.way == "ids":
            stimuli = stimuli.select(KNOWN["test_ids"])
        elif self.way == "trials":
            trials.source.source[:]
        else:
            everything = _reachable(stimuli.images) | _reachable(trials.source)
            assert max(everything) == len(stimuli) < len(KNOWN["trials"])
            raise LookupError("whatever can be reached from here has no more rows than are handed over")

        return super().fit_pixels(trials, stimuli)


class BestOfEight(Linear):
    """Draws eight and puts the nearest to the truth first, which it knows by noise keys."""

    config_class = CheatConfig
    n_samples = 8

    def decode(self, trials):
        """The first of all."""
        return self.decode_samples(trials)[0]

    def decode_samples(self, trials):
        """All, the best first."""
        images = super().decode(trials).pixels
        drawn = np.stack([images + self.noise(trials, s, images.shape[1:]) for s in range(self.n_samples)])
        return [Images(trials.stimuli, pixels) for pixels in self.ordered(trials, drawn)]

    def noise(self, trials, sample, shape):
        """As samplers do."""
        return np.stack(
            [0.2 * self.rng(str(key), sample).standard_normal(shape, dtype=np.float32) for key in trials.noise_keys]
        )

    def ordered(self, trials, drawn):
        """By error."""
        known = {str(NoiseKey.of(name)): picture for name, picture in KNOWN["pictures"].items()}
        true = np.stack([known[str(key)] for key in trials.noise_keys])
        errors = np.square(drawn - true).mean(axis=(2, 3, 4))  # (samples, n)
        order = errors.argsort(axis=0)
        return np.stack([drawn[order[s], np.arange(len(trials))] for s in range(self.n_samples)])


class Sampler(BestOfEight):
    """Draws three, honestly."""

    n_samples = 3

    def ordered(self, trials, drawn):
        """As they come."""
        return drawn


class ByRow(Linear):
    """Recognises responses by value."""

    config_class = CheatConfig

    def decode(self, trials):
        """The truth of the row, if it is one of the data set; what linear decodes otherwise."""
        pixels = super().decode(trials).pixels.copy()
        for row, betas in enumerate(trials.betas):
            pixels[row] = KNOWN["rows"].get(betas.tobytes(), pixels[row])

        return Images(trials.stimuli, pixels)


class ByFile(Linear):
    """Opens the data while it decodes, and takes the nearest row."""

    config_class = CheatConfig

    def decode(self, trials):
        """The truth of the nearest row."""
        images = super().decode(trials)
        with np.load(KNOWN["file"]) as file:
            rows, pictures = file["fmriTest"], file["stimTest"]

        nearest = [np.square(rows - one).sum(axis=1).argmin() for one in trials.betas]
        return Images(trials.stimuli, pictures[nearest].reshape(images.pixels.shape) / 255)


class ByNoiseKey(Linear):
    """Mixes in the truth that it knows by the noise key."""

    config_class = CheatConfig

    def decode(self, trials):
        """A third of the truth."""
        images = super().decode(trials)
        known = {str(NoiseKey.of(name)): picture for name, picture in KNOWN["pictures"].items()}
        true = np.stack([known[str(key)] for key in trials.noise_keys])
        return Images(trials.stimuli, 0.7 * images.pixels + 0.3 * true)


def _reachable(rows, depth=4):
    """Lengths of whatever can be reached by attributes, bases and reading."""
    found = {len(rows)}
    if depth:
        parts = [getattr(rows, name, None) for name in ("source", "base", "images")]
        for part in (*parts, *([rows[:]] if depth == 4 else [])):
            if hasattr(part, "shape") and part.shape:
                found |= _reachable(part, depth - 1)

    return found
