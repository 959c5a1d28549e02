"""A daemon that is killed at any moment: whatever it had acknowledged is there when the file is opened again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from borough.core.ids import AgentId
from borough.core.paging import PageRequest
from borough.governance.observations import ObservationFilter, first_broken
from tests.contracts.governance_kit import NOON, House

pytestmark = pytest.mark.anyio
REPOSITORY = Path(__file__).parents[2]
ENOUGH = 300

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from borough.governance.budgets import Spent
from borough.governance.observations import NewObservation
from tests.contracts.governance_kit import MANIFEST, NOON, House, new_agent
from tests.contracts.test_approvals import new_approval

def tell(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def live(house, agent, name):
    for number in range(10**9):
        await house.stores.agents.charge(agent.id, Spent(calls=1))
        tell("charged")
        await house.stores.memory.write("n", f"{name}/{number % 50}", str(number), at=NOON, ttl_s=None)
        tell("written", f"{name}/{number % 50}", number)
        said = NewObservation(action="Act", result=name, tags=("t",))
        await house.stores.observations.append(agent.id, said, id=f"{name}-{number}", at=NOON)
        tell("observed", f"{name}-{number}")
        approval = new_approval(agent_id=agent.id)
        await house.stores.approvals.add(approval)
        tell("asked", approval.id)

async def main():
    house = House(Path(sys.argv[1]))
    await house.open()
    agent = new_agent()
    await house.stores.agents.add(agent, MANIFEST)
    secrets = house.quick_secrets()
    await secrets.unlock(b"passphrase")
    await secrets.put("name", b"a value", description=None)
    tell("agent", agent.id)
    await asyncio.gather(*(live(house, agent, name) for name in "abcdefgh"))

asyncio.run(main())
"""


def killed_after(path: Path, acknowledgements: int) -> list[list[object]]:
    """Let a daemon live until it has acknowledged so much, kill it, and return all that it acknowledged."""
    program = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=REPOSITORY) as daemon:
        assert daemon.stdout is not None
        told = [daemon.stdout.readline() for _ in range(acknowledgements)]
        os.kill(daemon.pid, signal.SIGKILL)
        told += daemon.stdout.readlines()
    assert daemon.returncode == -signal.SIGKILL
    return [json.loads(line) for line in told if line.endswith(b"\n")]


@pytest.mark.parametrize("acknowledgements", [2, ENOUGH])
async def test_whatever_was_acknowledged_survives_a_kill(tmp_path: Path, acknowledgements: int) -> None:
    told = killed_after(tmp_path / "governance.db", acknowledgements)
    agent_id = AgentId(str(told[0][1]))
    house = House(tmp_path / "governance.db")
    await house.open()
    stores = house.stores
    charged = sum(each[0] == "charged" for each in told)
    # Eight lives at once: at most that many steps were on disk and not yet told.
    assert charged <= (await stores.agents.get(agent_id)).spent.calls <= charged + 8
    assert (await stores.agents.manifest(agent_id)).name == "reader"
    newest = {str(each[1]): int(str(each[2])) for each in told if each[0] == "written"}
    assert len(newest) <= len((await stores.memory.keys("n", at=NOON, page=PageRequest(limit=1000))).items)
    for key, number in newest.items():
        entry = await stores.memory.read("n", key, at=NOON)
        assert entry is not None
        assert int(entry.value) >= number
    observed = await stores.observations.find(agent_id, ObservationFilter(limit=100_000))
    assert {each[1] for each in told if each[0] == "observed"} <= {each.id for each in observed}
    assert first_broken(observed) is None
    waiting = {each.id for each in await stores.approvals.waiting()}
    assert {each[1] for each in told if each[0] == "asked"} <= waiting
    secrets = house.quick_secrets()
    assert await secrets.unlock(b"passphrase") == 1
    assert await secrets.values(["name"]) == {"name": "a value"}
    await house.close()
