"""CLIP: pictures and captions to latents in one space (Radford et al. 2021), the lab's own or a public one.

>>> clip = ClipFeatures("openai/clip-vit-large-patch14", output="tokens", download=True)    # doctest: +SKIP
>>> store = clip.image_store(dataset.stimuli, cache)     # computed once       # doctest: +SKIP
>>> store.read(trials.stimulus_ids)                      # (n, 257, 768)       # doctest: +SKIP
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phosphene.errors import ConfigError, DataError, did_you_mean
from phosphene.features import fingerprint
from phosphene.io.progress import Progress
from phosphene.io.store import RowStore, cached
from phosphene.models import public_clip as clip_files
from phosphene.models.public_clip import Preprocessing
from phosphene.types import Stimuli, digest_of

if TYPE_CHECKING:
    import torch

LAB = "lab"
_VERSION = 1  # of what this file computes; part of every key
_OUTPUTS = ("pooled", "tokens")
_NORMALISATIONS = ("l2", "none")
_ALL_PICTURES = 20_000


class ClipFeatures:
    """Latents of pictures and captions from a frozen CLIP.

    Parameters
    ----------
    name : str or Path, optional
        "lab" for the bundled one, a folder with a checkpoint of transformers, or a name on the hub
    revision : str, optional
        commit on the hub; known for the checkpoints of ``clip_files.PINNED``
    output : {"pooled", "tokens"}, default "pooled"
        "pooled", one vector for each picture or text, in the space both share; or "tokens", the last hidden state
        through the final layer norm and the projection, the class token (or start token) first
    normalise : {"l2", "none"}, default "l2"
        "l2" divides by the length of the pooled vector, so that it (and the picture's first token) has length 1; "none"
        leaves the projection as it is
    batch : int, default 32
        pictures or texts put through the network together
    device : str, default "cpu"
        where to compute
    dtype : {"float16", "float32"}, default "float32"
        how features are stored; float16 rounds them to about three digits
    download : bool, default False
        whether a checkpoint that is not on this machine may be fetched
    lab_folder : Path, optional
        of the lab CLIP's weights; the bundled ones by default

    Raises
    ------
    ConfigError
        For an unknown option.

    Notes
    -----
    LEA takes pooled, L2-normalised vectors as targets and as conditions. Versatile Diffusion takes tokens in the "l2"
    convention: 257 x 768 for pictures and 77 x 768 for texts from OpenAI's ViT-L/14. The network is loaded when first
    needed.

    References
    ----------
    Radford et al. 2021, section 2; for the tokens, Xu et al. 2023 (Versatile Diffusion).
    """

    def __init__(
        self,
        name: str | Path = LAB,
        *,
        revision: str | None = None,
        output: Literal["pooled", "tokens"] = "pooled",
        normalise: Literal["l2", "none"] = "l2",
        batch: int = 32,
        device: str = "cpu",
        dtype: Literal["float16", "float32"] = "float32",
        download: bool = False,
        lab_folder: Path | None = None,
    ) -> None:
        for option, value, known in (("output", output, _OUTPUTS), ("normalise", normalise, _NORMALISATIONS)):
            if value not in known:
                raise ConfigError(f"{option} of CLIP features cannot be '{value}'. {did_you_mean(value, known)}")

        if batch < 1:
            raise ConfigError(f"batch must be at least 1, but is {batch}.")

        self.name = str(name)
        self.revision = revision
        self.output = output
        self.normalise = normalise
        self.batch = batch
        self.device = device
        self.dtype: Literal["float16", "float32"] = dtype
        self.download = download
        self.lab_folder = lab_folder

    def __repr__(self) -> str:
        return f"ClipFeatures({self.name!r}, output={self.output!r}, normalise={self.normalise!r})"

    @property
    def logit_scale(self) -> float:
        """CLIP's inverse temperature: 100 for OpenAI's networks."""
        return float(self._network.logit_scale.detach().exp())

    @property
    def space(self) -> str:
        """Short name of these latents, such as ``clip_lab`` or ``clip_vit_large_patch14_tokens``."""
        short = Path(self.name).name.lower().removeprefix("clip-")
        short = re.sub(r"[^a-z0-9]+", "_", short).strip("_")
        if self.output == "tokens":
            return f"clip_{short}_tokens"

        return f"clip_{short}"

    def shape(self, what: Literal["images", "captions"] = "images") -> tuple[int, ...]:
        """Shape of the latents of one picture or text.

        Parameters
        ----------
        what : {"images", "captions"}, default "images"
            pictures or texts
        """
        config = self._network.config
        if self.output == "pooled":
            return (config.projection_dim,)
        if what == "captions":
            return (config.text_config.max_position_embeddings, config.projection_dim)

        side = config.vision_config.image_size // config.vision_config.patch_size
        return (side * side + 1, config.projection_dim)

    # -- plain computation -----------------------------------------------------------------------------------------

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Latents of pictures.

        Parameters
        ----------
        pixels : ndarray of shape (n, height, width, 1 or 3)
            uint8 of 0-255, or floats of 0-1, which are rounded to 8 bits

        Returns
        -------
        ndarray of shape (n, *shape("images")), float32

        Raises
        ------
        DataError
            For pictures of another shape, type or range.
        """
        parts = [np.empty((0, *self.shape("images")), dtype=np.float32)]
        for start in range(0, len(pixels), self.batch):
            parts.append(self._encode_pictures(self._preprocessing(pixels[start : start + self.batch])))

        return np.concatenate(parts)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Latents of texts; what is longer than the network reads is cut.

        Parameters
        ----------
        texts : sequence of str
            n texts; "" is allowed

        Returns
        -------
        ndarray of shape (n, *shape("captions")), float32
        """
        if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
            raise DataError(f"a list of texts was expected, but a {type(texts).__name__} with other things came.")

        parts = [np.empty((0, *self.shape("captions")), dtype=np.float32)]
        for start in range(0, len(texts), self.batch):
            parts.append(self._encode_texts(list(texts[start : start + self.batch])))

        return np.concatenate(parts)

    def _encode_pictures(self, x: np.ndarray) -> np.ndarray:
        import torch

        network = self._network
        with torch.inference_mode(), full_precision():
            hidden = network.vision_model(pixel_values=torch.from_numpy(x).to(self.device))
            pooled = network.visual_projection(hidden.pooler_output)  # (n, d)
            if self.output == "pooled":
                return self._scaled(pooled, pooled)

            normed = network.vision_model.post_layernorm(hidden.last_hidden_state)  # (n, n_tokens, width)
            return self._scaled(network.visual_projection(normed), pooled)

    def _encode_texts(self, texts: list[str]) -> np.ndarray:
        import torch

        network = self._network
        length = network.config.text_config.max_position_embeddings

        padding = True
        if self.output == "tokens":
            padding = "max_length"

        tokens = self._tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode(), full_precision():
            # No mask for the padding: it stands after the end mark, which in a causal network cannot see it, and
            # Versatile Diffusion's tokens are made so.
            hidden = network.text_model(input_ids=tokens["input_ids"].to(self.device))
            pooled = network.text_projection(hidden.pooler_output)  # (n, d)
            if self.output == "pooled":
                return self._scaled(pooled, pooled)

            return self._scaled(network.text_projection(hidden.last_hidden_state), pooled)

    def _scaled(self, latents: torch.Tensor, pooled: torch.Tensor) -> np.ndarray:
        """Latents in units of the pooled vector's length, where that is asked for."""
        if self.normalise == "l2":
            length = pooled.norm(dim=-1, keepdim=True)  # (n, 1)
            if latents.ndim == 3:
                length = length[:, None]  # (n, 1, 1), for every token

            latents = latents / length

        return latents.float().cpu().numpy()

    # -- through the store -----------------------------------------------------------------------------------------

    def transform(self, stimuli: Stimuli, cache: str | Path | None = None) -> np.ndarray:
        """Latents of pictures, (n_stimuli, *shape("images")) float32; read from `cache` where it is given.

        A cache holds the stimuli it was made for together: make it for all of a data set (:meth:`image_store`) and
        read those you need, rather than one for each selection.
        """
        if cache is not None:
            return self.image_store(stimuli, cache).read(stimuli.ids).astype(np.float32, copy=False)

        parts = [np.empty((0, *self.shape("images")), dtype=np.float32)]
        for start in range(0, len(stimuli), self.batch):
            parts.append(self.images(stimuli.pixels(slice(start, start + self.batch))))

        return np.concatenate(parts)

    def image_store(self, stimuli: Stimuli, cache: str | Path, progress: Progress | None = None) -> RowStore:
        """Latents of pictures on disk, by stimulus id; only what is missing is computed, by any number of processes.

        Parameters
        ----------
        stimuli : Stimuli
            all pictures of a data set; missing ones are left out
        cache : str or Path
            folder of stores
        progress : Progress, optional
            says how far it is

        Raises
        ------
        ModelError
            When the cache was made by other library versions that give other numbers (see ``features.fingerprint``).
        """
        stimuli = stimuli.available()
        return self._store(
            "images",
            stimuli.ids,
            content_digest(stimuli),
            lambda ids: self.images(stimuli.select(ids).pixels()),
            lambda: self.images(fingerprint.reference_pictures()),
            cache,
            progress,
        )

    def captions(self, stimuli: Stimuli, cache: str | Path | None = None) -> np.ndarray:
        """Mean of the latents of each stimulus's captions that are not empty, (n_stimuli, *shape("captions")) float32.

        Each caption is normalised as asked before the mean; the mean itself is not.

        Raises
        ------
        DataError
            When a stimulus has no caption.
        """
        texts, counts = _all_captioned(stimuli)
        ids = [f"{stimuli.ids[row]}#{k}" for row, k in texts]

        rows = None
        if cache is not None:
            rows = self.caption_store(stimuli, cache).select(ids)

        total = np.zeros((len(stimuli), *self.shape("captions")), dtype=np.float32)
        keys = list(texts)

        for start in range(0, len(keys), self.batch):
            block = keys[start : start + self.batch]
            owner = [row for row, _ in block]
            if rows is None:
                latents = self.texts([texts[key] for key in block])
            else:
                latents = rows[start : start + self.batch]

            np.add.at(total, owner, latents.astype(np.float32, copy=False))

        each = (-1, *[1] * (total.ndim - 1))
        return total / counts.reshape(each).astype(np.float32)

    def caption_store(self, stimuli: Stimuli, cache: str | Path, progress: Progress | None = None) -> RowStore:
        """Latents of captions on disk, under ``STIMULUS#0``, ``STIMULUS#1`` ...; empty ones are left out.

        Raises
        ------
        DataError
            Without any caption.
        ModelError
            As :meth:`image_store`.
        """
        texts = {f"{stimuli.ids[row]}#{k}": text for (row, k), text in caption_texts(stimuli).items()}
        if not texts:
            raise DataError("these stimuli have no captions; give captions when the data set is made.")

        return self._store(
            "captions",
            np.array(list(texts), dtype=object),
            digest_of(texts),
            lambda ids: self.texts([texts[i] for i in ids]),
            lambda: self.texts(fingerprint.reference_texts()),
            cache,
            progress,
        )

    def caption_mean_store(self, stimuli: Stimuli, cache: str | Path, progress: Progress | None = None) -> RowStore:
        """Means of :meth:`captions` on disk, by stimulus id; captions themselves are not kept.

        Raises
        ------
        DataError
            When a stimulus has no caption.
        ModelError
            As :meth:`image_store`.
        """
        texts, _ = _all_captioned(stimuli)
        return self._store(
            "captions",
            stimuli.ids,
            digest_of({f"{stimuli.ids[row]}#{k}": text for (row, k), text in texts.items()}),
            lambda ids: self.captions(stimuli.select(ids)),
            lambda: self.texts(fingerprint.reference_texts()),
            cache,
            progress,
            of="mean over a stimulus's captions",
        )

    def _store(
        self,
        what: Literal["images", "captions"],
        ids: np.ndarray,
        content: str,
        compute: Callable[[np.ndarray], np.ndarray],
        references: Callable[[], np.ndarray],
        cache: str | Path,
        progress: Progress | None,
        **more: str,
    ) -> RowStore:
        return cached(
            cache,
            {**self.spec(what), "content": content, **more},
            ids,
            compute,
            shape=self.shape(what),
            dtype=self.dtype,
            unit=f"CLIP {self.name}, {what}, {self.output}, {self.normalise}",
            batch=self.batch,
            progress=progress,
            check=lambda store: fingerprint.hold(store, references()),
        )

    def spec(self, what: Literal["images", "captions"] = "images") -> dict[str, Any]:
        """What features are filed under: weights, preprocessing or tokenizer, output. No names and no paths."""
        made_by = {"extractor": "clip", "version": _VERSION, "what": what, **self._digest}
        if what == "images":
            made_by["preprocessing"] = self._preprocessing.spec()
        else:
            made_by["tokenizer"] = self._tokenizer_digest

        return {**made_by, "output": self.output, "normalise": self.normalise}

    # -- the network -----------------------------------------------------------------------------------------------

    @cached_property
    def _folder(self) -> Path:
        return clip_files.locate_checkpoint(self.name, self.revision, self.download)

    @cached_property
    def _network(self) -> Any:  # a CLIPModel of transformers
        if self.name == LAB:
            from phosphene.models import bundled

            return bundled.load("clip", device=self.device, folder=self.lab_folder)

        return clip_files.load_clip(self._folder).to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        if self.name == LAB:
            from phosphene.models import bundled

            return bundled.tokenizer(self.lab_folder)

        return clip_files.load_tokenizer(self._folder)

    @cached_property
    def _tokenizer_digest(self) -> str:
        """Of the vocabulary and its rules."""
        rules = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for setting in ("padding", "truncation"):  # of the last call, not of the tokenizer
            rules.pop(setting, None)

        return digest_of(json.dumps(rules, sort_keys=True))

    @cached_property
    def _preprocessing(self) -> Preprocessing:
        size = self._network.config.vision_config.image_size
        if self.name == LAB:
            # The bundled network was trained on 2 x - 1.
            return Preprocessing(size, size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

        return Preprocessing.of(self._folder, size)

    @cached_property
    def _digest(self) -> dict[str, str]:
        if self.name == LAB:
            from phosphene.models import bundled

            about = bundled.record("clip", self.lab_folder)
            return {"weights": about["sha256"], "config": digest_of(json.dumps(about["config"], sort_keys=True))}

        return clip_files.checkpoint_digest(self._folder)


def caption_texts(stimuli: Stimuli) -> dict[tuple[int, int], str]:
    """(row, number) to text, of captions that are not empty."""
    kept = {}
    for row, texts in enumerate(stimuli.captions or ()):
        for number, text in enumerate(texts):
            if text.strip():
                kept[row, number] = text

    return kept


def _all_captioned(stimuli: Stimuli) -> tuple[dict[tuple[int, int], str], np.ndarray]:
    """The same, and how many each stimulus has, which must be one at least."""
    texts = caption_texts(stimuli)
    counts = np.bincount([row for row, _ in texts], minlength=len(stimuli))
    if not counts.all():
        raise DataError(
            f"{int((counts == 0).sum())} of {len(stimuli)} stimuli have no caption, first "
            f"'{stimuli.ids[counts.argmin()]}'. Give captions, or leave these stimuli out."
        )

    return texts, counts


def content_digest(stimuli: Stimuli) -> str:
    """Digest of the pictures behind the ids, in any order: every picture up to 20,000, beyond that an even sample."""
    order = np.argsort(stimuli.ids.astype(str), kind="stable")
    step = max(1, -(-len(order) // _ALL_PICTURES))
    some = stimuli.select(stimuli.ids[order[::step]])

    return digest_of(dict(zip(some.ids, some.pixel_digests(), strict=True)))


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products in full: TensorFloat-32 moves features by about the tolerance of the fingerprint."""
    import torch

    matmul = torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
