"""The gateway's routes of agents, by requests: the reference page's shapes, what is added, and how it says no."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from borough.auth.principals import Principal, WorkerGrant
from borough.core.clock import rfc3339, utc_now
from borough.core.errors import Forbidden
from borough.core.ids import AgentId, new_id
from borough.governance.ports.courses import Courses
from borough.governance.services.schedule import ToolUse
from borough.governance.tokens import OPERATOR, ROLE_SCOPES, Caller, Role
from borough.http.governance import agents, hierarchy, schedule, store, workspaces
from borough.http.governance.dialect import gateway_error
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from tests.conftest import eventually
from tests.services.agents_kit import Daemon, manifest, shell
from tests.surfaces.asgi import Got, ask

pytestmark = pytest.mark.anyio

OPERATIONS = (
    *agents.OPERATIONS,
    *hierarchy.OPERATIONS,
    *schedule.OPERATIONS,
    *store.OPERATIONS,
    *workspaces.OPERATIONS,
)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What these routes call."""

    agents: object
    agent_store: object
    hierarchy: object
    results: object
    schedule: object
    workspaces: object


async def authenticate(headers: Mapping[str, str], _: str) -> Principal:
    """``operator``, or an agent's own id: who somebody is, is not what these tests are about."""
    word = headers.get("authorization", "").removeprefix("Bearer ")
    if not word:
        raise Forbidden("who are you?", code="authentication_required")
    caller = OPERATOR
    if word != "operator":
        role = Role.AGENT
        caller = Caller(token_name="t", agent_id=AgentId(word), role=role, scopes=ROLE_SCOPES[role])
    return Principal(id=word, scopes=frozenset(), caller=caller)


async def never(_: WorkerGrant) -> bool:
    return False


