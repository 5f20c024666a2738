"""What each area looks at: orientation in V1 to V3, hue, bending and place in hV4, what things are in LOC."""

import numpy as np
import pytest

from phosphene.lab import Subject, pathway, scenes
from phosphene.lab.cortex import FIELD_DEG

CYCLES, TURNS = (2, 4, 8), np.pi * np.arange(6) / 6
PHASES = np.pi / 2 * np.arange(4)


def grating(turn, cycles, phase):
    at = (np.arange(32) + 0.5) / 32 - 0.5
    x, y = np.meshgrid(at, at)
    light = 0.5 + 0.5 * np.cos(2 * np.pi * cycles * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    return np.repeat(np.round(255 * light).astype(np.uint8)[..., None], 3, axis=2)


def disc(x, y, radius, colour, size=64):
    """An antialiased disc on grey; x to the right and y up, in widths of the picture from its middle."""
    at = (np.arange(size) + 0.5) / size - 0.5
    right, up = np.meshgrid(at, -at)
    inside = np.clip((radius - np.hypot(right - x, up - y)) * size + 0.5, 0, 1)[..., None]
    return np.round(128 * (1 - inside) + np.array(colour) * inside).astype(np.uint8)


def hues():
    """Six colours of one luminance: equal steps on the circle of red-green and blue-yellow, (6, 3), 0-255."""
    axes = np.array([[1, -1, 0], [-0.5, -0.5, 1], [0.30, 0.59, 0.11]])
    turns = np.pi / 3 * np.arange(6)
    return 255 * np.linalg.solve(axes, np.array([0.25 * np.cos(turns), 0.25 * np.sin(turns), np.full(6, 0.5)])).T


def strong(person, area):
    return (person.voxels[f"roi.{area}"] & (person.voxels["ncsnr"] > 0.2)).to_numpy()


@pytest.fixture(scope="module")
def to_gratings(subject):
    pictures = np.array([[[grating(t, c, p) for p in PHASES] for t in TURNS] for c in CYCLES])
    return subject.signal(pictures.reshape(-1, 32, 32, 3)).reshape(3, 6, 4, -1)  # (cycles, turn, phase, voxel)


@pytest.mark.parametrize("area", ["V1", "V2", "V3"])
def test_early_areas_answer_to_orientation_whatever_the_phase(subject, to_gratings, area):
    answers = to_gratings[..., strong(subject, area)]
    by_turn, by_phase = answers.mean(axis=2).var(axis=1).mean(axis=0), answers.var(axis=2).mean(axis=(0, 1))
    assert np.median(by_turn / by_phase) > 4  # energy of quadrature pairs; a single filter would be at 1 or below
    liked = np.bincount(answers.mean(axis=(0, 2)).argmax(axis=0), minlength=6)
    assert (liked > 0).sum() >= 5  # every orientation has its voxels
    assert liked.max() < 0.5 * liked.sum()


def test_the_frequency_that_voxels_like_falls_along_the_hierarchy(subject, to_gratings):
    best = to_gratings.mean(axis=(1, 2)).argmax(axis=0)
    liked = [np.log2(CYCLES)[best[strong(subject, area)]].mean() for area in ("V1", "V2", "V3")]
    assert liked[0] > liked[1] + 0.2  # octaves
    assert liked[0] > liked[2] + 0.2


def test_bending_has_the_sign_of_the_contour_and_straight_edges_have_none():
    edge = np.full((64, 64, 3), 60, dtype=np.uint8)
    edge[:, 32:] = 200
    pictures = np.stack([disc(0, 0, 0.25, (230,) * 3), disc(0, 0, 0.25, (26,) * 3), edge])
    bright, dark, straight = pathway.maps(pictures)[2][:, 8:].sum(axis=(2, 3))  # convex and concave of each
    assert bright[0] > 20 * bright[1]
    assert dark[1] > 20 * dark[0]
    np.testing.assert_allclose(straight, 0, atol=1e-4)


def test_hv4_answers_to_hue_at_equal_luminance_more_than_v1_and_loc_does_not(subject):
    patches = np.stack([np.full((32, 32, 3), np.round(hue)) for hue in hues()]).astype(np.uint8)
    answers = subject.signal(patches) / np.maximum(subject.voxels["signal_sd"].to_numpy(), 1e-9)
    spread = {area: np.median(answers[:, strong(subject, area)].std(axis=0)) for area in ("V1", "hV4", "LOC")}
    assert spread["hV4"] > 2 * spread["V1"] > 0
    assert spread["LOC"] < 1e-3  # nothing is there to recognise; float32
    assert len(set(answers[:, strong(subject, "hV4")].argmax(axis=0))) >= 5  # of six hues


def test_hv4_answers_most_to_colour_where_its_field_is(subject):
    corners = [(-0.25, 0.25), (0.25, 0.25), (-0.25, -0.25), (0.25, -0.25)]
    pictures = np.stack([disc(x, y, 0.2, hue) for hue in hues()[::2] for x, y in corners])
    here = strong(subject, "hV4")
    best = subject.signal(pictures)[:, here].reshape(3, 4, -1).max(axis=0).argmax(axis=0)
    centre = subject.voxels[["prf_x", "prf_y"]].to_numpy()[here] / FIELD_DEG
    nearest = np.linalg.norm(centre[:, None] - np.array(corners), axis=2).argmin(axis=1)
    assert here.sum() > 20
    assert (best == nearest).mean() > 0.9


def test_loc_tells_what_the_main_thing_is_better_than_any_other_area(subject, described, signal):
    main = np.array([scenes.THINGS.index(scene.main) for scene in described])
    learn = np.arange(len(main)) < 320
    hits = {}
    for area in ("V1", "hV4", "LOC", "FFA", "PPA"):
        part = signal[:, subject.voxels[f"roi.{area}"] & (subject.voxels["ncsnr"] > 0)]
        part = (part - part.mean(axis=0)) / part.std(axis=0)
        middle = np.stack([part[learn & (main == kind)].mean(axis=0) for kind in range(16)])
        guess = ((part[~learn][:, None] - middle) ** 2).sum(axis=2).argmin(axis=1)
        hits[area] = (guess == main[~learn]).mean()
    assert hits["LOC"] > 0.9  # chance 0.06
    assert all(hits["LOC"] > hits[area] + 0.2 for area in hits if area != "LOC")
    assert hits["FFA"] < 0.8  # a face area does not tell cups from cars


def test_two_people_differ_in_tuning_where_they_look_at_the_same_place(subject, signal, described):
    other = Subject(subject.seed + 1, n_voxels=600)
    theirs = other.signal(scenes.render_many(11, np.arange(len(described))), described)
    for area, most in (("V1", 0.8), ("LOC", 0.4)):
        ours, others = np.flatnonzero(strong(subject, area)), np.flatnonzero(strong(other, area))
        at, there = (
            person.voxels[["prf_x", "prf_y"]].to_numpy()[rows] for person, rows in ((subject, ours), (other, others))
        )
        nearest = others[np.linalg.norm(at[:, None] - there[None], axis=2).argmin(axis=1)]
        alike = [np.corrcoef(signal[:, i], theirs[:, j])[0, 1] for i, j in zip(ours, nearest, strict=True)]
        assert np.median(alike) < most  # shared brightness and contrast keep V1 alike; LOC likes other things
