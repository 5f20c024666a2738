"""Downloads from a server that lies in every way it can. Nothing here leaves this machine."""

from __future__ import annotations

import io
import json
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phosphene.data.fetch import LEDGER, default_policy, download, fetch, ledger, looks_like
from phosphene.data.fetch_archive import Limits, unpack
from phosphene.data.fetch_http import Policy
from phosphene.data.plan import partial_path
from phosphene.errors import DataError, MachineError, NotAvailable
from phosphene.io.claims import claimed
from tests.data.liar import honest, item, plain, plan, policy, serving, sha256

BODY = np.random.default_rng(0).bytes(300_000)
CUT = 120_000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def left(folder) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


# -- what goes well ----------------------------------------------------------------------------------------------------


def test_a_file_arrives_whole_under_its_name_and_in_the_record(tmp_path):
    with serving(honest(BODY)) as server:
        wanted = item(server, tmp_path, "a/file.bin", bytes=len(BODY), sha256=sha256(BODY))
        report = fetch(plan(tmp_path, wanted), policy=policy())
        assert report.fetched == (wanted,)
        assert (tmp_path / "a/file.bin").read_bytes() == BODY
        told = ledger(tmp_path)["a/file.bin"]
        assert (told["bytes"], told["sha256"]) == (len(BODY), sha256(BODY))
        assert left(tmp_path) == [LEDGER, "file.bin"]
        again = fetch(plan(tmp_path, wanted), policy=policy())
        assert (again.fetched, again.there, len(server.seen)) == ((), (wanted,), 1)
    assert server.seen[0][1]["accept-encoding"] == "identity"


def test_an_interrupted_file_goes_on_where_it_stopped(tmp_path):
    with serving(honest(BODY, cut=CUT), honest(BODY)) as server:
        how = policy()
        fetch(plan(tmp_path, item(server, tmp_path)), policy=how)
        assert (tmp_path / "file.bin").read_bytes() == BODY
        assert server.ranges == [None, f"bytes={CUT}-"]
        assert server.seen[1][1]["if-range"] == '"one"'
        assert how.wait.seconds == [2.0]


