"""``borough up`` as the fleet's controller and its first host: nothing is configured, and no right is needed."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from borough.adapters.engines.bubblewrap_machines.warden import RUNNING
from borough.http.fleet.about import PAGE, PUBLIC
from borough.http.fleet.routes import OPERATIONS
from borough.http.host.routes import OPERATIONS as HOST_OPERATIONS
from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until
from tests.e2e.fleet_programs import free_port, host_program, program, root_folder

QUIET = ("TINYTOWN_SERVER", "TT_SERVER", "TOWNHALL_API_KEY")
SMALL = ("--engine", "bwrap", "--cpu", "1", "--mem", "64", "--disk", "100")


@contextmanager
def up(*words: str, **environ: str) -> Iterator[RunningTown]:
    """Run ``borough up`` in a folder of its own; at the end its environments are deleted."""
    # Not below pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="upf") as folder:
        root = Path(folder).resolve() / "t"
        root.mkdir()
        running = start_town(root, governed=True, environ=environment(root, **environ), words=words)
        try:
            yield running
            assert [env["id"] for env in data(running, "/api/envs")] == []
        finally:
            try:
                for env in data(running, "/api/envs"):
                    running.request("DELETE", f"/api/envs/{env['id']}", timeout_s=60)
            finally:
                assert stop_town(running) == 0


def environment(root: Path, **more: str) -> dict[str, str]:
    """Return a home of its own, and no word of any other server."""
    return {**dict.fromkeys(QUIET, ""), "HOME": str(root), **more}


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        yield running


def data(town: RunningTown, path: str) -> Any:
    return town.ok("GET", path)["data"]


# -- with nothing configured -------------------------------------------------------------------------------------------


def test_an_environment_lives_from_its_beginning_to_its_end_with_nothing_configured(town: RunningTown) -> None:
    made = town.tt("env", "create", "web", "-i", "local-root", *SMALL).stdout
    assert made.splitlines()[0] == "created environment web"
    vm = json.loads(town.tt("vm", "list", "--env", "web", "--json").stdout)["vms"][0]["id"]
    assert town.tt("exec", vm, "--", "sh", "-c", "echo from $((6 * 7))").stdout == "from 42\n"
    (town.root / "site").mkdir()
    (town.root / "site" / "page").write_text("hello")
    town.tt("cp", "site", f"{vm}:/srv")
    assert town.tt("exec", vm, "--", "find", "/srv", "-name", "page").stdout.strip().endswith("page")
    assert "Envs\t1" in town.tt("status").stdout
    town.tt("env", "delete", "web")
    assert json.loads(town.tt("env", "list", "--json").stdout)["envs"] == []


def test_a_machine_is_made_of_this_host_s_own_programs(town: RunningTown) -> None:
    images = {image["name"]: image for image in json.loads(town.tt("image", "list", "--json").stdout)["images"]}
    assert images["host"]["digest"].startswith("sha256:")
    town.tt("env", "create", "own", "-i", "host", "--engine", "bwrap", "--cpu", "1", "--mem", "1024", "--disk", "100")
    vm = json.loads(town.tt("vm", "list", "--env", "own", "--json").stdout)["vms"][0]["id"]
    code = "import borough.agent, os; print(os.listdir('/workspace'), os.path.exists('/etc/shadow'))"
    assert town.tt("exec", vm, "--", "/opt/borough/bin/python3", "-c", code).stdout == "[] False\n"
    town.tt("env", "delete", "own")


INSIDE = """
import asyncio, json, sys, urllib.error, urllib.request

def status(url, key=None):
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code

async def tools(key):
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client
    async with (
        create_mcp_http_client({"Authorization": f"Bearer {key}"}) as http,
        Client(streamable_http_client("http://borough.internal/mcp", http_client=http), cache=None) as opened,
    ):
        return sorted(tool.name for tool in (await opened.list_tools()).tools)

