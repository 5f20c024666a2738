"""Requests that leave this machine: to hosts that are allowed, encrypted, politely, and with errors a person understands."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from phosphene._version import __version__
from phosphene.errors import NotAvailable

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # answers that say "not now" rather than "no"
_LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


class TransientError(Exception):
    """Something that may be better a moment later.

    Parameters
    ----------
    reason : str
        for people
    after_s : float, default 0.0
        wait at least so long
    """

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = min(after_s, _LONGEST_WAIT)


@dataclass(frozen=True)
class Policy:
    """Where requests may go and how patient they are.

    Parameters
    ----------
    hosts : mapping of {str: sequence of str}
        host of an address to the hosts it may redirect to; a leading dot stands for any name that ends so
    schemes : tuple of str, default ('https',)
        allowed; encrypted ones only by default
    timeout_s : float, default 30.0
        without a byte
    tries : int, default 5
        in a row without a new byte
    wait : callable, optional
        called with seconds between tries
    most_times : float, default 2.0
        a file may have so many times the size that is published for it roughly
    most_unannounced : int, default 64 GiB
        bytes that a file may have whose size nobody said, neither who published it nor the server
    context : ssl.SSLContext, optional
        of TLS; by default the machine's certificates, always checked
    """

    hosts: Mapping[str, Sequence[str]]
    schemes: tuple[str, ...] = ("https",)
    timeout_s: float = 30.0
    tries: int = 5
    wait: Callable[[float], None] = time.sleep
    most_times: float = 2.0
    most_unannounced: int = 64 * 2**30
    context: ssl.SSLContext | None = None

    def check(self, url: str) -> None:
        """Raise NotAvailable for an address that is not allowed to begin with.

        Parameters
        ----------
        url : str
            what is to be asked for
        """
        parts = urlsplit(url)
        if parts.scheme not in self.schemes:
            raise NotAvailable(
                f"{_short(url)} is not fetched: it uses '{parts.scheme}', and only {' or '.join(self.schemes)} is allowed, "
                "because nothing else protects what arrives. Get the file by hand."
            )

        if parts.hostname not in self.hosts:
            raise NotAvailable(
                f"{_short(url)} is not fetched: the host {parts.hostname} is not among those that files may come from "
                f"({', '.join(sorted(self.hosts))}). Get the file by hand."
            )

    def check_redirect(self, first: str, url: str) -> None:
        """Raise NotAvailable when `first` may not send us on to `url`.

        Parameters
        ----------
        first : str
            address that was asked for; its host decides, also after several redirects
        url : str
            address it redirects to
        """
        origin = urlsplit(first).hostname or ""
        parts = urlsplit(url)
        if parts.scheme not in self.schemes:
            raise NotAvailable(
                f"{origin} sends on to {_short(url)}, which is not allowed: '{parts.scheme}' does not protect what "
                "arrives. A proxy or a login page of your network may be in between; get the file by hand."
            )

        host = parts.hostname or ""
        allowed = (origin, *self.hosts.get(origin, ()))
        if not any(host == a or (a.startswith(".") and host.endswith(a)) for a in allowed):
            raise NotAvailable(
                f"{origin} sends on to another host, {host}, which is not among those it may send to "
                f"({', '.join(allowed)}). Nothing was fetched from there; get the file by hand, or check whether it moved."
            )


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def __init__(self, policy: Policy, first: str) -> None:
        self.policy = policy
        self.first = first

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.policy.check_redirect(self.first, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, policy: Policy, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """Ask for an address.

    Parameters
    ----------
    url : str
        allowed by `policy`
    policy : Policy
        hosts, certificates and patience
    headers : mapping of {str: str}, optional
        further ones

    Returns
    -------
    http.client.HTTPResponse
        The response, status 200, 206 or 416, to be closed by the caller

    Raises
    ------
    TransientError
        When trying again may help.
    NotAvailable
        No network, proxy or certificate trouble, a refused or vanished file, a redirect that is not allowed.
    """
    policy.check(url)
    # Not build_opener: its opener also reads ftp, file and data addresses, to which a redirect could lead.
    opener = urllib.request.OpenerDirector()

    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=policy.context or ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(policy, url),
    ):
        opener.add_handler(handler)

    plain = {"User-Agent": f"phosphene/{__version__}", "Accept-Encoding": "identity", "Connection": "close"}
    request = urllib.request.Request(url, headers={**plain, **(headers or {})})

    try:
        return opener.open(request, timeout=policy.timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error  # type: ignore[return-value]

        with error:
            if 300 <= error.code < 400 and (target := error.headers.get("Location")):
                policy.check_redirect(url, urljoin(error.url, target))  # urllib refuses some schemes in its own words

            raise _of_status(url, error) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, BaseException):
            reason = error.reason
        else:
            reason = OSError(str(error.reason))

        raise _of_system(url, reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise _of_system(url, error) from error


def _of_status(url: str, error: urllib.error.HTTPError) -> Exception:
    code = error.code
    host = urlsplit(url).hostname
    if code in _TRANSIENT:
        retry_after = error.headers.get("Retry-After", "")
        wait_s = 0.0
        if retry_after.isdigit():  # seconds; some servers give a date, which our own waiting serves as well
            wait_s = float(retry_after)

        return TransientError(f"{host} answered {code} ({error.reason})", wait_s)

    if code == 407:
        return _proxy_error(url, "it asks for a name and password")

    if code in (401, 402, 403, 451):
        return NotAvailable(
            f"{host} refuses {_short(url)} ({code} {error.reason}): the licence or the form of this file is probably not "
            "accepted yet, or an account is needed. 'phosphene data plan' shows where to accept it; get the file by hand "
            "if a login is asked for."
        )

    if code in (404, 410):
        return NotAvailable(
            f"{_short(url)} is no longer there ({code} {error.reason}). Look for its new place, and report it so that the "
            "table of downloads can be mended."
        )

    if 300 <= code < 400:
        return NotAvailable(f"{_short(url)} sends on and on ({code}) without arriving anywhere. Get the file by hand.")

    return NotAvailable(f"{host} answered {code} ({error.reason}) for {_short(url)}. Get the file by hand.")


def _of_system(url: str, error: BaseException) -> Exception:
    host = urlsplit(url).hostname
    proxy = _proxy(url)
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAvailable(
            f"the certificate of {host} cannot be trusted ({error.verify_message}), so nothing was fetched. Behind a proxy "
            "that decrypts traffic, name your institution's certificate in the environment variable SSL_CERT_FILE; also "
            "check this machine's clock."
        )

    if isinstance(error, ssl.SSLError):
        return NotAvailable(f"no encrypted connection to {host} came about ({error.reason or error}). {_online(proxy)}")
    if proxy and (isinstance(error, ConnectionRefusedError | socket.gaierror) or "Tunnel connection" in str(error)):
        return _proxy_error(url, str(error))

    if isinstance(error, TimeoutError | ConnectionResetError | BrokenPipeError | http.client.HTTPException):
        if isinstance(error, TimeoutError):
            reason = "no answer in time"
        else:
            reason = f"the connection broke ({error})"

        return TransientError(f"{host}: {reason}")

    return NotAvailable(f"{host} cannot be reached ({getattr(error, 'strerror', None) or error}). {_online(proxy)}")


def _proxy(url: str) -> str:
    """Host and port of the proxy on the way, without its password; "" for none."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""

    return re.sub(r"^.*@", "", proxy.split("://")[-1]).strip("/")


def _proxy_error(url: str, why: str) -> NotAvailable:
    return NotAvailable(
        f"the proxy {_proxy(url) or 'of this network'} does not let {urlsplit(url).hostname} through ({why}). Check the "
        f"environment variables {urlsplit(url).scheme}_proxy and no_proxy, or fetch the files on another machine."
    )


def _online(proxy: str) -> str:
    if proxy:
        through = f" through the proxy {proxy}"
    else:
        through = ""

    return (
        f"Is this machine online{through}? Only 'phosphene data fetch' needs a network; 'phosphene data plan NAME --csv' "
        "lists the addresses to fetch elsewhere."
    )


def _short(url: str) -> str:
    """An address without what may identify a person: name, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
