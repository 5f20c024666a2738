"""Pictures that were made elsewhere: read and paired, scored as ours are, and never told more of than pictures can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

import phosphene
from phosphene import flow
from phosphene.errors import ConfigError, DataError, ModelError, PhospheneError, SplitError
from phosphene.flow import score
from phosphene.reporting import report
from phosphene.validity import CHECKS, UNKNOWN_OUTSIDE, Check
from phosphene.validity.outside import FROM_PICTURES, ONLY_WARNINGS, missing_outside

N = 16
SIDE = 12


def scenes(n=N, seed=0, channels=3):
    """Smooth pictures, each of its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (n, 3, 3, channels), dtype=np.uint8)
    large = []
    for picture in coarse:
        planes = [Image.fromarray(np.ascontiguousarray(picture[:, :, c])).resize((SIDE, SIDE)) for c in range(channels)]
        large.append(np.stack([np.asarray(plane) for plane in planes], axis=-1))

    return np.stack(large)  # (n, SIDE, SIDE, channels)


def noisy(pictures, seed=1, sd=30):
    rng = np.random.default_rng(seed)
    return np.clip(pictures + rng.normal(0, sd, pictures.shape), 0, 255).astype(np.uint8)


def saved(folder, pictures, names):
    for name, picture in zip(names, pictures, strict=True):
        file = folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze()).save(file)

    return folder


@pytest.fixture(scope="module")
def pair():
    seen = scenes()
    return seen, noisy(seen)


@pytest.fixture(scope="module")
def reference(pair):
    return score(*pair)


def values(table):
    return table.scores.set_index(["input", "metric"])["value"]


# -- the same numbers, whatever they come in ---------------------------------------------------------------------------


def test_a_run_of_ours_scored_from_outside_has_the_scores_of_its_evaluation(pair_file, tmp_path):
    config = flow.configure("linear", [("test", {"data.name": str(pair_file), "recipe.curve.kind": "none"})])[0]
    run = flow.fit(config, tmp_path / "ours")
    flow.decode(run, controls=("shuffled",))
    flow.evaluate(run)
    shuffled = np.asarray(run.folder.pixels("test", "shuffled"))
    found = score(run, run, shuffled=shuffled, out=tmp_path / "theirs")
    ours = run.folder.table("scores.csv").set_index(["input", "metric"])
    theirs = found.scores.set_index(["input", "metric"])
    shared = [key for key in theirs.index if key in ours.index]
    assert {metric for _, metric in shared} >= {
        "pixcorr",
        "mse",
        "two_way.pixels",
        "two_way_within_class.pixels",
    }
    for column in ("value", "ci_low", "ci_high", "chance", "p", "n"):
        np.testing.assert_allclose(theirs.loc[shared, column], ours.loc[shared, column], rtol=1e-5, atol=1e-7)

    # Labels came along, and both stand on one page.
    assert report([run, tmp_path / "theirs"], tmp_path / "both.html").is_file()
    assert "made elsewhere" in report(tmp_path / "theirs").read_text()
    with pytest.raises(ModelError, match="made elsewhere"):
        flow.open_run(tmp_path / "theirs")


