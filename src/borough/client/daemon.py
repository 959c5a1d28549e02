"""The daemon's socket, from an operator's side: one question, one answer, refusals as the kinds of ``core.errors``."""

import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from borough.agent.errors import ProtocolError
from borough.agent.frames import HEADER_BYTES, body_length, decode, encode
from borough.client.discovery import NoServer
from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable

_KINDS: Mapping[str, type[BoroughError]] = {
    "invalid": Invalid,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "conflict": Conflict,
    "unavailable": Unavailable,
}


class Daemon:
    """A connection to ``agentd``."""

    def __init__(self, path: Path) -> None:
        """Connect to the operators' socket at ``path``.

        Raises:
            NoServer: nobody listens there.
            Forbidden: the socket is another user's.
        """
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.connect(str(path))
        except OSError as error:
            self._connection.close()
            raise _unreachable(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def ask(self, variant: str, **fields: Any) -> Any:
        """Ask one question and return what its answer carries (``None`` for a bare word). ``None`` is not sent.

        Raises:
            BoroughError: the daemon refused; its kind, code, reason and way out are the daemon's.
            Unavailable: the daemon went away (``daemon_gone``).
        """
        said = {name: value for name, value in fields.items() if value is not None}
        return self.send(variant, said)

    def send(self, variant: str, fields: dict[str, Any]) -> Any:
        """Ask as ``ask`` does, with ``None`` sent as ``null``."""
        try:
            self._connection.sendall(encode({variant: fields} if fields else variant))
            name, carried = decode(self._receive(body_length(self._receive(HEADER_BYTES))))
        except (OSError, ProtocolError) as error:
            raise Unavailable(
                "the daemon did not answer",
                code="daemon_gone",
                reason=str(error),
                resolution="see whether it runs (ash ping), and its log",
            ) from error
        if name == "Error":
            raise error_of(carried if isinstance(carried, dict) else {})
        return carried

    def _receive(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._connection.recv(count - len(parts))
            if not part:
                raise ProtocolError("the connection ended in the middle of an answer")
            parts += part
        return bytes(parts)


def error_of(told: dict[str, Any]) -> BoroughError:
    """Return the error that an ``Error`` message tells of."""
    code = str(told.get("code") or "failed")
    details: dict[str, object] = {"request_id": told["request_id"]} if told.get("request_id") else {}
    return _KINDS.get(str(told.get("kind")), Unavailable)(
        str(told.get("message") or "the daemon refused"),
        code=code,
        reason=told.get("reason"),
        resolution=told.get("resolution"),
        details=details,
    )


def _unreachable(path: Path, error: OSError) -> BoroughError:
    if isinstance(error, PermissionError):
        return Forbidden(
            f"{path} belongs to somebody else",
            code="socket_not_yours",
            resolution="run ash as the user who runs agentd, or name your own daemon's socket with --socket",
        )
    return NoServer(
        "no agentd runs here",
        reason=f"nobody listens at {path}: {error.strerror}",
        resolution="start it with 'agentd &', or name its socket with --socket or SCARAB_SOCKET",
    )