own, key = sys.argv[1:]
told = [status("http://borough.internal" + path) for path in ("/health", "/v1/agents", "/api/hosts", "/agents")]
told += [status(own + "/health"), status("http://borough.internal/v1/agents", key)]
print(json.dumps([told, asyncio.run(tools(key))]))
"""


def test_a_machine_reaches_the_server_with_a_credential_and_nothing_else_of_the_host(town: RunningTown) -> None:
    manifest = {
        "apiVersion": "scarab/v1", "kind": "AgentManifest", "metadata": {"name": "insider", "version": "1.0.0"},
        "spec": {"trust_level": "sandboxed", "capabilities": ["tool.invoke:fs.read", "fs.read:/workspace/**"]},
    }  # fmt: skip
    agent = town.ok("POST", "/agents", {"manifest_yaml": json.dumps(manifest)})["id"]
    key = town.ok("POST", "/tokens", {"name": "insider", "agent_id": agent, "role": "agent"})["token"]
    assert town.request("GET", "/v1/agents", token=None).status == 200, "outside, this town asks nobody who they are"
    size = ("--engine", "bwrap", "--cpu", "1", "--mem", "2048", "--disk", "100")
    town.tt("env", "create", "inner", "-i", "host", *size, "--allow", "borough.internal:80")
    vm = json.loads(town.tt("vm", "list", "--env", "inner", "--json").stdout)["vms"][0]["id"]
    ran = town.tt("exec", vm, "--", "/opt/borough/bin/python3", "-c", INSIDE, town.url, key)
    statuses, tools = json.loads(ran.stdout)
    assert statuses == [200, 401, 401, 401, 403, 401]
    assert len(tools) == 1, tools
    town.tt("env", "delete", "inner")


def test_a_command_is_run_at_a_terminal(town: RunningTown) -> None:
    town.tt("env", "create", "seat", "-i", "local-root", *SMALL)
    vm = json.loads(town.tt("vm", "list", "--env", "seat", "--json").stdout)["vms"][0]["id"]
    screen, inner = pty.openpty()
    try:
        argv = [sys.executable, "-m", "borough.cli.tt", "exec", "-it", vm, "--", "sh", "-c", "tty; exit 3"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TT_", "TINYTOWN"))}
        ended = subprocess.run(
            argv, cwd=town.root, env={**kept, **environment(town.root)}, stdin=inner, stdout=inner, check=False
        )
        assert ended.returncode == 3
        assert os.read(screen, 4096).startswith(b"/dev/pts/")
    finally:
        os.close(screen)
        os.close(inner)
    town.tt("env", "delete", "seat")


def test_a_sandbox_is_had_in_three_lines_of_python(town: RunningTown) -> None:
    code = (
        "from borough import Sandbox\n"
        "with Sandbox.create(image='local-root', engine='bubblewrap') as sandbox:\n"
        "    print(sandbox.commands.run('echo $((6 * 7))').stdout, end='')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=town.root, env={**os.environ, **town.environ}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "42\n"), ran.stderr


def test_this_machine_is_the_first_host_and_says_what_it_lacks(town: RunningTown) -> None:
    (host,) = data(town, "/api/hosts")
    assert town.url == f"http://{host['addr']}"
    assert "bubblewrap" in host["engines"]
    shown = json.loads(town.tt("host", "show", host["id"], "--json").stdout)
    assert any("network" in warning for warning in shown["warnings"])


def test_everything_of_the_fleet_is_in_the_town_s_folder_and_nobody_else_s(town: RunningTown) -> None:
    state = town.root / ".tt"
    record = json.loads((state / "server.json").read_text())
    assert (record["fleet"], record["images"]) == (True, str(state / "fleet" / "images"))
    for name in ("fleet", "fleet/ctl", "fleet/host"):
        assert (state / name).stat().st_mode & 0o777 == 0o700, name
    for name in ("fleet/ctl/ctl.db", "fleet/host/agent.db", "fleet/host/marker"):
        assert (state / name).stat().st_mode & 0o777 == 0o600, name


def test_tt_finds_the_fleet_from_any_folder_of_the_town_before_the_saved_one(town: RunningTown, tmp_path: Path) -> None:
    deeper = town.root / "src" / "deeper"
    deeper.mkdir(parents=True)
    nobody = f"127.0.0.1:{free_port()}"
    (tmp_path / ".ttconfig").write_text(f"{nobody}\na-key\n")
    saved = {**town.environ, "HOME": str(tmp_path), "TT_API_KEY": "another-fleet-s"}
    first = data(town, "/api/hosts")[0]["id"]

    def hosts(*words: str, cwd: Path = deeper, **environ: str) -> "tuple[int, str]":
        done = run_tool("borough.cli.tt", *words, "host", "list", cwd=cwd, environ={**saved, **environ}, check=False)
        return done.returncode, done.stdout + done.stderr

    assert hosts()[1].startswith(first)
    assert hosts("--server", town.url)[1].startswith(first)
    assert hosts("--town", str(town.root), cwd=tmp_path)[1].startswith(first)
    for code, told in (hosts("--server", nobody), hosts(TT_SERVER=nobody)):
        assert (code, nobody in told) == (3, True)
    code, told = hosts(cwd=tmp_path)
    assert (code, nobody in told) == (3, True)


# -- one port, three contexts ------------------------------------------------------------------------------------------


def test_every_route_of_a_controller_is_served_behind_a_credential(town: RunningTown) -> None:
    for row in OPERATIONS:
        if row in PUBLIC or row in PAGE:
            continue
        path = re.sub(r"\{[^}]+\}", "nothing-here", row.path)
        refused = town.request(row.method, path, None if row.body in (None, bytes) else {}, token=None)
        assert (refused.status, refused.json()) == (401, {"ok": False, "error": "invalid or missing API key"}), path
        if row.method == "GET" and "events" not in path:
            answer = town.request("GET", path)
            told = answer.json()
            assert told["ok"] is (answer.status == 200), (path, told)
            assert told.get("code") != "route_not_found", path


@pytest.mark.parametrize(
    ("path", "status", "kind", "words"),
    [
        ("/v1/town", 200, "application/json", "name"),
        ("/api/scaling", 200, "application/json", "scaling_recommendation"),
        ("/health", 200, "application/json", "version"),
        ("/healthz", 200, "application/json", "uptime_secs"),
        ("/ready", 200, "application/json", '"fleet":"ready"'),
        ("/readyz", 200, "application/json", "durability"),
        ("/metrics", 200, "text/plain", "borough_fleet_hosts_online 1"),
        ("/metrics", 200, "text/plain", "tinytown_up 1"),
        ("/", 200, "text/html", "/assets/"),
        ("/fleet", 200, "text/html", "/assets/fleet.js"),
        ("/assets/fleet.js", 200, "text/javascript", "borough_fleet_key"),
        ("/agents", 401, "application/json", '"code":"unauthorized"'),
        ("/api/status", 401, "application/json", '"ok":false'),
        ("/api/nothing", 401, "application/json", '"ok":false'),
        ("/v1/nothing", 404, "application/problem+json", "route_not_found"),
    ],
)
def test_each_path_is_answered_by_its_context_in_its_words(
    town: RunningTown, path: str, status: int, kind: str, words: str
) -> None:
    until(lambda: town.ok("GET", "/ready")["fleet"] == "ready")
    answer = town.request("GET", path, token=None)
    assert (answer.status, answer.headers.get("content-type", "").partition(";")[0]) == (status, kind)
    assert words in answer.body.decode()


def test_the_routes_of_a_host_daemon_are_not_there(town: RunningTown) -> None:
    controllers = {(row.method, row.path) for row in OPERATIONS}
    own = [row for row in HOST_OPERATIONS if (row.method, row.path) not in controllers and row.path != "/"]
    assert ("GET", "/api/info") in {(row.method, row.path) for row in own}
    for row in own:
        path = re.sub(r"\{[^}]+\}", "nothing-here", row.path)
        answer = town.request(row.method, path, {} if row.body not in (None, bytes) else None)
        assert answer.status in {404, 405}, (row.method, path)


def test_what_belongs_to_the_town_is_not_closed_by_the_fleet(town: RunningTown) -> None:
    assert town.request("POST", "/api/scaling", {}, token=None).status == 405


def test_pages_of_other_origins_do_not_reach_the_fleet(town: RunningTown) -> None:
    foreign = {"Origin": "https://dashboard.example.com", "Sec-Fetch-Site": "cross-site"}
    assert "access-control-allow-origin" not in town.request("GET", "/api/status", headers=foreign).headers
    refused = town.request("POST", "/api/hosts", {"addr": "127.0.0.1:1"}, headers=foreign)
    assert (refused.status, refused.json()["code"]) == (403, "cross_origin")


def test_a_repeated_request_with_its_key_makes_nothing_twice(town: RunningTown) -> None:
    body = {"id": "once", "ssh_keys": [], "vms": [{"image": "local-root", "engine": "bubblewrap", "cpu": 1, "mem": 64}]}
    answers = [
        town.request("POST", "/api/envs", body, headers={"Idempotency-Key": "the-same"}, timeout_s=60) for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].json()["data"]["vms"] == answers[1].json()["data"]["vms"]
    assert [env["id"] for env in data(town, "/api/envs")] == ["once"]
    town.ok("DELETE", "/api/envs/once")


# -- the key of a fleet, and other hosts -------------------------------------------------------------------------------


def test_a_key_in_the_environment_opens_the_fleet_and_reaches_other_hosts(tmp_path: Path) -> None:
    root_folder(tmp_path / "images" / "tiny")
    with up(TT_API_KEY="a-key-of-the-fleet") as town, host_program(free_port(), tmp_path, "h2") as second:
        assert town.request("GET", "/api/status", token="a-key-of-the-fleet").status == 200
        assert town.request("GET", "/api/status", token="another").status == 401
        assert town.request("GET", "/agents", token="a-key-of-the-fleet").status == 401
        town.tt("host", "add", second.address)
        town.tt("env", "create", "away", "-i", "tiny", *SMALL)
        (vm,) = json.loads(town.tt("vm", "list", "--json").stdout)["vms"]
        assert vm["host_id"] == "h2"
        assert town.tt("exec", vm["id"], "--", "echo", "there").stdout == "there\n"
        town.tt("env", "delete", "away")


def test_a_key_that_is_none_is_told_before_anything_is_started(tmp_path: Path) -> None:
    refused = run_tool(
        "borough.cli.borough", "up", "--port", "0", cwd=tmp_path, environ={"TT_API_KEY": "two words"}, check=False
    )
    assert (refused.returncode, "the API key is not usable" in refused.stderr) == (1, True)


# -- the ledger --------------------------------------------------------------------------------------------------------


def recorded(town: RunningTown, **wanted: str) -> list[dict[str, Any]]:
    """Return what the ledger has of the fleet with these facts, oldest first."""
    found: list[dict[str, Any]] = town.ok("GET", "/audit?limit=1000")
    ours = (entry for entry in found if entry["via"] == "fleet")
    return [entry for entry in ours if all(entry["data"].get(name) == value for name, value in wanted.items())]


def test_what_the_fleet_does_and_refuses_is_in_the_ledger_with_who_asked(town: RunningTown) -> None:
    town.tt("env", "create", "told", "-i", "local-root", *SMALL)
    vm = json.loads(town.tt("vm", "list", "--env", "told", "--json").stdout)["vms"][0]["id"]
    town.tt("exec", vm, "--", "echo", "a secret")
    town.tt("env", "delete", "told")
    assert until(lambda: [each for each in recorded(town, env_id="told") if each["action"] == "fleet.env.removed"])
    acts = recorded(town, env_id="told")
    assert [entry["action"] for entry in acts[:2]] == ["fleet.vm.planned", "fleet.env.created"]
    assert "running" in [entry["data"]["new_state"] for entry in acts if entry["action"] == "fleet.vm.changed"]
    assert {"fleet.vm.removed", "fleet.env.deleting"} <= {entry["action"] for entry in acts}
    assert {entry["data"]["by"] for entry in acts} == {"operator"}
    (ran,) = [entry["data"] for entry in acts if entry["action"] == "fleet.vm.exec"]
    assert (ran["vm_id"], ran["command"]) == (vm, "echo")
    assert "a secret" not in json.dumps(acts)

    body = {"id": "huge", "ssh_keys": [], "vms": [{"image": "local-root", "engine": "bubblewrap", "cpu": 5000}]}
    assert town.request("POST", "/api/envs", body).status == 422
    (placed,) = until(lambda: recorded(town, env_id="huge"))
    assert (placed["action"], placed["outcome"]) == ("fleet.env.refused", "denied")
    assert town.request("POST", "/api/vms/none/start").status == 404
    (refused,) = until(lambda: recorded(town, request="POST /api/vms/none/start"))
    assert (refused["outcome"], refused["data"]["by"], refused["data"]["code"]) == (
        "denied",
        "operator",
        "vm_not_found",
    )
    assert town.request("GET", "/api/hosts", token="a-guess").status == 401
    (login,) = until(lambda: recorded(town, reason="invalid_credentials"))
    assert (login["action"], login["data"]["by"]) == ("fleet.login.refused", "api_key@127.0.0.1")
    assert recorded(town, host_id=data(town, "/api/hosts")[0]["id"])[0]["action"] == "fleet.host.registered"
    assert town.ok("GET", "/audit/verify")["ok"] is True


# -- ends and beginnings -----------------------------------------------------------------------------------------------


def processes(town: RunningTown, vm: str) -> set[int]:
    """Return the machine's processes as this host numbers them: all in the namespace of its first one."""
    state = town.root / ".tt" / "fleet" / "host" / "bubblewrap"
    (told,) = state.rglob(f"*{vm}*/{RUNNING}")
    inner = json.loads(told.read_text())["inner"][0]
    return members(Path(f"/proc/{inner}/ns/pid").readlink())


