"""Code run once, in a box of its own that shares the agent's workspace: the port ``Sandbox``."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from borough.adapters.engines.bubblewrap import plans, skeleton
from borough.adapters.engines.bubblewrap.argv import CODE_FILE
from borough.adapters.engines.bubblewrap.errors import start_failed
from borough.adapters.engines.bubblewrap.making import BoxMaker, Running
from borough.adapters.engines.bubblewrap.plans import BoxOrder, Private
from borough.adapters.engines.bubblewrap.probing import Prober
from borough.adapters.engines.bubblewrap.programs import runtime
from borough.adapters.engines.bubblewrap.watching import Watch
from borough.adapters.workspaces.mounting import Mounts
from borough.core.ids import canonical_id
from borough.governance.manifests import Runtime
from borough.governance.ports.confinement import BoxNetwork
from borough.governance.ports.outside import Execution, ExecutionResult

_RUNTIMES = {"sh": Runtime.RUST, "python3": Runtime.PYTHON, "node": Runtime.NODE}
_KILLED = 9
_SIGNALLED = 128


class BubblewrapSandbox:
    """Runs code in confinement. Boxes end with the daemon: nobody would be there to hear what they say."""

    def __init__(
        self, maker: BoxMaker, mounts: Mounts, prober: Prober, *, network: BoxNetwork | None, watch: Watch
    ) -> None:
        self.maker = maker
        self.mounts = mounts
        self._prober = prober
        self._network = network
        self._watch = watch
        self._interpreters = skeleton.interpreters()

    async def execute(self, execution: Execution) -> ExecutionResult:
        """Run ``execution`` to its end, or to its timeout; nothing of it is left when this returns.

        Raises:
            Unavailable: a required layer does not hold here (``enforcement_missing``), the runtime is not on this
                host (``runtime_missing``), or the sandbox could not be set up (``start_failed``).
        """
        interpreter = runtime(self._interpreters, execution.runtime)
        await self._prober.check(execution.manifest, what="the code")
        outputs = {name: _Output(execution.output_limit_bytes) for name in ("stdout", "stderr")}
        stdin = _stdin(execution.stdin)
        run_id = str(uuid4())
        try:
            order = await self._order(execution, run_id, interpreter)
            stdio = {"stdin": stdin, **{name: output.write_end for name, output in outputs.items()}}
            async with self.maker.opened(order, stdio) as running:
                timed_out = await self._run(execution, run_id, running, outputs)
                status = await self.maker.end(running)
            await asyncio.gather(*(output.finished() for output in outputs.values()))
        finally:
            os.close(stdin)
            for output in outputs.values():
                output.close()
            with suppress(FileNotFoundError):  # no box, no record
                self._record(run_id).unlink()
        return ExecutionResult(
            stdout=outputs["stdout"].text,
            stderr=outputs["stderr"].text,
            exit_code=_exit_code(status),
            truncated=any(output.truncated for output in outputs.values()),
            timed_out=timed_out,
        )

    async def _run(self, execution: Execution, run_id: str, running: Running, outputs: Mapping[str, "_Output"]) -> bool:
        """Let the code run; tell whether its time was over before it was done."""
        network = execution.manifest.network
        reachable = self._network is not None and plans.has_way_out(execution.manifest)
        if self._network is not None and reachable:
            await self._network.open(execution.agent_id, run_id, network, running.inner.pid)
        try:
            async with self._watch.over(execution.agent_id, lambda: self.maker.kill(running)):
                for output in outputs.values():
                    output.begin()
                await self.maker.go(running)
                done, _ = await asyncio.wait([running.ended], timeout=execution.timeout_s)
                return not done
        finally:
            if self._network is not None and reachable:
                await self._network.close(execution.agent_id, run_id)

    async def _order(self, execution: Execution, run_id: str, interpreter: str) -> BoxOrder:
        agent_id = canonical_id(execution.agent_id)
        hello = await self.maker.hello()
        try:
            workspace = await self.mounts.path_for_boxes(execution.agent_id)
        except OSError as failure:
            raise start_failed("the sandbox", f"its workspace cannot be mounted: {failure}") from failure
        self.maker.settings.boxes.mkdir(mode=0o700, parents=True, exist_ok=True)
        return BoxOrder(
            box=f"exec-{run_id}",
            owner=f"{agent_id}:{run_id}",
            manifest=execution.manifest,
            runtime=_RUNTIMES[execution.runtime],
            argv=[interpreter, CODE_FILE],
            env=plans.environment(execution.manifest, execution.env, sdk=self.maker.settings.sdk is not None),
            workspace=workspace,
            identity=plans.identity_of(agent_id) if hello.rooted else None,
            private=[Private(path=CODE_FILE, mode="0444", content=execution.code.encode())],
            lasts=False,
            at_once=not plans.has_way_out(execution.manifest),
            record=self._record(run_id),
        )

    def _record(self, run_id: str) -> Path:
        return self.maker.settings.boxes / f"exec-{run_id}.json"


@dataclass(slots=True)
class _Output:
    """One stream: read to its end, kept up to a limit, so that who writes is never held up."""

    limit_bytes: int
    read_end: int = -1
    write_end: int = -1
    kept: bytearray = field(default_factory=bytearray)
    truncated: bool = False
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)

    def begin(self) -> None:
        """Read on; our end to write is closed, so the end comes when the last writer is gone."""
        os.close(self.write_end)
        self.write_end = -1
        asyncio.get_running_loop().add_reader(self.read_end, self._read)

    async def finished(self) -> None:
        """Wait until everything is read."""
        await self._done.wait()

    def close(self) -> None:
        """Close what is open."""
        for descriptor in (self.read_end, self.write_end):
            if descriptor >= 0:
                asyncio.get_running_loop().remove_reader(descriptor)
                os.close(descriptor)

    @property
    def text(self) -> str:
        """What was kept; what is no UTF-8 is replaced."""
        return self.kept.decode(errors="replace")

    def _read(self) -> None:
        part = os.read(self.read_end, 65536)
        if not part:
            asyncio.get_running_loop().remove_reader(self.read_end)
            self._done.set()
            return
        room = self.limit_bytes - len(self.kept)
        self.kept += part[:room] if room > 0 else b""
        self.truncated = self.truncated or len(part) > room


def _stdin(text: str) -> int:
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _exit_code(status: int | None) -> int:
    if status is None:
        return _SIGNALLED + _KILLED
    return _SIGNALLED + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
