"""On which device networks are trained: the best there is, or the one that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from phosphene.errors import ConfigError, MachineError

ASKED = "PHOSPHENE_DEVICE"
KNOWN = ("cpu", "cuda", "mps")


def device(asked: str | None = None) -> str | None:
    """The device asked for, by the argument or else by the environment variable PHOSPHENE_DEVICE; None where by neither.

    Parameters
    ----------
    asked : str, optional
        "cpu", "cuda" or "mps", with a number such as "cuda:1" where there are several

    Returns
    -------
    str or None
        as it was asked for; None leaves the choice to whoever trains

    Raises
    ------
    ConfigError
        An unknown name.
    MachineError
        A device that this machine does not have, or that torch cannot use.
    """
    # An empty variable is none: `PHOSPHENE_DEVICE= phosphene fit` is how a shell takes it back for one command.
    asked = asked or os.environ.get(ASKED) or None
    if asked in (None, "cpu"):
        return asked

    kind, _, number = asked.partition(":")
    if kind not in KNOWN or (number and not number.isdigit()):
        raise ConfigError(f"'{asked}' is no device. Known: {', '.join(KNOWN)}, or none, which takes the best there is.")

    import torch  # only now: the processor needs no asking, and importing it takes a second

    if kind == "cuda":
        count = torch.cuda.device_count()
    else:
        count = int(torch.backends.mps.is_available())

    if int(number or 0) >= count:
        devices = "device"
        if count > 1:
            devices = "devices"

        raise MachineError(
            f"device '{asked}' was asked for, but torch {torch.__version__} finds {count or 'no'} such "
            f"{devices} here. Check the driver and that torch was built for it (`phosphene doctor`), "
            "or ask for none (--device cpu) to compute on the processor."
        )

    return asked


@contextmanager
def on(asked: str | None) -> Iterator[None]:
    """Ask for a device while the block runs.

    Parameters
    ----------
    asked : str or None
        see `device`; None leaves it to the environment

    Yields
    ------
    None
        everything in the block that asks `device` gets this answer

    Raises
    ------
    ConfigError, MachineError
        As `device` does, before the block begins.
    """
    # Through the environment, so that processes started in the block hear of it as well.
    before = os.environ.get(ASKED)
    if asked is not None:
        os.environ[ASKED] = asked

    try:
        device()  # refuse now what would only fail after hours of preparation
        yield
    finally:
        if asked is not None:
            os.environ.pop(ASKED)
            if before is not None:
                os.environ[ASKED] = before
