"""A server on this machine that keeps to HTTP, or breaks it on purpose."""

from __future__ import annotations

import hashlib
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from phosphene.data.fetch_http import Policy
from phosphene.data.plan import DownloadSet, Item, Plan


class Server(ThreadingHTTPServer):
    """Answers every request with ``answers[number]``, the last one for all that follow."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Callable[[_Handler], None]] = []
        self.seen: list[tuple[str, dict[str, str]]] = []  # path and headers

    def server_bind(self) -> None:
        """Without asking for the name of this machine, which can take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, *_) -> None:
        """A client that hangs up is part of these tests."""

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.seen]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        answer = self.server.answers[min(len(self.server.seen), len(self.server.answers)) - 1]
        self.close_connection = True
        answer(self)

    def log_message(self, *_) -> None:
        pass

    def send(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(*answers: Callable[[_Handler], None]) -> Iterator[Server]:
    server = Server()
    server.answers = list(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def honest(body: bytes, etag: str = '"one"', cut: int | None = None) -> Callable[[_Handler], None]:
    """Keeps to ranges and If-Range; `cut` ends the body after so many bytes of the file."""

    def answer(h: _Handler) -> None:
        told, since = h.headers.get("Range", ""), h.headers.get("If-Range")
        start = int(told[6:].split("-")[0]) if told and since in (None, etag) else 0
        if start >= len(body) > 0:
            return h.send(416, Content_Range=f"bytes */{len(body)}")
        sent = body[start:cut]
        tag = {"ETag": etag} if etag else {}
        if start:
            tag["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return h.send(206 if start else 200, sent, len(body) - start, **tag)

    return answer


def plain(status: int, body: bytes = b"", **headers: str) -> Callable[[_Handler], None]:
    return lambda h: h.send(status, body, **headers)


@dataclass
class Waits:
    """Takes the place of sleeping, and remembers."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def policy(**changed) -> Policy:
    """Requests to this machine, unencrypted."""
    how = {"hosts": {"127.0.0.1": ()}, "schemes": ("http",), "timeout_s": 20.0, "tries": 3, "wait": Waits()}
    return Policy(**{**how, **changed})


def item(server: Server, folder: Path, name: str = "file.bin", **changed) -> Item:
    how = {"part": "data", "path": folder / name, "url": server.url(f"/{name}"), "access": "open"}
    return Item(**{**how, **changed})


def plan(folder: Path, *items: Item) -> Plan:
    about = DownloadSet(title="a set", folder="set", licence="a licence", terms="https://example.org/terms", files=[])
    return Plan("set", folder, items, about)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
