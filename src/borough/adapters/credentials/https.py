"""Fetching small JSON documents from an issuer: TLS required off this machine, no redirects, bounded in all ways."""

import http.client
import ssl
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from borough.core.errors import Invalid, Unavailable

TIMEOUT_S = 5.0
LARGEST_DOCUMENT_BYTES = 1_048_576
_CHUNK_BYTES = 65_536
_OK = 200

Fetch = Callable[[str], dict[str, Any]]


def check_url(url: str, *, setting: str) -> str:
    """Return ``url`` if documents may be fetched from it: HTTPS, or HTTP on this machine.

    Raises:
        Invalid: it is not (``insecure_issuer``).
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, SplitResult("", "", "", "", "")
    clean = not (parts.username or parts.password or parts.fragment)
    if not host or not clean or not (parts.scheme == "https" or (parts.scheme == "http" and _is_local(host))):
        raise Invalid(
            f"{setting}: {url!r} cannot be used",
            code="insecure_issuer",
            reason="keys from there decide who is let in, so it has to be https (http on this machine only)",
            resolution=f"write {setting} as https://host/path, without user name or fragment",
        )
    return url


def fetch_json(url: str) -> dict[str, Any]:
    """Return the JSON object at ``url``. Blocks for at most twice ``TIMEOUT_S``: call it in a thread.

    Raises:
        Unavailable: it cannot be had (``issuer_unavailable``).
    """
    check_url(url, setting="the key set's address")
    try:
        return _object(_body(url))
    except (OSError, http.client.HTTPException, ValueError, msgspec.MsgspecError) as error:
        raise Unavailable(
            f"the issuer does not give its keys: {url}",
            code="issuer_unavailable",
            reason=" ".join(str(error).split()) or type(error).__name__,
            resolution="try again; if it lasts, check townhall.auth.issuer and the network of the server",
        ) from None


def _object(body: bytes) -> dict[str, Any]:
    decoded = msgspec.json.decode(body)
    if not isinstance(decoded, dict):
        raise ValueError("the answer is not a JSON object")  # noqa: TRY004 - one kind for every bad answer
    return decoded


def _body(url: str) -> bytes:
    parts = urlsplit(url)
    connection = _connection(parts)
    deadline = time.monotonic() + TIMEOUT_S
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "application/json", "User-Agent": "borough"})
        with connection.getresponse() as response:
            if response.status != _OK:
                raise ValueError(f"the answer has status {response.status}")
            return _read(response, deadline)
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > LARGEST_DOCUMENT_BYTES:
            raise ValueError("the answer is larger than 1 MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    return bytes(body)


def _connection(parts: SplitResult) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
