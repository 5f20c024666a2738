"""A tiny real network and its data, run as a script so that tests can kill it or start several of it.

python toy.py FOLDER OUT.safetensors KEY=VALUE ...
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from phosphene.errors import DataError
from phosphene.training import TrainConfig, info_nce, train

CONFIG = {"steps": 24, "batch_size": 12, "lr": 0.01, "warmup": 4, "clip_norm": 1.0, "ema": 0.9}


class Toy(nn.Module):
    """Two towers with dropout, trained to match noisy views of the same item and to denoise it."""

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 6))
        self.b = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def loss(self, batch, draws):
        noisy = batch + 0.3 * draws.normal(6)
        a, b = self.a(noisy), self.b(batch)
        contrast = info_nce(a, b, self.scale.exp())
        mse = (a - batch).square().mean()
        return contrast + mse, {"mse": mse}


class Regression(nn.Module):
    """A loss that is a mean over rows, for which accumulated parts must add up."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def loss(self, batch, draws):
        return (self.layer(batch + draws.normal(6)) - batch).square().mean(), {}


def items() -> torch.Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(5))


def toy(dropout: float = 0.1) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Toy(dropout)


def main() -> None:
    folder, out, *rest = sys.argv[1:]
    options = dict(text.split("=") for text in rest)
    torch.set_num_threads(1)
    network = Regression() if options.get("network") == "regression" else toy(float(options.get("dropout", 0.1)))
    data, config = items(), {**CONFIG, "accumulate": int(options.get("accumulate", 1))}
    nap = float(options.get("nap", 0))

    def fetch(rows):
        time.sleep(nap)
        if "fails" in options and os.environ["RANK"] == options["fails"]:
            raise DataError(f"row 3 of rank {options['fails']} is damaged")
        return data[torch.from_numpy(rows)]

    result = train(
        network, fetch, len(data), TrainConfig(**config), seed=7, folder=Path(folder) if folder != "-" else None,
        save_every=3, log_every=1, device="cpu", watch=lambda e: print("step", e["step"], repr(e["loss"]), flush=True),
    )  # fmt: skip
    save_file({k: v.clone() for k, v in network.state_dict().items()}, out)
    print("resumed", result.resumed_at, "finished", result.finished, flush=True)


if __name__ == "__main__":
    main()
