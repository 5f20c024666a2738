"""One training step of the fMRI masked autoencoders at published size, beside MinD-Vis.

4,480 voxels, which the published padding makes 4,496 or 281 patches of 16; mask ratio 0.75; 24 blocks of width 1024, 8 of
512; batch 8; forward, backward, clipping at 0.8, AdamW, and the correlation that is logged. One step to warm up, then the
one that is timed. A step has about 91 GFLOP per sample, so the rate of plain products bounds every case; the note says it.

Cases
-----
MinD-Vis        the published step: softmax attention written out, tokens unshuffled, last layer on all patches, ordinary
                AdamW, correlation sample by sample. Their own model class where MIND_VIS=FOLDER names a checkout of
                zjc062/mind-vis (its blocks come from timm, for which a stand-in is used where that is absent), else our
                own writing of it
ours            `PatchMae` through `phosphene.training.train`, float32
ours, bfloat16  the same with products in bfloat16
LEA             `RoiMae` of LEA, the eight ROIs of GOD subject 1 (4,466 voxels), float32: 257 tokens, none hidden, where
                MinD-Vis encodes 71
LEA, bfloat16   the same with products in bfloat16
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from pathlib import Path

import numpy as np
from benchmarks.measure import Clock, need
from benchmarks.record import Step, growth

TITLE = "a training step of the fMRI masked autoencoders, against MinD-Vis"
VOXELS, PATCH, BATCH, MASK_RATIO, CLIP = 4480, 16, 8, 0.75, 0.8
GOD_SBJ_1 = (1004, 801, 476, 588, 431, 249, 157, 760)


def betas(voxels: int, items: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4 * items, voxels)).astype(np.float32)


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(_: Path, voxels: int, items: int, bf16: bool = False, lea: bool = False) -> dict:
    """A step of the training loop that recipes use."""
    from phosphene.models import PatchMae, PatchMaeConfig, RoiMae, RoiMaeConfig, subject_batches
    from phosphene.training import TrainConfig, train

    if lea:
        voxels = sum(GOD_SBJ_1)
        groups = np.split(np.arange(voxels), np.cumsum(GOD_SBJ_1)[:-1])
        network = RoiMae.create(RoiMaeConfig(), {"sbj_1": groups}, 0)
    else:
        network = PatchMae.create(PatchMaeConfig(), {"sbj_1": voxels}, 0)
    fetch, n_items = subject_batches({"sbj_1": betas(voxels, items)})
    config = TrainConfig(
        steps=2, batch_size=items, lr=2.5e-4, adam_betas=(0.9, 0.95), weight_decay=0.05, clip_norm=CLIP,
        precision="bf16" if bf16 else "float32",
    )  # fmt: skip
    ends: list[tuple[float, float]] = []
    train(
        network, fetch, n_items, config, seed=0, log_every=1, device="cpu",
        watch=lambda _: ends.append((time.process_time(), time.perf_counter())),
    )  # fmt: skip
    clock = Clock()
    clock.cpu, clock.wall = (after - before for before, after in zip(*ends, strict=True))
    return clock.figures(note=products("bfloat16" if bf16 else "float32"))


def products(dtype: str) -> str:
    """What a product of the encoder's size runs at."""
    import torch

    a, b = torch.randn(568, 1024).to(getattr(torch, dtype)), torch.randn(1024, 3072).to(getattr(torch, dtype))
    a @ b
    start = time.process_time()
    for _ in range(10):
        a @ b
    return f"products alone: {20 * 568 * 1024 * 3072 / (time.process_time() - start) / 1e9:.0f} GFLOP per CPU second"


# -- the peer ----------------------------------------------------------------------------------------------------------


def plain_block():
    """A vision transformer's block as timm 0.5.4 computes it, with attention written out."""
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, width: int, n_heads: int):
            super().__init__()
            self.n_heads = n_heads
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x):
            n, tokens, width = x.shape
            q, k, v = self.qkv(x).reshape(n, tokens, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-2, -1)) * (width // self.n_heads) ** -0.5
            return self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(n, tokens, width))

    class Block(nn.Module):
        def __init__(self, dim, num_heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=nn.LayerNorm):
            super().__init__()
            hidden = int(dim * mlp_ratio)
            self.norm1, self.attn = norm_layer(dim), Attention(dim, num_heads)
            self.norm2 = norm_layer(dim)
            self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    return Block


