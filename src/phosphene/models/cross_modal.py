"""The network of CAD's second phase; :mod:`phosphene.models.cross_modal` says what it is."""

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
from phosphene.io.config import Config
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
        description="whether the tokens looked at come from hidden inputs (paper) or whole ones (authors' code)",
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
        """Values over the defaults: none for ``paper``; ``lab`` has one cross block and keeps decoders; ``code`` freezes as
        the authors' code does."""
        if name == "code":
            return {"frozen": "encoder"}
        if name == "paper":
            return {}

        return {"decoder_depth": None, "cross_blocks": 1}


class CrossAttention(nn.Module):
    """Attention with queries from one sequence of tokens, keys and values from another of the same width."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, tokens, width) looking at (n, others, width), to (n, tokens, width)."""
        parts = (self.q(x), *self.kv(y).chunk(2, -1))
        q, k, v = (z.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for z in parts)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """Tokens that look at each other, and with what they found there at another modality.

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
        """(n, tokens, width) looking at (n, others, width), to (n, tokens, width)."""
        x = x + self.cross(self.norm1(self.attn(self.norm1(x))), y)
        return x + self.mlp(self.norm2(x))


class CrossModal(nn.Module):
    """An autoencoder of responses and one of pictures that look at each other. Make one with `create`.

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

        c = image.config
        own = brain.config.width

        def blocks() -> nn.ModuleList:
            sizes = (c.hidden_size, c.num_attention_heads, c.intermediate_size, c.layer_norm_eps)
            return nn.ModuleList(CrossBlock(*sizes) for _ in range(config.cross_blocks))

        self.brain_in = nn.Linear(own, c.hidden_size)
        self.brain_out = nn.Linear(c.hidden_size, own)
        self.brain_cross = blocks()
        self.image_cross = blocks()
        self.brain_seen = nn.Linear(own, c.hidden_size)  # the response's tokens as the picture sees them
        self._freeze()

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
        n_voxels : mapping of {str: int}, optional
            by subject, of those to tune on; those of `brain` when None
        changes : Any
            further settings of the brain autoencoder; see :func:`phosphene.models.for_subjects`

        Raises
        ------
        ModelError
            When a decoder has fewer blocks than ``config.decoder_depth``.
        """
        depth = config.decoder_depth
        theirs = len(image.decoder.decoder_layers)
        if depth is not None and depth > theirs:
            raise ModelError(
                f"decoder_depth is {depth}, but the picture autoencoder's decoder has {theirs} blocks; set it to {theirs} or "
                "less, or to null to keep all."
            )

        changes = {"mask_ratio": config.brain_mask, "loss_on": "masked", "sparsify": config.sparsify} | changes
        if depth is not None:
            changes["decoder_depth"] = depth

        tuned = for_subjects(brain, n_voxels or brain.n_voxels, **changes)
        image = copy.deepcopy(image).float()
        image.decoder.decoder_layers = image.decoder.decoder_layers[: depth or theirs]
        image.config.decoder_num_hidden_layers = depth or theirs

        with torch.device("meta"):  # new parts are built without drawing; their values follow
            network = cls(config, tuned, image)

        generator = torch.Generator().manual_seed(seed)
        for part in (network.brain_in, network.brain_out, network.brain_seen, network.brain_cross, network.image_cross):
            initialise(part.to_empty(device=next(tuned.parameters()).device), generator)

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
        """Brain to the tuned encoder's tokens, (n, n_voxels) to (n, patches, width); no picture is needed."""
        return self.brain.to_tokens(betas, subject, class_token=class_token)

    def to_latent(self, betas: Tensor, subject: str | None = None) -> Tensor:
        """Brain to the tuned encoder's class token, (n, n_voxels) to (n, width)."""
        return self.brain.to_latent(betas, subject)

    def picture_settings(self) -> dict[str, Any]:
        """What another picture autoencoder of this kind is made from, as plain values."""
        return {k: v for k, v in self.image.config.to_diff_dict().items() if k not in ("transformers_version", "dtype")}

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
        visible : Tensor of shape (n, k), int64
            ascending, response patches to leave visible
        picture_visible : Tensor of shape (n, l), int64
            ascending, picture patches to leave visible

        Returns
        -------
        tuple of (Tensor, Tensor)
            (n, n_patches - k, patch_size), and (n, picture patches - l, values of a patch), in ascending order
        """
        brain = self.brain
        vit = self.image.vit
        own = run_blocks(brain.blocks, brain.embed(patches, visible), recompute=brain.recompute)
        seen = self._look(pictures, picture_visible)

        if self.config.mask_support:
            response = brain.norm(own)
            picture = vit.layernorm(seen)
        else:
            response = brain.encode(patches)
            picture = vit.layernorm(self._look(pictures))

        x = start = self.brain_in(own)
        for block in self.brain_cross:
            x = block(x, picture)

        voxels = brain.decode(brain.norm(self.brain_out(start + x)), visible, hidden_only=True)

        response = self.brain_seen(response)
        for block in self.image_cross:
            seen = block(seen, response)

        hidden = self.picture_hidden(picture_visible)
        order = torch.cat([picture_visible, hidden], dim=1).argsort(1)

        return voxels, pick_tokens(self.image.decoder(vit.layernorm(seen), order).logits, hidden)

    def _look(self, pictures: Tensor, visible: Tensor | None = None) -> Tensor:
        """Pictures through the encoder but its last norm, (n, 1 + k, width)."""
        embeddings = self.image.vit.embeddings
        x = embeddings.patch_embeddings(pictures) + embeddings.position_embeddings[:, 1:]
        if visible is not None:
            x = pick_tokens(x, visible)

        first = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1)

        for layer in self.image.vit.layers:
            x = layer(x)

        return x

    def draw_picture_visible(self, draws: Draws) -> Tensor:
        """Picture patches to leave visible, evenly at random in each picture: (n, n_picture_visible) int64 ascending."""
        noise = draws.uniform(self.image.vit.embeddings.patch_embeddings.num_patches)
        return noise.topk(self.n_picture_visible, largest=False).indices.sort(1).values

    def picture_hidden(self, visible: Tensor) -> Tensor:
        """The other picture patches: (n, k) to (n, patches - k), ascending."""
        n = self.image.vit.embeddings.patch_embeddings.num_patches
        flags = torch.zeros(len(visible), n, dtype=torch.uint8, device=visible.device)
        return flags.scatter_(1, visible, 1).argsort(dim=1, stable=True)[:, : n - visible.shape[1]]

    # -- training --------------------------------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Any], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared errors of hidden response patches and hidden picture patches, weighted.

        Parameters
        ----------
        batch : mapping of {str: Any}
            as :func:`phosphene.models.paired_batches` makes it
        draws : Draws
            noise of this batch; an item gets the same however the batch is shared out

        Returns
        -------
        tuple of (Tensor, dict of {str: Tensor})
            loss, and ``{"brain": error of responses, "picture": error of pictures, "brain_correlation",
            "picture_correlation": mean over rows of Pearson's r between what was hidden and its prediction}``

        Raises
        ------
        ModelError
            For pictures of another size.
        """
        inputs, whole = self.brain.inputs(batch, draws)
        pictures = self._checked(batch["pictures"], len(inputs))
        visible = self.brain.draw_visible(draws)
        picture_visible = self.draw_picture_visible(draws)
        voxels, pixels = self.predict(inputs, pictures, visible, picture_visible)
        pairs = {
            "brain": (voxels.float(), pick_tokens(whole, self.brain.hidden(visible))),
            "picture": (pixels.float(), pick_tokens(self._targets(pictures), self.picture_hidden(picture_visible))),
        }

        errors = {name: F.mse_loss(a, b) for name, (a, b) in pairs.items()}
        with torch.no_grad():
            rs = {
                f"{name}_correlation": row_correlation(b.flatten(1), a.flatten(1)).mean()
                for name, (a, b) in pairs.items()
            }

        loss = self.config.brain_weight * errors["brain"] + self.config.picture_weight * errors["picture"]
        return loss, {**errors, **rs}

    def _targets(self, pictures: Tensor) -> Tensor:
        patches = self.image.patchify(pictures)
        if not self.image.config.norm_pix_loss:
            return patches

        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def _checked(self, pictures: Tensor, n: int) -> Tensor:
        c = self.image.config
        if pictures.shape != (n, c.num_channels, c.image_size, c.image_size):
            raise ModelError(
                f"{n} responses need pictures of shape {(n, c.num_channels, c.image_size, c.image_size)}, which this picture "
                f"autoencoder was trained on, but {tuple(pictures.shape)} came; resize them before."
            )

        return pictures.float()


