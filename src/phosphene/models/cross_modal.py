"""Phase two of CAD: an autoencoder of responses and one of pictures, each hidden in part, help each other out.

Sun et al. 2023, NeurIPS, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities",
section 3.2, "cross modality guidance" by cross-attention. ::

    response, 3/4 hidden -> 24 blocks -> 3 cross blocks, attending to the picture's tokens  -> decoder -> hidden patches
    picture,  1/2 hidden -> 12 blocks -> 3 cross blocks, attending to the response's tokens -> decoder -> hidden patches

    loss = 0.25 * error of the response + 1.5 * error of the picture

The picture's error reaches the brain encoder through the tokens its cross blocks attend to: so what helps to see the
picture gets into the encoder. It alone is used afterwards (`CrossModalPart.brain`). The picture side is any
``ViTMAEForPreTraining`` of transformers; the paper's is ``facebook/vit-mae-base``.

Where the paper and the authors' code differ:

- What of the picture side stays as it was: its decoder (paper, the default) or its encoder (code); see `frozen`. In the
  code the decoder's position codes are trained as well.
- The tokens attended to come from whole inputs (code, the default) or from what is left of them (paper); `mask_support`.
- Queries come from a side's own tokens, keys and values from the other side's, as in the code. The paper's equations 4 and
  5 have it the other way round; the result would then have the other side's number of tokens and could not be added.
- A cross block is the code's, of which there are three, not the single attention of the paper.

In this file, from top to bottom: the configuration; the cross block; the network, its two branches and its training
objective; batches of responses with their pictures; both autoencoders as a part of a run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from phosphene.errors import DataError, ModelError
from phosphene.io.config import Config, validate
from phosphene.models.dc_mae import for_subjects
from phosphene.models.patch_mae import PatchMae, PatchMaeConfig, PatchMaePart, pick_tokens
from phosphene.models.roi_mae import subject_batches
from phosphene.models.transformer import Attention, Mlp, initialise, run_blocks
from phosphene.training.attention import attend
from phosphene.training.checkpoint import ModulePart
from phosphene.training.losses import row_correlation
from phosphene.training.sampling import Draws

if TYPE_CHECKING:
    from transformers import ViTMAEForPreTraining


class CrossModalConfig(Config):
    """How the two autoencoders are bound together; the defaults are the best row of table 2."""

    kind: Literal["cross_modal"] = "cross_modal"
    brain_weight: float = Field(
        default=0.25, ge=0, description="gamma_F, of the error of hidden response patches; table 2"
    )
    picture_weight: float = Field(
        default=1.5, ge=0, description="gamma_I, of the error of hidden picture patches; table 2"
    )
    brain_mask: float = Field(default=0.75, gt=0, lt=1, description="share of response patches hidden; table 2")
    picture_mask: float = Field(default=0.5, gt=0, lt=1, description="share of picture patches hidden; table 2")
    decoder_depth: int | None = Field(
        default=6, ge=1, description="decoder blocks kept of both autoencoders, the first ones; table 2. All when null"
    )
    cross_blocks: int = Field(
        default=3, ge=1, description="on each side; 3 in the authors' code, 1 attention in the paper"
    )
    frozen: Literal["decoder", "encoder"] = Field(
        default="decoder",
        description="half of the picture autoencoder that is not trained: decoder (paper), encoder (code)",
    )
    mask_support: bool = Field(
        default=False,
        description="whether the tokens attended to come from hidden inputs (paper) or whole ones (authors' code)",
    )
    sparsify: float = Field(
        default=0.0, ge=0, lt=1, description="share of voxels zeroed in training; none in the authors' code"
    )

    @model_validator(mode="after")
    def _trains(self) -> Self:
        if not self.brain_weight + self.picture_weight:
            raise ValueError("with brain_weight and picture_weight both 0 there is nothing to train on")

        return self

    @classmethod
    def preset(cls, name: Literal["paper", "lab", "code"]) -> dict[str, Any]:
        """Values over the defaults.

        Parameters
        ----------
        name : {"paper", "lab", "code"}
            none for ``paper``; ``lab`` has one cross block and keeps decoders; ``code`` freezes as the authors' code does

        Returns
        -------
        dict[str, Any]
            plain values, by field
        """
        if name == "code":
            return {"frozen": "encoder"}

        if name == "paper":
            return {}

        return {"decoder_depth": None, "cross_blocks": 1}


class CrossAttention(nn.Module):
    """Attention with queries from one sequence of tokens, keys and values from another of the same width.

    Parameters
    ----------
    width : int
        of a token, of both sequences
    n_heads : int
        divides `width`
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Tokens to tokens.

        Parameters
        ----------
        x : Tensor of shape (n, tokens, width)
            that attend
        y : Tensor of shape (n, others, width)
            that are attended to

        Returns
        -------
        Tensor of shape (n, tokens, width)
            in the order of `x`
        """
        keys, values = self.kv(y).chunk(2, -1)
        out = attend(
            self._heads(self.q(x)), self._heads(keys), self._heads(values)
        )  # (n, heads, tokens, width / heads)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (n, heads, tokens, width / heads)


class CrossBlock(nn.Module):
    """Self-attention, whose result is the query of a cross-attention to the other modality, and an MLP.

        a = SA(norm(x));    x <- x + CA(q = norm(a), k = v = y);    x <- x + MLP(norm2(x))

    One norm serves twice, and what self-attention finds enters only through the query: the authors' code.

    Parameters
    ----------
    width : int
        of a token, of both modalities
    n_heads : int
        divides `width`
    hidden : int
        units of the MLP
    eps : float
        of the norms
    """

    def __init__(self, width: int, n_heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, n_heads)
        self.cross = CrossAttention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Tokens to tokens.

        Parameters
        ----------
        x : Tensor of shape (n, tokens, width)
            that attend
        y : Tensor of shape (n, others, width)
            that are attended to

        Returns
        -------
        Tensor of shape (n, tokens, width)
            in the order of `x`
        """
        query = self.norm1(self.attn(self.norm1(x)))
        x = x + self.cross(query, y)
        return x + self.mlp(self.norm2(x))