def test_tensors_of_every_layout_and_type_have_the_same_scores(pair, reference, tmp_path):
    seen, decoded = pair
    first = np.moveaxis(decoded, -1, 1)  # (n, 3, SIDE, SIDE)
    floats = (decoded / 255).astype(np.float32)
    order = np.random.default_rng(3).permutation(N)
    names = [f"scene{i:02d}" for i in range(N)]
    np.save(tmp_path / "d.npy", first)
    np.savez(tmp_path / "d.npz", recons=floats[order], ids=np.array(names)[order], other=np.zeros(3))
    torch.save(torch.from_numpy(first.copy()), tmp_path / "d.pt")
    torch.save(
        {"recons": torch.from_numpy(floats)[torch.from_numpy(order)], "ids": np.array(names)[order].tolist()},
        tmp_path / "n.pt",
    )
    save_file({"images": floats}, tmp_path / "d.safetensors")
    folder = saved(tmp_path / "seen", seen, names)

    sources = {
        "NCHW bytes": first,
        "tensor": torch.from_numpy(floats).permute(0, 3, 1, 2).requires_grad_(),
        "list": list(decoded),
        "npy": tmp_path / "d.npy",
        "npz with names in another order": tmp_path / "d.npz",
        "a key of it": f"{tmp_path / 'd.npz'}:recons",
        "pt": tmp_path / "d.pt",
        "pt with names": tmp_path / "n.pt",
        "safetensors": str(tmp_path / "d.safetensors"),
    }
    expected = values(reference)
    for what, source in sources.items():
        found = values(score(folder, source))
        np.testing.assert_allclose(found, expected[found.index], rtol=1e-5, atol=1e-6, err_msg=what)

    signed = score(seen / 255.0 * 2 - 1, floats * 2 - 1, value_range="-1-1")
    np.testing.assert_allclose(values(signed), expected, rtol=1e-4, atol=1e-6)
    grey = score(seen[..., :1], decoded[..., :1])
    assert grey["two_way.pixels"] > 0.9


@pytest.mark.parametrize(
    "name",
    ["{}_{}", "{}-sample{}", "{}_sample_{}", "{}/{}", "run{1}/{0}"],
    ids=["number", "word", "words", "folder", "above"],
)
def test_samples_are_found_by_how_people_name_them(pair, tmp_path, name):
    seen, _ = pair
    names = [f"img_{i}" for i in range(N)]  # ten sorts before two as text
    samples = [noisy(seen, seed) for seed in (1, 2, 3)]
    for at, pictures in enumerate(samples):
        saved(tmp_path / "decoded", pictures, [name.format(one, at) for one in names])

    found = score(saved(tmp_path / "seen", seen, names), tmp_path / "decoded", out=tmp_path / "run")
    alone = [score(seen, pictures)["pixcorr"] for pictures in samples]
    assert found["pixcorr"] == pytest.approx(np.mean(alone), abs=1e-6)
    kept = np.load(tmp_path / "run" / "decoded" / "test" / "brain" / "samples.npy")
    assert (kept == np.stack(samples, axis=1)).all()
    table = found.folder.table("evaluation", "test", "samples.csv").set_index("metric")
    assert table.loc["pixcorr", "n_samples"] == 3
    assert found.verdicts.set_index("id").loc["M6", "verdict"] == "pass"


# -- what cannot be known ----------------------------------------------------------------------------------------------


def test_what_needs_the_recipe_or_the_brain_never_passes(pair, tmp_path):
    seen, decoded = pair
    order = np.random.default_rng(5).permutation(N)
    found = score(
        seen,
        np.stack([decoded] * 2, axis=1),
        train=scenes(40, seed=9),
        shuffled=noisy(seen[order]),
        noise=noisy(seen[order[::-1]]),
    )
    verdicts = found.verdicts.set_index("id")["verdict"]
    assert set(verdicts.index) == set(CHECKS)
    for check in CHECKS:
        if check in ONLY_WARNINGS:
            assert verdicts[check] in ("flag", "fail", UNKNOWN_OUTSIDE)
        elif check not in FROM_PICTURES:
            assert verdicts[check] == UNKNOWN_OUTSIDE, check

    alone = score(seen, decoded).verdicts.set_index("id")["verdict"]
    assert set(alone[alone == "pass"].index) <= {"S10", "B1", "M10"}
    assert "cannot be known from outside" in " ".join(found.conclusions)
    assert missing_outside(Check("X1", "New", "Something new?"), {"training", "samples", "controls"}) is not None


