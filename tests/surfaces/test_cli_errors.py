"""How commands end: one table of exit codes; every error says what, why and what next."""

from pathlib import Path

import pytest

from tests.surfaces.scripted import Answer, CommandLine, ScriptedServer, problem


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1), (401, 4), (403, 4), (404, 5), (408, 1), (409, 1), (413, 1), (422, 1), (429, 1), (500, 1), (503, 1)],
)
def test_a_refusal_has_the_exit_code_of_its_kind(
    tt: CommandLine, server: ScriptedServer, status: int, code: int
) -> None:
    server.script["GET /v1/status"] = problem(status, detail="no", code="some_code")
    ran = tt("list")
    assert ran.code == code
    assert ran.out == ""


def test_an_error_says_what_why_and_what_next(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["POST /v1/agents/ada/kill"] = problem(
        409, detail="ada has ended", code="agent_not_running", reason="it is stopped", resolution="tt restart ada"
    )
    ran = tt("kill", "ada")
    assert ran.err.splitlines() == [
        "error: ada has ended",
        "why: it is stopped",
        "next: tt restart ada",
        "request: req-1",
    ]


def test_an_error_without_a_reason_still_says_why_and_next(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = Answer(status=502, body=b"<html>bad gateway")
    lines = tt("list").err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "why", "next"]
    assert "502" in lines[0]


def test_an_error_as_json_is_one_object_on_stderr(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["POST /v1/tasks/assign"] = problem(
        422, detail="wrong", code="validation_failed", errors=[{"pointer": "/task", "detail": "is too long"}]
    )
    ran = tt("assign", "ada", "x", "--json")
    assert ran.code == 1
    assert ran.out == ""
    told = ran.error
    assert (told["error"], told["code"], told["status"], told["request_id"], told["exit"]) == (
        *("wrong", "validation_failed", 422, "req-1"),
        1,
    )
    assert told["why"] == "/task: is too long"


def test_what_a_server_says_cannot_steer_the_terminal(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = problem(404, detail="\x1b[2Jgone\nnext: rm -rf", code="x")
    ran = tt("list")
    assert "\x1b" not in ran.err
    assert len([line for line in ran.err.splitlines() if line.startswith("next:")]) == 1


def test_a_server_that_is_not_there_is_exit_code_3(local_tt: CommandLine) -> None:
    ran = local_tt("--server", "http://127.0.0.1:1", "list")
    assert ran.code == 3
    assert "no server answers at http://127.0.0.1:1" in ran.err


def test_no_town_and_no_server_is_exit_code_3(local_tt: CommandLine) -> None:
    ran = local_tt("list")
    assert ran.code == 3
    assert "tt init" in ran.err


def test_no_start_is_exit_code_3(local_tt: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_tt("init", "--name", "t").code == 0
    assert local_tt("list", "--no-start").code == 3
    monkeypatch.setenv("TT_NO_START", "1")
    assert local_tt("list").code == 3


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["assign", "ada"],
        ["assign", "ada", "  "],
        ["spawn", "--unknown", "x"],
        ["task", "list", "--state", "sleeping"],
        ["send", "ada", "x", "--info", "--query"],
        ["reclaim", "--to-backlog", "--to", "ada"],
        ["reclaim", "--delete"],
        ["task", "current"],
        ["history", "-n", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_asks_nobody(tt: CommandLine, server: ScriptedServer, words: list[str]) -> None:
    ran = tt(*words)
    assert ran.code == 2, ran
    assert [line.split(":")[0] for line in ran.err.splitlines()] == ["error", "why", "next"]
    assert server.requests == []


def test_a_misspelt_command_is_told_the_nearest(tt: CommandLine) -> None:
    assert "Did you mean 'status'?" in tt("statsu").err


def test_wrong_usage_as_json(tt: CommandLine) -> None:
    ran = tt("assign", "--json")
    assert ran.code == 2
    assert ran.error["code"] == "usage"


def test_an_unwritable_place_is_an_error_not_a_traceback(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "t")
    (clean / "folder").mkdir()
    ran = local_tt("save", str(clean / "missing" / "file"))
    assert ran.code == 1
    assert ran.err.startswith("error: ")
