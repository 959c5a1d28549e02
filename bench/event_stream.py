"""A client of a stream of events that notes when each came, and does nothing else."""

import asyncio
import re
import time
from typing import cast


class EventStream(asyncio.Protocol):
    """Reads the stream that ``request`` opens; ``number`` finds the number that an event has, in whole lines."""

    def __init__(self, request: bytes, number: re.Pattern[bytes]) -> None:
        self._request = request
        self._number = number
        self._rest = b""
        self.came_at: dict[int, float] = {}
        """By number, seconds of the performance counter; the first time counts."""
        self.order: list[int] = []
        self.open = asyncio.get_running_loop().create_future()
        """Whether it was opened, once that is known."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.open.done():
            self.open.set_result(data.startswith(b"HTTP/1.1 200"))
        text = self._rest + data
        end = text.rfind(b"\n") + 1
        for found in self._number.findall(text[:end]):
            number = int(found)
            self.came_at.setdefault(number, now)
            self.order.append(number)
        self._rest = text[end:]