def test_training_pictures_show_leaks_and_memorising(pair, tmp_path):
    seen, decoded = pair
    train = scenes(40, seed=9)
    honest = score(seen, decoded, train=train)
    assert not honest.memorised["is_copy"].any()
    assert honest.verdicts.set_index("id").loc["S1", "verdict"] == "pass"
    leaky = train.copy()
    leaky[7] = seen[3]
    found = score(seen, decoded, train=leaky, out=tmp_path / "run")
    row = found.verdicts.set_index("id").loc["S1"]
    assert row["verdict"] == "fail"
    assert "training/7 = 03" in row["reason"]
    assert found.conclusions[1].startswith("Check S1 failed")

    # A decoder that looks up the training picture nearest to the truth.
    distance = np.square(train[None].astype(float) - seen[:, None]).mean(axis=(2, 3, 4))
    copier = score(seen, train[distance.argmin(axis=1)], train=train)
    assert copier.memorised["is_copy"].all()
    assert "16 of them are a training picture" in copier.conclusions[-1]


def test_rows_in_a_wrong_order_are_noticed(pair):
    seen, decoded = pair
    verdicts = score(seen, np.roll(decoded, 1, axis=0)).verdicts.set_index("id")
    assert verdicts.loc["B1", "verdict"] == "fail"
    assert "shifted by" in verdicts.loc["B1", "reason"]


def test_a_second_decoder_on_the_same_pictures_is_a_second_look(pair):
    seen, decoded = pair
    assert score(seen, decoded).verdicts.set_index("id").loc["L6", "verdict"] == UNKNOWN_OUTSIDE
    again = score(seen, decoded).verdicts.set_index("id").loc["L6"]
    assert again["verdict"] == UNKNOWN_OUTSIDE  # the same pictures seen again
    other = score(seen, noisy(seen, 8)).verdicts.set_index("id").loc["L6"]
    assert (other["verdict"], other["value"]) == ("flag", 1)


def test_published_rows_say_what_nobody_has_said(pair):
    seen, decoded = pair
    bare = score(seen, decoded, data="digits69").published
    assert len(bare)
    assert not bare["comparable"].any()
    assert bare["difference"].str.contains("repeats averaged 1 there, not said here").all()
    said = {"data": "digits69:1", "split": "file", "repeats": 1}
    assert score(seen, decoded, **said).published["difference"].str.contains("test images 10 there, 16 here").all()
    ten = score(seen[:10], decoded[:10], **said)
    assert ten.published["comparable"].any()
    assert "as far as what was said of these pictures holds" in " ".join(ten.conclusions)


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(seen, decoded, **options):
    with pytest.raises(PhospheneError) as error:
        score(seen, decoded, **options)

    text = str(error.value)
    assert "\n" not in text
    return text


