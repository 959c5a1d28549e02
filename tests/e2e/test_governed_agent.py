"""The governed example: it reads what it may, is refused what it may not, asks, publishes; its record proves itself."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borough.cli import borough
from borough.cli.errors import run
from tests.conftest import need
from tests.e2e.conftest import run_tool, until
from tests.e2e.daemon import EXAMPLE, ROOT, RunningDaemon, free_port, serving

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True, kw_only=True)
class Story:
    """What is left when the example has run: its answers, and the ledger as a file, with the key beside it."""

    agent_id: str
    asked: dict[str, Any]
    result: dict[str, Any]
    entries: list[dict[str, Any]]
    observations: list[dict[str, Any]]
    written: list[dict[str, str]]
    export: Path
    key: Path


def lived(daemon: RunningDaemon, folder: Path) -> Story:
    told = daemon.ash("spawn", str(EXAMPLE / "manifest.yaml")).out
    spawned = re.fullmatch(rf"Spawned agent ({UUID})\n", told)
    assert spawned, told
    agent_id = spawned[1]

    def waiting() -> list[dict[str, Any]]:
        return [one for one in daemon.ash("pending", "--json").json() if one["agent_id"] == agent_id]

    (asked,) = until(waiting)
    assert daemon.ash("result", agent_id, code=1).out == "", "it waits"
    assert daemon.ash("approve", asked["request_id"], "--operator", "ada").out == f"Approved {asked['request_id']}\n"
    result = daemon.ash("result", agent_id, "--wait", "30").json()
    until(lambda: daemon.ok("GET", f"/agents/{agent_id}")["status"] == "succeeded")
    export, key = folder / "ledger.borough", folder / "ledger.pub"
    export.write_bytes(daemon.request("GET", "/audit/export").body)
    key.write_bytes(daemon.request("GET", "/audit/key").body)
    return Story(
        agent_id=agent_id, asked=asked, result=result, entries=daemon.entries(agent_id),
        observations=daemon.ash("obs", "query", agent_id, "--json").json(),
        written=daemon.ash("workspace", "diff", agent_id, "--json").json(), export=export, key=key,
    )  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    need(Path("/usr/bin/python3").exists(), "a Python of the system, which boxes can see", "apt-get install python3")
    folder = tmp_path_factory.mktemp("story")
    with serving(tmp_path_factory.mktemp("agentd")) as daemon:
        return lived(daemon, folder)


def calls(story: Story, outcome: str) -> list[str]:
    return [
        entry["detail"] for entry in story.entries
        if entry.get("data", {}).get("tool") and entry["outcome"] == outcome and entry["agent_id"] == story.agent_id
        and entry["action"] in {"ToolInvoke", "AccessDenied"}
    ]  # fmt: skip


def test_it_reads_what_it_may(story: Story) -> None:
    done = calls(story, "success")
    assert done[0] == 'fs.list({"path":"/workspace/notes"})'
    notes = sorted(path.name for path in (EXAMPLE / "files" / "notes").iterdir())
    assert sorted(done[1:4]) == [f'fs.read({{"path":"/workspace/notes/{name}"}})' for name in notes]
    words = {name: len((EXAMPLE / "files" / "notes" / name).read_text().split()) for name in notes}
    assert (story.result["notes"], story.result["words"]) == (len(notes), sum(words.values()))
    assert json.loads(story.asked["input"]["content"]) == words


def test_it_is_refused_what_no_capability_names(story: Story) -> None:
    assert story.result["refused"] == "access denied: fs.read:/workspace/private/diary.txt"
    assert calls(story, "denied") == ['fs.read({"path":"/workspace/private/diary.txt"})']
    assert [one["action"] for one in story.observations] == ["refused", "index"]


def test_it_asks_and_publishes_what_was_agreed_to(story: Story) -> None:
    assert (story.asked["tool_name"], story.asked["rule"]) == ("fs.write", "publishing-takes-a-human")
    told = [(entry["action"], entry["outcome"]) for entry in story.entries
            if entry.get("policy_id") == story.asked["request_id"]]  # fmt: skip
    assert told[0] == ("ApprovalRequested", "pending")
    assert ("HumanApproval", "success") in told
    assert told[-1] == ("ToolInvoke", "success"), "asked, agreed to, made"
    by = {entry["data"]["by"] for entry in story.entries if entry["action"] == "HumanApproval"}
    assert by == {"ada"}
    assert {"/workspace/out/index.json", "/workspace/published/index.json"} <= {one["path"] for one in story.written}


def test_its_phases_are_all_there_in_order(story: Story) -> None:
    moves = [entry["data"]["to"] for entry in story.entries if entry["action"] == "LifecycleTransition"]
    assert moves == ["Plan", "Act", "Observe", "Terminate"]


def test_the_exported_ledger_verifies_on_its_own(story: Story, tmp_path: Path) -> None:
    alone = {"PATH": os.environ["PATH"], "SCARAB_SOCKET": "/nowhere", "AGENTD_DATA_DIR": str(tmp_path)}
    done = run_tool("borough.cli.borough", "verify", str(story.export), "--key-file", str(story.key), cwd=tmp_path,
                    environ=alone)  # fmt: skip
    assert re.search(r"^verified\tyes$", done.stdout, re.MULTILINE)
    other = tmp_path / "other.pub"
    other.write_text("borough.local+deadbeef+" + story.key.read_text().strip().split("+", 2)[2])
    assert verdict(story.export, other) != 0, "the key of another ledger proves nothing"


def verdict(export: Path, key: Path) -> int:
    """Return how ``borough verify`` ends."""
    return run(borough.program, "borough", ["verify", str(export), "--key-file", str(key), "--jobs", "1", "--json"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_byte_anywhere_is_found(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    whole = story.export.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1), label="position")
    flipped = whole[position] ^ data.draw(st.integers(1, 255), label="bits")
    spoilt = tmp_path / "spoilt.borough"
    spoilt.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
    assert verdict(spoilt, story.key) == 1
    assert verdict(story.export, story.key) == 0
    capsys.readouterr()


@pytest.mark.parametrize("what", ["first", "middle", "last", "swapped", "end"])
def test_an_entry_that_is_missing_or_moved_is_found(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    lines = story.export.read_bytes().splitlines(keepends=True)
    entries = [number for number, line in enumerate(lines) if b'"action"' in line]
    assert len(entries) > 20
    if what == "swapped":
        a, b = entries[3], entries[4]
        lines[a], lines[b] = lines[b], lines[a]
    elif what == "end":
        lines = lines[:-1]
    else:
        del lines[{"first": entries[0], "middle": entries[9], "last": entries[-1]}[what]]
    spoilt = tmp_path / "spoilt.borough"
    spoilt.write_bytes(b"".join(lines))
    assert verdict(spoilt, story.key) == 1
    capsys.readouterr()


# -- the example's own page --------------------------------------------------------------------------------------------


def test_the_page_of_the_example_can_be_run_from_top_to_bottom(tmp_path: Path) -> None:
    need(shutil.which("curl"), "curl", "apt-get install curl")
    page = (EXAMPLE / "README.md").read_text()
    address = f"127.0.0.1:{free_port()}"
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    script = script.replace("127.0.0.1:8080", address).replace("examples/", f"{ROOT}/examples/")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("agentd", "agentd"), ("ash", "ash"), ("borough", "borough")):
        (programs / name).write_text(
            f"#!{sys.executable}\nimport sys\nfrom borough.cli.{module} import main\nsys.exit(main())\n"
        )
        (programs / name).chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="bg-", dir="/tmp") as short:
        environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "AGENTD_API_ADDR": address,
                   "AGENTD_DATA_DIR": str(tmp_path / "state"), "SCARAB_SOCKET": f"{short}/s",
                   "AGENTD_API_TOKEN_DB": str(tmp_path / "tokens.db")}  # fmt: skip
        done = subprocess.run(["/bin/bash", "-eu", "-o", "pipefail", "-m", "-c", script + "wait\n"], cwd=tmp_path,
                              env=environ, capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done
    assert "Manifest is valid" in done.stdout
    assert '"refused": "access denied: fs.read:/workspace/private/diary.txt"' in done.stdout
    assert "publishing-takes-a-human" not in done.stderr
    assert re.search(r"^verified\tyes$", done.stdout, re.MULTILINE)
