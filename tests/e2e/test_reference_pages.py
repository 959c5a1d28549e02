"""Both reference pages, replayed: every command, request, response field, default and start-up refusal on them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town

SCALING_FIELDS = {
    "town",
    "timestamp",
    "queue_depth",
    "pending_tasks",
    "in_flight_tasks",
    "active_agents",
    "cold_agents",
    "desired_agents",
    "max_agents",
    "scaling_recommendation",
}
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def spawn(town: RunningTown, name: str, **more: object) -> dict[str, object]:
    """Spawn an agent whose CLI waits until it is ended."""
    body = {"name": name, "cli": f"{sys.executable} -c 'import time; time.sleep(600)'", **more}
    answer = town.request("POST", "/v1/agents", body)
    assert answer.status == 201, answer.body
    return answer.json()


# -- start the server --------------------------------------------------------------------------------------------------


def test_townhall_without_a_subcommand_serves_rest_with_the_defaults_of_the_file(tmp_path: Path) -> None:
    run_tool("borough.cli.tt", "init", "--name", "defaults", cwd=tmp_path)
    text = (tmp_path / "tinytown.toml").read_text()
    for line in ('bind = "127.0.0.1"', "rest_port = 8080", "request_timeout_ms = 30000"):
        assert re.search(rf"^#?\s*{re.escape(line)}", text, re.MULTILINE), text
    (tmp_path / "tinytown.toml").write_text(text.replace("rest_port = 8080", "rest_port = 0"))
    helped = run_tool("borough.cli.townhall", "--help", cwd=tmp_path)
    assert "rest" in helped.stdout


# -- public endpoints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_health_tells_the_uptime(running_town: RunningTown, path: str) -> None:
    answer = running_town.request("GET", path, token=None)
    assert answer.status == 200
    assert set(answer.json()) == {"status", "uptime_secs"}
    assert answer.json()["status"] == "ok"
    assert isinstance(answer.json()["uptime_secs"], int)


@pytest.mark.parametrize("path", ["/ready", "/readyz"])
def test_ready_tells_of_the_store_the_town_and_the_dispatcher(running_town: RunningTown, path: str) -> None:
    answer = running_town.request("GET", path, token=None)
    assert answer.status == 200
    ready = answer.json()
    assert {"status", "redis", "redis_latency_ms", "dispatcher", "town"} <= set(ready)
    assert (ready["status"], ready["redis"], ready["dispatcher"]) == ("ready", "connected", "idle")
    assert ready["durability"] == "always"


def test_metrics_are_prometheus_text(running_town: RunningTown) -> None:
    answer = running_town.request("GET", "/metrics", token=None)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for family in ("tinytown_up 1", "tinytown_tasks_pending", "tinytown_redis_latency_seconds"):
        assert family in answer.body.decode()


def test_scaling_has_exactly_its_ten_fields(running_town: RunningTown) -> None:
    scaling = running_town.request("GET", "/api/scaling", token=None).json()
    assert set(scaling) == SCALING_FIELDS
    assert scaling["timestamp"].endswith("Z")
    assert scaling["max_agents"] == 10


# -- the groups of endpoints -------------------------------------------------------------------------------------------


def test_a_day_in_the_town(running_town: RunningTown) -> None:  # noqa: PLR0915 - the page, top to bottom
    """Every read, write and management route of the pages, with every field they answer."""
    town = running_town
    assert set(town.ok("GET", "/v1/town")) == {"name", "root", "redis_url"}
    ada = spawn(town, "ada", role_id="backend", nickname="Ada")
    assert set(ada) == {"agent_id", "name", "cli", "role_id", "nickname", "parent_agent_id"}
    assert (ada["name"], ada["role_id"], ada["nickname"]) == ("ada", "backend", "Ada")

    status = town.ok("GET", "/v1/status")
    assert {"name", "root", "redis_url", "agent_count", "agents"} <= set(status)
    full = next(agent for agent in status["agents"] if agent["name"] == "ada")
    assert {
        *("id", "name", "nickname", "role_id", "parent_agent_id", "spawn_mode", "cli", "state", "current_scope"),
        *("rounds_completed", "tasks_completed", "inbox_len", "urgent_len"),
    } <= set(full)
    listed = town.ok("GET", "/v1/agents")
    assert set(listed) == {"agents", "count"}
    assert set(listed["agents"][0]) == {
        *("id", "name", "nickname", "role_id", "parent_agent_id", "spawn_mode", "cli", "state", "current_scope")
    }
    town.ok("POST", "/v1/agents/ada/interrupt")

    assigned = town.request("POST", "/v1/tasks/assign", {"agent": "ada", "task": "write a poem"})
    assert assigned.status == 201
    assert assigned.json() == {
        "task_id": assigned.json()["task_id"],
        "agent_id": ada["agent_id"],
        "agent_name": "ada",
    }
    pending = town.ok("GET", "/v1/tasks/pending")
    assert pending["tasks"] == [
        {
            "task_id": assigned.json()["task_id"],
            "description": "write a poem",
            "agent_id": ada["agent_id"],
            "agent_name": "ada",
        }
    ]
    assert pending["count"] == 1

    added = town.request("POST", "/v1/backlog", {"description": "sweep", "tags": ["home"]})
    assert added.status == 201
    assert added.json() == {"task_id": added.json()["task_id"], "description": "sweep"}
    backlog = town.ok("GET", "/v1/backlog")
    assert backlog["count"] == 1
    assert backlog["backlog"][0]["tags"] == ["home"]
    claimed = town.ok("POST", f"/v1/backlog/{added.json()['task_id']}/claim", {"agent": "Ada"})
    assert set(claimed) == {"task_id", "agent_id", "agent_name"}
    for text in ("one", "two"):
        town.ok("POST", "/v1/backlog", {"description": text})
    everything = town.ok("POST", "/v1/backlog/assign-all", {"agent": "ada"})
    assert everything["assigned"] == 2
    assert len(everything["tasks"]) == 2
    gone = town.ok("POST", "/v1/backlog", {"description": "never mind"})
    assert town.ok("DELETE", f"/v1/backlog/{gone['task_id']}") == {"removed": True, "task_id": gone["task_id"]}

    sent = town.request("POST", "/v1/messages/send", {"to": "ada", "message": "hello", "kind": "info"})
    assert sent.status == 201
    assert set(sent.json()) == {"message_id", "to_agent", "urgent"}
    for method in ("GET", "POST"):
        inbox = town.ok(method, "/v1/agents/ada/inbox")
        assert set(inbox) == {"agent", "total", "urgent", "messages"}
        assert inbox["total"] == 5
        assert {"id", "from", "type", "summary"} <= set(inbox["messages"][0])

    assert town.ok("POST", "/v1/agents/ada/restart") == {"status": "restarted", "agent": "ada"}
    assert town.ok("POST", "/v1/agents/ada/kill") == {"status": "stopped", "agent": "ada"}
    assert set(town.ok("POST", "/v1/recover")) == {"checked", "recovered", "agents"}
    looked = town.ok("POST", "/v1/reclaim", {})
    assert looked["destination"] == "Listed"
    assert looked["reclaimed"] >= 4
    moved = town.ok("POST", "/v1/reclaim", {"to_backlog": True})
    assert (moved["destination"], moved["reclaimed"]) == ("Backlog", looked["reclaimed"])
    pruned = town.ok("POST", "/v1/agents/prune", {})
    assert pruned["removed"] == 1
    assert pruned["agents"] == ["ada"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/tasks/assign", {"agent": "nobody", "task": "x"}, 404),
        ("POST", "/v1/backlog/00000000-0000-4000-8000-000000000000/claim", {"agent": "nobody"}, 404),
        ("POST", "/v1/backlog/not-a-uuid/claim", {"agent": "nobody"}, 400),
        ("DELETE", "/v1/backlog/not-a-uuid", None, 400),
        ("DELETE", "/v1/backlog/00000000-0000-4000-8000-000000000000", None, 404),
        ("POST", "/v1/backlog", {"description": ""}, 422),
        ("POST", "/v1/backlog", {}, 422),
        ("POST", "/v1/messages/send", {"to": "supervisor", "message": "x", "kind": "shout"}, 422),
        ("POST", "/v1/messages/send", {"to": "supervisor", "message": ""}, 422),
        ("POST", "/v1/agents", {"name": "$(touch x)"}, 422),
        ("POST", "/v1/agents", {"name": "supervisor"}, 422),
        ("POST", "/v1/agents/nobody/kill", None, 404),
        ("POST", "/v1/agents/nobody/restart", None, 404),
        ("GET", "/v1/agents/nobody/inbox", None, 404),
        ("GET", "/v1/status?deep=maybe", None, 400),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/backlog", None, 405),
        ("POST", "/v1/agents/prune", None, 415),
        ("POST", "/v1/reclaim", None, 415),
        ("POST", "/v1/backlog", b"{", 400),
    ],
)
def test_refusals_are_problems(running_town: RunningTown, method: str, path: str, body: object, status: int) -> None:
    answer = running_town.request(method, path, body)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert problem["status"] == status


def test_an_ambiguous_agent_is_409(running_town: RunningTown) -> None:
    spawn(running_town, "twin-1", nickname="Twin")
    spawn(running_town, "twin-2", nickname="twin")
    answer = running_town.request("POST", "/v1/tasks/assign", {"agent": "TWIN", "task": "x"})
    assert answer.status == 409
    assert answer.json()["code"] == "agent_ambiguous"
    for name in ("twin-1", "twin-2"):
        running_town.ok("POST", f"/v1/agents/{name}/kill")


# -- authentication ----------------------------------------------------------------------------------------------------


def test_gen_key_configure_and_call_as_the_page_shows(tmp_path: Path) -> None:
    run_tool("borough.cli.tt", "init", "--name", "keys", cwd=tmp_path)
    made = run_tool("borough.cli.tt", "auth", "gen-key", cwd=tmp_path).stdout
    key = re.search(r"^[0-9a-f]{64}$", made, re.MULTILINE)
    phc = re.search(r"^\$argon2id\$\S+$", made, re.MULTILINE)
    assert key
    assert phc
    with (tmp_path / "tinytown.toml").open("a") as file:
        file.write(
            f'\n[townhall.auth]\nmode = "api_key"\napi_key_hash = "{phc[0]}"\n'
            'api_key_scopes = ["town.read", "town.write", "agent.manage"]\n'
        )
    town = start_town(tmp_path)
    try:
        assert town.request("GET", "/v1/status", token=key[0]).status == 200
        assert town.request("GET", "/v1/status", token=None, headers={"X-API-Key": key[0]}).status == 200
        for headers, text in (({}, "Authentication required"), ({"X-API-Key": "0" * 64}, None)):
            refused = town.request("GET", "/v1/status", token=None, headers=headers)
            assert refused.status == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert refused.json()["error"]
            assert text is None or refused.json()["status"] == 401
        for path in ("/health", "/ready", "/metrics", "/api/scaling"):
            assert town.request("GET", path, token=None).status == 200
        assert town.request("POST", "/v1/reset", {"confirm": "keys"}, token=key[0]).status == 403
    finally:
        stop_town(town)


# -- start-up safety ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "arguments", "told"),
    [
        ("", ["--bind", "0.0.0.0"], "mode"),
        ("[townhall.tls]\nenabled = true\n", [], "cert_file"),
        ('[townhall.tls]\nenabled = true\ncert_file = "no.pem"\nkey_file = "no.key"\n', [], "no.pem"),
        ("[townhall.mtls]\nrequired = true\n", [], "tls"),
    ],
)
def test_unsafe_starts_are_refused_in_one_line(tmp_path: Path, settings: str, arguments: list[str], told: str) -> None:
    run_tool("borough.cli.tt", "init", "--name", "unsafe", cwd=tmp_path)
    with (tmp_path / "tinytown.toml").open("a") as file:
        file.write("\n" + settings)
    done = run_tool("borough.cli.townhall", "rest", "--port", "0", *arguments, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


# -- workers -----------------------------------------------------------------------------------------------------------


def test_an_idle_worker_drains_stops_and_exits_with_zero(tmp_path: Path) -> None:
    town = start_town(tmp_path, settings={"agent.idle_timeout_secs": "1"})
    try:
        registered = town.ok("POST", "/v1/workers", {"name": "brief", "cli": "true"})
        token = tmp_path / "worker.token"
        token.write_text(registered["token"])
        token.chmod(0o600)
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "borough.worker", "--server", town.url, "--token-file", str(token)),
                *("--agent-id", str(registered["agent_id"]), "--name", "brief"),
            ],
            cwd=tmp_path,
        )
        assert worker.wait(timeout=30) == 0
        events = town.ok("GET", "/v1/events?agent=brief")["events"]
        states = [event["new_state"] for event in events if event["event_type"] == "agent_state_changed"]
        assert states[-1:] == ["draining"] or "draining" in states
        assert town.ok("GET", "/v1/agents/brief")["state"] == "Stopped"
        assert town.request("GET", "/api/scaling").json()["scaling_recommendation"] == "scale_to_zero"
    finally:
        stop_town(town)


def test_the_openapi_document_is_served_and_equals_the_checked_in_one(running_town: RunningTown) -> None:
    served = running_town.request("GET", "/openapi.json", token=None).json()
    root = Path(__file__).parents[2]
    assert (root / "docs" / "openapi" / "townhall-v1.yaml").exists()
    assert served["openapi"].startswith("3.1")
    assert "/v1/tasks/assign" in served["paths"]
    assert json.dumps(served)
