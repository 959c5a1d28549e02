"""The fleet's controller, as its commands and its SDK see it: envelopes opened, pages followed, streams read."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit

from borough.client.discovery import NoServer
from borough.client.http import Client
from borough.client.urls import Query, segment
from borough.core.errors import BoroughError, Forbidden, NotFound, Unavailable
from borough.core.ids import new_id

if TYPE_CHECKING:
    from borough.client.websocket import WebSocket

LONGEST_WAIT_S: Final = 20
"""How long one question about an operation waits for its end; shorter than a client's patience."""
UNDER_WAY: Final = "running"
"""The state of an operation that is not over."""
_NO_VM: Final = "vm_not_found"
_UNAUTHORIZED: Final = 401
_CURSOR: Final = re.compile(r"[?&]cursor=([^&>]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A part of what a command prints, or how it ended."""

    stream: str
    """``stdout``, ``stderr``, or ``exit``."""
    data: bytes = b""
    exit_code: int | None = None


class FleetClient:
    """One controller, one caller."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The controller's address."""
        return self._client.url

    def again(self) -> Self:
        """Return another client of the same controller, with a connection of its own."""
        return type(self)(self._client.again())

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._client.close()

    def machine_at(self, addr: str) -> str:
        """Return the name at which the machine of a host is reached from here."""
        return machine_at(addr, controller=self.url)

    # -- requests ------------------------------------------------------------------------------------------------------

    def get(self, path: str, query: Query | None = None) -> Any:
        """Return what stands at ``path``."""
        return self.ask("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, object] | None = None, *, query: Query | None = None) -> Any:
        """Return the answer to ``body``; a repetition after a lost answer changes nothing."""
        return self.ask("POST", path, query=query, body=body)

    def ask(
        self, method: str, path: str, *, query: Query | None = None, body: Mapping[str, object] | None = None
    ) -> Any:
        """Return the data of an answer, ``None`` where there is none.

        Raises:
            NoServer: nobody answers there.
            BoroughError: the controller refused; the kind follows from its status.
        """
        key = {"Idempotency-Key": new_id()} if method == "POST" else {}
        with _told(self.url):
            return opened(self._client.request(method, path, query=query, body=body, headers=key).json())

    def pages(self, path: str, query: Query | None = None, *, limit: int = 200) -> Iterator[Any]:
        """Yield the items of a list, however many pages it has."""
        cursor: str | None = None
        while True:
            with _told(self.url):
                answer = self._client.request("GET", path, query={**(query or {}), "limit": limit, "cursor": cursor})
            yield from opened(answer.json())
            found = _CURSOR.search(answer.headers.get("link", ""))
            if found is None:
                return
            cursor = unquote(found[1])

    # -- long work -----------------------------------------------------------------------------------------------------

    def operation(self, operation_id: str, *, wait_s: int = LONGEST_WAIT_S) -> dict[str, Any]:
        """Return how an operation stands, after its end or ``wait_s``."""
        found: dict[str, Any] = self.get(f"/api/operations/{segment(operation_id)}", {"wait": wait_s})
        return found

    # -- the inside of machines ----------------------------------------------------------------------------------------

    def execute(self, vm_id: str, order: Mapping[str, object], *, stdin: bytes = b"") -> Iterator[Said]:
        """Yield what a command prints, as it comes; the last has its exit code. Closing the iterator ends it.

        Raises:
            Unavailable: the answer ended before the command did (``exec_cut_off``), or as the controller says.
        """
        body = {**order, "stdin": base64.b64encode(stdin).decode()}
        with _told(self.url), closing(self._client.parts("POST", _vm(vm_id, "exec"), body=body)) as parts:
            for line in _lines(parts):
                said = _said(json.loads(line))
                yield said
                if said.stream == "exit":
                    return
        raise _cut_off()

    def terminal(self, vm_id: str, order: Mapping[str, object]) -> "WebSocket":
        """Run a command at a terminal: what is typed and printed are bytes, the last text tells the end (``ended``)."""
        with _told(self.url):
            opened = self._client.conversation(_vm(vm_id, "exec"))
        opened.send(json.dumps(order))
        return opened

    def console(self, vm_id: str) -> "WebSocket":
        """Sit down at a machine's serial console."""
        with _told(self.url):
            return self._client.conversation(_vm(vm_id, "console"))

    def logs(self, vm_id: str, *, offset: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield what a machine printed on its console, from ``offset`` bytes on."""
        with _told(self.url):
            yield from self._client.parts("GET", _vm(vm_id, "logs"), query={"offset": offset, "follow": _flag(follow)})

    def read(self, vm_id: str, path: str, *, as_tar: bool = False) -> Iterator[bytes]:
        """Yield a file, or a folder as a tar archive."""
        with _told(self.url):
            yield from self._client.parts("GET", _vm(vm_id, "files"), query={"path": path, "tar": _flag(as_tar)})

    def write(self, vm_id: str, path: str, content: Iterable[bytes], *, from_tar: bool = False) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        query = {"path": path, "tar": _flag(from_tar)}
        with _told(self.url):
            return int(opened(self._client.send("PUT", _vm(vm_id, "files"), content, query=query))["bytes"])

    def listing(self, vm_id: str, path: str) -> list[dict[str, Any]]:
        """Return the names in a folder."""
        found: list[dict[str, Any]] = self.get(_vm(vm_id, "files/list"), {"path": path})
        return found


def machine_at(addr: str, *, controller: str) -> str:
    """Return the name at which the machine of a host at ``addr`` is reached from where ``controller`` is a URL.

    A controller elsewhere that says "loopback" means its own machine.
    """
    name, own = (urlsplit(url).hostname or "" for url in (f"//{addr}", controller))
    return own if _is_loopback(name) and not _is_loopback(own) else name


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def opened(answer: Any) -> Any:
    """Return what is in an envelope.

    Raises:
        Unavailable: it is none, or it says that it failed although its status does not (``bad_answer``).
    """
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        said = answer.get("error") if isinstance(answer, dict) else None
        raise Unavailable(
            str(said) if said else "the answer is not a fleet controller's",
            code="bad_answer",
            resolution="check that the address is a controller's, not another program's",
        )
    return answer.get("data")


def ended(text: str | None) -> int:
    """Return the exit code that the last text of a terminal tells.

    Raises:
        BoroughError: it tells that something went wrong, or nothing was told (``exec_cut_off``).
    """
    if text is None:
        raise _cut_off()
    return _said(json.loads(text)).exit_code or 0


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    left = b""
    for part in parts:
        *whole, left = (left + part).split(b"\n")
        yield from whole


def _cut_off() -> Unavailable:
    return Unavailable(
        "the answer ended before the command did",
        code="exec_cut_off",
        reason="controller or host went away; whether the command still runs is not known",
        resolution="look at the machine with 'tt vm show', then run it again",
    )


def _said(line: Mapping[str, Any]) -> Said:
    if line["stream"] == "error":
        code = str(line.get("code") or "exec_failed")
        raise (NotFound if code == _NO_VM else Unavailable)(
            str(line.get("error")),
            code=code,
            reason="the command could not be run to its end",
            resolution="look at the machine with 'tt vm show'",
        )
    if line["stream"] == "exit":
        return Said(stream="exit", exit_code=int(line["exit_code"]))
    return Said(stream=str(line["stream"]), data=base64.b64decode(line.get("data", "")))


def _vm(vm_id: str, what: str) -> str:
    return f"/api/vms/{segment(vm_id)}/{what}"


def _flag(value: bool) -> str:  # noqa: FBT001 - a value of a query
    return "1" if value else "0"


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Say what to do next in the words of whoever speaks to a controller."""
    try:
        yield
    except NoServer as problem:
        raise NoServer(
            f"no controller answers at {url}",
            reason=problem.reason,
            resolution="start one with 'tt-ctl', or name another with --server HOST:PORT",
        ) from problem
    except Forbidden as problem:
        raise _keyless(problem) from problem


def _keyless(problem: Forbidden) -> BoroughError:
    if problem.details.get("status") != _UNAUTHORIZED:
        return problem
    return Forbidden(
        problem.message,
        code=problem.code,
        reason="the controller knows no such key, or none was sent",
        resolution="save it with 'tt config HOST:PORT --api-key KEY', or set TT_API_KEY",
        details=problem.details,
    )