class Gateway:
    """The routes over one daemon's services."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        services = Services(
            agents=daemon.service,
            agent_store=daemon.agent_store,
            hierarchy=daemon.hierarchy,
            results=daemon.results,
            schedule=daemon.schedule,
            workspaces=daemon.workspaces,
        )
        surface = Surface(
            operations=OPERATIONS,
            state=services,
            authenticate=authenticate,
            grant_is_live=never,
            dialect=gateway_error,
        )
        self.table = OperationTable([surface], Policies())

    async def ask(self, method: str, target: str, json: Any = None, *, who: str = "operator", key: str = "") -> Got:
        headers = {"authorization": f"Bearer {who}"} | ({"idempotency-key": key} if key else {})
        return await ask(self.table, method, target, json=json, headers=headers)

    async def spawn(self, text: str, **more: Any) -> str:
        got = await self.ask("POST", "/agents", {"manifest_yaml": text, **more})
        assert got.status == 201, got.body
        assert got.headers["location"] == f"/agents/{got.json()['id']}"
        return cast("str", got.json()["id"])

    async def info(self, agent_id: str) -> dict[str, Any]:
        got = await self.ask("GET", f"/agents/{agent_id}")
        assert got.status == 200, got.body
        return cast("dict[str, Any]", got.json())


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    daemon = Daemon(tmp_path)
    await daemon.open()
    yield Gateway(daemon)
    await daemon.close()


def refused(got: Got, status: int, code: str) -> dict[str, Any]:
    assert (got.status, got.json()["code"]) == (status, code), got.body
    assert set(got.json()) >= {"error", "code", "request_id"}
    return cast("dict[str, Any]", got.json())


# -- the reference page ------------------------------------------------------------------------------------------------


async def test_an_agent_is_started_listed_shown_and_ended(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest("report-agent", trust="sandboxed"))
    (listed,) = (await gateway.ask("GET", "/agents?unknown=1")).json()
    named = {name: listed[name] for name in ("id", "name", "state", "trust_level")}
    assert named == {"id": agent_id, "name": "report-agent", "state": "Plan", "trust_level": "sandboxed"}
    assert (await gateway.info(agent_id))["status"] == "running"
    for _ in range(2):
        got = await gateway.ask("DELETE", f"/agents/{agent_id}")
        assert (got.status, got.body) == (204, b"")
    assert (await gateway.ask("GET", "/agents")).json() == []
    assert (await gateway.info(agent_id))["state"] == "Terminate"
    assert [one["id"] for one in (await gateway.ask("GET", "/agents?ended=true")).json()] == [agent_id]


async def test_an_installed_agent_is_started_by_its_name_with_another_task(gateway: Gateway) -> None:
    text = shell('echo "$SCARAB_TASK"', name="report-agent", task="as written")
    got = await gateway.ask("POST", "/store/agents", {"manifest_yaml": text})
    assert (got.status, got.headers["location"]) == (201, "/store/agents/report-agent")
    got = await gateway.ask("POST", "/agents", {"name": "report-agent", "task_override": "Summarize Q1 results"})
    assert got.status == 201
    log = await gateway.ask("GET", f"/agents/{got.json()['id']}/logs?wait=20")
    assert log.body == b"Summarize Q1 results\n"
    assert (await gateway.info(got.json()["id"]))["task"] == "Summarize Q1 results"
    shown = (await gateway.ask("GET", "/store/agents/report-agent")).json()
    assert (shown["manifest_yaml"], shown["runtime"]) == (text, "rust")


async def test_what_is_not_there_is_not_found(gateway: Gateway) -> None:
    for agent_id in (new_id(), "nonsense"):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/result"), ("POST", "/pause")):
            refused(await gateway.ask(method, f"/agents/{agent_id}{path}"), 404, "agent_not_found")
    told = refused(await gateway.ask("POST", "/agents", {"name": "nobody"}), 404, "agent_not_installed")
    assert told["error"] == "agent store: not found: nobody"


@pytest.mark.parametrize(
    ("body", "status", "code", "error"),
    [
        ({}, 400, "invalid_request", "invalid request"),
        ({"manifest_yaml": manifest(), "name": "x"}, 400, "invalid_request", "invalid request"),
        ({"manifest_yaml": manifest(trust="odd")}, 422, "invalid_manifest", "invalid manifest: "),
        (
            {"manifest_yaml": manifest().replace("/v1", "/v2")},
            422,
            "unsupported_api_version",
            "unsupported api version: scarab/v2",
        ),
        (
            {"manifest_yaml": manifest(lifecycle={"timeout_secs": 0})},
            422,
            "invalid_timeout",
            "lifecycle timeout_secs=0 is invalid",
        ),
        ({"manifest_yaml": "["}, 422, "invalid_yaml", "the document cannot be read"),
        ({"manifest_yaml": manifest(plan={"mode": "strict"})}, 501, "not_available", "plans that bind"),
        ({"manifest_yaml": manifest(command="/nowhere")}, 500, "start_failed", ""),
    ],
)
async def test_what_cannot_be_started_says_why(
    gateway: Gateway, body: dict[str, str], status: int, code: str, error: str
) -> None:
    told = refused(await gateway.ask("POST", "/agents", body), status, code)
    assert told["error"].startswith(error)
    assert told["resolution"]


async def test_every_problem_of_a_manifest_is_told_with_its_path(gateway: Gateway) -> None:
    text = manifest(capabilities=["fs.reed:/a"], resources={"memory_limit": "lots"}, surprise=1)
    told = refused(await gateway.ask("POST", "/agents", {"manifest_yaml": text}), 422, "invalid_manifest")
    assert [each.partition(":")[0] for each in told["errors"]] == [
        "spec.capabilities[0]",
        "spec.resources.memory_limit",
        "spec.surprise",
    ]


# -- what is added -----------------------------------------------------------------------------------------------------


async def test_a_repeated_request_starts_one_agent(gateway: Gateway) -> None:
    bodies = [await gateway.ask("POST", "/agents", {"manifest_yaml": manifest()}, key="one") for _ in range(2)]
    assert bodies[0].json() == bodies[1].json()
    assert len((await gateway.ask("GET", "/agents")).json()) == 1


async def test_all_that_is_known_of_an_agent(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(
        shell(
            "sleep 600",
            description="ignored",
            task="count",
            model="m/1",
            resources={"memory_limit": "64Mi"},
            budget={"calls": 3, "cost": 0.5},
            lifecycle={"restart_policy": "on-failure"},
        ).replace('"description":"ignored",', "")
    )
    info = await gateway.info(agent_id)
    assert {name: info[name] for name in ("task", "model", "tainted", "priority", "restarts", "has_process")} == {
        "task": "count",
        "model": "m/1",
        "tainted": False,
        "priority": 50,
        "restarts": 0,
        "has_process": True,
    }
    assert info["capabilities"] == ["tool.invoke:echo"]
    assert info["resources"]["memory_limit_bytes"] == 64 * 1024**2
    assert info["network"] == {"policy": "none", "allowlist": []}
    assert (info["budget"]["calls"], info["budget"]["cost"], info["cost_total"]) == (3, 0.5, 0.0)
    assert (info["restart_policy"], info["restart_at"], info["exit_code"]) == ("on-failure", None, None)
    assert info["enforcement"]["backend"] == "bubblewrap"
    assert info["enforcement"]["layers"]["namespaces"] is True


async def test_agents_are_moved_and_paused(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest())
    for word, state in (("act", "Act"), ("Observe", "Observe"), ("PLAN", "Plan")):
        got = await gateway.ask("POST", f"/agents/{agent_id}/transitions", {"state": word})
        assert (got.status, got.json()["state"]) == (200, state)
    illegal = await gateway.ask("POST", f"/agents/{agent_id}/transitions", {"state": "Observe"}, who=agent_id)
    assert "Plan" in refused(illegal, 409, "illegal_transition")["error"]
    unknown = await gateway.ask("POST", f"/agents/{agent_id}/transitions", {"state": "Rest"})
    refused(unknown, 400, "unknown_phase")
    misfit = await gateway.ask("POST", f"/agents/{agent_id}/transitions", {"state": "Act", "x": 1})
    refused(misfit, 400, "invalid_request")
    for word, status in (("pause", "paused"), ("resume", "running")):
        got = await gateway.ask("POST", f"/agents/{agent_id}/{word}")
        assert (got.status, got.json()["status"]) == (200, status)


async def test_an_agent_reaches_itself_and_what_it_started_only(gateway: Gateway) -> None:
    boss = await gateway.spawn(manifest("boss", capabilities=["agent.spawn", "tool.invoke:echo"]))
    other = await gateway.spawn(manifest("other"))
    got = await gateway.ask("POST", f"/agents/{boss}/children", {"manifest_yaml": manifest("child")}, who=boss)
    child = got.json()["id"]
    refused(await gateway.ask("GET", f"/agents/{other}", who=boss), 403, "denied")
    refused(await gateway.ask("DELETE", f"/agents/{other}", who=boss), 403, "denied")
    body = {"manifest_yaml": manifest("x")}
    refused(await gateway.ask("POST", f"/agents/{other}/children", body, who=boss), 403, "not_related")
    wide = {"manifest_yaml": manifest("x", capabilities=["memory.read:*"])}
    escalated = refused(await gateway.ask("POST", "/agents", wide, who=boss), 403, "capability_escalation_denied")
    assert escalated["error"] == "capability escalation denied"
    assert {one["id"] for one in (await gateway.ask("GET", "/agents", who=boss)).json()} == {boss, child}
    (top,) = (await gateway.ask("GET", "/hierarchy", who=boss)).json()
    assert (top["id"], [below["id"] for below in top["children"]]) == (boss, [child])
    assert (await gateway.ask("DELETE", f"/agents/{child}", who=boss)).status == 204
    refused(await gateway.ask("DELETE", f"/agents/{boss}", who=child), 403, "denied")


async def test_agents_are_discovered_by_what_they_can_do(gateway: Gateway) -> None:
    seeker = await gateway.spawn(manifest("seeker", capabilities=["agent.discover"]))
    talker = await gateway.spawn(manifest("talker", capabilities=["bus.publish:news", "bus.subscribe:news"]))
    (found,) = (await gateway.ask("GET", f"/agents/{seeker}/discover?pattern=bus.*")).json()
    assert (found["id"], found["capabilities"]) == (talker, ["bus.publish:news", "bus.subscribe:news"])
    refused(await gateway.ask("GET", f"/agents/{talker}/discover"), 403, "denied")


async def test_an_agent_hands_back_one_result_which_can_be_waited_for(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest())
    empty = (await gateway.ask("GET", f"/agents/{agent_id}/result")).json()
    assert (empty["ready"], empty["result"]) == (False, None)
    waiting = asyncio.ensure_future(gateway.ask("GET", f"/agents/{agent_id}/result?wait=20"))
    value = {"answer": 42, "parts": [1.5, None]}
    assert (await gateway.ask("PUT", f"/agents/{agent_id}/result", value, who=agent_id)).status == 204
    assert (await waiting).json()["result"] == value
    assert (await gateway.ask("PUT", f"/agents/{agent_id}/result", value, who=agent_id)).status == 204
    refused(await gateway.ask("PUT", f"/agents/{agent_id}/result", {"answer": 43}), 409, "result_exists")
    stranger = await gateway.spawn(manifest("stranger"))
    refused(await gateway.ask("PUT", f"/agents/{agent_id}/result", value, who=stranger), 403, "not_related")


async def test_who_waits_for_a_log_may_leave(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(shell("sleep 600"))
    leaves, headers = asyncio.Event(), {"authorization": "Bearer operator"}
    waiting = asyncio.ensure_future(
        ask(gateway.table, "GET", f"/agents/{agent_id}/logs?wait=60", headers=headers, leaves_after=leaves)
    )
    leaves.set()
    assert (await asyncio.wait_for(waiting, 60)).body == b""


async def test_waiting_for_a_result_ends_with_the_agent(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest())
    waiting = asyncio.ensure_future(gateway.ask("GET", f"/agents/{agent_id}/result?wait=50"))
    await gateway.ask("DELETE", f"/agents/{agent_id}")
    assert (await asyncio.wait_for(waiting, 60)).json()["status"] == "killed"


async def test_a_log_is_read_on_from_where_one_was(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(shell("echo one; echo two; while [ ! -e go ]; do sleep 0.05; done; printf three"))

    async def has_both() -> bool:
        return (await gateway.ask("GET", f"/agents/{agent_id}/logs")).body == b"one\ntwo\n"

    await eventually(has_both)
    first = await gateway.ask("GET", f"/agents/{agent_id}/logs?limit=5")
    assert (first.body, first.headers["x-log-next-offset"], first.headers["x-log-over"]) == (b"one\n", "4", "false")
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await gateway.ask("GET", f"/agents/{agent_id}/logs?offset=4")).body == b"two\n"
    middle = await gateway.ask("GET", f"/agents/{agent_id}/logs?offset=6")
    assert (middle.body, middle.headers["x-log-offset"]) == (b"two\n", "4")
    waiting = asyncio.ensure_future(gateway.ask("GET", f"/agents/{agent_id}/logs?offset=8&wait=20"))
    await gateway.daemon.engine.files.write(AgentId(agent_id), "/workspace/go", b"", append=False)
    last = await waiting
    assert (last.body, last.headers["x-log-next-offset"], last.headers["x-log-over"]) == (b"three", "13", "true")
    over = await gateway.ask("GET", f"/agents/{agent_id}/logs?offset=13&wait=20")
    assert (over.body, over.headers["x-log-over"]) == (b"", "true")
    refused(await gateway.ask("GET", f"/agents/{agent_id}/logs?run_id={new_id()}"), 404, "log_not_found")


async def test_a_plan_is_declared_and_revised(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest())
    path = f"/agents/{agent_id}/plan"
    assert (await gateway.ask("GET", path)).json() == {"steps": [], "revision": 0, "declared_at": None}
    steps = [{"description": "read", "tool": "fs.read"}, {"description": "think", "tool": None}]
    assert (await gateway.ask("PUT", path, {"steps": steps}, who=agent_id)).json()["revision"] == 1
    revised = (await gateway.ask("PUT", path, {"steps": steps[:1], "reason": "done sooner"}, who=agent_id)).json()
    assert (revised["revision"], revised["steps"]) == (2, steps[:1])
    assert (await gateway.info(agent_id))["plan"] == steps[:1]
    entries = await gateway.daemon.told(agent_id, "PlanDeclare", "PlanRevise")
    assert [(entry["action"], entry["detail"]) for entry in entries] == [
        ("PlanDeclare", "2 steps"),
        ("PlanRevise", "done sooner"),
    ]


async def test_agents_are_scheduled(gateway: Gateway) -> None:
    async def used() -> tuple[ToolUse, ...]:
        return (ToolUse(tool="echo", calls=2, cost_micros=500_000, mean_latency_ms=1.5),)

    gateway.daemon.schedule.tool_use.append(used)
    calm, urgent = await gateway.spawn(manifest("calm")), await gateway.spawn(manifest("urgent", budget={"calls": 9}))
    path = f"/agents/{urgent}/schedule"
    at = rfc3339(utc_now())
    got = (await gateway.ask("PATCH", path, {"priority": 60, "deadline": at})).json()
    assert (got["priority"], got["effective_priority"], got["deadline"]) == (60, 100, at)
    overview = (await gateway.ask("GET", "/scheduler")).json()
    assert [one["agent_id"] for one in overview["agents"]] == [urgent, calm]
    assert overview["tools"] == [{"tool": "echo", "calls": 2, "cost": 0.5, "mean_latency_ms": 1.5}]
    refused(await gateway.ask("PATCH", path, {"deadline": None}, who=urgent), 403, "not_by_itself")
    refused(await gateway.ask("PATCH", path, {"priority": 61}, who=urgent), 403, "not_by_itself")
    refused(await gateway.ask("PATCH", path, {"budget": {"calls": 10}}, who=urgent), 403, "not_by_itself")
    assert (await gateway.ask("PATCH", path, {"budget": {"calls": 4}}, who=urgent)).json()["budget"]["calls"] == 4
    assert (await gateway.ask("PATCH", path, {"budget": {"calls": 99}})).json()["budget"]["calls"] == 99
    cleared = (await gateway.ask("PATCH", path, {"deadline": None})).json()
    assert (cleared["deadline"], cleared["effective_priority"]) == (None, 60)
    assert (await gateway.info(urgent))["priority"] == 60
    assert (await gateway.ask("PATCH", path, {"priority": 101})).status in (400, 422)
    again = await gateway.ask("GET", path)
    assert again.json()["priority"] == 60


async def test_installed_agents_are_listed_replaced_and_removed(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    await gateway.ask("POST", "/store/agents", {"manifest_yaml": manifest("b-agent")})
    got = await gateway.ask("POST", "/store/agents", {"manifest_yaml": manifest("a-agent"), "install_dir": str(folder)})
    assert (got.status, got.json()["install_dir"]) == (201, str(folder))
    assert (folder / "manifest.yaml").read_text() == manifest("a-agent")
    listed = (await gateway.ask("GET", "/store/agents")).json()
    assert [(one["name"], one["version"]) for one in listed] == [("a-agent", "1.0.0"), ("b-agent", "1.0.0")]
    running = (await gateway.ask("POST", "/agents", {"name": "a-agent"})).json()["id"]
    assert (await gateway.ask("DELETE", "/store/agents/a-agent")).status == 204
    refused(await gateway.ask("DELETE", "/store/agents/a-agent"), 404, "agent_not_installed")
    assert not (folder / "manifest.yaml").exists()
    assert folder.exists()
    assert (await gateway.info(running))["state"] == "Plan"
    wrong = {"manifest_yaml": manifest(), "install_dir": str(tmp_path / "nowhere")}
    refused(await gateway.ask("POST", "/store/agents", wrong), 422, "install_folder")
    refused(await gateway.ask("POST", "/store/agents", {"manifest_yaml": "{}"}), 422, "invalid_manifest")
    refused(
        await gateway.ask("POST", "/store/agents", {"manifest_yaml": manifest()}, who=running), 403, "scope_missing"
    )


async def test_the_program_of_an_installed_agent_lies_in_its_folder(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "greeter").write_text("#!/bin/sh\necho hello\n")
    (folder / "greeter").chmod(0o755)
    body = {"manifest_yaml": manifest("greeter"), "install_dir": str(folder)}
    assert (await gateway.ask("POST", "/store/agents", body)).status == 201
    agent_id = (await gateway.ask("POST", "/agents", {"name": "greeter"})).json()["id"]
    assert (await gateway.ask("GET", f"/agents/{agent_id}/logs?wait=20")).body == b"hello\n"


async def test_a_workspace_is_kept_and_returned_to(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest())
    files, path = gateway.daemon.engine.files, f"/agents/{agent_id}/workspace"
    await files.write(AgentId(agent_id), "/workspace/a", b"first", append=False)
    got = await gateway.ask("POST", f"{path}/snapshots", {"description": "before"})
    assert (got.status, got.json()["index"], got.json()["description"]) == (201, 0, "before")
    await files.write(AgentId(agent_id), "/workspace/a", b"second", append=False)
    await files.write(AgentId(agent_id), "/workspace/b", b"new", append=False)
    changed = (await gateway.ask("GET", f"{path}/diff")).json()
    assert changed == [
        {"path": "/workspace/a", "change": "modified"},
        {"path": "/workspace/b", "change": "added"},
    ]
    assert (await gateway.ask("POST", f"{path}/rollback", {"index": 0})).status == 200
    assert (await files.read(AgentId(agent_id), "/workspace/a", limit=99)).content == b"first"
    assert (await gateway.ask("GET", f"{path}/diff")).json() == []
    refused(await gateway.ask("POST", f"{path}/rollback", {"index": 7}), 404, "snapshot_not_found")
    assert (await gateway.ask("POST", f"{path}/commit")).status == 201
    assert len((await gateway.ask("GET", f"{path}/snapshots")).json()) == 2
    refused(await gateway.ask("POST", f"{path}/snapshots", who=agent_id), 403, "denied")
    done = await gateway.daemon.told(agent_id, "WorkspaceSnapshot", "WorkspaceRollback", "WorkspaceCommit")
    assert [(entry["action"], entry["outcome"]) for entry in done if entry["kind"] == "outcome"] == [
        ("WorkspaceSnapshot", "success"),
        ("WorkspaceRollback", "success"),
        ("WorkspaceRollback", "failure"),
        ("WorkspaceCommit", "success"),
    ]


async def test_a_running_agent_stands_still_while_its_workspace_is_rolled_back(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(shell("while :; do echo tick; echo x >> log; sleep 0.02; done"))
    path = f"/agents/{agent_id}"
    assert (await gateway.ask("GET", f"{path}/logs?wait=20")).body.startswith(b"tick\n")
    await gateway.ask("POST", f"{path}/workspace/snapshots")
    assert (await gateway.ask("POST", f"{path}/workspace/rollback", {"index": 0})).status == 200
    before = (await gateway.ask("GET", f"{path}/logs")).headers["x-log-next-offset"]
    assert (await gateway.ask("GET", f"{path}/logs?offset={before}&wait=20")).body.startswith(b"tick\n")
    assert (await gateway.info(agent_id))["status"] == "running"


async def test_snapshots_are_taken_at_their_interval(gateway: Gateway) -> None:
    wanted = {"auto_snapshot": True, "snapshot_interval_secs": 1}
    agent_id = await gateway.spawn(manifest(workspace=wanted))

    async def has_some() -> bool:
        await gateway.daemon.workspaces.snapshot_due()
        return len((await gateway.ask("GET", f"/agents/{agent_id}/workspace/snapshots")).json()) == 2

    await eventually(has_some)


@pytest.mark.parametrize("path", [f"/agents/{new_id()}/timeline", "/anomalies"], ids=["timeline", "anomalies"])
async def test_what_comes_later_says_so(gateway: Gateway, path: str) -> None:
    refused(await gateway.ask("GET", path), 501, "not_available")


async def test_courses_outlive_the_daemon(gateway: Gateway) -> None:
    agent_id = await gateway.spawn(manifest())
    await gateway.ask("PATCH", f"/agents/{agent_id}/schedule", {"priority": 7})
    await gateway.ask("PUT", f"/agents/{agent_id}/plan", {"steps": [{"description": "rest"}]})
    courses: Courses = gateway.daemon.stores.courses
    before = await courses.get(AgentId(agent_id))
    await gateway.daemon.restart()
    assert await gateway.daemon.stores.courses.get(AgentId(agent_id)) == before