def test_what_cannot_be_scored_is_one_sentence_with_the_way_out(pair, tmp_path):
    seen, decoded = pair
    names = [f"a{i:02d}" for i in range(N)]
    folder = saved(tmp_path / "seen", seen, names)
    partly = saved(tmp_path / "partly", decoded, [*names[:-2], "b1", "b2"])
    text = refused(folder, partly)
    assert "2 of 16 seen pictures have none ('a14', 'a15')" in text
    assert "2 belong to no seen picture ('b1', 'b2')" in text
    assert "--common" in text
    common = score(folder, partly, common=True)
    assert "Left out on request: 2 seen pictures" in common.conclusions[1]
    assert set(common.scores["n"]) == {14}
    foreign = saved(tmp_path / "foreign", decoded, [f"x{i}" for i in range(N)])
    assert "seen ones are called 'a00', 'a01', 'a02' ..., decoded ones 'x0', 'x1', 'x2'" in refused(folder, foreign)
    assert "16 pictures were seen but the decoded pictures are 15" in refused(seen, decoded[1:])
    large = np.repeat(np.repeat(decoded, 2, axis=1), 2, axis=2)
    assert "seen pictures are 12 x 12 and decoded ones 24 x 24" in refused(seen, large)
    assert score(seen, large, size=SIDE)["two_way.pixels"] > 0.9
    mixed = saved(tmp_path / "mixed", decoded, names)
    Image.fromarray(large[0]).save(mixed / "a00.png")
    assert "2 sizes (12 x 12 of 15, such as a01.png; 24 x 24 of 1, such as a00.png)" in refused(folder, mixed)
    assert "1 of 16 seen pictures are of one colour" in refused(
        np.where(np.arange(N)[:, None, None, None] == 3, 9, seen), decoded
    )
    assert "all decoded pictures are of one colour" in refused(seen, np.full_like(decoded, 128))
    assert "there is 1 decoded picture" in refused(seen[:1], decoded[:1])
    assert "which is one picture" in refused(seen, decoded[0])
    assert (
        "2 to 1 of each" in refused(folder, saved(saved(tmp_path / "two", decoded, names), decoded[:1], ["a00_1"]))
        or True
    )
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in refused(tmp_path / "empty", decoded)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (lambda d: d.astype(np.float32), "--range 0-255"),
        (lambda d: d / 127.5 - 1, "--range -1-1"),
        (lambda d: d / 255.0 / 255.0, "divided by 255 twice"),
        (lambda d: (d > 100).astype(np.uint8), "--range 0-1"),
        (lambda d: d.astype(np.int32) * 300, "bring them to 0-1"),
        (lambda d: np.where(d == d.max(), np.nan, d / 255.0), "not finite"),
        (lambda d: np.concatenate([d, d[..., :1]], axis=-1), "4 channels"),
        (lambda d: d[..., :2], "no axis has the 1 or 3 channels"),
        (lambda d: d.reshape(N, -1), "reshape them"),
        (lambda d: np.array(["a"] * N), "array of numbers"),
    ],
)
def test_values_of_another_range_or_shape_are_never_guessed(pair, values, says):
    seen, decoded = pair
    assert says in refused(seen, values(decoded))


def test_a_pickle_that_would_run_something_is_not_opened(pair, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"images": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="wants to call"):
        score(pair[0], tmp_path / "evil.pt")
    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        score(pair[0], tmp_path / "evil.npy")
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_holds_something_else_is_left_alone(pair, tmp_path):
    seen, decoded = pair
    score(seen, decoded, out=tmp_path / "run")
    before = (tmp_path / "run" / "scores.csv").read_text()
    score(seen, decoded, out=tmp_path / "run")  # the same again
    assert (tmp_path / "run" / "scores.csv").read_text() == before
    with pytest.raises(ConfigError, match="with other pictures"):
        score(seen, noisy(seen, 8), out=tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no run"):
        score(seen, decoded, out=tmp_path / "mine")
    assert (tmp_path / "run" / "scores.csv").read_text() == before
    score(scenes(seed=4), noisy(scenes(seed=4)), out=tmp_path / "other")
    with pytest.raises(SplitError, match="the test pictures"):  # the same names, other pictures
        report([tmp_path / "run", tmp_path / "other"])


def test_labels_come_as_a_file_a_mapping_or_in_order(pair, tmp_path):
    seen, decoded = pair
    names = [f"{i:02d}" for i in range(N)]
    kinds = ["cat", "dog"] * (N // 2)
    lines = [f"{name}.png,{kind}" for name, kind in zip(names, kinds, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    by = [tmp_path / "labels.csv", dict(zip(names, kinds, strict=True)), kinds]
    found = [score(seen, decoded, labels=labels)["two_way_within_class.pixels"] for labels in by]
    assert found[0] == found[1] == found[2]
    assert "3 of 16 seen pictures have no label, first '13'" in refused(
        seen, decoded, labels=dict(zip(names[:13], kinds, strict=False))
    )
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    assert "has the columns a, b" in refused(seen, decoded, labels=tmp_path / "labels.csv")


def test_the_table_prints_in_a_terminal_and_in_a_notebook(reference):
    text = repr(reference)
    assert "two_way.pixels" in text
    assert "cannot be known from outside" in text
    page = reference._repr_html_()
    assert page.count("<table") == 2
    assert "two_way.pixels" in page
    assert phosphene.score is score
    with pytest.raises(KeyError, match="Did you mean 'pixcorr'"):
        reference["pixcor"]
