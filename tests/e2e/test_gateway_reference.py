"""The reference page of the gateway, replayed: each of its command lines as it stands there, each shape that it shows.

The lines are run by a shell. Replaced in them are the address, the token, ids, what stands for a whole manifest
(``...``), and the program that the page starts through its build tool.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.config.governance import load_governance
from tests.conftest import need
from tests.e2e.conftest import until
from tests.e2e.daemon import AGENTD, NOBODY, RunningDaemon, free_port, manifest, refused_start, serving

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SIX_KEYS = {"id", "agent_id", "action", "timestamp", "prev_hash", "hash"}

HEALTH = "curl http://127.0.0.1:8080/health"
LIST = 'curl -H "Authorization: Bearer <token>" http://127.0.0.1:8080/agents'
SPAWN_INLINE = r"""curl -X POST \
  -H "Authorization: Bearer <token>" \
  -H "Content-Type: application/json" \
  -d '{"manifest_yaml": "apiVersion: scarab/v1\nkind: AgentManifest\n..."}' \
  http://127.0.0.1:8080/agents"""
SPAWN_BY_NAME = r"""curl -X POST \
  -H "Authorization: Bearer <token>" \
  -H "Content-Type: application/json" \
  -d '{"name": "report-agent", "task_override": "Summarize Q1 results"}' \
  http://127.0.0.1:8080/agents"""
SHOW = r"""curl -H "Authorization: Bearer <token>" \
  http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000"""
TERMINATE = r"""curl -X DELETE \
  -H "Authorization: Bearer <token>" \
  http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000"""
TOOLS = r"""curl -H "Authorization: Bearer <token>" \
  http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000/tools"""
INVOKE = r"""curl -X POST \
  -H "Authorization: Bearer <token>" \
  -H "Content-Type: application/json" \
  -d '{"message": "hello"}' \
  http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000/tools/echo"""
AUDIT = r"""curl -H "Authorization: Bearer <token>" \
  "http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000/audit?limit=50&since=2026-01-01T00:00:00Z&until=2026-12-31T23:59:59Z"
"""
MEMORY = r"""curl -H "Authorization: Bearer <token>" \
  http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000/memory/last-run-result"""
OBSERVATIONS = r"""curl -H "Authorization: Bearer <token>" \
  http://127.0.0.1:8080/agents/550e8400-e29b-41d4-a716-446655440000/observations"""
EVENTS = r"""curl -H "Authorization: Bearer <token>" \
  -H "Accept: text/event-stream" \
  http://127.0.0.1:8080/events"""
CREATE_KEY = 'ash api-key create --name "ci-pipeline" --agent-id 550e8400-e29b-41d4-a716-446655440000'
OTHER_ADDRESS = "AGENTD_API_ADDR=0.0.0.0:9090 cargo run --bin agentd"
ONE_ORIGIN = "AGENTD_API_CORS_ORIGINS=https://dashboard.example.com cargo run --bin agentd"

TIMEOUT_0 = "  lifecycle: {timeout_secs: 0}\n"
ENDPOINTS = """\
GET /health None
GET /agents Bearer
POST /agents Bearer
GET /agents/:id Bearer
DELETE /agents/:id Bearer
GET /agents/:id/tools Bearer
POST /agents/:id/tools/:name Bearer
GET /agents/:id/audit Bearer
GET /agents/:id/memory/:key Bearer
GET /agents/:id/observations Bearer
GET /events Bearer"""


