"""Digests of files by their contents, remembered as long as a file looks as it did."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from phosphene.io import file_digest
from phosphene.io.file_digest import cache_file, digest_of_path

LONG_AGO = 1_700_000_000


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "digests.json"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file


@pytest.fixture
def read(monkeypatch):
    """Files whose bytes were read."""
    names = []
    sha256 = file_digest._sha256
    monkeypatch.setattr(file_digest, "_sha256", lambda path: names.append(path.name) or sha256(path))
    return names


def test_the_digest_of_a_file_is_that_of_its_bytes(file, cache):
    assert digest_of_path(file, cache) == hashlib.sha256(b"one").hexdigest()


def test_a_file_is_read_once(file, cache, read):
    assert digest_of_path(file, cache) == digest_of_path(file, cache)
    assert read == ["weights.bin"]


def test_other_bytes_of_the_same_length_are_read_again(file, cache, read):
    before = digest_of_path(file, cache)
    file.write_bytes(b"two")
    os.utime(file, (LONG_AGO + 1, LONG_AGO + 1))
    assert digest_of_path(file, cache) != before
    assert len(read) == 2


def test_another_file_moved_to_the_same_place_is_read_even_with_the_same_time(file, cache, tmp_path):
    before = digest_of_path(file, cache)
    other = tmp_path / "other.bin"
    other.write_bytes(b"two")
    os.utime(other, (LONG_AGO, LONG_AGO))
    other.replace(file)
    assert digest_of_path(file, cache) != before


def test_a_file_that_changed_just_now_is_not_remembered(file, cache, read):
    os.utime(file)
    digest_of_path(file, cache)
    digest_of_path(file, cache)
    assert len(read) == 2


def test_a_folder_is_its_files_by_name_and_bytes(tmp_path, cache):
    folder = tmp_path / "network"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "a.bin").write_bytes(b"a")
    before = digest_of_path(folder, cache)
    moved = folder.rename(tmp_path / "moved")
    assert digest_of_path(moved, cache) == before
    (moved / "vae" / "a.bin").rename(moved / "vae" / "b.bin")
    assert digest_of_path(moved, cache) != before


def test_what_is_not_there_is_said_and_left_to_its_reader(tmp_path, cache):
    assert digest_of_path(tmp_path / "nowhere", cache) == "missing"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"x": 3}', b"\xff\xfe"])
def test_a_damaged_cache_is_written_anew(file, cache, damage):
    cache.parent.mkdir()
    cache.write_bytes(damage)
    assert digest_of_path(file, cache) == hashlib.sha256(b"one").hexdigest()
    assert str(file.resolve()) in json.loads(cache.read_text())


def test_where_nothing_can_be_written_contents_are_read_each_time(file, tmp_path, read):
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert digest_of_path(file, tmp_path / "cache" / "digests.json") == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 2


def test_processes_that_write_at_once_lose_nothing(tmp_path, cache):
    code = (
        "import sys; from pathlib import Path; from phosphene.io.file_digest import digest_of_path\n"
        "for file in sorted(Path(sys.argv[1]).glob('*')): digest_of_path(file, Path(sys.argv[2]))"
    )
    running = []
    for k in range(3):
        folder = tmp_path / f"person-{k}"
        folder.mkdir()
        for i in range(10):
            (folder / f"{i}.bin").write_bytes(bytes([k, i]))
            os.utime(folder / f"{i}.bin", (LONG_AGO, LONG_AGO))
        running.append(subprocess.Popen([sys.executable, "-c", code, str(folder), str(cache)]))
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(json.loads(cache.read_text())) == 30


def test_the_cache_lies_where_features_are_kept_or_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path))
    assert cache_file().parent == tmp_path
    monkeypatch.delenv("PHOSPHENE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cache_file().parent == tmp_path / "user" / "phosphene"