class CrossModal(nn.Module):
    """An autoencoder of responses and one of pictures that attend to each other. Make one with `create`.

    Parameters
    ----------
    config : CrossModalConfig
        how they are bound together
    brain : PatchMae
        taken over as it is
    image : ViTMAEForPreTraining
        taken over as it is; which of its weights are trained is set here

    Attributes
    ----------
    brain : PatchMae
        what the second phase is for; use it, or `to_tokens` and `to_latent` here, afterwards
    n_picture_visible : int
        picture patches that training leaves visible

    References
    ----------
    Sun et al. 2023, "Contrast, Attend and Diffuse to Decode High-Resolution Images from Brain Activities", section 3.2.
    """

    def __init__(self, config: CrossModalConfig, brain: PatchMae, image: ViTMAEForPreTraining) -> None:
        super().__init__()
        self.config = config
        self.brain = brain
        self.image = image

        n_patches = image.vit.embeddings.patch_embeddings.num_patches
        self.n_picture_visible = int(n_patches * (1 - config.picture_mask))
        if not self.n_picture_visible:
            raise ModelError(
                f"hiding a share of {config.picture_mask} of {n_patches} picture patches leaves none visible."
            )

        brain_width = brain.config.width
        picture_width = image.config.hidden_size
        self.brain_in = nn.Linear(brain_width, picture_width)
        self.brain_out = nn.Linear(picture_width, brain_width)
        self.brain_cross = self._cross_blocks()
        self.image_cross = self._cross_blocks()
        self.brain_seen = nn.Linear(brain_width, picture_width)  # the response's tokens as pictures attend to them
        self._freeze()

    def _cross_blocks(self) -> nn.ModuleList:
        c = self.image.config
        blocks = nn.ModuleList()
        for _ in range(self.config.cross_blocks):
            blocks.append(CrossBlock(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.layer_norm_eps))

        return blocks

    @classmethod
    def create(
        cls,
        config: CrossModalConfig,
        brain: PatchMae,
        image: ViTMAEForPreTraining,
        seed: int,
        n_voxels: Mapping[str, int] | None = None,
        **changes: Any,
    ) -> Self:
        """Two trained autoencoders, bound together by new cross blocks; both are copied and left alone.

        Parameters
        ----------
        config : CrossModalConfig
            how they are bound together
        brain : PatchMae
            of the first phase, or the public SC-MBM model
        image : ViTMAEForPreTraining
            of pictures
        seed : int
            of the cross blocks; torch's global generator is left alone
        n_voxels : Mapping[str, int], optional
            by subject, of those to tune on; those of `brain` when None
        **changes : Any
            further settings of the brain autoencoder; see :func:`phosphene.models.for_subjects`

        Returns
        -------
        CrossModal
            on the device of `brain`

        Raises
        ------
        ModelError
            When a decoder has fewer blocks than ``config.decoder_depth``.
        """
        available = len(image.decoder.decoder_layers)
        if config.decoder_depth is None:
            depth = available
        else:
            depth = config.decoder_depth

        if depth > available:
            raise ModelError(
                f"decoder_depth is {depth}, but the picture autoencoder's decoder has {available} blocks; set it to "
                f"{available} or less, or to null to keep all."
            )

        settings: dict[str, Any] = {
            "mask_ratio": config.brain_mask,
            "loss_on": "masked",
            "sparsify": config.sparsify,
            **changes,
        }
        if config.decoder_depth is not None:
            settings["decoder_depth"] = depth

        tuned = for_subjects(brain, n_voxels or brain.n_voxels, **settings)

        image = copy.deepcopy(image).float()
        image.decoder.decoder_layers = image.decoder.decoder_layers[:depth]
        image.config.decoder_num_hidden_layers = depth

        with torch.device("meta"):  # new parts are built without drawing; their values follow
            network = cls(config, tuned, image)

        device = next(tuned.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        for part in (network.brain_in, network.brain_out, network.brain_seen, network.brain_cross, network.image_cross):
            initialise(part.to_empty(device=device), generator)

        return network

    def _freeze(self) -> None:
        vit = self.image.vit
        decoder = self.image.decoder
        trains_encoder = self.config.frozen == "decoder"
        vit.requires_grad_(trains_encoder)
        decoder.requires_grad_(not trains_encoder)  # its position codes included: the authors' code
        vit.embeddings.position_embeddings.requires_grad_(False)

    # -- what others use -------------------------------------------------------------------------------------------

    def to_tokens(self, betas: Tensor, subject: str | None = None, *, class_token: bool = False) -> Tensor:
        """Brain to the tuned encoder's tokens; no picture is needed.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject
        subject : str, optional
            may be left out where there is only one
        class_token : bool, default False
            whether it takes part and comes first

        Returns
        -------
        Tensor
            (n, patches, width), or (n, 1 + patches, width)
        """
        return self.brain.to_tokens(betas, subject, class_token=class_token)

    def to_latent(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Brain to the tuned encoder's class token.

        Parameters
        ----------
        betas : Tensor of shape (n, n_voxels)
            of one subject
        subject : str, optional
            may be left out where there is only one

        Returns
        -------
        Tensor of shape (n, width)
            after the last norm
        """
        return self.brain.to_latent(betas, subject)

    def picture_settings(self) -> dict[str, Any]:
        """What another picture autoencoder of this kind is made from, as plain values."""
        settings = self.image.config.to_diff_dict()
        return {key: value for key, value in settings.items() if key not in ("transformers_version", "dtype")}

    # -- the two branches ------------------------------------------------------------------------------------------

    def predict(
        self, patches: Tensor, pictures: Tensor, visible: Tensor, picture_visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hidden patches of responses and of pictures, each from its own visible ones and the other side.

        Parameters
        ----------
        patches : Tensor of shape (n, n_patches, patch_size)
            as ``brain.to_patches`` gives them
        pictures : Tensor of shape (n, 3, height, width)
            as the picture autoencoder takes them
        visible : Tensor of shape (n, k)
            int64, ascending, response patches to leave visible
        picture_visible : Tensor of shape (n, l)
            int64, ascending, picture patches to leave visible

        Returns
        -------
        voxels : Tensor of shape (n, n_patches - k, patch_size)
            the hidden patches of responses, in ascending order
        pixels : Tensor of shape (n, picture patches - l, values of a patch)
            the hidden patches of pictures, in ascending order
        """
        brain = self.brain
        vit = self.image.vit

        # Both encoders on what is visible, up to their last norm.
        brain_tokens = run_blocks(brain.blocks, brain.embed(patches, visible), recompute=brain.recompute)
        picture_tokens = self._encode_pictures(pictures, picture_visible)

        # What each side attends to: the other's visible tokens (paper), or those of its whole input (code).
        if self.config.mask_support:
            brain_support = brain.norm(brain_tokens)
            picture_support = vit.layernorm(picture_tokens)
        else:
            brain_support = brain.encode(patches)
            picture_support = vit.layernorm(self._encode_pictures(pictures))

        # The response's branch, in the picture's width; what the cross blocks add passes around them once more.
        entered = self.brain_in(brain_tokens)
        x = entered
        for block in self.brain_cross:
            x = block(x, picture_support)

        left = brain.norm(self.brain_out(entered + x))  # (n, 1 + k, brain width)
        voxels = brain.decode(left, visible, hidden_only=True)

        # The picture's branch.
        brain_support = self.brain_seen(brain_support)
        for block in self.image_cross:
            picture_tokens = block(picture_tokens, brain_support)

        hidden = self.picture_hidden(picture_visible)
        order = torch.cat([picture_visible, hidden], dim=1).argsort(1)  # visible ones stand first so far
        all_pixels = self.image.decoder(vit.layernorm(picture_tokens), order).logits  # (n, picture patches, values)

        return voxels, pick_tokens(all_pixels, hidden)

    def _encode_pictures(self, pictures: Tensor, visible: Tensor | None = None) -> Tensor:
        """Pictures through the encoder but its last norm, (n, 1 + k, width)."""
        embeddings = self.image.vit.embeddings
        code = embeddings.position_embeddings  # (1, 1 + patches, width)
        x = embeddings.patch_embeddings(pictures) + code[:, 1:]
        if visible is not None:
            x = pick_tokens(x, visible)

        class_token = (embeddings.cls_token + code[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([class_token, x], dim=1)

        for layer in self.image.vit.layers:
            x = layer(x)

        return x

    def draw_picture_visible(self, draws: Draws) -> Tensor:
        """Picture patches to leave visible, evenly at random in each picture: (n, n_picture_visible) int64 ascending."""
        noise = draws.uniform(self.image.vit.embeddings.patch_embeddings.num_patches)
        return noise.topk(self.n_picture_visible, largest=False).indices.sort(1).values

    def picture_hidden(self, visible: Tensor) -> Tensor:
        """The other picture patches: (n, k) to (n, patches - k), ascending."""
        n_patches = self.image.vit.embeddings.patch_embeddings.num_patches
        is_visible = torch.zeros(len(visible), n_patches, dtype=torch.uint8, device=visible.device)
        order = is_visible.scatter_(1, visible, 1).argsort(dim=1, stable=True)  # hidden ones first
        return order[:, : n_patches - visible.shape[1]]

    # -- training --------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared errors of hidden response patches and hidden picture patches, weighted.

        Parameters
        ----------
        batch : Mapping[str, Any]
            as :func:`phosphene.models.paired_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict[str, Tensor])
            loss, and ``{"brain": error of responses, "picture": error of pictures, "brain_correlation",
            "picture_correlation": mean over rows of Pearson's r between what was hidden and its prediction}``

        Raises
        ------
        ModelError
            For pictures of another size.
        """
        c = self.config
        inputs, whole = self.brain.inputs(batch, draws)
        pictures = self._checked(batch["pictures"], len(inputs))
        visible = self.brain.draw_visible(draws)
        picture_visible = self.draw_picture_visible(draws)

        voxels, pixels = self.predict(inputs, pictures, visible, picture_visible)
        voxels = voxels.float()
        pixels = pixels.float()
        true_voxels = pick_tokens(whole, self.brain.hidden(visible))
        true_pixels = pick_tokens(self._targets(pictures), self.picture_hidden(picture_visible))

        brain_error = F.mse_loss(voxels, true_voxels)
        picture_error = F.mse_loss(pixels, true_pixels)

        with torch.no_grad():
            brain_correlation = row_correlation(true_voxels.flatten(1), voxels.flatten(1)).mean()
            picture_correlation = row_correlation(true_pixels.flatten(1), pixels.flatten(1)).mean()

        loss = c.brain_weight * brain_error + c.picture_weight * picture_error
        terms = {
            "brain": brain_error,
            "picture": picture_error,
            "brain_correlation": brain_correlation,
            "picture_correlation": picture_correlation,
        }
        return loss, terms

    def _targets(self, pictures: Tensor) -> Tensor:
        """Patches of pictures, (n, patches, values of a patch), each normalised where the autoencoder learnt it so."""
        patches = self.image.patchify(pictures)
        if not self.image.config.norm_pix_loss:
            return patches

        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()  # 1e-6 as in transformers

    def _checked(self, pictures: Tensor, n: int) -> Tensor:
        c = self.image.config
        shape = (n, c.num_channels, c.image_size, c.image_size)
        if pictures.shape != shape:
            raise ModelError(
                f"{n} responses need pictures of shape {shape}, which this picture autoencoder was trained on, but "
                f"{tuple(pictures.shape)} came; resize them before."
            )

        return pictures.float()


def paired_batches(
    betas: Mapping[str, np.ndarray], picture_rows: Mapping[str, np.ndarray], pictures: Any
) -> tuple[Callable[[np.ndarray], dict[str, Any]], int]:
    """What :func:`phosphene.training.train` needs to train on responses with the pictures they belong to.

    Parameters
    ----------
    betas : Mapping[str, ndarray]
        by subject, each (n_trials, n_voxels of that subject), arrays or memory maps
    picture_rows : Mapping[str, ndarray]
        by the same subjects, (n_trials,) whole numbers: the row of `pictures` that was on in each trial
    pictures : Any
        (m, 3, height, width), as the picture autoencoder takes them: array, memory map, or rows of a store

    Returns
    -------
    fetch : callable
        rows of all subjects counted through, to what :func:`phosphene.models.subject_batches` gives, with ``"pictures":
        (n, 3, height, width)`` in the order of the rows
    n_items : int
        rows in all

    Raises
    ------
    DataError
        When subjects or trials of the two do not match, or there is no picture of a number.
    """
    if set(betas) != set(picture_rows):
        raise DataError(f"responses are of subjects {', '.join(betas)}, but pictures of {', '.join(picture_rows)}.")

    for subject, responses in betas.items():
        _check_numbers(subject, len(responses), np.asarray(picture_rows[subject]), len(pictures))

    fetch, n_items = subject_batches(betas)
    by_subject = [np.asarray(picture_rows[subject], dtype=np.int64) for subject in betas]
    if by_subject:
        numbers = np.concatenate(by_subject)  # (n_items,) picture of each row
    else:
        numbers = np.zeros(0, dtype=np.int64)

    def fetch_pairs(rows: np.ndarray) -> dict[str, Any]:
        chosen = numbers[np.asarray(rows)]
        values = np.array(pictures[chosen], dtype=np.float32)  # (n, 3, height, width)
        return {**fetch(rows), "pictures": torch.from_numpy(values)}

    return fetch_pairs, n_items


def _check_numbers(subject: str, n_trials: int, numbers: np.ndarray, n_pictures: int) -> None:
    if numbers.shape != (n_trials,) or numbers.dtype.kind not in "iu":
        raise DataError(
            f"each of the {n_trials} trials of subject {subject} needs the row of its picture, but {numbers.dtype} of "
            f"shape {numbers.shape} came."
        )

    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < n_pictures):
        raise DataError(
            f"trials of subject {subject} name pictures {numbers.min()} to {numbers.max()}, but there are rows 0 to "
            f"{n_pictures - 1}."
        )


class CrossModalPart(ModulePart):
    """Both trained autoencoders as a part of a run, working on arrays.

    Parameters
    ----------
    module : CrossModal
        a :class:`phosphene.models.CrossModal`
    config : Mapping[str, Any]
        as `of` makes it
    """

    module: CrossModal

    @classmethod
    def of(cls, network: CrossModal) -> Self:
        """The part that holds this network.

        Parameters
        ----------
        network : CrossModal
            trained

        Returns
        -------
        CrossModalPart
            whose weights are those of the network, not copies
        """
        config = {
            "network": network.config.model_dump(mode="json"),
            "brain": PatchMaePart.of(network.brain).config,
            "picture": network.picture_settings(),
        }
        return cls(network, config)

    @classmethod
    def build(cls, config: dict[str, Any]) -> CrossModal:
        """A network of this configuration without values yet.

        Parameters
        ----------
        config : dict[str, Any]
            as `of` makes it

        Returns
        -------
        CrossModal
            on the CPU; the memory of the weights is not filled
        """
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        values = validate(CrossModalConfig, config["network"], "the saved network")
        brain = validate(PatchMaeConfig, config["brain"]["network"], "the saved autoencoder")
        n_voxels = {name: int(n) for name, n in config["brain"]["subjects"]}

        with torch.device("meta"):
            picture = ViTMAEForPreTraining(ViTMAEConfig(**config["picture"]))
            network = CrossModal(values, PatchMae(brain, n_voxels), picture)

        return network.to_empty(device="cpu")

    @property
    def brain(self) -> PatchMaePart:
        """The tuned brain autoencoder, which shares the weights: all that decoding needs."""
        return PatchMaePart.of(self.module.brain)

    def to_tokens(
        self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64, *, class_token: bool = False
    ) -> np.ndarray:
        """Brain to tokens of the tuned encoder, as :meth:`phosphene.models.PatchMaePart.to_tokens`.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as in training, array or memory map
        subject : str, optional
            may be left out where there is only one
        batch_size : int, default 64
            rows at a time
        class_token : bool, default False
            whether it takes part and comes first

        Returns
        -------
        ndarray of float32
            (n, patches, width), or (n, 1 + patches, width) with the class token
        """
        return self.brain.to_tokens(betas, subject, batch_size, class_token=class_token)

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to the tuned encoder's class token.

        Parameters
        ----------
        betas : ndarray of shape (n, n_voxels)
            standardised as in training, array or memory map
        subject : str, optional
            may be left out where there is only one
        batch_size : int, default 64
            rows at a time

        Returns
        -------
        ndarray of shape (n, width), float32
            each row as if it were alone, but for rounding
        """
        return self.brain.to_latent(betas, subject, batch_size)