@dataclass(kw_only=True)
class Page:
    """A daemon with what the page's examples take for granted: an agent, a key that is bound to it, ``curl``."""

    daemon: RunningDaemon
    agent_id: str
    token: str
    home: Path

    def line(self, written: str, *, agent_id: str | None = None, token: str | None = None) -> str:
        """Return a line of the page with its placeholders filled."""
        rest = manifest("inline-agent").removeprefix("apiVersion: scarab/v1\nkind: AgentManifest\n")
        replaced = {
            "http://127.0.0.1:8080": self.daemon.url,
            "<token>": self.token if token is None else token,
            NOBODY: agent_id or self.agent_id,
            "\\n...": "\\n" + json.dumps(rest)[1:-1],
        }
        for old, new in replaced.items():
            written = written.replace(old, new)
        return written

    def run(self, written: str, **more: Any) -> tuple[int, Any]:
        """Run a line in a shell; return the status and what was answered."""
        done = subprocess.run(
            ["/bin/sh", "-c", self.line(written, **more)], env=self.environ, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else None

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "CURL_HOME": str(self.home)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    need(shutil.which("curl"), "curl", "apt-get install curl")
    home = tmp_path_factory.mktemp("curl")
    (home / ".curlrc").write_text('silent\nshow-error\nno-buffer\nwrite-out = "\\n%{http_code}"\n')
    with serving(tmp_path_factory.mktemp("agentd")) as daemon:
        agent_id = daemon.spawn("report-agent")
        yield Page(daemon=daemon, agent_id=agent_id, token=daemon.key("page", agent_id), home=home)


# -- starting ----------------------------------------------------------------------------------------------------------


def test_the_gateway_starts_with_the_daemon_and_its_health_needs_no_key(page: Page) -> None:
    status, told = page.run(HEALTH)
    assert status == 200
    assert set(told) == {"status", "version", "uptime_secs"}
    assert told["status"] == "ok"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", told["version"])
    assert isinstance(told["uptime_secs"], int)

    def older() -> bool:
        return bool(page.run(HEALTH)[1]["uptime_secs"] > told["uptime_secs"])

    until(older)


def test_the_environment_says_where_it_listens(tmp_path: Path, page: Page) -> None:
    port = free_port()
    line = OTHER_ADDRESS.replace("9090", str(port)).replace("cargo run --bin agentd", " ".join(AGENTD))
    environ = {**os.environ, "AGENTD_DATA_DIR": str(tmp_path / "data"), "SCARAB_SOCKET": str(tmp_path / "s"),
               "AGENTD_API_TOKEN_DB": str(tmp_path / "tokens.db")}  # fmt: skip
    process = subprocess.Popen(["/bin/sh", "-c", f"exec env {line}"], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f":{port} " in process.stdout.readline()
        answered = page.run(HEALTH.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
        assert answered[0] == 200
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.communicate()


def test_the_three_variables_have_the_defaults_of_the_page() -> None:
    settings = load_governance({"HOME": "/nowhere"})
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.cors_origins == ()
    assert settings.token_db == Path("/tmp/agentd_api_tokens.db")


def test_a_taken_port_is_told_in_one_line(page: Page, tmp_path: Path) -> None:
    port = page.daemon.url.rpartition(":")[2]
    told = refused_start(tmp_path, AGENTD_API_ADDR=f"127.0.0.1:{port}")
    assert told.count("\n") == 1
    assert port in told
    assert "AGENTD_API_ADDR" in told


NOT_THERE = "6f1e0c52-3c0e-4a9d-9d0b-2f6f1c1f7b11"
"""Of the page's own there may be entries in the ledger: a key is bound to it."""

# -- authentication ----------------------------------------------------------------------------------------------------


def test_a_key_is_made_as_the_page_shows_and_only_its_hash_is_kept(page: Page) -> None:
    words = shlex.split(CREATE_KEY)[1:]
    told = page.daemon.ash(*words)
    lines = told.out.splitlines()
    assert lines[:3] == ["Created API key 'ci-pipeline'", f"Agent: {NOBODY}", ""]
    token = re.fullmatch(r"Token: ([0-9a-f]{64})", lines[3])
    assert token
    assert lines[4:] == ["", "Save this token. It will not be shown again."]
    assert "agent" in told.err, "nobody has this id: that is worth a word"
    assert page.run(LIST, token=token[1])[0] == 200

    files = [path for path in page.daemon.folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path for path in files if token[1].encode() in path.read_bytes()] == []
    database = page.daemon.folder / "tokens.db"
    assert database.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(database) as connection:
        found = [row for (sql,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                 for row in connection.execute(f"SELECT * FROM {sql}")]  # fmt: skip
    assert hashlib.sha256(token[1].encode()).hexdigest() in str(found)

    page.daemon.ash("api-key", "revoke", "ci-pipeline")
    assert page.run(LIST, token=token[1])[0] == 401


@pytest.mark.parametrize("row", ENDPOINTS.splitlines())
def test_each_row_of_the_summary_is_there_and_wants_what_it_says(page: Page, row: str) -> None:
    method, path, auth = row.split(" ")
    path = path.replace(":id", page.agent_id).replace(":name", "echo").replace(":key", "nothing")
    refusals = [
        page.daemon.request(method, path, token=None),
        page.daemon.request(method, path, token="0" * 64),
        page.daemon.request(method, path, token=None, headers={"Authorization": "Bearer"}),
        page.daemon.request(method, path, token=None, headers={"Authorization": "Basic YTpi"}),
    ]
    if auth == "None":
        assert {refusal.status for refusal in refusals} == {200}
        return
    for refusal in refusals:
        assert refusal.status == 401
        assert refusal.headers["www-authenticate"].startswith("Bearer")
        assert set(refusal.json()) >= {"error", "code", "request_id"}
        assert refusal.json()["code"] == "unauthorized"
        assert refusal.headers["x-request-id"] == refusal.json()["request_id"]
    assert len({refusal.json()["error"] for refusal in refusals}) == 1, "the cause is nobody's business"
    if method == "GET" and path != "/events":
        answered = page.daemon.request(method, path, token=None, headers={"Authorization": f"bearer {page.token}"})
        assert answered.status in {200, 404}


# -- agents ------------------------------------------------------------------------------------------------------------


def test_the_list_has_running_agents_with_four_fields(page: Page) -> None:
    status, agents = page.run(LIST)
    assert status == 200
    found = next(agent for agent in agents if agent["id"] == page.agent_id)
    shown = {name: found[name] for name in ("id", "name", "state", "trust_level")}
    assert shown == {"id": page.agent_id, "name": "report-agent", "state": "Plan", "trust_level": "sandboxed"}


def test_an_agent_is_started_from_a_manifest_looked_at_and_terminated(page: Page) -> None:
    status, made = page.run(SPAWN_INLINE)
    assert status == 201
    assert set(made) == {"id"}
    assert UUID.fullmatch(made["id"])
    assert made["id"] in [agent["id"] for agent in page.run(LIST)[1]]

    status, shown = page.run(SHOW, agent_id=made["id"])
    assert status == 200
    assert (shown["id"], shown["name"], shown["state"]) == (made["id"], "inline-agent", "Plan")
    assert {
        *("version", "description", "trust_level", "capabilities", "parent_id", "spawned_at", "uptime_secs"),
        *("resources", "network", "task", "model", "tainted", "cost_total", "priority", "deadline"),
    } <= set(shown)

    status, nothing = page.run(TERMINATE, agent_id=made["id"])
    assert (status, nothing) == (204, None)
    assert made["id"] not in [agent["id"] for agent in page.run(LIST)[1]]
    assert page.run(SHOW, agent_id=made["id"])[1]["state"] == "Terminate"
    assert page.run(TERMINATE, agent_id=made["id"])[0] == 204
    moves = [entry for entry in page.daemon.entries(made["id"]) if entry["action"] == "LifecycleTransition"]
    assert len(moves) >= 2
    assert "Terminate" in moves[-1]["detail"]
    assert page.run(INVOKE, agent_id=made["id"])[0] == 409


def test_an_agent_is_started_by_its_installed_name_with_another_task(page: Page, tmp_path: Path) -> None:
    program = 'printf \'%s\\n\' "task=$SCARAB_TASK" "id=$SCARAB_AGENT_ID"; sleep 300'
    more = f"  task: Summarize everything\n  command: /bin/sh\n  args: [-c, {json.dumps(program)}]\n"
    written = tmp_path / "manifest.yaml"
    written.write_text(manifest("report-agent", more=more))
    page.daemon.ash("agent", "install", str(written))

    status, made = page.run(SPAWN_BY_NAME)
    assert status == 201
    assert set(made) == {"id"}

    def printed() -> str:
        return page.daemon.request("GET", f"/agents/{made['id']}/logs").body.decode()

    until(lambda: made["id"] in printed())
    assert "task=Summarize Q1 results\n" in printed()
    stored = page.daemon.ok("GET", "/store/agents/report-agent")
    assert "Summarize everything" in stored["manifest_yaml"]
    page.daemon.ok("DELETE", f"/agents/{made['id']}")

    status, refused = page.run(SPAWN_BY_NAME.replace("report-agent", "nobody-installed-this"))
    assert status == 404
    assert refused["error"] == "agent store: not found: nobody-installed-this"


@pytest.mark.parametrize("agent_id", [NOT_THERE, "not-an-id"])
def test_an_agent_that_is_not_there_is_404(page: Page, agent_id: str) -> None:
    for line in (SHOW, TERMINATE, TOOLS, INVOKE, AUDIT, MEMORY, OBSERVATIONS):
        status, told = page.run(line, agent_id=agent_id)
        assert status == 404, (line, told)
        assert told["error"] == f"agent not found: {agent_id}"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, ""),
        ({}, 400, ""),
        ({"name": "a", "manifest_yaml": "b"}, 400, ""),
        ({"manifest_yaml": manifest("a", trust="divine")}, 422, "invalid manifest: "),
        ({"manifest_yaml": manifest("a").replace("v1", "v9", 1)}, 422, "unsupported api version: scarab/v9"),
        ({"manifest_yaml": manifest("a", more=TIMEOUT_0)}, 422, "lifecycle timeout_secs=0 is invalid"),
    ],
)  # fmt: skip
def test_what_cannot_be_started_is_refused_by_its_kind(page: Page, body: Any, status: int, told: str) -> None:
    answer = page.daemon.request("POST", "/agents", body, token=page.token)
    assert answer.status == status, answer.body
    assert told in answer.json()["error"]


# -- tools -------------------------------------------------------------------------------------------------------------


def test_the_tools_of_an_agent_are_listed(page: Page) -> None:
    status, tools = page.run(TOOLS)
    assert status == 200
    echo = next(tool for tool in tools if tool["name"] == "echo")
    assert {"name", "requires_approval", "approval_timeout_secs", "estimated_cost", "input_schema",
            "output_schema", "category"} <= set(echo)  # fmt: skip
    assert (echo["requires_approval"], echo["estimated_cost"], echo["category"]) == (False, 0.1, "Internal")


def test_a_tool_is_called_with_and_without_a_body(page: Page) -> None:
    status, told = page.run(INVOKE)
    assert status == 200
    assert (told["status"], told["output"], told["cost"]) == ("success", {"message": "hello"}, 0.1)
    assert isinstance(told["duration_ms"], int)
    made = page.daemon.entries(page.agent_id)[-1]
    assert (made["action"], made["request_id"]) == ("ToolInvoke", told["request_id"])
    without = INVOKE.replace("""  -H "Content-Type: application/json" \\\n  -d '{"message": "hello"}' \\\n""", "")
    assert without.count("\n") == 2
    status, told = page.run(without)
    assert (status, told["status"], told["output"]) == (200, "success", {})
    status, bare = page.run(INVOKE.replace("/echo", "'/echo?raw=1'"))
    assert (status, bare) == (200, {"message": "hello"})


def test_a_call_that_the_bound_agent_may_not_make_is_refused_and_recorded(page: Page) -> None:
    narrow = page.daemon.spawn("narrow", "tool.invoke:agent.info")
    token = page.daemon.key("narrow", narrow)
    for caller, target in ((token, narrow), (token, page.agent_id)):
        status, told = page.run(INVOKE, token=caller, agent_id=target)
        assert (status, told["code"]) == (403, "denied")
    refused = [entry for entry in page.daemon.entries(narrow) if entry["outcome"] == "denied"]
    assert [entry["agent_id"] for entry in refused] == [narrow, narrow]
    assert refused[1]["on_behalf_of"] == page.agent_id
    assert refused[1]["token_name"] == "narrow"
    assert refused[1]["via"] == "http"


def test_a_tool_that_is_not_there_is_404_and_a_misfit_400(page: Page) -> None:
    assert page.run(INVOKE.replace("/echo", "/no.such.tool"))[0] == 404
    status, told = page.run(INVOKE.replace("/echo", "/fs.read"))
    assert (status, told["code"]) == (400, "invalid_request")
    status, told = page.run(INVOKE.replace('{"message": "hello"}', '{"message"'))
    assert (status, told["code"]) == (400, "invalid_request")


# -- audit -------------------------------------------------------------------------------------------------------------


def test_the_trail_is_limited_and_bounded_in_time_at_both_ends(page: Page) -> None:
    year = datetime.now(UTC).year
    line = AUDIT.strip().replace("2026", str(year))
    for _ in range(3):
        page.run(INVOKE)
    status, entries = page.run(line)
    assert status == 200
    assert 3 <= len(entries) <= 50
    for entry in entries:
        assert set(entry) >= SIX_KEYS
        assert page.agent_id in {entry["agent_id"], entry.get("on_behalf_of")}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["timestamp"])
    assert [entry["timestamp"] for entry in entries] == sorted(entry["timestamp"] for entry in entries)
    calls = [entry for entry in entries if entry["action"] == "ToolInvoke" and entry["outcome"] == "success"]
    assert 'echo({"message":"hello"})' in calls[-1]["detail"]

    assert page.run(line.replace("limit=50", "limit=1"))[1] == entries[-1:]
    at = calls[-1]["timestamp"]
    window = f"limit=50&since={at}&until={at}"
    only = page.run(re.sub(r"limit=50&since=[^&]*&until=[^\"]*", window, line))[1]
    assert calls[-1]["id"] in [entry["id"] for entry in only]
    assert {entry["timestamp"] for entry in only} == {at}
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert page.run(re.sub(r"since=[^&]*&until=[^\"]*", f"since={later}", line))[1] == [], "with +00:00, as it comes"


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "limit=-1", "limit=10001", "since=yesterday", "until=7"])
def test_a_bad_bound_is_400(page: Page, query: str) -> None:
    answer = page.daemon.request("GET", f"/agents/{page.agent_id}/audit?{query}", token=page.token)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")


