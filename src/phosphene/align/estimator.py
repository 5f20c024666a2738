"""What the ridge estimators share: scikit-learn's parameters, and the checks of their settings and arrays."""

from __future__ import annotations

import inspect
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from phosphene.align.block_reader import BlockReader
from phosphene.errors import ConfigError, DataError, ModelError


class Estimator:
    """Parameters by name, as scikit-learn has them: each argument of ``__init__`` is an attribute of the same name."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name.

        Parameters
        ----------
        deep : bool, default True
            there is nothing deeper here; scikit-learn's ``clone`` passes it

        Returns
        -------
        dict of str to object
            arguments of ``__init__`` as they were given
        """
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Change parameters; what was fitted stays until the next `fit`.

        Parameters
        ----------
        **params : object
            arguments of ``__init__``

        Returns
        -------
        Estimator
            itself

        Raises
        ------
        ConfigError
            For a name that is no parameter, or a value out of range.
        """
        known = self.get_params()
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigError(f"{type(self).__name__} has no parameter {unknown[0]!r}; it has {', '.join(known)}.")

        type(self).__init__(self, **{**known, **params})
        return self


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse a setting that is no whole number of at least `least`.

    Parameters
    ----------
    name : str
        of the setting
    value : object
        as it was given
    least : int
        smallest that is allowed

    Raises
    ------
    ConfigError
        If it is not one.
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least} but is {value!r}.")


def paired_rows(X: ArrayLike, Y: ArrayLike) -> tuple[BlockReader, BlockReader, bool]:
    """Both sides of a regression, checked against each other.

    Parameters
    ----------
    X : array-like of shape (n, p)
        features
    Y : array-like of shape (n, t) or (n,)
        targets

    Returns
    -------
    x, y : BlockReader
        (n, p) and (n, t)
    is_flat : bool
        whether Y came as one column without an axis

    Raises
    ------
    DataError
        For another number of rows, or anything that is no matrix of real numbers.
    """
    x = BlockReader(X, "X")
    is_flat = np.ndim(Y) == 1
    if is_flat:
        Y = np.asarray(Y)[:, None]

    y = BlockReader(Y, "Y")
    if x.shape[0] != y.shape[0]:
        raise DataError(
            f"X and Y must have one row per trial each, but X has {x.shape[0]} rows and Y has {y.shape[0]}; "
            f"select the same trials, in the same order, for both."
        )

    return x, y, is_flat


def check_rows(n: int) -> None:
    """Refuse a single row where an intercept is fitted.

    Raises
    ------
    DataError
        With fewer than two rows.
    """
    if n < 2:
        raise DataError("X has a single row: nothing remains of it after centring. Fit on at least two trials.")


def new_rows(X: ArrayLike, n_features: int, block_bytes: int) -> BlockReader:
    """Rows to predict for, every value checked.

    Parameters
    ----------
    X : array-like of shape (m, p)
        features
    n_features : int
        p of the fit
    block_bytes : int
        size of the blocks that are read

    Raises
    ------
    ModelError
        For another number of columns.
    DataError
        For values that are not finite.
    """
    new = BlockReader(X, "X")
    if new.shape[1] != n_features:
        raise ModelError(
            f"X has {new.shape[1]} columns but this map was fitted on {n_features}; "
            f"use the same voxels or features in the same order, or fit again."
        )

    new.mean(block_bytes)  # the pass that checks every value
    return new
