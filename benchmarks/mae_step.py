"""One training step of the fMRI masked autoencoders at published size, beside MinD-Vis. Run: python benchmarks/mae_step.py

    python benchmarks/mae_step.py --mind-vis FOLDER     a checkout of zjc062/mind-vis as the peer (or MIND_VIS=FOLDER)

4,480 voxels, which the published padding makes 4,496 or 281 patches of 16; mask ratio 0.75; 24 blocks of width 1024, 8 of
512; batch 8; forward, backward, clipping at 0.8, AdamW, and the correlation that is logged. Each case runs in a process of
its own, on --threads threads, in turn with its rivals: one step to warm up, then --steps timed ones. Figures are medians
over rounds and steps of CPU seconds; memory is the process's largest.

Cases
-----
peer        the published step: softmax attention written out, tokens unshuffled, last layer on all patches, ordinary
            AdamW, correlation sample by sample. MinD-Vis' own model class where a checkout is given (its blocks come
            from timm, for which a stand-in is used where that is absent), else our own writing of it
ours        `PatchMae` through `phosphene.train.train`, float32
ours_bf16   the same with products in bfloat16
lea         `RoiMae` of LEA, the eight ROIs of GOD subject 1 (4,466 voxels), float32: 257 tokens, none hidden, where
            MinD-Vis encodes 71
lea_bf16    the same with products in bfloat16
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
from ridge import peak_memory

VOXELS, PATCH, BATCH, MASK_RATIO, CLIP = 4480, 16, 8, 0.75, 0.8
GOD_SBJ_1 = (1004, 801, 476, 588, 431, 249, 157, 760)
CASES = ("peer", "ours", "ours_bf16", "lea", "lea_bf16")


def betas(n_voxels: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4 * BATCH, n_voxels)).astype(np.float32)


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(case: str, n_steps: int) -> list[float]:
    """CPU seconds of every step of the training loop that recipes use."""
    from phosphene.brain import PatchMae, PatchMaeConfig, RoiMae, RoiMaeConfig, subject_batches
    from phosphene.train import TrainConfig, train

    if case.startswith("lea"):
        groups = np.split(np.arange(sum(GOD_SBJ_1)), np.cumsum(GOD_SBJ_1)[:-1])
        network, n_voxels = RoiMae.create(RoiMaeConfig(), {"sbj_1": groups}, 0), sum(GOD_SBJ_1)
    else:
        network, n_voxels = PatchMae.create(PatchMaeConfig(), {"sbj_1": VOXELS}, 0), VOXELS
    fetch, n_items = subject_batches({"sbj_1": betas(n_voxels)})
    config = TrainConfig(
        steps=n_steps, batch_size=BATCH, lr=2.5e-4, betas=(0.9, 0.95), weight_decay=0.05, clip=CLIP,
        precision="bf16" if case.endswith("bf16") else "float32",
    )  # fmt: skip
    ends = [time.process_time()]
    train(
        network, fetch, n_items, config, seed=0, log_every=1, device="cpu",
        watch=lambda _: ends.append(time.process_time()),
    )  # fmt: skip
    return np.diff(ends).tolist()


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


def peer(folder: Path | None, n_steps: int) -> list[float]:
    """CPU seconds of every step, in the order of MinD-Vis' training loop but for its gradient scaler, which needs a GPU."""
    import torch

    torch.manual_seed(0)
    n_patches = VOXELS // PATCH + 1
    model = published_model(folder, n_patches) if folder else plain_model(n_patches)
    rows = np.pad(betas(VOXELS), ((0, 0), (0, PATCH)), mode="wrap")
    weights = [w for w in model.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": 0.05},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2.5e-4, betas=(0.9, 0.95))
    spent = []
    for step in range(n_steps):
        start = time.process_time()
        samples = torch.from_numpy(rows[np.arange(step * BATCH, (step + 1) * BATCH) % len(rows)])[:, None]
        optimizer.zero_grad()
        loss, predicted, _ = model(samples, mask_ratio=MASK_RATIO)
        loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        pairs = zip(predicted.detach().reshape(BATCH, 1, -1), samples, strict=True)
        torch.tensor([torch.corrcoef(torch.cat([p, s]))[0, 1] for p, s in pairs]).mean().item()
        spent.append(time.process_time() - start)
    return spent


def products() -> dict[str, float]:
    """GFLOP per CPU second of an encoder-sized product, which bounds every case: a step has about 91 GFLOP per sample."""
    import torch

    rates = {}
    for name in ("float32", "bfloat16"):
        a, b = torch.randn(568, 1024).to(getattr(torch, name)), torch.randn(1024, 3072).to(getattr(torch, name))
        a @ b
        start = time.process_time()
        for _ in range(10):
            a @ b
        rates[name] = 20 * 568 * 1024 * 3072 / (time.process_time() - start) / 1e9
    return rates


# -- in turns ----------------------------------------------------------------------------------------------------------


def run(case: str, steps: int, threads: int, folder: Path | None) -> dict:
    """One case in a process of its own."""
    limits = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--case", case, "--steps", str(steps)]
    command += ["--mind-vis", str(folder)] if folder else []
    done = subprocess.run(command, env=os.environ | limits, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1, help="timed steps per process, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mind-vis", type=Path, default=os.environ.get("MIND_VIS"), help="checkout of MinD-Vis")
    parser.add_argument("--case", choices=(*CASES, "products"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case == "products":
        print(json.dumps(products()))
        return
    if options.case:
        n_steps = 1 + options.steps
        spent = peer(options.mind_vis, n_steps) if options.case == "peer" else ours(options.case, n_steps)
        print(json.dumps({"cpu": spent[1:], "memory": peak_memory()}))
        return
    cpu: dict[str, list[float]] = {case: [] for case in CASES}
    memory = dict.fromkeys(CASES, 0)
    before = os.getloadavg()[0]
    rates = run("products", options.steps, options.threads, options.mind_vis)
    for _ in range(options.rounds):
        for case in CASES:
            done = run(case, options.steps, options.threads, options.mind_vis)
            cpu[case] += done["cpu"]
            memory[case] = max(memory[case], done["memory"])
    median = {case: statistics.median(values) for case, values in cpu.items()}
    whose = "MinD-Vis' own model" if options.mind_vis else "MinD-Vis in our writing"
    print(
        f"One training step at published size, batch {BATCH}, {options.threads} thread, median of "
        f"{len(cpu['peer'])}; load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    )
    print(
        f"  products alone: {rates['float32']:.0f} GFLOP per CPU second in float32, {rates['bfloat16']:.0f} in bfloat16"
    )
    titles = {"peer": f"{whose}, float32", "ours": "ours, float32", "ours_bf16": "ours, bfloat16 products"}
    for case, title in titles.items():
        print(
            f"  {title:<38} {median[case]:6.2f} CPU s ({min(cpu[case]):.2f} to {max(cpu[case]):.2f})   "
            f"{memory[case] / 1e9:.1f} GB   ratio {median['peer'] / median[case]:.2f}"
        )
    print("  bar: ratio 1.0 in float32, 2.5 in bfloat16")
    print("LEA's ROI autoencoder, GOD subject 1: 257 tokens a sample, none hidden, where MinD-Vis encodes 71")
    for case, title in {"lea": "ours, float32", "lea_bf16": "ours, bfloat16 products"}.items():
        print(
            f"  {title:<38} {median[case]:6.2f} CPU s   {memory[case] / 1e9:.1f} GB   {BATCH / median[case]:.2f} samples a "
            f"CPU second   a sample costs {median[case] / median['peer']:.2f} of MinD-Vis'"
        )


if __name__ == "__main__":
    main()
