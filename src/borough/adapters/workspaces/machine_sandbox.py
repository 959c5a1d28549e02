"""Code run once in an agent's own machine: the port ``Sandbox``.

The machine is the confinement: what the code may use and reach is what the machine may. Everything that it starts
carries a mark in its environment, by which it is ended with it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from borough.adapters.workspaces.homes import Guests, Homes, once_it_runs
from borough.core.errors import NotFound, Unavailable
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream
from borough.fleet.vms import VmId
from borough.governance.ports.outside import Execution, ExecutionResult
from borough.governance.ports.workspaces import WORKSPACE

MARK: Final = "BOROUGH_EXECUTION"
_NO_RUNTIME: Final = 71
_KILLED: Final = 128 + 9
_STEP_WITHIN_S: Final = 30.0
_MOST_SAID_BYTES: Final = 4096
_PREPARE: Final = """
command -v "$1" >/dev/null 2>&1 || exit 71
mkdir -p "$2" && cd "$2" && umask 077 && cat >"$3"
"""
_CLEAR: Final = """
rm -f "$1"
tries=0
while [ $tries -lt 50 ]; do
  tries=$((tries + 1)) left=
  for process in /proc/[0-9]*; do
    if tr '\\0' '\\n' <"$process/environ" 2>/dev/null | grep -qx "$2"; then
      left=1
      kill -9 "${process#/proc/}" 2>/dev/null
    fi
  done
  [ -n "$left" ] || exit 0
done
exit 1
"""


class MachineSandbox:
    """Runs code in the machine that an agent lives in."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes

    async def execute(self, execution: Execution) -> ExecutionResult:
        """Run ``execution`` to its end, or to its timeout; what it started is ended when this returns.

        Raises:
            Unavailable: the runtime is not in the machine (``runtime_missing``), or the code could not be brought there
                or ended (``start_failed``).
            BoroughError: what the fleet says, as that the machine does not run.
        """
        vm_id = self._homes.machine_of(execution.agent_id)
        if vm_id is None:
            raise NotFound(
                f"agent {execution.agent_id} has no machine", code="agent_not_found", resolution="start it again"
            )
        guests, number = await self._homes.guests(), uuid4().hex
        code = f"/tmp/.borough-{number}"  # noqa: S108 - in the machine, under a name that nobody knows
        try:
            await self._prepare(guests, vm_id, execution, code)
            return await self._run(guests, vm_id, execution, code, number)
        finally:
            await self._clear(guests, vm_id, code, number)

    async def _prepare(self, guests: Guests, vm_id: VmId, execution: Execution, code: str) -> None:
        argv = ("/bin/sh", "-c", _PREPARE, "prepare", execution.runtime, WORKSPACE, code)
        content = execution.code.encode()
        status, said = await once_it_runs(lambda: _ended(guests, vm_id, argv, content))
        if status == _NO_RUNTIME:
            raise Unavailable(
                f"there is no {execution.runtime[:40]} in {vm_id}",
                code="runtime_missing",
                resolution="choose sh, python3 or node as far as the machine's image has them",
            )
        if status != 0:
            raise _failed(vm_id, f"the code could not be brought there: {said}")

    async def _run(
        self, guests: Guests, vm_id: VmId, execution: Execution, code: str, number: str
    ) -> ExecutionResult:  # fmt: skip
        order = ExecOrder(argv=(execution.runtime, code), env={**execution.env, MARK: number}, cwd=WORKSPACE)
        outputs = {stream: _Output(execution.output_limit_bytes) for stream in (Stream.STDOUT, Stream.STDERR)}
        status, timed_out = None, False
        try:
            async with (
                asyncio.timeout(execution.timeout_s),
                aclosing(guests.execute(vm_id, order, _only(execution.stdin.encode()))) as chunks,
            ):
                status = await _heard(chunks, outputs)
        except TimeoutError:
            timed_out = True
        return ExecutionResult(
            stdout=outputs[Stream.STDOUT].text,
            stderr=outputs[Stream.STDERR].text,
            exit_code=_KILLED if status is None else status,
            truncated=any(output.truncated for output in outputs.values()),
            timed_out=timed_out,
        )

    async def _clear(self, guests: Guests, vm_id: VmId, code: str, number: str) -> None:
        argv = ("/bin/sh", "-c", _CLEAR, "clear", code, f"{MARK}={number}")
        status, said = await _ended(guests, vm_id, argv)
        if status != 0:
            raise _failed(vm_id, f"what the code started could not be ended: {said}")


@dataclass(slots=True)
class _Output:
    """One stream, kept up to a limit."""

    limit_bytes: int
    kept: bytearray = field(default_factory=bytearray)
    truncated: bool = False

    def take(self, part: bytes) -> None:
        """Keep what there is room for."""
        room = max(0, self.limit_bytes - len(self.kept))
        self.kept += part[:room]
        self.truncated = self.truncated or len(part) > room

    @property
    def text(self) -> str:
        """What was kept; what is no UTF-8 is replaced."""
        return self.kept.decode(errors="replace")


async def _heard(chunks: AsyncGenerator[Chunk, None], outputs: dict[Stream, _Output]) -> int | None:
    """Take what a command prints, and return how it ended."""
    status = None
    async for chunk in chunks:
        if chunk.stream is Stream.EXIT:
            status = chunk.exit_code
        else:
            outputs[chunk.stream].take(chunk.data)
    return status


async def _ended(guests: Guests, vm_id: VmId, argv: tuple[str, ...], stdin: bytes = b"") -> tuple[int | None, str]:
    """Run a command to its end; return its status and complaints."""
    outputs = {stream: _Output(_MOST_SAID_BYTES) for stream in (Stream.STDOUT, Stream.STDERR)}
    order = ExecOrder(argv=argv, env={"LC_ALL": "C"}, timeout_s=_STEP_WITHIN_S)
    async with aclosing(guests.execute(vm_id, order, _only(stdin))) as chunks:
        return await _heard(chunks, outputs), outputs[Stream.STDERR].text.strip()


def _failed(vm_id: VmId, reason: str) -> Unavailable:
    return Unavailable(
        f"code could not be run in {vm_id}",
        code="start_failed",
        reason=reason,
        resolution="see the machine: tt exec; it needs a shell and the usual small programs",
    )


async def _only(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content
