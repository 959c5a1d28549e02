"""``borough up``: town and governance on one port, in one folder, with one credential; and their one ledger."""

import json
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from borough.config.agentd_places import MOST_SOCKET_PATH_BYTES
from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until

ORIGIN = {"Origin": "https://dashboard.example.com"}
FOREIGN = {**ORIGIN, "Sec-Fetch-Site": "cross-site"}


def manifest(name: str, *capabilities: str) -> str:
    document = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": name, "version": "1.0.0"},
        "spec": {"trust_level": "trusted", "capabilities": list(capabilities)},
    }
    return json.dumps(document)


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    # Not below pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="up") as folder:
        root = Path(folder).resolve() / "t"
        root.mkdir()
        running = start_town(root, governed=True)
        yield running
        assert stop_town(running) == 0


def ash(town: RunningTown, *words: str, cwd: Path | None = None, **environ: str) -> str:
    return run_tool("borough.cli.ash", *words, cwd=cwd or town.root, environ={**town.environ, **environ}).stdout


def town_entries(town: RunningTown) -> list[dict[str, Any]]:
    """What the ledger tells of the town, oldest first."""
    found: list[dict[str, Any]] = town.ok("GET", "/audit?limit=1000")
    return [entry for entry in found if entry["via"] == "town"]


def test_a_second_up_finds_the_first(town: RunningTown) -> None:
    port = str(urlsplit(town.url).port)
    for asked in ((), ("--port", port)):
        told = run_tool("borough.cli.borough", "up", *asked, cwd=town.root, environ=town.environ)
        assert f"pid {town.process.pid} at {town.url}" in told.stderr, "and exit code 0"
    elsewhere = run_tool("borough.cli.borough", "up", "--port", "1", cwd=town.root, environ=town.environ, check=False)
    assert (elsewhere.returncode, "this town is served already" in elsewhere.stderr) == (1, True)
    assert town.ok("GET", "/health")["status"] == "ok"


# -- one port ----------------------------------------------------------------------------------------------------------


def test_health_has_what_either_s_clients_read(town: RunningTown) -> None:
    told = town.request("GET", "/health", token=None)
    assert told.status == 200
    assert {"status", "uptime_secs", "version"} <= set(told.json())
    assert town.request("GET", "/healthz", token=None).status == 200


def test_governance_wants_a_token_where_the_town_wants_none(town: RunningTown) -> None:
    assert town.request("GET", "/v1/town", token=None).status == 200
    refused = town.request("GET", "/agents", token=None)
    assert (refused.status, refused.json()["code"]) == (401, "unauthorized")
    assert town.request("POST", "/mcp", {}, token=None).status == 401
    for path in ("/v1/town", "/agents", "/audit/key", "/v1/status"):
        assert town.request("GET", path).status == 200


def test_each_surface_refuses_in_its_own_words(town: RunningTown) -> None:
    towns = town.request("GET", "/v1/nothing")
    assert (towns.status, towns.headers["content-type"]) == (404, "application/problem+json")
    gateways = town.request("GET", "/agents/nothing/at/all")
    assert (gateways.status, gateways.headers["content-type"]) == (404, "application/json")
    assert gateways.json()["request_id"] == gateways.headers["x-request-id"]


def test_pages_of_other_origins_reach_governance_only(town: RunningTown) -> None:
    assert town.request("GET", "/agents", headers=ORIGIN).headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in town.request("GET", "/v1/town", headers=ORIGIN).headers
    made = town.request("POST", "/agents", {"manifest_yaml": manifest("page", "obs.append")}, headers=FOREIGN)
    assert made.status == 201
    refused = town.request("POST", "/v1/backlog", {"description": "x"}, headers=FOREIGN)
    assert (refused.status, refused.json()["code"]) == (403, "cross_origin")


def test_both_documents_are_served_and_name_each_other(town: RunningTown) -> None:
    assert "/v1/backlog" in town.request("GET", "/openapi.json", token=None).json()["paths"]
    assert "/agents/{id}" in town.request("GET", "/governance/openapi.json", token=None).json()["paths"]
    assert 'href="/governance/docs"' in town.request("GET", "/docs", token=None).body.decode()
    assert 'href="/docs"' in town.request("GET", "/governance/docs", token=None).body.decode()