def test_requests_are_attributed_to_the_bound_agent(page: Page) -> None:
    other = page.daemon.spawn("other")
    page.run(INVOKE, agent_id=other)
    made = page.daemon.entries(other)[-1]
    assert (made["agent_id"], made["on_behalf_of"], made["token_name"]) == (page.agent_id, other, "page")


# -- memory and observations -------------------------------------------------------------------------------------------


def test_a_memory_key_is_read_that_the_shell_has_written(page: Page) -> None:
    assert page.run(MEMORY)[0] == 404
    page.daemon.ash("memory", "write", page.agent_id, "last-run-result", '{"rows": 3}')
    status, told = page.run(MEMORY)
    assert status == 200
    assert (told["key"], told["value"], told["version"], told["expires_at"]) == (
        *("last-run-result", {"rows": 3}, 1, None),
    )
    for key in ("a/b/c", "a%2Fb%2Fc"):
        page.daemon.ok("PUT", f"/agents/{page.agent_id}/memory/{key}", {"value": key})
        assert page.run(MEMORY.replace("last-run-result", "a/b/c"))[1]["value"] == key


def test_observations_are_what_the_agent_appended(page: Page) -> None:
    assert page.run(OBSERVATIONS) == (200, [])
    told = {"action": "fetch", "result": "three rows", "tags": ["q1"], "metadata": {"rows": 3}}
    page.daemon.ok("POST", f"/agents/{page.agent_id}/observations", told, token=page.token)
    status, listed = page.run(OBSERVATIONS)
    assert status == 200
    assert {name: listed[0][name] for name in told} == told
    assert listed[0]["agent_id"] == page.agent_id
    assert {"id", "timestamp", "prev_hash", "hash"} <= set(listed[0])