def paired_batches(
    betas: Mapping[str, np.ndarray], shown: Mapping[str, np.ndarray], pictures: Any
) -> tuple[Callable[[np.ndarray], dict[str, Any]], int]:
    """What :func:`phosphene.training.train` needs to train on responses with the pictures they belong to.

    Parameters
    ----------
    betas : mapping of {str: ndarray}
        by subject, each (n_trials, n_voxels of that subject), arrays or memory maps
    shown : mapping of {str: ndarray}
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
        When subjects or trials of the two do not match, or a picture is not there.
    """
    if set(betas) != set(shown):
        raise DataError(f"responses are of subjects {', '.join(betas)}, but pictures of {', '.join(shown)}.")

    for name, rows in betas.items():
        of = np.asarray(shown[name])
        if of.shape != (len(rows),) or of.dtype.kind not in "iu":
            raise DataError(
                f"each of the {len(rows)} trials of subject {name} needs the row of its picture, but {of.dtype} of shape "
                f"{of.shape} came."
            )

        if len(of) and not (of.min() >= 0 and of.max() < len(pictures)):
            raise DataError(
                f"trials of subject {name} name pictures {of.min()} to {of.max()}, but there are rows 0 to {len(pictures) - 1}."
            )

    fetch, n = subject_batches(betas)
    if betas:
        numbers = np.concatenate([np.asarray(shown[name], dtype=np.int64) for name in betas])
    else:
        numbers = np.zeros(0, int)

    def paired(rows: np.ndarray) -> dict[str, Any]:
        import torch

        values = np.array(pictures[numbers[np.asarray(rows)]], dtype=np.float32)
        return {**fetch(rows), "pictures": torch.from_numpy(values)}

    return paired, n


