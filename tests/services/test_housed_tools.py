"""A governed agent whose workspace is in a machine: its tools work there, by the same law and into the same ledger."""

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from borough.adapters.workspaces.homes import Homes
from borough.core.errors import Unavailable
from borough.core.ids import AgentId
from borough.fleet.vms import VmId
from tests import boxes
from tests.conftest import eventually
from tests.contracts.tools_kit import InMachines, in_machines
from tests.surfaces.installation import Installation, installed, manifest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[InMachines]:
    async with in_machines(tmp_path / "machines") as made:
        assert isinstance(made, InMachines)
        yield made


async def call(house: Installation, agent_id: AgentId, key: str, tool: str, **arguments: object) -> tuple[int, object]:
    got = await house.http("POST", f"/agents/{agent_id}/tools/{tool}", token=key, json=arguments)
    return got.status, got.json()


async def test_what_a_tool_reads_is_the_agent_s_own_machine_s_and_what_is_out_of_scope_is_refused_and_recorded(
    tmp_path: Path, machines: InMachines
) -> None:
    async with installed(tmp_path / "town") as house:
        homes = house.governance.homes
        homes.connect(machines.homes.guests)
        agent_id = await house.spawn(
            manifest(
                "insider", "tool.invoke:fs.*", "tool.invoke:sandbox.exec", "fs.read:/workspace/**",
                "fs.write:/workspace/out/**", "sandbox.exec:*",
            )
        )  # fmt: skip
        key = await house.key(agent_id, role="agent")
        await machines.create(agent_id, boxes.manifest())
        vm_id = machines.homes.machine_of(agent_id)
        assert vm_id is not None
        await homes.bind(agent_id, vm_id)

        assert (await call(house, agent_id, key, "fs.write", path="/workspace/out/a.txt", content="made"))[0] == 200
        seen = await machines.files.read(agent_id, "/workspace/out/a.txt", limit=99)
        assert seen.content == b"made", "in the machine"
        status, told = await call(house, agent_id, key, "fs.read", path="/workspace/out/a.txt")
        assert (status, "made" in json.dumps(told)) == (200, True)
        status, told = await call(
            house, agent_id, key, "sandbox.exec", runtime="sh", code="hostname; cat /workspace/out/a.txt"
        )
        assert (status, f"{vm_id}\\nmade" in json.dumps(told)) == (200, True), told
        for tool, arguments in (
            ("fs.read", {"path": "/etc/hosts"}),
            ("fs.write", {"path": "/workspace/a.txt", "content": "x"}),
        ):
            status, told = await call(house, agent_id, key, tool, **arguments)
            assert status == 403, (tool, told)

        async def recorded() -> bool:
            entries = json.dumps(await house.entries())
            return "/etc/hosts" in entries and "denied" in entries

        await eventually(recorded)
        await homes.unbind(agent_id)
        status, told = await call(house, agent_id, key, "fs.read", path="/workspace/out/a.txt")
        assert "made" not in json.dumps(told), "here again, where there is no such file"


async def test_who_lives_where_is_known_after_a_restart_and_nobody_is_let_down_to_this_host(tmp_path: Path) -> None:
    agent_id, vm_id = boxes.agent(), VmId("1b9d6bcd-bbf")
    homes = Homes(tmp_path)
    await homes.bind(agent_id, vm_id)
    again = Homes(tmp_path)
    assert again.bound() == {agent_id: vm_id}
    assert stat.S_IMODE((tmp_path / "homes.json").stat().st_mode) == 0o600
    with pytest.raises(Unavailable) as nowhere:
        await again.guests()
    assert nowhere.value.code == "no_fleet"
    await again.unbind(agent_id)
    await again.unbind(agent_id)
    assert Homes(tmp_path).bound() == {}