# -- events ------------------------------------------------------------------------------------------------------------


def test_the_stream_shows_entries_of_all_agents_as_data_lines(page: Page) -> None:
    other = page.daemon.spawn("watched")
    line = page.line(EVENTS).replace("/events", "/events?_cursor=anything")
    stream = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {line}"], env=page.environ, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert stream.stdout is not None
    try:
        first = stream.stdout.readline()
        assert first.startswith(":"), "a stream says at once that it is there"
        page.daemon.ok("POST", f"/agents/{other}/tools/echo", {"n": 1})
        page.daemon.ok("POST", f"/agents/{other}/transitions", {"state": "act"})
        seen: list[dict[str, Any]] = []
        while len(seen) < 3:
            told = stream.stdout.readline().rstrip("\n")
            name, _, value = told.partition(":")
            assert name in {"data", "id", ""}, told
            if name == "data":
                seen.append(json.loads(value))
                assert stream.stdout.readline() == "\n"
    finally:
        stream.kill()
        stream.communicate()
    assert all(set(entry) >= SIX_KEYS for entry in seen)
    assert {"ToolInvoke", "LifecycleTransition"} <= {entry["action"] for entry in seen}
    assert {other} == {entry.get("on_behalf_of") or entry["agent_id"] for entry in seen}


