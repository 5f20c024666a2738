"""Lines about how far something is."""

import io

import pytest

from phosphene.io.progress import Progress


@pytest.mark.parametrize(("n", "said"), [(1, "decoding: 1 fold in "), (2, "decoding: 2 folds in ")])
def test_what_took_long_says_how_many_of_what(n, said, monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("phosphene.io.progress.time.perf_counter", lambda: float(next(clock)))
    stream = io.StringIO()
    assert list(Progress(stream=stream, live=False).each(range(n), "decoding", unit="fold")) == list(range(n))
    assert stream.getvalue().startswith(said)
