"""No attempt gets out of a box, at the level that is confined most and at the one that is confined least."""

import asyncio
import json
import os
import platform
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap.engine import Bubblewrap
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.engines.bubblewrap.skeleton import interpreters
from borough.core.ids import AgentId
from borough.governance.manifests import Layer, Resources
from borough.governance.ports.outside import ExecutionResult
from borough.governance.trust import TrustLevel
from tests import boxes
from tests.conftest import need
from tests.faults.escape.attempts import ATTEMPTS, CONTROL, FLOODS, PRELUDE, SETTINGS, Attempt
from tests.faults.escape.surroundings import surroundings

pytestmark = pytest.mark.anyio
MIB = boxes.MIB
ENV_WORD = "a-word-of-the-daemon"
LIMITS = BoxLimits(
    file_bytes=8 * MIB, workspace_bytes=16 * MIB, tmp_bytes=8 * MIB, shm_bytes=8 * MIB, memory_bytes=128 * MIB
)
RESOURCES = Resources(max_processes=60, max_open_files=128)
LEVELS = (TrustLevel.SANDBOXED, TrustLevel.PRIVILEGED)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An engine, two agents, and what lies around them."""

    made: Bubblewrap
    told: dict[str, object]
    outside: Path

    async def inside(self, attempt: Attempt, trust: TrustLevel) -> ExecutionResult:
        agent_id: AgentId = boxes.agent()
        of = boxes.manifest(trust=trust, resources=RESOURCES, capabilities=("sandbox.exec",))
        await self.made.workspaces.create(agent_id, of)
        told = json.dumps({**self.told, "tmp": "/tmp", "first": 1})
        try:
            return await self.made.sandbox.execute(
                boxes.execution(agent_id, of, PRELUDE + attempt.code, runtime="python3", env={"P": told}, timeout_s=15)
            )
        finally:
            assert boxes.left_of(agent_id) == []
            await self.made.workspaces.discard(agent_id)

    def control(self, attempt: Attempt) -> subprocess.CompletedProcess[str]:
        """Make the same attempt outside of a box, with what is otherwise the same around it."""
        folder = self.outside / attempt.name.replace("/", " ")
        folder.mkdir()
        inherited_r, inherited_w = os.pipe()
        told = json.dumps({**self.told, "tmp": str(folder), "first": self.told["victim"]})
        code = PRELUDE + CONTROL + SETTINGS.get(attempt.name, "") + attempt.code
        try:
            return subprocess.run(
                [interpreters().python3 or "python3", "-c", code],
                cwd=folder, env={"P": told, "DAEMON_SECRET": ENV_WORD}, capture_output=True, text=True, timeout=30,
                check=False, pass_fds=[inherited_r],
            )  # fmt: skip
        finally:
            os.close(inherited_r)
            os.close(inherited_w)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def _a_secret_of_the_daemon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAEMON_SECRET", ENV_WORD)
        yield


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory, _a_secret_of_the_daemon: None) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("escape")
    controls = folder / "controls"
    controls.mkdir()
    with surroundings(folder) as told:
        told |= {
            "env_drow": ENV_WORD[::-1], "files": RESOURCES.max_open_files, "memory": LIMITS.memory_bytes,
            "file_bytes": LIMITS.file_bytes, "tmp_bytes": LIMITS.tmp_bytes, "shm_bytes": LIMITS.shm_bytes,
        }  # fmt: skip
        async with boxes.engine(folder, limits=LIMITS, secret_places=(str(told["operators"]),)) as made:
            enforcement = await made.runner.probe()
            assert enforcement.layers[Layer.NAMESPACES], enforcement.reasons
            yield Scene(made=made, told=told, outside=controls)


def possible(attempt: Attempt) -> None:
    if attempt.x86 and platform.machine() != "x86_64":
        pytest.skip("there is no such call on this architecture")
    if attempt.root:
        need(os.geteuid() == 0, "root, which the control needs", "running the tests as root")
    if attempt.landlock:
        need(system_calls.landlock_version(), "Landlock", "a kernel with CONFIG_SECURITY_LANDLOCK, in the lsm= list")


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
async def test_an_attempt_succeeds_outside_and_fails_in_every_box(scene: Scene, attempt: Attempt) -> None:
    possible(attempt)
    if attempt.groups:
        enforcement = await scene.made.runner.probe()
        need(enforcement.layers[Layer.CGROUPS], "control groups", "running as root, or delegating a group of version 2")
    control = scene.control(attempt)
    if "Function not implemented" in control.stderr:
        pytest.skip("this kernel does not have that call at all")
    assert "ESCAPED" in control.stdout, f"the control shows nothing: {control.stderr}"
    results = await asyncio.gather(*(scene.inside(attempt, trust) for trust in LEVELS))
    for trust, result in zip(LEVELS, results, strict=True):
        assert "ESCAPED" not in result.stdout, f"a {trust} agent got out"
        assert result.stderr or result.exit_code > 128 or not result.stdout, result


async def test_after_all_floods_the_engine_still_works(scene: Scene) -> None:
    hello = Attempt(name="hello", code="print('hello')")
    assert (await scene.inside(hello, TrustLevel.SANDBOXED)).stdout == "hello\n"
    assert len(FLOODS) >= 10


def test_there_are_enough_attempts() -> None:
    assert len({attempt.name for attempt in ATTEMPTS}) >= 40
