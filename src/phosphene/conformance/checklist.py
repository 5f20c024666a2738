"""Claims about one part, tried one after the other; what fails is reported together at the end."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from phosphene.errors import PhospheneError, did_you_mean

HEAVY = ("torch", "diffusers", "transformers")
"""Packages that take seconds to import; a module that may stay unused leaves them to the functions that need them."""

_SHORTEST = 40  # characters; what was expected, what came and what to do next take more


class NonConforming(AssertionError):
    """What was checked does not keep its promises.

    Parameters
    ----------
    what : str
        the part, for people
    failures : mapping of str to str
        name of each claim that fails -> what was expected and what came
    tried : int
        how many claims were tried

    Attributes
    ----------
    failures : dict
        as given
    """

    def __init__(self, what: str, failures: Mapping[str, str], tried: int) -> None:
        self.failures = dict(failures)
        lines = "\n".join(f"  [{name}] {text}" for name, text in failures.items())
        super().__init__(f"{what} does not conform: {len(failures)} of {tried} claims fail.\n{lines}")


class Checklist:
    """Claims about one part.

    Parameters
    ----------
    what : str
        the part, for people
    waived : mapping of str to str, optional
        claims that are known to fail, and why. One that holds after all is a failure, so that no waiver outlives its
        reason

    Attributes
    ----------
    tried : list of str
        names of the claims tried, in order
    failures : dict
        name of each that fails -> how

    Examples
    --------
    >>> checks = Checklist("a square")
    >>> with checks.claim("sides", "four sides of one length"):
    ...     assert len({2, 3}) == 1, "lengths 2 and 3"
    >>> checks.conclude()
    Traceback (most recent call last):
    ...
    phosphene.conformance.checklist.NonConforming: a square does not conform: 1 of 1 claims fail.
      [sides] expected four sides of one length; but lengths 2 and 3
    """

    def __init__(self, what: str, waived: Mapping[str, str] | None = None) -> None:
        self.what = what
        self.waived = dict(waived or {})
        self.tried: list[str] = []
        self.failures: dict[str, str] = {}

    @contextmanager
    def claim(self, name: str, expected: str) -> Iterator[None]:
        """Everything inside must hold: an exception is the claim's failure, and the next claim is tried.

        Parameters
        ----------
        name : str
            one or two words, to be waived by
        expected : str
            what must be true

        Yields
        ------
        None
            the block is what is tried
        """
        if name not in self.tried:
            self.tried.append(name)

        try:
            yield
        except AssertionError as error:
            self._fail(name, expected, str(error) or "it is not so")
        except Exception as error:
            self._fail(name, expected, f"{type(error).__name__}: {_one_line(error)}")

    def refuses(self, name: str, what: str, call: Callable[[], Any], *words: str) -> None:
        """`call` must raise an error of phosphene.errors with a message that helps.

        Parameters
        ----------
        name : str
            of the claim
        what : str
            is refused
        call : callable
            must raise
        *words : str
            of which the message holds at least one, in any case
        """
        if words:
            named = f" that says {' or '.join(repr(w) for w in words)}"
        else:
            named = ""

        with self.claim(name, f"{what} to be refused with an error of phosphene.errors{named}"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    call()
            except PhospheneError as error:
                text = str(error)
                must(len(text) >= _SHORTEST, f"the message is short: {text!r}. Say what came and what to do next")
                helps = not words or any(w.lower() in text.lower() for w in words)
                must(helps, f"the message does not say so: {_one_line(error)!r}")
            else:
                raise AssertionError("nothing was raised")

    def conclude(self) -> None:
        """Raise what failed.

        Raises
        ------
        NonConforming
            With every claim that fails and is not waived, and every waiver that is not needed.
        """
        failures = {name: text for name, text in self.failures.items() if name not in self.waived}
        for name, why in self.waived.items():
            if name not in self.tried:
                failures[name] = f"is waived ({why}) but is no claim made here. {did_you_mean(name, self.tried)}"
            elif name not in self.failures:
                failures[name] = f"is waived ({why}) but holds; drop the waiver"

        if failures:
            raise NonConforming(self.what, failures, len(self.tried))

    # -- claims that several checks make ---------------------------------------------------------------------------

    def documented(self, cls: type) -> None:
        """A docstring of its own, on the class or (where that refers to the file) on its file."""
        with self.claim("docstring", "a docstring that says what it is"):
            doc = cls.__dict__.get("__doc__") or ""
            must(len(doc.strip()) > 10, f"{cls.__module__}.{cls.__qualname__} has {doc.strip()!r}")

    def light(self, module: str) -> None:
        """Importing the module loads no heavy package; asked of a fresh Python."""
        with self.claim("light import", f"importing {module} to load none of {', '.join(HEAVY)}"):
            loaded = asked_of_python(f"import sys, {module}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])")
            must(not loaded, f"it loads {loaded}; import it inside the functions that need it")

    def rows(
        self,
        call: Callable[[np.ndarray], np.ndarray],
        whole: np.ndarray,
        tolerance: float,
        what: str,
        *,
        repeat: bool = True,
    ) -> None:
        """What row k gives is a function of row k: not of the call, of the order, or of which others are there.

        Parameters
        ----------
        call : callable
            row numbers (m,) to results (m, ...)
        whole : ndarray
            what it gave for all rows, at least 2
        tolerance : float
            how far rounding in batches of another size may move a result, as a share of the largest value
        what : str
            the result, for people
        repeat : bool, default True
            whether to ask for the same again, where nothing else does
        """
        every = np.arange(len(whole))
        if repeat:
            with self.claim("repeat", f"{what} to be the same bits when asked for twice"):
                same(call(every), whole, what)

        with self.claim("order", f"{what} not to depend on the order of rows"):
            near(call(every[::-1])[::-1], whole, tolerance, what)

        with self.claim("batch dependence", f"{what} of a row to be the same alone and among others"):
            near(call(every[1:2]), whole[1:2], tolerance, f"{what} of one row alone")

    @contextmanager
    def bounded(self, seconds: float, megabytes: float) -> Iterator[None]:
        """Processor time and memory of what is done inside. An exception passes through.

        Parameters
        ----------
        seconds : float
            processor time at most
        megabytes : float
            by which the most memory this process ever held may grow

        Yields
        ------
        None
            the block is what is measured
        """
        start = time.process_time()
        before = _peak()
        yield
        used = time.process_time() - start
        grown = _peak() - before

        with self.claim("time", f"at most {seconds:g} s of processor time at this size"):
            must(used <= seconds, f"it took {used:.0f} s")

        with self.claim("memory", f"at most {megabytes:g} MB of memory more at this size"):
            must(grown <= megabytes, f"it took {grown:.0f} MB")

    @contextmanager
    def untouched_randomness(self, torch: bool = True) -> Iterator[None]:
        """Global random generators stand where they stood. An exception passes through.

        Parameters
        ----------
        torch : bool, default True
            that of torch too; not where a network may be made, whose first values torch draws before they are read from
            a file

        Yields
        ------
        None
            the block is what is watched
        """
        before = _global_states()
        yield

        with self.claim("global seed", "no use of a global random generator; draw from one that is given"):
            moved = []
            for name, state in _global_states().items():
                # A generator that was not there before, because torch was not, cannot have been moved.
                is_watched = torch or name != "torch"
                if is_watched and before.get(name, state) != state:
                    moved.append(name)

            must(not moved, f"that of {' and '.join(moved)} was used")

    def _fail(self, name: str, expected: str, came: str) -> None:
        text = f"expected {expected}; but {came}"
        if name in self.failures:
            self.failures[name] = f"{self.failures[name]}\n      and {text}"
        else:
            self.failures[name] = text


def must(holds: Any, came: str) -> None:
    """Raise AssertionError saying what came, unless it holds; unlike a statement, under ``python -O`` too.

    Parameters
    ----------
    holds : Any
        true where the claim holds
    came : str
        what came instead, for people
    """
    if not holds:
        raise AssertionError(came)


def same(ours: Any, theirs: Any, what: str) -> None:
    """Assert that two arrays hold the same numbers, NaN in the same places included.

    Parameters
    ----------
    ours, theirs : array_like
        to be compared
    what : str
        they are, for people
    """
    a = np.asarray(ours)
    b = np.asarray(theirs)
    must(a.shape == b.shape, f"{what} has shape {a.shape}, and then {b.shape}")

    equal = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    must(equal, f"{what} differs in {int((a != b).sum())} of {a.size} values")


def near(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    """Assert that two arrays differ by no more than a share of the largest value.

    Parameters
    ----------
    ours, theirs : array_like
        to be compared
    tolerance : float
        of the largest value of `theirs`
    what : str
        they are, for people
    """
    a = np.asarray(ours, dtype=np.float64)
    b = np.asarray(theirs, dtype=np.float64)
    must(a.shape == b.shape, f"{what} has shape {a.shape}, and then {b.shape}")

    if not a.size:
        return

    scale = max(float(np.abs(b).max()), 1e-12)  # arrays of zeros are compared as they are
    worst = float(np.abs(a - b).max()) / scale
    must(worst <= tolerance, f"{what} differs by {worst:.2g} of the largest value, where {tolerance:g} is rounding")


def finite(array: Any, what: str) -> np.ndarray:
    """The array, after asserting that it holds floats and neither NaN nor infinity.

    Parameters
    ----------
    array : array_like
        to be looked at
    what : str
        it is, for people

    Returns
    -------
    ndarray
        the same numbers
    """
    array = np.asarray(array)
    must(array.dtype.kind == "f", f"{what} has dtype {array.dtype}, not floats")
    must(np.isfinite(array).all(), f"{what} holds {int((~np.isfinite(array)).sum())} NaN or infinite values")
    return array


def shaped(array: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The array, after asserting its shape.

    Parameters
    ----------
    array : array_like
        to be looked at
    shape : tuple of int
        that it must have
    what : str
        it is, for people

    Returns
    -------
    ndarray
        the same numbers
    """
    must(np.shape(array) == tuple(shape), f"{what} has shape {np.shape(array)}, not {tuple(shape)}")
    return np.asarray(array)


@lru_cache(maxsize=64)
def asked_of_python(code: str) -> str:
    """What a fresh Python, which finds the same modules, prints."""
    # This process has imported nearly everything by now, so only another one can say what an import loads.
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=120, check=False)
    must(done.returncode == 0, f"a fresh Python cannot import it: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip()


def _global_states() -> dict[str, bytes]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002  looked at, not used
    words = state["state"]
    states = {"numpy": words["key"].tobytes() + repr((words["pos"], state["has_gauss"], state["gauss"])).encode()}
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()

    return states


def _peak() -> float:
    """Most memory this process has held, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak / 2**20  # bytes there, kilobytes elsewhere

    return peak / 2**10


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if len(text) <= 300:
        return text

    return f"{text[:300]} ..."