@pytest.mark.fault(75)
def test_a_killed_download_leaves_no_final_name_and_goes_on(tmp_path):
    halfway = threading.Event()

    def stalls(h):
        h.send(200, BODY[:CUT], len(BODY), ETag='"one"')
        h.wfile.flush()
        halfway.set()
        h.rfile.read(1)  # until the other side is gone

    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.data.liar import plan, policy
        from phosphene.data import fetch
        from phosphene.data.plan import Item
        fetch._BLOCK = 1000
        folder = Path(sys.argv[1])
        fetch.fetch(plan(folder, Item("data", folder / "file.bin", sys.argv[2], "open")), policy=policy(timeout_s=60))
    """)
    with serving(stalls, honest(BODY)) as server:
        url = server.url("/file.bin")
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), url])
        try:
            assert halfway.wait(60)
            part = partial_path(tmp_path / "file.bin")
            while not (part.is_file() and part.stat().st_size > CUT // 2):  # bounded by the test's own timeout
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
        assert not (tmp_path / "file.bin").exists()
        kept = part.stat().st_size
        fetch(plan(tmp_path, item(server, tmp_path)), policy=policy())
        assert (tmp_path / "file.bin").read_bytes() == BODY
        assert server.ranges == [None, f"bytes={kept}-"]
        assert left(tmp_path) == [LEDGER, "file.bin"]


def test_a_part_that_is_whole_already_needs_no_request(tmp_path):
    with serving(honest(BODY)) as server:
        wanted = item(server, tmp_path, sha256=sha256(BODY))
        part = partial_path(wanted.path)
        part.write_bytes(BODY)
        mark = {"url": wanted.url, "etag": '"one"', "modified": "", "total": len(BODY)}
        part.with_name(f"{part.name}.json").write_text(json.dumps(mark))
        fetch(plan(tmp_path, wanted), policy=policy())
        assert (wanted.path.read_bytes(), server.seen) == (BODY, [])


def test_a_busy_server_is_asked_again_no_sooner_than_it_says(tmp_path):
    with serving(plain(503, Retry_After="7"), plain(429), honest(BODY)) as server:
        how = policy()
        fetch(plan(tmp_path, item(server, tmp_path)), policy=how)
        assert how.wait.seconds == [7.0, 4.0]
        assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_file_of_figshares_list_is_found_by_its_name(tmp_path):
    body = b"\x93NUMPY" + BODY
    with serving() as server:
        listing = {"files": [{"name": "other", "size": 1, "download_url": "x"}, {"name": "b.npy", "size": len(body)}]}
        listing["files"][1] |= {"download_url": server.url("/b"), "computed_md5": "0" * 32}
        server.answers = [plain(200, json.dumps(listing).encode()), honest(body)]
        wanted = item(server, tmp_path, "b.npy", url=server.url("/list"), listed="b.npy", kind="npy")
        with pytest.raises(DataError, match="MD5"):
            fetch(plan(tmp_path, wanted), policy=policy())
        del listing["files"][1]["computed_md5"]
        server.seen.clear()
        server.answers[0] = plain(200, json.dumps(listing).encode())
        fetch(plan(tmp_path, wanted), policy=policy())
        assert wanted.path.read_bytes() == body
        with pytest.raises(NotAvailable, match="does not list c.npy"):
            fetch(plan(tmp_path, replace(wanted, path=tmp_path / "c.npy", listed="c.npy")), policy=policy())


# -- 103: a page in place of the file ----------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html>\n<html><head><title>Please log\x07 in</title></head><body>...</body></html>"


@pytest.mark.fault(103)
@pytest.mark.parametrize("type_", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("kind", ["any", "hdf5", "text"])
def test_a_login_page_is_never_taken_for_data(tmp_path, type_, kind):
    with serving(plain(200, PAGE, Content_Type=type_)) as server:
        with pytest.raises(DataError, match=r"web page titled 'Please log in' .* browser"):
            fetch(plan(tmp_path, item(server, tmp_path, kind=kind)), policy=policy())
        assert not (tmp_path / "file.bin").exists()
        assert len(server.seen) == 1


@pytest.mark.fault(103)
@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("gzip", b"\x1f\x8b\x08"),
        ("hdf5", b"\x89HDF\r\n\x1a\n"),
        ("json", b' {"a": 1}'),
        ("mat", b"MATLAB 5.0 MAT-file"),
        ("nifti", b"\x5c\x01\x00\x00"),
        ("npy", b"\x93NUMPY\x01"),
        ("safetensors", (40).to_bytes(8, "little") + b'{"a"'),
        ("text", b"a,b\n1,2\n"),
        ("torch", b"PK\x03\x04"),
        ("zip", b"PK\x03\x04"),
    ],
)
def test_first_bytes_tell_the_kind(tmp_path, kind, good):
    assert looks_like(kind, good)
    assert not looks_like(kind, b"\0 not this one")
    with serving(plain(200, b"\0 not this one")) as server, pytest.raises(DataError, match=f"should be a {kind} file"):
        download(item(server, tmp_path, kind=kind), policy())
    assert not (tmp_path / "file.bin").exists()


# -- 104: too short, too long ------------------------------------------------------------------------------------------


@pytest.mark.fault(104)
def test_a_body_that_always_ends_early_is_kept_but_gets_no_final_name(tmp_path):
    with serving(lambda h: h.send(200, BODY[:CUT], len(BODY), ETag='"one"')) as server:
        wanted = item(server, tmp_path)
        with pytest.raises(NotAvailable, match=rf"3 tries: only {CUT} of {len(BODY)} bytes .* 120.0 kB are kept; run"):
            fetch(plan(tmp_path, wanted), policy=policy())
        assert not wanted.path.exists()
        server.answers = [honest(BODY)]
        fetch(plan(tmp_path, wanted), policy=policy())
        assert wanted.path.read_bytes() == BODY
        assert server.ranges[-1] == f"bytes={CUT}-"


@pytest.mark.fault(104)
def test_a_chunked_body_that_breaks_off_is_not_taken_as_whole(tmp_path):
    def breaks(h):
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        h.wfile.write(b"1000\r\n" + BODY[:3000])

    with serving(breaks) as server, pytest.raises(NotAvailable, match="3 tries"):
        download(item(server, tmp_path), policy())
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.fault(104)
def test_a_body_longer_than_published_is_refused(tmp_path):
    def endless(h):
        h.send_response(200)
        h.end_headers()
        h.wfile.write(BODY)

    with serving(endless) as server, pytest.raises(DataError, match="more than the 1000 bytes"):
        download(item(server, tmp_path, bytes=1000), policy())
    assert left(tmp_path) == []


def test_a_body_compressed_on_the_way_is_refused(tmp_path):
    with serving(plain(200, BODY, Content_Encoding="gzip")) as server, pytest.raises(DataError, match="re-packed"):
        download(item(server, tmp_path), policy())


# -- 105: another file -------------------------------------------------------------------------------------------------


@pytest.mark.fault(105)
@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"sha256": "0" * 64}, "SHA-256 begins with"),
        ({"sha256": "7be5be79"}, "published one with 7be5be79"),
        ({"bytes": len(BODY) + 1}, f"should have {len(BODY) + 1} bytes"),
        ({"md5": "0" * 32}, "MD5"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_deleted(tmp_path, changed, match):
    with serving(honest(BODY)) as server, pytest.raises(DataError, match=match):
        fetch(plan(tmp_path, item(server, tmp_path, **changed)), policy=policy())
    assert left(tmp_path) == []


@pytest.mark.fault(105)
def test_an_empty_file_is_no_file(tmp_path):
    with serving(plain(200, b"")) as server, pytest.raises(DataError, match="empty"):
        download(item(server, tmp_path), policy())


def test_a_file_of_another_size_that_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    with serving(honest(BODY)) as server:
        with pytest.raises(DataError, match="never overwritten"):
            fetch(plan(tmp_path, item(server, tmp_path, bytes=len(BODY))), policy=policy())
        assert ((tmp_path / "file.bin").read_bytes(), server.seen) == (b"mine", [])


# -- 106: the file changes between two attempts ------------------------------------------------------------------------

OTHER = BODY[::-1]


def lies_206(body, etag='"one"', start=None):
    """A partial answer whatever If-Range says."""

    def answer(h):
        at = int(h.headers["Range"][6:-1]) if "Range" in h.headers else 0
        if not at:
            return honest(body, etag)(h)
        told = at if start is None else start
        return h.send(206, body[at:], ETag=etag, Content_Range=f"bytes {told}-{len(body) - 1}/{len(body)}")

    return answer


@pytest.mark.fault(106)
@pytest.mark.parametrize(
    "then",
    [
        pytest.param(honest(OTHER, '"two"'), id="the server says so"),
        pytest.param(lies_206(OTHER, '"two"'), id="206 of another version"),
        pytest.param(lies_206(OTHER[:-5], '"one"'), id="206 of another length"),
        pytest.param(lies_206(OTHER, start=0), id="206 of another range"),
        pytest.param(lambda h: (plain(416) if "Range" in h.headers else honest(OTHER))(h), id="416"),
    ],
)
def test_pieces_of_two_versions_are_never_joined(tmp_path, then):
    with serving(honest(BODY, cut=CUT), then) as server:
        download(item(server, tmp_path), policy())
    assert (tmp_path / "file.bin").read_bytes() in (OTHER, OTHER[:-5])


@pytest.mark.fault(106)
def test_a_server_that_hides_the_change_is_found_out_by_the_checksum(tmp_path):
    with serving(honest(BODY, cut=CUT), lies_206(OTHER, '"one"')) as server:
        download(item(server, tmp_path, sha256=sha256(OTHER)), policy())
        assert server.ranges == [None, f"bytes={CUT}-", None]
    assert (tmp_path / "file.bin").read_bytes() == OTHER


@pytest.mark.fault(106)
def test_without_a_version_or_a_checksum_a_download_begins_anew(tmp_path):
    with serving(honest(BODY, etag="", cut=CUT), honest(OTHER, etag="")) as server:
        download(item(server, tmp_path), policy())
        assert server.ranges == [None, None]
    assert (tmp_path / "file.bin").read_bytes() == OTHER


@pytest.mark.fault(106)
def test_a_change_after_the_download_is_a_finding(tmp_path):
    from phosphene.data.plan_check import check_plan

    with serving(honest(BODY)) as server:
        made = plan(tmp_path, item(server, tmp_path))
        fetch(made, policy=policy())
    assert [f.level for f in check_plan(made)] == ["ok"]
    changed = bytearray(BODY)
    changed[7] ^= 1
    (tmp_path / "file.bin").write_bytes(changed)
    (finding,) = check_plan(made)
    assert finding.level == "problem"
    assert "that of the day it was fetched" in finding.detail
    (tmp_path / "file.bin").write_bytes(BODY[:-1])
    assert "when it was fetched" in check_plan(made)[0].detail


# -- 107: sent elsewhere -----------------------------------------------------------------------------------------------


@pytest.mark.fault(107)
def test_a_redirect_to_another_host_is_not_followed(tmp_path):
    with serving(honest(BODY)) as other, serving() as server:
        server.answers = [plain(302, Location=other.url().replace("127.0.0.1", "localhost"))]
        with pytest.raises(NotAvailable, match="another host, localhost"):
            download(item(server, tmp_path), policy())
        assert other.seen == []
        server.answers = [plain(302, Location=other.url())]  # the same host
        download(item(server, tmp_path), policy())
        assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.fault(107)
def test_a_redirect_to_an_allowed_host_is_followed(tmp_path):
    with serving(honest(BODY)) as other, serving() as server:
        server.answers = [plain(302, Location=other.url().replace("127.0.0.1", "localhost"))]
        download(item(server, tmp_path), policy(hosts={"127.0.0.1": ["localhost"]}))
    assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.fault(107)
@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_a_redirect_out_of_http_is_not_followed(tmp_path, target):
    with serving(plain(301, Location=target)) as server, pytest.raises(NotAvailable, match="sends on to"):
        download(item(server, tmp_path), policy())


@pytest.mark.fault(107)
def test_a_redirect_in_circles_ends(tmp_path):
    with serving() as server:
        server.answers = [plain(302, Location=server.url("/again"))]
        with pytest.raises(NotAvailable, match="on and on"):
            download(item(server, tmp_path), policy())
        assert len(server.seen) < 12


@pytest.mark.fault(107)
@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("https://a.org/y", True),
        ("http://a.org/y", False),
        ("https://cdn.b.org/y", True),
        ("https://evil-b.org/y", False),
        ("https://b.org.evil.com/y", False),
        ("https://user@evil.com/a.org", False),
    ],
)
def test_only_the_hosts_of_the_table_may_be_sent_to_and_encrypted(target, allowed):
    rule = Policy({"a.org": [".b.org"]})
    if allowed:
        rule.check_redirect("https://a.org/x", target)
    else:
        with pytest.raises(NotAvailable, match="sends on to"):
            rule.check_redirect("https://a.org/x", target)


@pytest.mark.fault(107)
def test_unencrypted_addresses_and_unknown_hosts_are_refused_to_begin_with(tmp_path):
    with serving(honest(BODY)) as server:
        for how, match in ((default_policy(), "'http'"), (policy(hosts={}), "not among those")):
            with pytest.raises(NotAvailable, match=match):
                download(item(server, tmp_path), how)
        assert server.seen == []


# -- 108, 109: no network, proxies, certificates -----------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.fault(108)
def test_no_network_is_said_at_once_and_by_whom_it_is_needed(tmp_path, monkeypatch):
    with serving() as server:
        wanted = replace(item(server, tmp_path), url=f"http://127.0.0.1:{closed_port()}/x")
    how = policy()
    with pytest.raises(NotAvailable, match="cannot be reached.*Only 'phosphene data fetch' needs a network"):
        fetch(plan(tmp_path, wanted), policy=how)

    def no_names(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    with pytest.raises(NotAvailable, match="name resolution.*Is this machine online"):
        fetch(plan(tmp_path, wanted), policy=how)
    assert how.wait.seconds == []
    assert left(tmp_path) == []


@pytest.mark.fault(109)
def test_a_proxy_that_does_not_answer_is_named_without_its_password(tmp_path, monkeypatch):
    port = closed_port()
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    with serving(honest(BODY)) as server:
        with pytest.raises(NotAvailable, match=f"the proxy 127.0.0.1:{port} does not let") as caught:
            download(item(server, tmp_path), policy())
        assert server.seen == []
    assert "secret" not in str(caught.value)
    assert "http_proxy" in str(caught.value)


@pytest.mark.fault(109)
def test_a_proxy_that_wants_a_password_is_named(tmp_path, monkeypatch):
    with serving(plain(407)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url(""))
        with pytest.raises(NotAvailable, match="proxy .* name and password"):
            download(replace(item(proxy, tmp_path), url="http://a.invalid/x"), policy(hosts={"a.invalid": ()}))


@pytest.mark.fault(109)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_certificate_nobody_vouches_for_is_refused(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *name]
    subprocess.run([*made, "-days", "2", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(honest(BODY)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        wanted = replace(item(server, tmp_path), url=server.url().replace("http:", "https:"))
        with pytest.raises(NotAvailable, match="certificate of 127.0.0.1 cannot be trusted"):
            download(wanted, policy(schemes=("https",)))
        trusting = policy(schemes=("https",), context=ssl.create_default_context(cafile=certificate))
        download(wanted, trusting)
        assert (tmp_path / "file.bin").read_bytes() == BODY


@pytest.mark.fault(109)
def test_a_server_that_does_not_encrypt_is_refused(tmp_path):
    with serving(honest(BODY)) as server:
        wanted = replace(item(server, tmp_path), url=server.url().replace("http:", "https:"))
        with pytest.raises(NotAvailable, match="no encrypted connection"):
            download(wanted, policy(schemes=("https",)))


# -- 110: the licence --------------------------------------------------------------------------------------------------


@pytest.mark.fault(110)
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_points_to_the_licence(tmp_path, status):
    with serving(plain(status, PAGE)) as server:
        with pytest.raises(NotAvailable, match="licence or the form .* not accepted.*"):
            download(item(server, tmp_path), policy())
        assert len(server.seen) == 1
    assert left(tmp_path) == []


@pytest.mark.fault(110)
def test_files_under_terms_wait_until_they_are_accepted_and_others_do_not(tmp_path):
    with serving(honest(BODY)) as server:
        free, bound, manual = (
            item(server, tmp_path, f"{access}.bin", access=access) for access in ("open", "terms", "manual")
        )
        made = plan(tmp_path, bound, free, manual)
        report = fetch(made, policy=policy())
        assert (report.fetched, report.waiting, report.by_hand) == ((free,), (bound,), (manual,))
        assert [path for path, _ in server.seen] == ["/open.bin"]
        report = fetch(made, accept_terms=True, policy=policy())
        assert (report.fetched, report.waiting, report.by_hand) == ((bound,), (), (manual,))


def test_a_file_that_moved_away_is_said(tmp_path):
    with serving(plain(404)) as server, pytest.raises(NotAvailable, match="no longer there"):
        download(item(server, tmp_path), policy())


# -- 111, 112: archives ------------------------------------------------------------------------------------------------


def zipped(path, *entries, attributes=0, **how):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, body in entries:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name  # as written, without zipfile's own mending
            info.external_attr = attributes << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, body)
    return path


def tarred(path, *entries):
    with tarfile.open(path, "w:gz") as out:
        for name, body, changed in entries:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            for key, value in changed.items():
                setattr(info, key, value)
            out.addfile(info, io.BytesIO(body))
    return path


OUTSIDE = ["../evil", "a/../../evil", "/tmp/evil-of-a-test", "C:\\evil", "..\\evil", "a\nb"]


@pytest.mark.fault(111)
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_outside_the_folder_are_refused_and_nothing_is_left(tmp_path, name, kind):
    place = tmp_path / "in" / "set"
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", ("good", b"1"), (name, b"2"))
    else:
        archive = tarred(tmp_path / "a.tgz", ("good", b"1", {}), (name, b"2", {}))
    with pytest.raises(DataError, match="outside the folder or is no plain name"):
        unpack(archive, place)
    assert left(tmp_path) == [archive.name]
    assert not Path("/tmp/evil-of-a-test").exists()


@pytest.mark.fault(111)
@pytest.mark.parametrize(
    "changed",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "good"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.BLKTYPE},
        {"type": tarfile.FIFOTYPE},
    ],
)
def test_links_and_devices_are_refused(tmp_path, changed):
    archive = tarred(tmp_path / "a.tgz", ("good", b"1", {}), ("odd", b"", changed))
    with pytest.raises(DataError, match="link or device"):
        unpack(archive, tmp_path / "set")
    assert left(tmp_path) == ["a.tgz"]


@pytest.mark.fault(111)
def test_links_and_names_twice_in_a_zip_are_refused(tmp_path):
    with pytest.raises(DataError, match="link or device"):
        unpack(zipped(tmp_path / "a.zip", ("link", b"/etc/passwd"), attributes=stat.S_IFLNK | 0o777), tmp_path / "set")
    with pytest.raises(DataError, match="twice"):
        unpack(zipped(tmp_path / "b.zip", ("Name", b"1"), ("name", b"2")), tmp_path / "set")
    assert left(tmp_path) == ["a.zip", "b.zip"]


@pytest.mark.fault(112)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_bombs_do_not_go_off(tmp_path, kind):
    bomb = b"\0" * 2_000_000  # 2 kB when compressed
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", ("zeros", bomb))
    else:
        archive = tarred(tmp_path / "a.tgz", ("zeros", bomb, {}))
    with pytest.raises(DataError, match="archive bomb"):
        unpack(archive, tmp_path / "set", Limits(ratio_above=10**6))
    assert left(tmp_path) == [archive.name]
    assert (unpack(archive, tmp_path / "set", Limits()) / "zeros").stat().st_size == len(bomb)


@pytest.mark.fault(112)
def test_too_many_entries_are_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", *((f"{i}", b"") for i in range(12)))
    with pytest.raises(DataError, match="more than 10 entries"):
        unpack(archive, tmp_path / "set", Limits(members=10))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive_leaves_nothing(tmp_path, kind):
    body = np.random.default_rng(1).bytes(50_000)
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", ("a", b"1"), ("b", body))
    else:
        archive = tarred(tmp_path / "a.tgz", ("a", b"1", {}), ("b", body, {}))
    whole = archive.read_bytes()
    for broken in (whole[:20_000], whole[:20_000] + b"XXXX" + whole[20_004:], b"no archive at all"):
        archive.write_bytes(broken)
        with pytest.raises(DataError, match=r"damaged|cut off"):
            unpack(archive, tmp_path / "set")
        assert left(tmp_path) == [archive.name]


def test_a_fetched_archive_is_unpacked_once(tmp_path):
    archive = zipped(tmp_path / "source.zip", ("outer/set/py/a", b"1"), ("__MACOSX/._a", b"2"), ("outer/readme", b"3"))
    with serving(honest(archive.read_bytes())) as server:
        root = tmp_path / "root"
        wanted = item(server, root, "a.zip", kind="zip", unpack=root / "set")
        made = plan(root, wanted)
        fetch(made, policy=policy())
        assert (root / "set/py/a").read_bytes() == b"1"
        assert left(root) == ["a", "a.zip", LEDGER]
        assert wanted.state == "there"
        shutil.rmtree(root / "set")
        assert wanted.state == "not unpacked"
        fetch(made, policy=policy())
        assert (root / "set/py/a").is_file()
        assert len(server.seen) == 1


# -- this machine ------------------------------------------------------------------------------------------------------


@pytest.mark.fault(81)
def test_too_little_room_is_said_before_the_first_request(tmp_path):
    with serving(honest(BODY)) as server:
        first, second = item(server, tmp_path, "a"), item(server, tmp_path, "b", bytes=10**18)
        with pytest.raises(MachineError, match="1000000.0 TB are needed"):
            fetch(plan(tmp_path, first, second), policy=policy())
        assert server.seen == []
        server.answers = [lambda h: h.send(200, BODY, 10**18)]
        with pytest.raises(MachineError, match="free"):
            fetch(plan(tmp_path, first), policy=policy())
    assert not first.path.exists()


@pytest.mark.fault(90)
def test_two_processes_do_not_fetch_into_one_folder(tmp_path):
    with serving(honest(BODY)) as server, claimed(tmp_path / ".partial-fetching") as mine:
        assert mine
        with pytest.raises(MachineError, match="another process"):
            fetch(plan(tmp_path, item(server, tmp_path)), policy=policy())
        assert server.seen == []