def members(space: Path) -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if (process / "ns" / "pid").readlink() == space:
                found.add(int(process.name))
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_machine_runs_on_and_is_found_again_by_the_next_start_at_another_port(end: signal.Signals) -> None:
    with up() as town:
        town.tt("env", "create", "stays", "-i", "local-root", *SMALL)
        (vm,) = json.loads(town.tt("vm", "list", "--json").stdout)["vms"]
        (host,) = data(town, "/api/hosts")
        town.tt("exec", vm["id"], "--", "sh", "-c", "echo kept > /tmp/mark; sleep 1000 </dev/null >/dev/null 2>&1 &")
        before = processes(town, vm["id"])
        # What happens at the very end is recorded then, or by the next start.
        town.ok("PATCH", "/api/envs/stays", {"labels": {"last": "words"}})
        happened = [event["id"] for event in data(town, "/api/events?limit=1000")]
        town.process.send_signal(end)
        town.process.wait(40)
        again = start_town(town.root, governed=True, environ=town.environ)
        town.process, town.url = again.process, again.url
        assert [(each["id"], each["addr"]) for each in data(town, "/api/hosts")] == [
            (host["id"], again.url.removeprefix("http://"))
        ]
        assert data(town, f"/api/vms/{vm['id']}")["state"] == "running"
        assert town.tt("exec", vm["id"], "--", "cat", "/tmp/mark").stdout == "kept\n"
        assert processes(town, vm["id"]) == before
        until(lambda: {entry["data"]["event_id"] for entry in recorded(town)} >= set(happened))
        told = [int(entry["data"]["event_id"]) for entry in recorded(town)]
        assert told == sorted(set(told))
        assert town.ok("GET", "/audit/verify")["ok"] is True
        town.tt("env", "delete", "stays")


