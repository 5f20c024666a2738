"""A server that never stops, and a disk that is full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from phosphene.data import fetch as fetching
from phosphene.errors import DataError, MachineError, ModelError
from tests.data.liar import honest, item, plan, policy, serving

BLOCK = bytes(range(1, 256)) * 257


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def endless(handler) -> None:
    """Chunk after chunk, for as long as somebody listens."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(f"{len(BLOCK):x}\r\n".encode() + BLOCK + b"\r\n")
    except OSError:
        pass


def endless_without_chunks(handler) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(BLOCK)
    except OSError:
        pass


@pytest.mark.parametrize("answer", [endless, endless_without_chunks])
@pytest.mark.parametrize("said", [{"bytes": 5000}, {"about": 2 * 2**20}, {}])
def test_an_endless_body_is_cut(tmp_path: Path, answer, said: dict[str, int]) -> None:
    with serving(answer) as server:
        wanted = item(server, tmp_path, **said)
        with pytest.raises(DataError, match="sends more than"):
            fetching.fetch(plan(tmp_path, wanted), policy=policy(most_unannounced=8 * 2**20))

    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_server_that_announces_a_multiple_of_what_is_published(tmp_path: Path) -> None:
    def huge(handler) -> None:
        handler.send(200, b"x" * 100, length=10**9)

    with serving(huge) as server, pytest.raises(DataError, match="about"):
        fetching.fetch(plan(tmp_path, item(server, tmp_path, about=1000)), policy=policy())


def test_an_honest_file_without_a_length_arrives(tmp_path: Path) -> None:
    def chunks(handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{len(BLOCK):x}\r\n".encode() + BLOCK + b"\r\n0\r\n\r\n")

    with serving(chunks) as server:
        fetching.fetch(plan(tmp_path, item(server, tmp_path)), policy=policy())

    assert (tmp_path / "file.bin").read_bytes() == BLOCK


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = open

    class Full:
        def __init__(self, file) -> None:
            self.file = file

        def __getattr__(self, name: str):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data) -> int:
            self.file.write(bytes(data[:1000]))
            raise OSError(number, "full")

    def opened(file, mode="r", **how):
        handle = real(file, mode, **how)
        return Full(handle) if mode in ("wb", "r+b") else handle

    monkeypatch.setattr(fetching, "open", opened, raising=False)
    with serving(honest(BLOCK)) as server, pytest.raises(MachineError, match="full while writing"):
        fetching.fetch(plan(tmp_path, item(server, tmp_path)), policy=policy())

    assert not (tmp_path / "file.bin").exists()

    # And with room again, the same call goes on.
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(honest(BLOCK)) as server:
        fetching.fetch(plan(tmp_path, item(server, tmp_path)), policy=policy())

    assert (tmp_path / "file.bin").read_bytes() == BLOCK


def test_a_link_in_place_of_a_part_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "data").mkdir()
    with serving(honest(BLOCK)) as server:
        wanted = item(server, tmp_path / "data")
        part = fetching.partial_path(wanted.path)
        for place in (part, part.with_name(f"{part.name}.json")):
            place.symlink_to(victim)
            with pytest.raises(ModelError, match="is a link to"):
                fetching.fetch(plan(tmp_path / "data", wanted), policy=policy())

            place.unlink()

    assert victim.read_text() == "precious"
