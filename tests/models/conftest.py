from __future__ import annotations

import torch


def seeded(make, seed=0):
    """What `make` gives where torch draws from this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
