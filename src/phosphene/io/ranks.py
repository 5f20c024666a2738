"""Which of several processes this is, where ``torchrun`` started them. Nothing of torch is needed to know it."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this process is the only one, or the one that writes for all.

    Returns
    -------
    bool
        True without ``torchrun``
    """
    return int(os.environ.get("RANK", "0")) == 0
