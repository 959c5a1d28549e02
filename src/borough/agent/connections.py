"""The two ways to the daemon: its socket, and HTTP where an agent lives in a machine that has no socket."""

import json
import socket
from collections.abc import Callable
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from borough.agent.environment import Identity
from borough.agent.errors import AgentError, SocketError, error_of
from borough.agent.frames import HEADER_BYTES, body_length, decode, encode

PATH = "/agents/self/messages"


class Connection(Protocol):
    """Carries one message at a time."""

    def ask(self, message: object) -> tuple[str, Any]:
        """Return the message that answers, as ``decode`` does; raises an ``AgentError``."""

    def close(self) -> None:
        """Close it."""


def connect(identity: Identity) -> Connection:
    """Return the way that the environment named; raises ``SocketError``."""
    return SocketConnection(identity.socket) if identity.url is None else HttpConnection(identity)


class SocketConnection:
    """A connection to the agents' socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise SocketError(f"nobody answers at {path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, message: object) -> tuple[str, Any]:
        """Return the answer; raises an ``AgentError``."""
        try:
            self._socket.sendall(encode(message))
            body = self._receive(body_length(self._receive(HEADER_BYTES)))
        except OSError as error:
            self.close()
            raise SocketError(f"the daemon does not answer: {error}") from error
        except BaseException:
            # What is left of the answer would be taken for the next question's.
            self.close()
            raise
        return decode(body)

    def _receive(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(min(count - len(parts), 1_048_576))
            if not part:
                raise SocketError("the daemon closed the connection")
            parts += part
        return bytes(parts)


class HttpConnection:
    """Requests to the gateway, each with the agent's key; through a proxy where ``http_proxy`` names one."""

    def __init__(self, identity: Identity) -> None:
        self._url = f"{(identity.url or '').rstrip('/')}{PATH}"
        self._headers = {"Authorization": f"Bearer {identity.key}", "Content-Type": "application/json"}

    def close(self) -> None:
        """Close nothing: each question has a connection of its own."""

    def ask(self, message: object) -> tuple[str, Any]:
        """Return the answer; raises an ``AgentError``. It may take as long as a human needs to agree."""
        request = Request(self._url, data=json.dumps(message).encode(), headers=self._headers)  # noqa: S310 - checked
        return decode(_carried(lambda: _read(request)))


def _read(request: Request) -> bytes:
    with urlopen(request) as answer:  # noqa: S310 - the environment's address was checked to be HTTP
        body: bytes = answer.read()
    return body


def _carried(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except HTTPError as refusal:
        raise _refused(refusal) from refusal
    except (OSError, HTTPException) as error:
        raise SocketError(f"the gateway does not answer: {error}") from error


def _refused(refusal: HTTPError) -> AgentError:
    """Return what an answer says that is no message: the key is not known, or something between refused."""
    try:
        told = json.loads(refusal.read())
        message, code = str(told["error"]), str(told["code"])
    except (ValueError, KeyError, TypeError):
        message, code = f"the gateway answered {refusal.code} {refusal.reason}", ""
    kind = "forbidden" if refusal.code in {401, 403} else ""
    return error_of(message, code=code, kind=kind)
