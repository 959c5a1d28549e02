"""``ash`` against a daemon: every command, as people read it and as programs do, and every way to fail."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from borough.cli.ash import program
from tests.e2e.conftest import until
from tests.e2e.daemon import ALL, NOBODY, RunningDaemon, Told, manifest, serving, shell

FAR = "2099-01-01T00:00:00Z"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TRUSTY = (*ALL, "agent.discover", "agent.spawn", "bus.publish", "bus.subscribe", "bb.read", "bb.write", "tool.propose",
          "secret.use:api-*")  # fmt: skip
MCP_PEER = Path(__file__).parents[1] / "services" / "mcp_peer.py"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with serving(tmp_path_factory.mktemp("agentd")) as daemon:
        yield daemon


@pytest.fixture
def agent(daemon: RunningDaemon, request: pytest.FixtureRequest) -> Iterator[str]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:40].strip("-")
    agent_id = daemon.spawn(name, *TRUSTY, trust="trusted")
    yield agent_id
    daemon.ok("DELETE", f"/agents/{agent_id}")


def table(told: Told) -> list[list[str]]:
    """Return the cells of what was printed for a pipe."""
    return [line.split("\t") for line in told.out.splitlines()]


def written(folder: Path, text: str, name: str = "manifest.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


# -- the program itself ------------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return every command there is."""
    for name in group.table:
        found = group.get_command(click.Context(group), name)
        if hasattr(found, "table"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands(program)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    told = shell(*path, "--help", environ={})
    assert told.code == 0
    if path == ("completion",):
        assert "ash completion bash" in told.out
        return
    assert "Example" in told.out
    assert f"ash {path[0]}" in told.out
    assert "--socket" in told.out
    assert "--json" in told.out


def test_the_version_is_told_with_and_without_a_daemon() -> None:
    assert re.fullmatch(r"ash \d+\.\d+\.\d+.*\n", shell("--version", environ={}).out)


def test_completion_knows_commands_and_their_commands(daemon: RunningDaemon) -> None:
    for name in ("bash", "zsh", "fish"):
        assert "_ASH_COMPLETE" in daemon.ash("completion", name).out
    group = program.get_command(click.Context(program), "workspace")
    assert group is not None
    assert [item.value for item in group.shell_complete(click.Context(group), "ro")] == ["rollback"]
    assert [item.value for item in program.shell_complete(click.Context(program), "val")] == ["validate"]


@pytest.mark.parametrize("words", [(), ("nope",), ("list", "--nope"), ("info",),
                                   ("tools", "invoke", NOBODY, "echo", "{"),
                                   ("scheduler", "set-priority", NOBODY, "101"),
                                   ("api-key", "create", "--name", "x"), ("validate", "/no/such/file")])  # fmt: skip
def test_a_wrong_command_line_is_2(words: tuple[str, ...], daemon: RunningDaemon) -> None:
    told = daemon.ash(*words, code=2)
    assert told.out == ""
    assert told.err


def test_a_misspelt_command_is_answered_with_the_nearest_one(daemon: RunningDaemon) -> None:
    assert "Did you mean 'list'?" in daemon.ash("lsit", code=2).err


def test_without_a_daemon_it_is_3_and_says_what_to_do(daemon: RunningDaemon, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "s.sock")
    told = daemon.ash("ping", "--socket", nowhere, code=3)
    assert nowhere in told.err
    assert "agentd &" in told.err
    problem = json.loads(shell("list", "--json", environ={"SCARAB_SOCKET": nowhere}).err)
    assert (problem["exit"], problem["code"]) == (3, "no_server")


def test_the_socket_can_be_named_by_an_option(daemon: RunningDaemon) -> None:
    told = shell("--socket", str(daemon.socket), "ping", environ={"SCARAB_SOCKET": "/nowhere"})
    assert (told.code, told.out) == (0, "pong\n")


@pytest.mark.parametrize("words", [("info", NOBODY), ("info", "nope"), ("kill", NOBODY), ("agent", "run", "nobody"),
                                   ("tools", "schema", "nope"), ("approve", NOBODY), ("api-key", "revoke", "nobody"),
                                   ("mcp", "attach", "AGENT", "nobody"), ("mcp", "detach", "AGENT", "nobody"),
                                   ("memory", "read", "AGENT", "nothing"), ("bb", "read", "AGENT", "nothing"),
                                   ("workspace", "rollback", "AGENT", "99"), ("grants", "revoke", "AGENT", NOBODY),
                                   ("secrets", "policy", "show", NOBODY), ("tools", "invoke", "AGENT", "nope"),
                                   ("policy", "shadow", "show", "AGENT"), ("hierarchy", "resolve", NOBODY, "deny"),
                                   ("tools", "approve", NOBODY), ("agent", "remove", "nobody")])  # fmt: skip
def test_what_is_not_there_is_5(daemon: RunningDaemon, agent: str, words: tuple[str, ...]) -> None:
    told = daemon.ash(*(agent if word == "AGENT" else word for word in words), "--json", code=5)
    problem = json.loads(told.err)
    assert problem["error"]
    assert problem["next"]
    assert problem["code"].endswith(("_not_found", "_not_installed", "_not_attached"))


# -- the daemon and agents ---------------------------------------------------------------------------------------------


def test_ping_and_status(daemon: RunningDaemon, agent: str) -> None:
    assert daemon.ash("ping").out == "pong\n"
    assert daemon.ash("ping", "--json").json() == {"ok": True}
    status = daemon.ash("status", "--json").json()
    assert set(status) >= {"version", "uptime_secs", "agents"}
    assert status["agents"] >= 1
    assert ["version", status["version"]] in table(daemon.ash("status"))


def test_an_agent_s_life(daemon: RunningDaemon, tmp_path: Path) -> None:
    path = written(tmp_path, manifest("mayfly"))
    assert daemon.ash("validate", path).out == "Manifest is valid\n"
    spawned = re.fullmatch(rf"Spawned agent ({UUID})\n", daemon.ash("spawn", path, "--task", "fly").out)
    assert spawned
    agent_id = spawned[1]
    row = next(row for row in table(daemon.ash("list")) if row[0] == agent_id)
    assert row[:6] == [agent_id, "mayfly", "1.0.0", "Plan", "running", "sandboxed"]
    listed = daemon.ash("ls", "--json").json()
    assert {"id", "name", "version", "state", "trust_level", "uptime_secs"} <= set(listed[0])

    info = daemon.ash("info", agent_id, "--json").json()
    assert (info["id"], info["task"], info["capabilities"]) == (agent_id, "fly", list(ALL))
    assert info["enforcement"]["backend"] == "bubblewrap"
    shown = dict(table(daemon.ash("info", agent_id)))
    assert (shown["task"], shown["tainted"], shown["network.policy"]) == ("fly", "no", "none")

    for state in ("act", "observe", "plan"):
        told = daemon.ash("transition", agent_id, state)
        assert told.out == f"Agent {agent_id} is in {state.capitalize()}\n"

    daemon.ash("pause", agent_id)
    assert daemon.ash("info", agent_id, "--json").json()["status"] == "paused"
    assert "paused" in daemon.ash("tools", "invoke", agent_id, "echo", code=1).err
    daemon.ash("resume", agent_id)
    assert daemon.ash("kill", agent_id).out == f"Killed agent {agent_id}\n"
    assert "act" in daemon.ash("transition", agent_id, "act", code=1).err.lower()
    assert agent_id not in [row[0] for row in table(daemon.ash("list"))]
    assert agent_id in [row[0] for row in table(daemon.ash("list", "--ended"))]


def test_a_manifest_with_faults_is_refused_with_each_of_them(daemon: RunningDaemon, tmp_path: Path) -> None:
    text = manifest("faulty", more="  colour: red\n").replace("  trust_level: sandboxed\n", "")
    path = written(tmp_path, text)
    told = daemon.ash("validate", path, code=1)
    assert told.err.splitlines()[0] == "Error: missing required field 'spec.trust_level'"
    assert "spec.colour" in told.err
    assert len(daemon.ash("validate", path, "--json", code=1).json()["problems"]) == 2
    assert "invalid manifest: " in daemon.ash("spawn", path, code=1).err
    assert daemon.ash("validate", "-", stdin=manifest("fine")).out == "Manifest is valid\n"


def test_what_an_agent_printed_and_handed_back(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text(
        "from borough.agent import Agent\n"
        "import time\n"
        "with Agent.from_env() as agent:\n"
        "    print('first', flush=True)\n"
        "    while agent.memory_get('go') is None:\n"
        "        time.sleep(0.02)\n"
        "    print('last é')\n"
        "    agent.finish({'n': 1})\n"
    )
    more = "  runtime: python\n  entrypoint: talker.py\n"
    agent_id = daemon.ash("spawn", written(tmp_path, manifest("talker", more=more)), "--json").json()["agent_id"]
    until(lambda: daemon.ash("logs", agent_id).out == "first\n")
    nothing = daemon.ash("result", agent_id, code=1)
    assert (nothing.out, nothing.err) == ("", "nothing was handed back; the agent is running\n")
    daemon.ash("memory", "write", agent_id, "go", "true")
    assert daemon.ash("result", agent_id, "--wait", "20").out == '{"n": 1}\n'
    assert daemon.ash("logs", agent_id, "--follow").out == "first\nlast é\n"
    parts = [json.loads(line) for line in daemon.ash("logs", agent_id, "--json").out.splitlines()]
    assert "".join(part["text"] for part in parts) == "first\nlast é\n"
    result = daemon.ash("result", agent_id, "--json").json()
    assert (result["ready"], result["result"], result["status"]) == (True, {"n": 1}, "succeeded")


def test_agents_are_found_by_what_they_may(daemon: RunningDaemon, agent: str) -> None:
    rows = table(daemon.ash("discover", agent, "bus.*"))
    assert [row[0] for row in rows] == [agent]
    assert rows[0][3] == "bus.publish, bus.subscribe"
    assert agent in [one["id"] for one in daemon.ash("discover", agent, "--json").json()]


def test_the_store_of_agents(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, manifest("stored"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    told = daemon.ash("agent", "install", path, "--dir", "home")
    assert told.out == f"Installed stored 1.0.0 in {tmp_path / 'home'}\n"
    row = next(row for row in table(daemon.ash("agent", "list")) if row[0] == "stored")
    assert row[:4] == ["stored", "1.0.0", "rust", str(tmp_path / "home")]
    assert daemon.ash("agent", "ls", "--json").json()[0]["installed_at"]
    told = daemon.ash("agent", "run", "stored", "--task", "another")
    ran = re.fullmatch(rf"Spawned agent 'stored' → ({UUID})\n", told.out)
    assert ran
    assert daemon.ash("agent", "remove", "stored").out == "Removed stored\n"
    assert daemon.ash("info", ran[1], "--json").json()["task"] == "another"
    daemon.ash("kill", ran[1])
    sheet = daemon.ash("agent", "capability-sheet", path)
    assert "# stored 1.0.0" in sheet.out
    assert "memory.read" in daemon.ash("agent", "capability-sheet", path, "--json").json()["markdown"]


# -- law ---------------------------------------------------------------------------------------------------------------


def test_tools_are_listed_described_and_called(daemon: RunningDaemon, agent: str) -> None:
    names = [row[0] for row in table(daemon.ash("tools", "list"))]
    assert {"echo", "agent.info", "fs.read", "lm.complete", "web.fetch", "sandbox.exec", "sensitive-op"} <= set(names)
    assert "sandbox.exec" not in [tool["name"] for tool in daemon.ash("tools", "list", "-a", agent, "--json").json()]
    assert daemon.ash("tools", "schema", "fs.read").json()["input_schema"]["required"] == ["path"]
    for more in ((), ("--json",)):
        assert daemon.ash("tools", "invoke", agent, "echo", '{"a": 1}', *more).out == '{"a": 1}\n'
    assert daemon.ash("tools", "invoke", agent, "echo", "-", stdin='{"b": 2}').json() == {"b": 2}
    assert daemon.ash("tools", "invoke", agent, "agent.info").json()["id"] == agent
    refused = daemon.ash("tools", "invoke", agent, "fs.read", '{"path": "/etc/passwd"}', code=4)
    assert refused.err.startswith("error: access denied: fs.read:/etc/passwd\n")
    failed = json.loads(
        daemon.ash("tools", "invoke", agent, "fs.read", '{"path": "/workspace/x"}', "--json", code=1).err
    )
    assert (failed["error"], failed["code"]) == ("file not found", "tool_error")
    assert failed["request_id"]
    assert "'path' is a required property" in daemon.ash("tools", "invoke", agent, "fs.read", "{}", code=1).err


def test_a_tool_is_proposed_agreed_to_and_used(daemon: RunningDaemon, agent: str) -> None:
    body: dict[str, Any] = {
        "agent_id": agent,
        "tool": {"name": "text.shout", "description": "Shouts."},
        "impl": {"kind": "sandbox", "runtime": "python3",
                 "code": "import json,sys; print(json.dumps({'said': json.load(sys.stdin)['text'].upper()}))"},
    }  # fmt: skip
    key = daemon.key(f"k-{agent[:8]}", agent)
    first, second = (
        daemon.ok("POST", "/tool-proposals", {**body, "tool": {**body["tool"], "name": name}}, token=key)["proposal_id"]
        for name in ("text.shout", "text.yell")
    )  # fmt: skip
    rows = table(daemon.ash("tools", "proposed"))
    assert [row[:3] for row in rows] == [[first, agent, "text.shout"], [second, agent, "text.yell"]]
    assert daemon.ash("tools", "proposed", "--json").json()[0]["code"] == body["impl"]["code"]
    assert daemon.ash("tools", "deny", second).out == f"Denied {second}\n"
    assert daemon.ash("tools", "invoke", agent, "text.shout", '{"text": "hey"}', code=5).out == ""
    assert daemon.ash("tools", "approve", first).out == f"Approved {first}\n"
    assert daemon.ash("tools", "invoke", agent, "text.shout", '{"text": "hey"}').json() == {"said": "HEY"}
    daemon.ash("tools", "invoke", agent, "text.yell", '{"text": "hey"}', code=5)
    assert daemon.ash("tools", "proposed").out == ""


def asked(daemon: RunningDaemon, agent: str) -> str:
    """Make a call that people have to agree to; return the request's id."""
    path = f"/agents/{agent}/tools/sensitive-op"
    return str(daemon.ok("POST", path, {"do": "it"}, headers={"Prefer": "respond-async"})["request_id"])


def test_calls_wait_for_people(daemon: RunningDaemon, agent: str) -> None:
    first, second = asked(daemon, agent), asked(daemon, agent)
    rows = table(daemon.ash("pending"))
    assert [row[:3] for row in rows] == [[first, agent, "sensitive-op"], [second, agent, "sensitive-op"]]
    assert rows[0][4] == '{"do": "it"}'
    assert daemon.ash("approve", first, "--operator", "ada").out == f"Approved {first}\n"
    approved = daemon.ok("GET", f"/approvals/{first}")
    assert (approved["decided_by"], approved["result"]["output"]) == ("ada", {"do": "it"})
    assert daemon.ash("deny", second, "--json").json()["status"] == "Denied"
    assert "already" in daemon.ash("approve", second, code=1).err
    assert daemon.ash("pending", "--json").json() == []
    by = [entry["data"]["by"] for entry in daemon.entries(agent, action="HumanApproval") if entry["kind"] == "intent"]
    assert by[0] == "ada"


def test_capabilities_are_given_for_a_time_and_taken_back(daemon: RunningDaemon, agent: str) -> None:
    call = ("tools", "invoke", agent, "sandbox.exec", '{"runtime": "sh", "code": "echo hi"}')
    daemon.ash(*call, code=4)
    grant = re.fullmatch(rf"Grant ({UUID})\n", daemon.ash("grants", "issue", agent, "sandbox.exec", "--ttl", "60").out)
    assert grant
    row = table(daemon.ash("grants", "list", agent))[0]
    assert row[:3] == [grant[1], "sandbox.exec", "operator"]
    assert row[3].endswith("Z")
    assert daemon.ash(*call).json()["stdout"] == "hi\n"
    assert daemon.ash("grants", "revoke", agent, grant[1]).out == f"Revoked {grant[1]}\n"
    daemon.ash(*call, code=4)
    assert "trust level privileged" in daemon.ash("grants", "issue", agent, "secret.use:*", code=4).err
    assert daemon.ash("grants", "issue", agent, "nonsense", code=1).err
    assert daemon.ash("grants", "list", agent, "--json").json() == []


def test_what_agents_ask_for_is_decided(daemon: RunningDaemon, agent: str) -> None:
    child = {"manifest_yaml": manifest("child", "tool.invoke:echo")}
    child_id = daemon.ok("POST", f"/agents/{agent}/children", child)["id"]
    tree = daemon.ash("hierarchy", "show").out
    assert f"({agent[:8]}) [plan]\n└── child ({child_id[:8]}) [plan]\n" in tree
    nodes = {node["id"]: node for node in daemon.ash("hierarchy", "show", "--json").json()}
    assert [one["id"] for one in nodes[agent]["children"]] == [child_id]

    key = daemon.key(f"h-{agent[:8]}", agent)
    wish = {"capability": "agent.terminate", "reason": "tidy up"}
    made = daemon.ok("POST", f"/agents/{agent}/capability-requests", wish, token=key)
    row = table(daemon.ash("hierarchy", "escalations"))[0]
    assert row[:6] == [made["escalation_id"], agent, "", "CapabilityRequest", "agent.terminate", "tidy up"]
    told = daemon.ash("hierarchy", "resolve", made["escalation_id"], "approve", "--reason", "for the release")
    assert told.out == f"approve: {made['escalation_id']}\n"
    assert daemon.ash("hierarchy", "escalations", "--json").json() == []
    assert [one["capability"] for one in daemon.ash("grants", "list", agent, "--json").json()] == ["agent.terminate"]
    assert daemon.ash("endorse", agent, "--reason", "looked at it").out == f"Endorsed {agent}\n"


def test_policy_is_tested_simulated_and_tried(daemon: RunningDaemon, agent: str, tmp_path: Path) -> None:
    name = daemon.ash("info", agent, "--json").json()["name"]
    stricter = written(tmp_path, manifest(name, "tool.invoke:agent.info", trust="trusted"))
    allowed = daemon.ash("policy", "test", stricter, "agent.info")
    assert ["verdict", "allowed"] in table(allowed)
    denied = daemon.ash("policy", "test", stricter, "echo", "--json", code=1).json()
    assert (denied["verdict"], denied["code"], denied["rule"]) == ("denied", "denied", "default-deny")
    assert shell("policy", "test", stricter, "agent.info", environ={"SCARAB_SOCKET": "/nowhere"}).code == 0

    daemon.ash("policy", "shadow", "start", agent, stricter)
    assert table(daemon.ash("policy", "shadow", "list"))[0][:2] == [agent, f"{name}@1.0.0"]
    daemon.ash("tools", "invoke", agent, "echo", '{"n": 1}')
    daemon.ash("tools", "invoke", agent, "agent.info")
    shown = daemon.ash("policy", "shadow", "show", agent)
    assert [row[1:4] for row in table(shown)] == [["echo", "allowed", "denied"]]
    assert "2 calls, 1 of them" in shown.err
    assert daemon.ash("policy", "shadow", "end", agent, "--json").json()["differing"] == 1
    assert daemon.ash("policy", "shadow", "list", "--json").json() == []

    for which in ((), ("--agent", agent)):
        found = daemon.ash("policy", "simulate", stricter, "--since", "2026-01-01T00:00:00Z", *which)
        assert [row[1:4] for row in table(found)] == [["echo", "allowed", "denied"]]
        assert table(found)[0][5] == '{"n": 1}'
        assert "2 calls: 1 would change, 1 would not" in found.err
    assert daemon.ash("policy", "simulate", stricter, "--json").json()["same"] == 1


def test_secrets_are_kept_sealed_and_used_under_policies(daemon: RunningDaemon, agent: str) -> None:
    daemon.ash("secrets", "add", "early", stdin="value\n", code=1)
    assert daemon.ash("secrets", "unlock", stdin="correct horse\n").out == "Unlocked: 0 secrets\n"
    assert (
        daemon.ash("secrets", "add", "api-key", "--description", "for x", stdin="s3cr3t-value\n").out
        == "Kept api-key\n"
    )
    assert daemon.ash("secrets", "list").out == "api-key\n"
    assert "fewer than 6" in daemon.ash("secrets", "add", "pin", stdin="1234\n").err
    daemon.ash("secrets", "remove", "pin")
    assert daemon.ash("secrets", "lock").out == "Locked\n"
    assert daemon.ash("secrets", "unlock", stdin="wrong\n", code=4).err.startswith("error: the passphrase is wrong")
    assert daemon.ash("secrets", "unlock", stdin="correct horse\n").out == "Unlocked: 1 secrets\n"
    daemon.ash("secrets", "rekey", stdin="correct horse\nbattery staple\n")
    daemon.ash("secrets", "lock")
    assert daemon.ash("secrets", "unlock", "--json", stdin="battery staple\n").json() == {"secrets": 1}
    assert daemon.ash("secrets", "unlock", code=2).err.startswith("error: passphrase: nothing was given")

    call = ("tools", "invoke", agent, "echo", '{"key": "{{secret:api-key}}"}')
    assert "no pre-approval policy matches" in daemon.ash(*call, code=4).err
    made = daemon.ash("secrets", "policy", "add", "--label", "ci", "--secret", "api-*", "--tool", "echo",
                      "--max-uses", "1", "--trust-level", "trusted", "--expires", FAR).out  # fmt: skip
    policy = re.fullmatch(rf"Policy ({UUID})\n", made)
    assert policy
    assert table(daemon.ash("secrets", "policy", "list"))[0] == [
        policy[1],
        "ci",
        "api-*",
        "echo",
        "2099-01-01T00:00:00.000Z",
    ]
    assert daemon.ash(*call).json() == {"key": "[REDACTED:api-key]"}
    shown = dict(table(daemon.ash("secrets", "policy", "show", policy[1])))
    assert (shown["use_count"], shown["max_uses"], shown["agent_matcher.level"]) == ("1", "1", "trusted")
    assert "exhausted" in daemon.ash(*call, code=4).err
    daemon.ash("secrets", "policy", "remove", policy[1])
    assert daemon.ash("secrets", "policy", "list", "--json").json() == []
    assert daemon.ash("secrets", "remove", "api-key").out == "Forgot api-key\n"
    assert daemon.ash("secrets", "list", "--json").json() == []
    files = [path for path in daemon.folder.rglob("*") if path.is_file()]
    assert [
        path for path in files if b"s3cr3t-value" in path.read_bytes() or b"battery staple" in path.read_bytes()
    ] == []


def test_mcp_servers_lend_their_tools(daemon: RunningDaemon, agent: str, tmp_path: Path) -> None:
    args = f"{MCP_PEER},{tmp_path / 'other-tools'}"
    made = daemon.ash("mcp", "add", "peer", "stdio", "--command", sys.executable, "--args", args, "--env", "MODE=quiet",
                      "--description", "for tests")  # fmt: skip
    assert made.out == "Added peer\n"
    assert table(daemon.ash("mcp", "list")) == [["peer", "stdio", sys.executable, "MODE", "for tests"]]
    assert "quiet" not in daemon.ash("mcp", "ls", "--json").out
    attached = daemon.ash("mcp", "attach", agent, "peer", "--operator", "ada").out.splitlines()
    assert "+ mcp.peer.say" in attached
    assert daemon.ash("tools", "invoke", agent, "mcp.peer.say", '{"text": "hello"}').json() == {"said": "hello"}
    assert "tainted" in daemon.ash("tools", "invoke", agent, "mcp.peer.fail", code=4).err
    daemon.ash("endorse", agent, "--reason", "read what it read")
    assert "it did not work" in daemon.ash("tools", "invoke", agent, "mcp.peer.fail", code=1).err
    assert "mcp.peer.say" in [row[0] for row in table(daemon.ash("tools", "list", "-a", agent))]
    assert "- mcp.peer.say" in daemon.ash("mcp", "detach", agent, "peer").out.splitlines()
    daemon.ash("tools", "invoke", agent, "mcp.peer.say", code=5)

    (tmp_path / "other-tools").touch()
    again = daemon.ash("mcp", "attach", agent, "peer").out.splitlines()
    assert {"? mcp.peer.say", "? mcp.peer.new"} <= set(again), "what has changed is not taken for what was agreed to"
    daemon.ash("mcp", "detach", agent, "peer")
    assert "+ mcp.peer.new" in daemon.ash("mcp", "attach", agent, "peer", "--accept-changes").out.splitlines()
    assert daemon.ash("mcp", "remove", "peer").out == "Removed peer\n"
    assert daemon.ash("tools", "invoke", agent, "mcp.peer.say", '{"text": "still"}').code == 0
    daemon.ash("mcp", "add", "lacking", "stdio", code=1)
    daemon.ash("mcp", "add", "odd", "http", "--url", "http://127.0.0.1:1/mcp", "--env", "NOVALUE", code=2)


def test_keys_of_the_gateway(daemon: RunningDaemon, agent: str) -> None:
    name = f"ci-{agent[:8]}"
    made = daemon.ash("api-key", "create", "--name", name, "--agent-id", agent)
    token = made.out.splitlines()[3].removeprefix("Token: ")
    assert made.err == ""
    assert daemon.request("GET", "/agents", token=token).status == 200
    row = next(row for row in table(daemon.ash("api-key", "list")) if row[0] == name)
    assert row[1] == agent
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row[2])
    assert token not in daemon.ash("api-key", "ls", "--json").out
    assert "already" in daemon.ash("api-key", "create", "--name", name, "--agent-id", agent, code=1).err
    daemon.ash("api-key", "create", "--name", "x", "--agent-id", "not-an-id", code=2)
    rotated = daemon.ash("api-key", "rotate", name, "--json").json()["token"]
    assert daemon.request("GET", "/agents", token=token).status == 401
    assert daemon.request("GET", "/agents", token=rotated).status == 200
    assert daemon.ash("api-key", "revoke", name).out == f"Revoked API key '{name}'\n"
    assert daemon.request("GET", "/agents", token=rotated).status == 401

    narrow = daemon.ash("api-key", "create", "--name", name, "--agent-id", agent, "--role", "agent",
                        "--scope", "agents.read", "--expires", FAR, "--json").json()  # fmt: skip
    assert (narrow["role"], narrow["scopes"], narrow["expires_at"]) == (
        "agent",
        ["agents.read"],
        "2099-01-01T00:00:00.000Z",
    )
    daemon.ash("api-key", "revoke", name)


# -- records -----------------------------------------------------------------------------------------------------------


def test_the_ledger_is_shown_and_verified(daemon: RunningDaemon, agent: str) -> None:
    daemon.ash("tools", "invoke", agent, "echo", '{"n": 1}')
    rows = table(daemon.ash("audit", "--agent", agent, "--limit", "2"))
    assert [row[2:] for row in rows] == [
        ["ToolInvoke", "pending", 'echo({"n":1})'],
        ["ToolInvoke", "success", 'echo({"n":1})'],
    ]
    assert rows[0][1] == f"operator for {agent[:8]}"
    for row in rows:
        assert row in table(daemon.ash("audit"))
    newest = daemon.ash("audit", "-a", agent, "-l", "1", "--json").json()
    assert {"id", "agent_id", "action", "timestamp", "prev_hash", "hash", "detail", "outcome"} <= set(newest[0])
    assert daemon.ash("audit", "--action", "ToolInvoke", "--outcome", "success", "-a", agent, "--json").json() == newest
    assert daemon.ash("audit", "-a", agent, "--since", "2099-01-01T00:00:00Z", "--json").json() == []
    told = re.fullmatch(r"whole: (\d+) entries, head [0-9a-f]{64}\n", daemon.ash("audit", "verify").out)
    assert told
    assert int(told[1]) > 10
    assert daemon.ash("audit", "verify", "--json").json()["ok"] is True


def test_what_agents_say_of_themselves(daemon: RunningDaemon, agent: str) -> None:
    for number in range(3):
        said = {"action": "look", "result": f"row {number}", "tags": ["a", f"t{number}"]}
        daemon.ok("POST", f"/agents/{agent}/observations", said)
    assert [row[1:] for row in table(daemon.ash("obs", "query", agent))] == [
        ["look", f"row {n}", f"a, t{n}"] for n in range(3)
    ]
    assert [one["result"] for one in daemon.ash("obs", "query", agent, "--limit", "1", "--json").json()] == ["row 2"]
    assert [row[2] for row in table(daemon.ash("obs", "query", agent, "--keyword", "row 1"))] == ["row 1"]
    assert [row[2] for row in table(daemon.ash("obs", "query", agent, "--tag", "t0"))] == ["row 0"]
    assert daemon.ash("obs", "query", agent, "--until", "2020-01-01T00:00:00Z").out == ""
    assert table(daemon.ash("obs", "query", NOBODY, "--target", agent))


def test_memory(daemon: RunningDaemon, agent: str) -> None:
    assert daemon.ash("memory", "write", agent, "k", "1").out == "version 1\n"
    assert daemon.ash("memory", "read", agent, "k").out == "1\n"
    assert daemon.ash("memory", "cas", agent, "k", "1", "[2]").out == "version 2\n"
    assert "version 2 is there, not 1" in daemon.ash("memory", "cas", agent, "k", "1", "[3]", code=1).err
    daemon.ash("memory", "cas", agent, "k", "0", "[3]", code=1)
    assert daemon.ash("memory", "cas", agent, "fresh", "0", "null", "--ttl", "60", "--json").json()["expires_at"]
    assert daemon.ash("memory", "read", agent, "k", "--json").json()["value"] == [2]
    for number in range(120):
        daemon.ok("PUT", f"/agents/{agent}/memory/many/{number}", {"value": number})
    assert len(daemon.ash("memory", "list", agent, "--pattern", "many/*").out.splitlines()) == 120, "all pages of it"
    assert daemon.ash("memory", "list", agent, "--json").json()[:2] == ["fresh", "k"]
    assert daemon.ash("memory", "delete", agent, "k").out == "Deleted k\n"
    daemon.ash("memory", "read", agent, "k", code=5)
    daemon.ash("memory", "write", agent, "k", "no json", code=2)


def test_the_blackboard(daemon: RunningDaemon, agent: str) -> None:
    assert daemon.ash("bb", "write", agent, "status/build", '"green"', "--ttl", "60").out == "version 1\n"
    assert daemon.ash("bb", "read", agent, "status/build").out == '"green"\n'
    assert daemon.ash("bb", "cas", agent, "status/build", '"green"', '"red"').out == "swapped\n"
    daemon.ash("bb", "cas", agent, "status/build", '"green"', '"blue"', code=1)
    assert daemon.ash("bb", "cas", agent, "lock", "null", '"mine"', "--json").json()
    assert daemon.ash("bb", "list", agent, "--pattern", "status/*").out == "status/build\n"
    assert daemon.ash("bb", "list", agent, "--json").json() == ["lock", "status/build"]
    daemon.ash("bb", "cas", agent, "lock", '"mine"', "null")
    daemon.ash("bb", "read", agent, "lock", code=5)
    assert daemon.ash("bb", "delete", agent, "status/build").out == "Deleted status/build\n"


def test_the_bus(daemon: RunningDaemon, agent: str) -> None:
    assert daemon.ash("bus", "subscribe", agent, "builds/*").out == "Subscribed to builds/*\n"
    daemon.ash("bus", "publish", agent, "builds/done", '{"commit": "5eafa96"}')
    daemon.ash("bus", "publish", agent, "builds/none", "null")
    daemon.ash("bus", "publish", agent, "other/done", "1")
    rows = table(daemon.ash("bus", "poll", agent))
    assert [row[1:] for row in rows] == [
        [agent, "builds/done", '{"commit": "5eafa96"}'],
        [agent, "builds/none", "null"],
    ]
    assert daemon.ash("bus", "poll", agent, "--json").json() == []
    daemon.ash("bus", "unsubscribe", agent, "builds/*")
    daemon.ash("bus", "publish", agent, "builds/done", "1", "--json")
    assert daemon.ash("bus", "poll", agent).out == ""


def test_workspaces(daemon: RunningDaemon, agent: str) -> None:
    def write(name: str) -> None:
        daemon.ash("tools", "invoke", agent, "fs.write", json.dumps({"path": f"/workspace/{name}", "content": "x"}))

    write("a")
    assert (
        daemon.ash("workspace", "snapshot", agent, "--description", "one").out
        == f"Snapshot 0 taken for agent {agent}\n"
    )
    write("b")
    assert table(daemon.ash("workspace", "diff", agent)) == [["added", "/workspace/b"]]
    assert daemon.ash("workspace", "commit", agent).out == "Committed as snapshot 1\n"
    rows = table(daemon.ash("workspace", "history", agent))
    assert [(row[0], row[2], row[3]) for row in rows] == [("0", "1 B", "one"), ("1", "2 B", "")]
    assert daemon.ash("workspace", "rollback", agent, "0").out == f"Agent {agent} is back at snapshot 0\n"
    daemon.ash("tools", "invoke", agent, "fs.read", '{"path": "/workspace/b"}', code=1)
    assert daemon.ash("replay", "rollback", agent, "1", "--json").json()["index"] == 1
    assert daemon.ash("tools", "invoke", agent, "fs.read", '{"path": "/workspace/b"}').json()["content"] == "x"


def test_the_scheduler(daemon: RunningDaemon, agent: str) -> None:
    daemon.ash("tools", "invoke", agent, "echo")
    stats = daemon.ash("scheduler", "stats", "--json").json()
    echo = next(tool for tool in stats["tools"] if tool["tool"] == "echo")
    assert echo["calls"] >= 1
    assert echo["cost"] >= 0.1
    assert agent in [one["agent_id"] for one in stats["agents"]]
    assert "echo" in [row[0] for row in table(daemon.ash("scheduler", "stats"))]
    assert ["priority", "80"] in table(daemon.ash("scheduler", "set-priority", agent, "80"))
    daemon.ash("scheduler", "set-deadline", agent, "2099-12-31T18:00:00Z")
    info = daemon.ash("scheduler", "info", agent, "--json").json()
    assert (info["priority"], info["deadline"], info["spent"]["calls"]) == (80, "2099-12-31T18:00:00.000Z", 1)
    daemon.ash("scheduler", "set-deadline", agent, "tomorrow", code=1)
    assert daemon.ash("scheduler", "clear-deadline", agent, "--json").json()["deadline"] is None


@pytest.mark.parametrize("words", [("anomaly", "list"), ("replay", "timeline", NOBODY)])
def test_what_is_not_there_yet_says_so(daemon: RunningDaemon, words: tuple[str, ...]) -> None:
    told = daemon.ash(*words, code=1)
    assert told.err.startswith("error: not available in this version\n")
    assert "audit" in told.err
