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


def test_bars_within_bars_are_shown_and_gone_at_the_end_and_lines_stay():
    stream = io.StringIO()
    progress = Progress(stream=stream, live=True)
    for _ in progress.each(range(2), "folds [a/b]"):
        with progress.step("fitting"):
            assert list(progress.each(iter("ab"), "training")) == ["a", "b"]
    text = stream.getvalue()
    assert "folds [a/b]" in text and "training" in text and "0/2" in text
    assert text.count("fitting\n") == 2
    progress.say("after")
    assert stream.getvalue().endswith("after\n")


def test_a_loop_that_is_left_takes_its_bar_along():
    stream = io.StringIO()
    progress = Progress(stream=stream, live=True)
    with pytest.raises(ZeroDivisionError):
        for _ in progress.each(range(5), "dividing"):
            1 / 0  # noqa: B018
    progress.say("after")
    assert stream.getvalue().endswith("after\n")


def test_no_bar_is_drawn_into_a_file():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    assert list(progress.each(range(3), "counting")) == [0, 1, 2]
    with progress.step("short"):
        pass
    assert stream.getvalue() == "short\n"
