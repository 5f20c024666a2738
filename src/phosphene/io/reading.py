"""Readers of files from elsewhere: a damaged one may make a library raise anything, and a person gets one sentence.

A reader first says itself what it can say well: a missing key, a transposed matrix, a truncated file. What is left is what
nobody thought of, such as a flipped byte that makes a library look for the millionth axis of an array.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from phosphene.errors import DataError, PhospheneError
from phosphene.io import memory

if TYPE_CHECKING:
    import numpy as np

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST = 300  # characters of a library's message; some quote the damaged bytes

AGAIN = (
    "It, or a file in it, is damaged or not what its name says; copy or fetch it again and compare its size with the "
    "original."
)


def open_npy(file: str | Path) -> np.ndarray:
    """A plain ``.npy`` file as a read-only memory map.

    Parameters
    ----------
    file : str or Path
        without Python objects in it

    Returns
    -------
    ndarray
        on the disk; rows are read when they are indexed

    Raises
    ------
    OSError, ValueError
        Whatever else a damaged header makes numpy raise becomes a ValueError.
    """
    import numpy as np

    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        if memory.is_exhausted(error):
            raise MemoryError(str(error)) from error  # whoever calls takes these two for damage
        raise
    except MemoryError:
        raise
    except Exception as error:  # the header is parsed as Python
        raise ValueError(f"{type(error).__name__}: {error}") from error


@contextmanager
def reading(path: str | Path, kind: type[PhospheneError] = DataError, again: str = AGAIN) -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into one of our errors.

    Parameters
    ----------
    path : str or Path
        what is read, for the message
    kind : type[PhospheneError], optional
        of the error
    again : str, optional
        what to do about it

    Yields
    ------
    None
        the file is read in the block

    Raises
    ------
    PhospheneError
        Of this kind. Errors of ours pass as they are.

    Examples
    --------
    >>> with reading("scan.nii"):
    ...     raise IndexError("tuple index out of range")
    Traceback (most recent call last):
    ...
    phosphene.errors.DataError: scan.nii cannot be read (IndexError: tuple index out of range). It, or a file in it, ...
    """
    try:
        yield
    except (PhospheneError, AssertionError):
        raise  # said well already, or a mistake of ours that nobody should take for a damaged file
    except Exception as error:
        if memory.is_exhausted(error):
            raise memory.exhausted(f"reading {path}", error) from error

        reason = type(error).__name__
        if text := " ".join(str(error).split())[:_LONGEST]:
            reason = f"{reason}: {text}"

        raise kind(f"{path} cannot be read ({reason}). {again}") from error


def reads(
    parameter: str, kind: type[PhospheneError] = DataError, again: str = AGAIN
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`reading` around a whole function, as a decorator.

    Parameters
    ----------
    parameter : str
        name of the function's parameter that holds the path
    kind : type[PhospheneError], optional
        see `reading`
    again : str, optional
        see `reading`

    Returns
    -------
    callable
        the decorator

    Raises
    ------
    PhospheneError
        Of this kind, from the function it decorates.
    """

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)  # once, when the module is read

        @functools.wraps(function)
        def reader(*args: P.args, **kwargs: P.kwargs) -> T:
            # The path may come by place, by name, or as a default.
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            with reading(bound.arguments[parameter], kind, again):
                return function(*args, **kwargs)

        return reader

    return decorated
