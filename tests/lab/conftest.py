"""One simulated subject and some pictures, shared by the tests of this folder."""

import numpy as np
import pytest

from phosphene.lab import Subject, scenes

N_PICTURES = 480


@pytest.fixture(scope="session")
def subject():
    return Subject(3, n_voxels=600)


@pytest.fixture(scope="session")
def described():
    return scenes.describe_many(11, np.arange(N_PICTURES))


@pytest.fixture(scope="session")
def signal(subject, described):
    return subject.signal(scenes.render_many(11, np.arange(N_PICTURES)), described)


@pytest.fixture(scope="session")
def betas(subject, signal):
    """Each picture shown three times, each time in another run and session: (3, N_PICTURES, n_voxels), centred by session."""
    rng = np.random.default_rng(0)
    shown = []
    for repeat in range(3):
        order = rng.permutation(N_PICTURES)
        session = 1 + repeat * 2 + np.arange(N_PICTURES) // 240
        run = np.arange(N_PICTURES) % 240 // 60
        measured = subject.measure(signal, session, run, np.full(N_PICTURES, repeat), rng, rows=order)
        for name in np.unique(session):
            measured[session == name] -= measured[session == name].mean(axis=0)
            measured[session == name] /= measured[session == name].std(axis=0)
        shown.append(measured[np.argsort(order)])
    return np.array(shown)
