"""Many small calls, few round trips.

Calls that are made within one turn of the event loop, and those that gather while earlier ones are under way, go out
together. Each call is repeated by itself until it is answered or its time is over; so every call must be one that may
be repeated.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from valkey.exceptions import ValkeyClusterException, ValkeyError

from borough.adapters.valkey.failures import Remedy, away, final, remedy_for
from borough.core.errors import Unavailable

Word = str | bytes | int
Words = tuple[Word, ...]

LOST = (ValkeyError, ValkeyClusterException, OSError)
"""What a round trip raises when it fails as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is taken on at once."""

    batch_calls: int = 128
    lanes: int = 2
    """Batches under way at the same time: while one waits for the disk, the next is packed."""
    queued_calls: int = 10_000
    retry_s: float = 5.0
    """How long a call is repeated before it fails."""
    first_pause_s: float = 0.02
    longest_pause_s: float = 0.5


@dataclass(slots=True, eq=False)
class _Call:
    words: Words
    answer: asyncio.Future[Any]
    deadline: float
    attempts: int = 0


class Batches:
    """Collects calls, sends them by ``send`` and hands each caller its own answer.

    ``send`` answers a batch with a list of equal length in which an error reply is an exception; ``load_library``
    puts the functions back that a server has forgotten.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Words]], Awaitable[Sequence[Any]]],
        *,
        load_library: Callable[[], Awaitable[None]],
        place: str,
        bounds: Bounds,
    ) -> None:
        self._send = send
        self._load_library = load_library
        self._place = place
        self._bounds = bounds
        self._waiting: deque[_Call] = deque()
        self._open = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._paused: set[_Call] = set()
        self._flush_is_due = False
        self._closed = False

    async def call(self, words: Words) -> Any:
        """Return the server's answer.

        Raises:
            Unavailable: no answer in time (``store_unavailable``), too many calls wait (``store_overloaded``), or as
                ``failures.final`` says.
            ResponseError: the function failed; that is a defect.
        """
        for word in words:
            if not isinstance(word, (str, bytes, int)):
                raise TypeError(f"a word of a call must be str, bytes or int, not {type(word).__name__}")
        if self._closed:
            raise _closed(self._place)
        if self._open >= self._bounds.queued_calls:
            raise _overloaded(self._place, self._open)
        loop = asyncio.get_running_loop()
        call = _Call(words, loop.create_future(), loop.time() + self._bounds.retry_s)
        self._open += 1
        try:
            self._enqueue((call,))
            return await call.answer
        finally:
            self._open -= 1

    async def close(self) -> None:
        """Fail what waits, end what is under way."""
        self._closed = True
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for call in (*self._waiting, *self._paused):
            _fail(call, _closed(self._place))
        self._waiting.clear()
        self._paused.clear()

    def _enqueue(self, calls: Sequence[_Call]) -> None:
        self._waiting.extend(calls)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._waiting and len(self._under_way) < self._bounds.lanes and not self._closed:
            batch = self._next_batch()
            if batch:
                task = asyncio.get_running_loop().create_task(self._run(batch))
                self._under_way.add(task)
                task.add_done_callback(self._lane_is_free)

    def _next_batch(self) -> list[_Call]:
        batch: list[_Call] = []
        while self._waiting and len(batch) < self._bounds.batch_calls:
            call = self._waiting.popleft()
            if not call.answer.done():  # done without an answer: its caller has gone
                batch.append(call)
        return batch

    def _lane_is_free(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._flush()

    async def _run(self, batch: list[_Call]) -> None:
        try:
            answers: Sequence[Any] = await self._send([call.words for call in batch])
        except LOST as error:
            answers = [error] * len(batch)
        except asyncio.CancelledError:
            for call in batch:
                _fail(call, _closed(self._place))
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must reach the callers, who else wait for ever
            for call in batch:
                _fail(call, error)
            return
        await self._settle(batch, answers)

    async def _settle(self, batch: list[_Call], answers: Sequence[Any]) -> None:
        again: list[_Call] = []
        library_is_missing = False
        for call, answer in zip(batch, answers, strict=True):
            if call.answer.done():
                continue
            if not isinstance(answer, BaseException):
                call.answer.set_result(answer)
                continue
            remedy = remedy_for(answer)
            if remedy is Remedy.GIVE_UP:
                _fail(call, final(self._place, answer))
            elif asyncio.get_running_loop().time() >= call.deadline:
                _fail(call, away(self._place, answer, tried_s=self._bounds.retry_s))
            else:
                library_is_missing |= remedy is Remedy.LOAD_LIBRARY
                again.append(call)
        if library_is_missing:
            await self._restore_library(again)
        if again:
            self._pause(again)

    async def _restore_library(self, calls: list[_Call]) -> None:
        """Load the functions; when that fails for good, so do the calls that need them."""
        try:
            await self._load_library()
        except LOST as error:
            if remedy_for(error) is Remedy.GIVE_UP:
                for call in calls:
                    _fail(call, final(self._place, error))

    def _pause(self, calls: list[_Call]) -> None:
        """Let ``calls`` wait a little, longer each time, then put them back."""
        attempts = max(call.attempts for call in calls)
        pause_s = min(self._bounds.longest_pause_s, self._bounds.first_pause_s * 2.0 ** min(attempts, 16))
        pause_s *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, keeps no secret
        for call in calls:
            call.attempts += 1
        self._paused.update(calls)
        asyncio.get_running_loop().call_later(pause_s, self._resume, calls)

    def _resume(self, calls: list[_Call]) -> None:
        self._paused.difference_update(calls)
        if not self._closed:
            self._enqueue(calls)


def _fail(call: _Call, error: BaseException) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)


def _closed(place: str) -> Unavailable:
    return Unavailable(
        f"the connection to the store at {place} is closed",
        code="store_unavailable",
        reason="the server is shutting down",
        resolution="repeat the request when the server is up again",
    )


def _overloaded(place: str, calls: int) -> Unavailable:
    return Unavailable(
        f"the store at {place} cannot keep up",
        code="store_overloaded",
        reason=f"{calls} calls wait for it",
        resolution="repeat the request later and send fewer at once",
    )