def test_a_fleet_that_cannot_be_opened_does_not_keep_the_town_from_serving() -> None:
    with tempfile.TemporaryDirectory(prefix="upf") as folder:
        root = Path(folder).resolve() / "t"
        (root / ".tt").mkdir(parents=True)
        (root / ".tt" / "fleet").write_text("in the way")
        town = start_town(root, governed=True, environ=environment(root))
        try:
            told = until(lambda: (found := town.ok("GET", "/ready"))["fleet"] != "starting" and found)
            assert told["status"] == "ready"
            assert told["fleet"].startswith("not ready: ")
            refused = town.request("GET", "/api/status")
            assert (refused.status, refused.json()["code"]) == (503, "fleet_not_ready")
            assert town.request("GET", "/api/status", token=None).status == 401
            assert town.request("GET", "/fleet", token=None).status == 200
            assert town.ok("POST", "/v1/backlog", {"description": "still served"})["task_id"]
            assert "fleet.not_ready" in town.log.read_text()
            with urllib.request.urlopen(f"{town.url}/metrics") as metrics:
                assert b"borough_fleet" not in metrics.read()
        finally:
            assert stop_town(town) == 0


def test_townhall_alone_serves_no_fleet_and_tt_does_not_take_it_for_one(tmp_path: Path) -> None:
    town = start_town(tmp_path, environ=environment(tmp_path))
    try:
        assert town.request("GET", "/api/status").status == 404
        assert "fleet" not in town.ok("GET", "/ready")
        assert "fleet" not in json.loads((tmp_path / ".tt" / "server.json").read_text())
        refused = town.tt("env", "list", check=False)
        assert (refused.returncode, "borough up" in refused.stderr) == (3, True)
    finally:
        assert stop_town(town) == 0


def test_a_controller_that_was_saved_is_used_where_no_server_of_the_folder_is_one(tmp_path: Path) -> None:
    with program("borough.cli.tt_ctl", free_port(), tmp_path / "ctl", "--data-dir", str(tmp_path / "ctl")) as saved:
        (tmp_path / ".ttconfig").write_text(f"{saved.address}\na-key-of-the-fleet\n")
        town = start_town(tmp_path, environ=environment(tmp_path))
        try:
            assert json.loads(town.tt("host", "list", "--json").stdout)["hosts"] == []
        finally:
            assert stop_town(town) == 0