class CrossModalPart(ModulePart):
    """Both trained autoencoders as a part of a run, working on arrays.

    Parameters
    ----------
    module : CrossModal
        a :class:`phosphene.models.CrossModal`
    config : mapping of {str: Any}
        as `of` makes it
    """

    module: CrossModal

    @classmethod
    def of(cls, network: CrossModal) -> Self:
        """The part that holds this network."""
        return cls(
            network,
            {
                "network": network.config.model_dump(mode="json"),
                "brain": PatchMaePart.of(network.brain).config,
                "picture": network.picture_settings(),
            },
        )

    @classmethod
    def build(cls, config: dict[str, Any]) -> CrossModal:
        """A network of this configuration without values yet."""
        import torch
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        from phosphene.io.config import validate
        from phosphene.models.patch_mae import PatchMae

        values = validate(CrossModalConfig, config["network"], "the saved network")
        brain = validate(PatchMaeConfig, config["brain"]["network"], "the saved autoencoder")
        subjects = {name: int(n) for name, n in config["brain"]["subjects"]}

        with torch.device("meta"):
            network = CrossModal(
                values, PatchMae(brain, subjects), ViTMAEForPreTraining(ViTMAEConfig(**config["picture"]))
            )

        return network.to_empty(device="cpu")

    @property
    def brain(self) -> PatchMaePart:
        """The tuned brain autoencoder, which shares the weights: all that decoding needs."""
        return PatchMaePart.of(self.module.brain)

    def to_tokens(
        self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64, *, class_token: bool = False
    ) -> np.ndarray:
        """Brain to tokens of the tuned encoder: (n, n_voxels) to (n, patches, width) float32; see `PatchMaePart`."""
        return self.brain.to_tokens(betas, subject, batch_size, class_token=class_token)

    def to_latent(self, betas: np.ndarray, subject: str | None = None, batch_size: int = 64) -> np.ndarray:
        """Brain to the tuned encoder's class token: (n, n_voxels) to (n, width) float32."""
        return self.brain.to_latent(betas, subject, batch_size)
