"""What a tool call needs, given its arguments: permissions, places in the network, secrets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from borough.core.errors import Invalid
from borough.governance.capabilities import Act
from borough.governance.hosts import canonical_host
from borough.governance.paths import canonical_path
from borough.governance.rules import Requirement
from borough.governance.secrets import handles_in

_DEFAULT_PORTS = {"http": 80, "https": 443}
_DOT_SEGMENT = re.compile(r"(^|/|%2f)(\.|%2e){1,2}($|/|%2f)", re.IGNORECASE)
SEARCH_ENDPOINT = ("duckduckgo.com", 443)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Everything that has to be allowed before a call is made."""

    requirements: tuple[Requirement, ...]
    """The first is to call the tool at all."""
    endpoints: tuple[tuple[str, int], ...] = ()
    """Hosts and ports that the call is known to go to."""
    secrets: tuple[str, ...] = ()
    """Names of secrets that its arguments refer to."""


def needs_of(tool: str, arguments: Mapping[str, object]) -> Needs:
    """Return what calling ``tool`` needs.

    Raises:
        Invalid: a path or an address in the arguments is none.
    """
    secrets = handles_in(arguments)
    requirements = [invocation(tool), *_files(tool, arguments)]
    requirements += [Requirement(any_of=(Act(domain="secret", action="use", subject=name),)) for name in secrets]
    return Needs(requirements=tuple(requirements), endpoints=_endpoints(tool, arguments), secrets=secrets)


def canonical_arguments(tool: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Return the arguments with a file tool's path in its one spelling: so they are judged, recorded and used.

    Otherwise a condition on the path could be met by letters (``/public/../private``) that mean another file.
    """
    path = arguments.get("path")
    if tool not in _FILE_ACTIONS or not isinstance(path, str):
        return arguments
    try:
        canonical = canonical_path(path)
    except Invalid:
        # It is refused, with the reason, when what the call needs is asked.
        return arguments
    return arguments if canonical == path else {**arguments, "path": canonical}


@lru_cache(maxsize=4096)
def invocation(tool: str) -> Requirement:
    """Return what calling a tool needs whatever its arguments are."""
    call = Act(domain="tool", action="invoke", subject=tool)
    if tool == "sandbox.exec":
        # It has a permission of its own, that "every tool" does not include; prohibiting every tool includes it.
        return Requirement(any_of=(Act(domain="sandbox", action="exec"),), forbidden_by=(call,))
    return Requirement(any_of=(call,))


_FILE_ACTIONS: dict[str, tuple[str, ...]] = {
    "fs.read": ("read",),
    "fs.write": ("write",),
    "fs.list": ("list", "read"),
    "fs.delete": ("delete", "write"),
}
"""What each file tool does to its path; any one of several permissions will do."""


def _files(tool: str, arguments: Mapping[str, object]) -> tuple[Requirement, ...]:
    if tool not in _FILE_ACTIONS:
        return ()
    given = _text(arguments, "path")
    if handles_in(given):
        # What is decided upon has to be what is opened: a secret put in afterwards could lead elsewhere.
        raise Invalid(
            "invalid request: a path cannot hold a secret", code="invalid_request", resolution="write the path out"
        )
    return (_on_file(tool, canonical_path(given)),)


@lru_cache(maxsize=512)
def _on_file(tool: str, path: str) -> Requirement:
    return Requirement(any_of=tuple(Act(domain="fs", action=action, subject=path) for action in _FILE_ACTIONS[tool]))


def _endpoints(tool: str, arguments: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    if tool == "web.fetch":
        return (endpoint_of(_text(arguments, "url")),)
    return (SEARCH_ENDPOINT,) if tool == "web.search" else ()


def endpoint_of(url: str) -> tuple[str, int]:
    """Return the host and port that fetching ``url`` goes to.

    Raises:
        Invalid: it is no http or https address, or holds a name and password (``invalid_url``).
    """
    # Browsers and libraries differ in what they make of these; then the decided host would not be the fetched one.
    odd = any(c.isspace() or not c.isprintable() or c == "\\" for c in url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad_url(url, "its host or port cannot be read") from None
    if odd or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise _bad_url(url, "it has to be an http or https address without spaces or backslashes")
    if _DOT_SEGMENT.search(parts.path):
        raise _bad_url(url, "it has a '.' or '..' segment, which clients resolve and conditions would not")
    if "@" in parts.netloc:
        raise _bad_url(url, "it holds a name or password before the host")
    return canonical_host(parts.hostname), _DEFAULT_PORTS[parts.scheme] if port is None else port


def _text(arguments: Mapping[str, object], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise Invalid(
            f"invalid request: {name!r} has to be text",
            code="invalid_request",
            resolution="read the tool's input schema and repeat the call",
        )
    return value


def _bad_url(url: str, reason: str) -> Invalid:
    # The address itself is not repeated: it may hold a secret.
    return Invalid(
        f"an address of {len(url)} characters cannot be fetched",
        code="invalid_url",
        reason=reason,
        resolution="write it as https://host/path",
    )