def test_everything_of_governance_is_in_the_town_s_folder_and_its_owner_s_alone(town: RunningTown) -> None:
    state = town.root / ".tt"
    for name in ("governance", "governance/governance.db", "governance/tokens.db", "agentd.sock", "operator.token"):
        assert (state / name).stat().st_mode & 0o077 == 0, name
    assert json.loads((state / "server.json").read_text())["socket"] == str(state / "agentd.sock")


# -- ash ---------------------------------------------------------------------------------------------------------------


def test_ash_finds_the_town_s_socket_from_any_folder_in_it(town: RunningTown, tmp_path: Path) -> None:
    deeper = town.root / "src" / "deeper"
    deeper.mkdir(parents=True)
    nowhere = {"SCARAB_SOCKET": "", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert ash(town, "ping", **nowhere) == "pong\n"
    assert ash(town, "ping", cwd=deeper, **nowhere) == "pong\n"


def test_a_socket_that_is_named_wins_over_the_town_s(town: RunningTown, tmp_path: Path) -> None:
    refused = run_tool(
        "borough.cli.ash", "ping", cwd=town.root, environ={"SCARAB_SOCKET": str(tmp_path / "none")}, check=False
    )
    assert refused.returncode == 3
    assert str(tmp_path / "none") in refused.stderr
    own = str(town.root / ".tt" / "agentd.sock")
    asked = run_tool(
        *("borough.cli.ash", "--socket", own, "ping"), cwd=tmp_path, environ={"SCARAB_SOCKET": str(tmp_path / "none")}
    )
    assert asked.stdout == "pong\n"


def test_a_town_with_a_long_path_has_its_socket_elsewhere_and_ash_finds_it(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 20) / ("longer" * 10)
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="rt") as runtime:
        running = start_town(root, governed=True, environ={"XDG_RUNTIME_DIR": runtime})
        try:
            told = json.loads((root / ".tt" / "server.json").read_text())["socket"]
            assert len(told) < MOST_SOCKET_PATH_BYTES
            assert ash(running, "ping") == "pong\n"
        finally:
            assert stop_town(running) == 0


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_what_the_town_does_is_in_the_ledger(town: RunningTown) -> None:
    made = town.ok("POST", "/v1/backlog", {"description": "sweep the yard"})["task_id"]

    def told() -> dict[str, Any] | None:
        found = [entry for entry in town_entries(town) if entry.get("data", {}).get("task_id") == made]
        return found[0] if found else None

    entry = until(told)
    assert (entry["action"], entry["outcome"], entry["via"]) == ("town.task_queued", "success", "town")
    assert "sweep the yard" in entry["detail"]
    assert entry["agent_name"] == "town"
    assert town.ok("GET", "/audit/verify")["ok"] is True
    # Its owner's programs are let in by themselves, and by nobody else's address.
    for words in ((), (town.url,)):
        verified = run_tool("borough.cli.borough", "verify", *words, cwd=town.root).stdout
        assert "verified" in verified
        assert "yes" in verified


def test_a_town_killed_again_and_again_is_in_the_ledger_once_and_whole() -> None:
    with tempfile.TemporaryDirectory(prefix="up") as folder:
        root = Path(folder).resolve() / "t"
        root.mkdir()
        made = []
        for _ in range(3):
            running = start_town(root, governed=True)
            made += [running.ok("POST", "/v1/backlog", {"description": f"task {n}"})["task_id"] for n in range(20)]
            running.process.send_signal(signal.SIGKILL)
            running.process.wait(10)
        running = start_town(root, governed=True)
        try:

            def queued() -> "Counter[str]":
                entries = town_entries(running)
                return Counter(e["data"]["task_id"] for e in entries if e["action"] == "town.task_queued")

            until(lambda: len(queued()) == len(made))
            assert queued() == Counter(made)
            ids = [entry["data"]["event_id"] for entry in town_entries(running)]
            assert len(ids) == len(set(ids))
            assert running.ok("GET", "/audit/verify")["ok"] is True
        finally:
            assert stop_town(running) == 0


def test_townhall_alone_serves_no_governance_in_the_same_folder(tmp_path: Path) -> None:
    running = start_town(tmp_path)
    try:
        assert running.request("GET", "/agents").status == 404
        assert "socket" not in json.loads((tmp_path / ".tt" / "server.json").read_text())
        assert not (tmp_path / ".tt" / "governance").exists()
    finally:
        assert stop_town(running) == 0