# -- pages of other origins --------------------------------------------------------------------------------------------

DASHBOARD = "https://dashboard.example.com"


def preflight(daemon: RunningDaemon, origin: str) -> dict[str, str]:
    """Ask as a browser does before a request of a page; no key goes with it."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE",
             "Access-Control-Request-Headers": "authorization, x-anything"}  # fmt: skip
    answer = daemon.request("OPTIONS", "/agents", token=None, headers=asked)
    assert answer.status in {200, 204}
    return answer.headers


def allows(daemon: RunningDaemon, origin: str) -> str | None:
    """Return which origin a real answer names, having made sure that the answer to a preflight says the same."""
    answer = daemon.request("GET", "/agents", headers={"Origin": origin})
    assert answer.status == 200, "what a browser does with the answer is the browser's"
    before = preflight(daemon, origin)
    named = answer.headers.get("access-control-allow-origin")
    assert before.get("access-control-allow-origin") == named
    if named:
        assert "DELETE" in before["access-control-allow-methods"] or before["access-control-allow-methods"] == "*"
        assert "x-anything" in before["access-control-allow-headers"].lower()
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    return named


def test_pages_of_any_origin_may_call_by_default(page: Page) -> None:
    assert allows(page.daemon, "https://anywhere.example") == "*"


def test_pages_of_listed_origins_alone_may_call(tmp_path: Path) -> None:
    name, _, value = ONE_ORIGIN.partition(" ")[0].partition("=")
    with serving(tmp_path, **{name: f"{value}, https://ci.example.com"}) as daemon:
        assert allows(daemon, DASHBOARD) == DASHBOARD
        assert allows(daemon, "https://ci.example.com") == "https://ci.example.com"
        assert allows(daemon, "https://anywhere.example") is None
        assert "origin" in daemon.request("GET", "/health", headers={"Origin": DASHBOARD}).headers["vary"].lower()


def test_a_star_lets_all_pages_call(tmp_path: Path) -> None:
    with serving(tmp_path, AGENTD_API_CORS_ORIGINS="*") as daemon:
        assert allows(daemon, "https://anywhere.example") == "*"


# -- the record --------------------------------------------------------------------------------------------------------


def test_the_chain_of_everything_above_is_whole(page: Page) -> None:
    told = page.daemon.ok("GET", "/audit/verify")
    assert told["ok"] is True
    assert told["entries"] > 30
    assert told["first_bad"] is None
    actions = {entry["action"] for entry in page.daemon.entries()}
    assert {"DaemonStart", "ApiKeyCreate", "AuthFailure"} <= actions