def plain_model(n_patches: int):
    """The masked autoencoder as MinD-Vis describes it, in our words; for runs without a checkout of theirs."""
    import torch
    from torch import nn

    block = plain_block()

    class Plain(nn.Module):
        def __init__(self, width=1024, depth=24, decoder_width=512, decoder_depth=8, n_heads=16):
            super().__init__()
            self.embed = nn.Conv1d(1, width, PATCH, PATCH)
            self.first, self.mask = (nn.Parameter(0.02 * torch.randn(1, 1, w)) for w in (width, decoder_width))
            codes = [torch.randn(1, 1 + n_patches, w) for w in (width, decoder_width)]  # any values cost the same
            self.code, self.decoder_code = (nn.Parameter(c, requires_grad=False) for c in codes)
            self.blocks = nn.Sequential(*(block(width, n_heads, 1.0) for _ in range(depth)))
            self.decoder_blocks = nn.Sequential(*(block(decoder_width, n_heads, 1.0) for _ in range(decoder_depth)))
            self.norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(decoder_width)
            self.decoder_embed, self.head = nn.Linear(width, decoder_width), nn.Linear(decoder_width, PATCH)

        def forward(self, x, mask_ratio=MASK_RATIO):
            target = x.reshape(len(x), n_patches, PATCH)
            tokens = self.embed(x).transpose(1, 2).contiguous() + self.code[:, 1:]
            kept = int(n_patches * (1 - mask_ratio))
            shuffle = torch.rand(len(x), n_patches).argsort(1)
            restore = shuffle.argsort(1)
            tokens = tokens.gather(1, shuffle[:, :kept, None].repeat(1, 1, tokens.shape[2]))
            is_hidden = torch.ones(len(x), n_patches)
            is_hidden[:, :kept] = 0
            is_hidden = is_hidden.gather(1, restore)
            first = (self.first + self.code[:, :1]).expand(len(x), -1, -1)
            tokens = self.decoder_embed(self.norm(self.blocks(torch.cat([first, tokens], 1))))
            rest = torch.cat([tokens[:, 1:], self.mask.repeat(len(x), n_patches - kept, 1)], 1)
            rest = rest.gather(1, restore[..., None].repeat(1, 1, rest.shape[2]))
            tokens = torch.cat([tokens[:, :1], rest], 1) + self.decoder_code
            predicted = self.head(self.decoder_norm(self.decoder_blocks(tokens)))[:, 1:]
            error = (predicted - target).square().mean(-1)
            return (error * is_hidden).sum() / is_hidden.sum(), predicted, is_hidden

    return Plain()


def published_model(folder: Path, n_patches: int):
    """MinD-Vis' own class from a checkout, with our block in place of timm's where timm is absent."""
    if importlib.util.find_spec("timm") is None:
        for name in ("timm", "timm.models", "timm.models.vision_transformer"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["timm.models.vision_transformer"].Block = plain_block()
    sys.path.insert(0, str(folder / "code"))
    from sc_mbm.mae_for_fmri import MAEforFMRI

    return MAEforFMRI(num_voxels=n_patches * PATCH, patch_size=PATCH, mlp_ratio=1.0)


def peer(_: Path, voxels: int, items: int) -> dict:
    """The second step, in the order of MinD-Vis' training loop but for its gradient scaler, which needs a GPU."""
    torch = need("torch")
    torch.manual_seed(0)
    folder, n_patches = os.environ.get("MIND_VIS"), voxels // PATCH + 1
    model = published_model(Path(folder), n_patches) if folder else plain_model(n_patches)
    rows = np.pad(betas(voxels, items), ((0, 0), (0, PATCH)), mode="wrap")
    weights = [w for w in model.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": 0.05},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2.5e-4, betas=(0.9, 0.95))
    for step in range(2):
        clock = Clock()
        with clock:
            samples = torch.from_numpy(rows[np.arange(step * items, (step + 1) * items) % len(rows)])[:, None]
            optimizer.zero_grad()
            loss, predicted, _ = model(samples, mask_ratio=MASK_RATIO)
            loss.item()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            pairs = zip(predicted.detach().reshape(items, 1, -1), samples, strict=True)
            torch.tensor([torch.corrcoef(torch.cat([p, s]))[0, 1] for p, s in pairs]).mean().item()
    return clock.figures(note="their own model class" if folder else "our writing of it")


CASES = {
    "ours": ours,
    "ours, bfloat16": lambda f, **s: ours(f, bf16=True, **s),
    "MinD-Vis": peer,
    "LEA": lambda f, **s: ours(f, lea=True, **s),
    "LEA, bfloat16": lambda f, **s: ours(f, lea=True, bf16=True, **s),
}
STEPS = [
    *growth("voxels", {1120: 1, 2240: 1, VOXELS: 1}, ("ours", "MinD-Vis"), {"items": 2}),
    Step({"items": BATCH, "voxels": VOXELS}, ("ours, bfloat16", "ours", "MinD-Vis")),
    Step({"items": BATCH, "voxels": sum(GOD_SBJ_1)}, ("LEA", "LEA, bfloat16"), level=2),
]
