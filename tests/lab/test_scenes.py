"""Scenes: the same for ever, and what they say they show."""

import ast
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from phosphene.errors import DataError
from phosphene.lab import canvas, scenes
from phosphene.lab import scene_captions as captions
from phosphene.lab.chance import Chance, mix

FOLDER = Path(canvas.__file__).parent
EXACT = {
    "abs", "arange", "array", "array2string", "asarray", "ascontiguousarray", "broadcast_to", "clip", "cumsum",
    "empty", "flatnonzero", "floor", "full", "full_like", "isin", "lexsort", "maximum", "minimum", "pad", "shape",
    "sqrt", "stack", "unique", "where", "zeros", "float32", "float64", "int32", "int64", "integer", "ndarray",
    "uint32", "uint64", "uint8",
}  # fmt: skip
"""What of numpy is rounded as IEEE 754 says, moves values, or adds in order."""


def sha(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def test_the_hash_is_splitmix64():
    # First outputs of the reference generator started at 0: its state advances by the golden ratio's fraction.
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden, (2 * golden) % 2**64, (3 * golden) % 2**64], dtype=np.uint64)
    assert [hex(x) for x in mix(states).tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_draws_are_uniform_and_of_different_names_unrelated():
    n = 20000
    a, b = Chance(3, np.arange(n)).uniform("a"), Chance(3, np.arange(n)).uniform("b")
    counts = np.histogram(a, 50, (0, 1))[0]
    assert ((counts - n / 50) ** 2 / (n / 50)).sum() < 85  # chi-square with 49 degrees of freedom: p = 0.001
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize(
    ("seed", "start", "size", "digest"),
    [
        (0, 0, 32, "2ffb4ffcfde9ae1537fd08d82a7faf0e8fdd5a9914efe2fce83ac73f09f154bf"),
        (7, 5_000_000, 32, "bec093da00a7667125e55823d65a6f422dc4325cdebeb0be30b5ac536cbc2946"),
        (0, 0, 64, "0ca6a241dc42b33b587f4719c18ffc0c95e9320d46bffc3ec1c20028ce12a41f"),
    ],
    ids=["at 32", "another world", "at 64"],
)
def test_pixels_never_change(seed, start, size, digest):
    assert sha(scenes.render_many(seed, np.arange(start, start + 160), size)) == digest


def test_descriptions_captions_and_their_qualities_never_change():
    told = scenes.describe_many(3, np.arange(200))
    words = [told, scenes.captions_many(told), captions.truth(told), [scene.labels for scene in told]]
    assert (
        hashlib.sha256(repr(words).encode()).hexdigest()
        == "ac8dc4305fbd2615569767e22960ea7f5880c016696d33d590ecf0d0c36f6c36"
    )


def test_painting_uses_only_arithmetic_that_is_rounded_exactly():
    # Otherwise another processor or numpy may differ in the last bit, and the digests above with it.
    for name in ("canvas.py", "places.py", "things.py", "scenes.py", "chance.py"):
        for node in ast.walk(ast.parse((FOLDER / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                assert node.attr in EXACT, f"{name}:{node.lineno} uses np.{node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in ("mean", "dot", "std", "var", "prod"), f"{name}:{node.lineno}"
            if isinstance(node, ast.BinOp):
                assert not isinstance(node.op, ast.MatMult), f"{name}:{node.lineno}"
                if isinstance(node.op, ast.Pow):
                    whole = isinstance(node.left, ast.Constant) or ast.unparse(node) == "size ** 2"
                    assert whole, f"{name}:{node.lineno} takes a power"


def test_a_scene_is_the_same_alone_and_in_any_company():
    together = scenes.render_many(2, [40, 3, 17, 3])
    for row, index in enumerate([40, 3, 17, 3]):
        assert np.array_equal(together[row], scenes.render(2, index))
    assert scenes.describe_many(2, [40, 17])[1] == scenes.describe(2, 17)


def test_a_scene_is_the_same_at_any_size():
    small, large = scenes.render_many(1, np.arange(40)), scenes.render_many(1, np.arange(40), 128)
    shrunk = large.reshape(40, 32, 4, 32, 4, 3).mean(axis=(2, 4))
    alike = np.corrcoef(small.reshape(40, -1), shrunk.reshape(40, -1))[:40, 40:]
    # Thin lines and textures are drawn, not averaged, at 32 pixels: alike, not equal.
    assert np.diag(alike).min() > 0.9
    assert (alike.argmax(axis=1) == np.arange(40)).all()


def test_different_scenes_are_different_pictures():
    pictures = scenes.render_many(0, np.arange(600))
    assert len({sha(picture) for picture in pictures}) == 600
    assert sha(scenes.render(0, 5)) != sha(scenes.render(1, 5))


def test_every_place_and_thing_occurs_about_as_often_as_it_should():
    described = scenes.describe_many(4, np.arange(3200))
    main = np.array([scene.main for scene in described])
    for kind in scenes.THINGS:
        assert 140 < (main == kind).sum() < 260  # 200 expected, standard deviation 14
    table = scenes.labels(described)
    assert list(table.columns) == [*scenes.THINGS, *scenes.PLACES]
    assert (table[list(scenes.PLACES)].sum(axis=1) == 1).all()
    assert table[list(scenes.PLACES)].mean().min() > 0.05
    assert len(scenes.PLACES) >= 8
    assert len(scenes.THINGS) >= 12
    counts = table[list(scenes.THINGS)].sum(axis=1)
    assert set(counts) == {1, 2, 3}


def test_what_is_described_lies_in_the_picture_nearest_first():
    for scene in scenes.describe_many(6, np.arange(300)):
        main = next(thing for thing in scene.things if thing.kind == scene.main)
        assert 0.2 < main.x < 0.8
        for thing in scene.things:
            assert 0 < thing.x < 1
            assert 0 < thing.y < 1
            assert (thing.text != "") == (thing.kind == "word")
        depths = [thing.depth for thing in scene.things]
        assert depths == sorted(depths)
        assert scene.labels[0] == scene.main
        assert scene.labels[-1] == scene.place


def test_whatever_is_described_can_be_seen():
    n = 300
    layout = scenes._compose(0, np.arange(n))
    full = scenes._paint(layout, np.arange(n), 32).astype(int)
    for slot in range(3):
        away = layout.depth.copy()
        away[slot] = 99  # not painted
        without = scenes._paint(dataclasses.replace(layout, depth=away), np.arange(n), 32).astype(int)
        differs = (np.abs(full - without).max(axis=3) > 25).sum(axis=(1, 2))
        there = layout.count > slot
        assert (differs[there] >= 4).all()
        assert (differs[~there] == 0).all()


def test_wrong_requests_are_refused():
    with pytest.raises(DataError, match="integers at least 0"):
        scenes.render_many(0, [-1])
    with pytest.raises(DataError, match="integers at least 0"):
        scenes.render_many(0, np.array([0.5]))
    for size in (0, 4, 2000, 32.5, "32"):
        with pytest.raises(DataError, match="8 to 1024"):
            scenes.render(0, 0, size=size)
    assert scenes.render_many(0, []).shape == (0, 32, 32, 3)
