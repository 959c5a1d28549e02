"""One WebSocket of a server, for a program that waits on its own keyboard too: blocking reads, no thread."""

import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from borough.client.problems import error_from
from borough.core.errors import BoroughError, Unavailable

MOST_MESSAGE_BYTES: Final = 4 * 1_048_576
_PART_BYTES: Final = 65_536
_SWITCHING: Final = 101
_REFUSED: Final = 400


class WebSocket:
    """An open conversation. Messages are bytes or text; ``None`` says that the other end has closed."""

    def __init__(self, connection: socket.socket, protocol: ClientProtocol) -> None:
        self._connection = connection
        self._protocol = protocol
        self._heard: deque[bytes | str] = deque()
        self._parts: list[bytes] = []
        self._is_text = False

    @classmethod
    def open(cls, connection: socket.socket, url: str, headers: Mapping[str, str]) -> Self:
        """Ask for a WebSocket over ``connection``, which is closed where it is refused.

        Raises:
            BoroughError: the server refused; the kind follows from its status.
            OSError: the connection broke.
        """
        protocol = ClientProtocol(parse_uri(url), max_size=MOST_MESSAGE_BYTES)
        request = protocol.connect()
        request.headers.update(headers)
        protocol.send_request(request)
        opened = cls(connection, protocol)
        try:
            opened._flush()
            opened._shake_hands()
        except BaseException:
            connection.close()
            raise
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return what to wait on; what has come already is not seen there (``waits``)."""
        return self._connection.fileno()

    @property
    def waits(self) -> bool:
        """Whether a message can be taken without waiting."""
        pending = getattr(self._connection, "pending", None)  # what TLS has decrypted already
        return bool(self._heard) or (pending is not None and pending() > 0)

    def send(self, content: bytes | str) -> None:
        """Send a message; raises ``OSError`` when the connection broke."""
        if isinstance(content, str):
            self._protocol.send_text(content.encode())
        else:
            self._protocol.send_binary(content)
        self._flush()

    def take(self) -> list[bytes | str] | None:
        """Return the messages that have come, after waiting once for more; ``None`` after the last."""
        if not self._heard:
            if self._protocol.state is State.CLOSED:
                return None
            self._read()
        found, closed = list(self._heard), self._protocol.state is not State.OPEN
        self._heard.clear()
        return found or (None if closed else [])

    def close(self) -> None:
        """End the conversation; what was begun over it ends too."""
        try:
            with suppress(OSError):  # the other side was faster: it is over, which was wanted
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(1000)
                    self._flush()
        finally:
            self._connection.close()

    def _shake_hands(self) -> None:
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._read()
        if self._protocol.state is not State.OPEN:
            raise Unavailable(
                "what answers speaks no WebSockets",
                code="bad_answer",
                reason=str(self._protocol.handshake_exc),
                resolution="check the address, and what is between here and there",
            )

    def _read(self) -> None:
        content = self._connection.recv(_PART_BYTES)
        if content:
            self._protocol.receive_data(content)
        else:
            self._protocol.receive_eof()
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._check(event)
            elif isinstance(event, Frame):
                self._take_frame(event)

    def _check(self, answer: Response) -> None:
        if answer.status_code == _SWITCHING:
            return
        headers = {name.lower(): value for name, value in answer.headers.raw_items()}
        problem: BoroughError = error_from(max(answer.status_code, _REFUSED), headers, bytes(answer.body or b""))
        raise problem

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
        elif frame.opcode is not Opcode.CONT:
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._heard.append(whole.decode() if self._is_text else whole)

    def _flush(self) -> None:
        for part in self._protocol.data_to_send():
            if part:
                self._connection.sendall(part)
