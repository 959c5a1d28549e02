"""The SDK: an agent's process in its box, and one that has HTTP alone, call every method of both clients."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from borough.agent import Agent, AgentError, AsyncAgent, EnvMissing
from borough.agent.environment import read_environment
from tests.conftest import need
from tests.e2e.conftest import until
from tests.e2e.daemon import NOBODY, RunningDaemon, manifest, serving

EVERYTHING = ("tool.invoke:*", "fs.read:/workspace/**", "fs.write:/workspace/**", "memory.read:**", "memory.write:**",
              "obs.append", "obs.query", "agent.spawn", "agent.grant", "bus.publish",
              "bus.subscribe")  # fmt: skip

PROGRAM = '''
import asyncio, json, sys
from borough.agent import (Agent, AgentError, AsyncAgent, Denied, InvalidTransition, NotFound, PlanStep, ToolFailed)

CHILD = """CHILD_MANIFEST"""
said = {}

async def main(agent):
    said["id"], said["task"], said["model"] = agent.id, agent.task, agent.model
    await agent.transition("plan")
    await agent.plan(["look", PlanStep("write", tool="fs.write")])
    await agent.revise_plan(["look", PlanStep("write", tool="fs.write"), "tell"])
    await agent.transition("act")
    said["tools"] = [tool.name for tool in await agent.list_tools()]
    said["echo"] = await agent.invoke_tool("echo", {"n": 1})
    said["nothing"] = await agent.invoke_tool("agent.info")
    for name, arguments in (("fs.read", {"path": "/etc/hostname"}), ("fs.read", {"path": "/workspace/none"})):
        try:
            await agent.invoke_tool(name, arguments)
        except ToolFailed as failed:
            said.setdefault("failed", []).append([failed.code, str(failed)])
    said["first"] = await agent.memory_set("notes/a", {"n": 1}, expected_version=0)
    said["second"] = await agent.memory_set("notes/a", {"n": 2}, ttl_secs=600)
    said["value"] = await agent.memory_get("notes/a")
    said["version"] = (await agent.memory_read("notes/a")).version
    said["none"] = [await agent.memory_get("notes/b"), await agent.memory_read("notes/b")]
    try:
        await agent.memory_set("notes/a", 0, expected_version=1)
    except AgentError as conflict:
        said["conflict"] = conflict.code
    await agent.bus_subscribe("news/*")
    await agent.bus_publish("news/today", {"all": "well"})
    said["messages"] = [[one["topic"], one["payload"]] for one in await agent.bus_poll()]
    said["child"] = await agent.spawn_child(manifest_yaml=CHILD, task="help", cap_override=["tool.invoke:echo"])
    try:
        await agent.spawn_child(manifest_yaml=CHILD, cap_override=["bb.write"])
    except Denied as denied:
        said["denied"] = denied.code
    try:
        await agent.spawn_child(name="nobody-installed-this")
    except NotFound as missing:
        said["missing"] = missing.code
    said["grant"] = await agent.grant_capability(said["child"], "memory.read:notes/*")
    said["wish"] = await agent.request_capability("bb.write", "to tell the others", ttl_secs=60)
    while not (waiting := await agent.pending_escalations()):
        await asyncio.sleep(0.02)
    said["waiting"] = [[one["kind"], one["from_agent_id"]] for one in waiting]
    await agent.transition("observe")
    said["observation"] = await agent.observe("done", "all of it", tags=["sdk"], metadata={"n": 1})
    try:
        await agent.transition("nowhere")
    except InvalidTransition as illegal:
        said["illegal"] = illegal.code
    await agent.finish(said)

class InTurn:
    """The client for ordinary programs, as if it were the other: both are put through the same."""
    def __init__(self, agent):
        self.agent = agent
    def __getattr__(self, name):
        found = getattr(self.agent, name)
        if not callable(found):
            return found
        async def call(*arguments, **named):
            return found(*arguments, **named)
        return call

async def run():
    if agent_kind == "Agent":
        with Agent.from_env() as agent:
            await main(InTurn(agent))
    else:
        async with await AsyncAgent.from_env() as agent:
            await main(agent)

agent_kind = sys.argv[1]
asyncio.run(run())
'''


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    need(Path("/usr/bin/python3").exists(), "a Python of the system, which boxes can see", "apt-get install python3")
    with serving(tmp_path_factory.mktemp("agentd")) as daemon:
        yield daemon


@pytest.mark.parametrize("over", ["socket", "http"])
@pytest.mark.parametrize("kind", ["Agent", "AsyncAgent"])
def test_every_method_does_what_it_says(daemon: RunningDaemon, tmp_path: Path, kind: str, over: str) -> None:
    child = manifest("helper", "tool.invoke:echo", "tool.invoke:agent.info")
    name = f"methodical-{kind.lower()}-{over}"
    (tmp_path / "agent.py").write_text(PROGRAM.replace("CHILD_MANIFEST", child))
    with (in_a_box if over == "socket" else elsewhere)(daemon, tmp_path, name, kind) as agent_id:
        look_at(daemon, agent_id, name)


@contextmanager
def in_a_box(daemon: RunningDaemon, folder: Path, name: str, kind: str) -> Iterator[str]:
    more = f"  runtime: python\n  entrypoint: agent.py\n  args: [{kind}]\n  model: some/model\n"
    (folder / "manifest.yaml").write_text(manifest(name, *EVERYTHING, trust="trusted", more=more))
    yield daemon.ash("spawn", str(folder / "manifest.yaml"), "--task", "all", "--json").json()["agent_id"]


@contextmanager
def elsewhere(daemon: RunningDaemon, folder: Path, name: str, kind: str) -> Iterator[str]:
    agent_id = daemon.spawn(name, *EVERYTHING, trust="trusted")
    environ = {
        "BOROUGH_URL": daemon.url,
        "BOROUGH_KEY": daemon.key(f"key-{name}", agent_id, role="agent"),
        "SCARAB_AGENT_ID": agent_id,
        "SCARAB_TASK": "all",
        "SCARAB_MODEL": "some/model",
        "PATH": os.environ["PATH"],
    }
    program = subprocess.Popen([sys.executable, str(folder / "agent.py"), kind], env=environ)
    try:
        yield agent_id
        assert program.wait(30) == 0
    finally:
        program.kill()
        program.wait()


def look_at(daemon: RunningDaemon, agent_id: str, name: str) -> None:
    def child_of() -> Any:
        nodes = daemon.ok("GET", "/hierarchy")
        return next((node["children"] for node in nodes if node["id"] == agent_id and node["children"]), None)

    try:
        (found,) = until(child_of)
    except pytest.fail.Exception:
        pytest.fail(daemon.request("GET", f"/agents/{agent_id}/logs").body.decode())
    key = daemon.key(f"child-{name}", found["id"], role="agent")
    wish = {"capability": "tool.invoke:agent.info", "reason": "curious"}
    daemon.ok("POST", f"/agents/{found['id']}/capability-requests", wish, token=key)
    done = daemon.ok("GET", f"/agents/{agent_id}/result?wait=30")
    assert done["ready"], daemon.request("GET", f"/agents/{agent_id}/logs").body.decode()
    said = done["result"]

    assert (said["id"], said["task"], said["model"]) == (agent_id, "all", "some/model")
    assert {"echo", "fs.read"} <= set(said["tools"])
    assert said["echo"] == {"n": 1}
    assert said["nothing"]["lifecycle_state"] == "act"
    assert [code for code, _ in said["failed"]] == ["denied", "tool_error"]
    assert "access denied: fs.read:/etc/hostname" in said["failed"][0][1]
    assert (said["first"], said["second"], said["value"], said["version"]) == (1, 2, {"n": 2}, 2)
    assert (said["none"], said["conflict"]) == ([None, None], "version_mismatch")
    assert said["messages"] == [["news/today", {"all": "well"}]]
    assert (said["child"], said["denied"], said["missing"]) == (
        *(found["id"], "capability_escalation_denied", "agent_not_installed"),
    )
    assert said["waiting"] == [["CapabilityRequest", found["id"]]]
    assert said["illegal"] == "unknown_phase"
    assert daemon.ok("GET", f"/agents/{agent_id}/plan")["revision"] == 2
    (seen,) = daemon.ok("GET", f"/agents/{agent_id}/observations")
    assert (seen["id"], seen["metadata"], seen["tags"]) == (said["observation"], {"n": 1}, ["sdk"])
    given = daemon.entries(found["id"], action="CapabilityGrant")
    assert {entry["agent_id"] for entry in given if entry["data"]["grant_id"] == said["grant"]} >= {agent_id}
    # What was given ends with the child, as the child does with its parent.
    until(lambda: daemon.ok("GET", f"/agents/{found['id']}/grants") == [])
    wishes = daemon.entries(agent_id, action="Escalation")
    assert said["wish"] in json.dumps(wishes), wishes


def test_both_clients_have_the_same_methods() -> None:
    def methods(of: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(of, callable) if not name.startswith("_")}

    assert methods(Agent) == methods(AsyncAgent) - {"connect"}
    for name in methods(Agent) - {"from_env", "close", "ask"}:
        assert inspect.signature(getattr(Agent, name)).parameters.keys() == (
            inspect.signature(getattr(AsyncAgent, name)).parameters.keys()
        )
        assert f"agent.{name}(" in PROGRAM, f"{name} is not put to the test"


def test_a_key_that_is_not_known_and_an_address_that_is_none(daemon: RunningDaemon) -> None:
    told = {"SCARAB_AGENT_ID": NOBODY, "BOROUGH_URL": daemon.url, "BOROUGH_KEY": "nothing"}
    with Agent(read_environment(told)) as agent, pytest.raises(AgentError) as refused:
        agent.list_tools()
    assert refused.value.code == "unauthorized"
    for wrong in ({"BOROUGH_URL": "ftp://x"}, {"BOROUGH_KEY": ""}):
        with pytest.raises(EnvMissing):
            read_environment({**told, **wrong})
    unbound = {**told, "BOROUGH_KEY": daemon.operator}
    with Agent(read_environment(unbound)) as agent, pytest.raises(AgentError) as nobody:
        agent.list_tools()
    assert nobody.value.code == "no_agent"
    assert (
        daemon.request("POST", "/agents/self/messages", [1], token=daemon.key("odd", daemon.spawn("odd"))).status == 400
    )
