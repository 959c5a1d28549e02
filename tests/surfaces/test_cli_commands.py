"""What commands ask the server, and what they print of its answers."""

import io
import json
import time
from pathlib import Path

import pytest

from tests.surfaces.scripted import Answer, CommandLine, Request, ScriptedServer, agent, problem, task

TASK = "bbbb2222-0000-4000-8000-000000000002"


def test_list_prints_a_line_an_agent(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = {"agents": [agent(), agent("bob", state="Working", current_scope="a\nb\x1b[2J")]}
    ran = tt("list")
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert first.split("\t")[:4] == [
        *("ada [ada]", "aaaa1111-0000-4000-8000-000000000001", "idle"),
        "2026-01-01T00:00:00.000Z",
    ]
    assert second.endswith("a⏎b\\x1b[2J")


def test_list_as_json_is_one_document_on_stdout(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = {"agents": [agent()]}
    ran = tt("list", "--json")
    assert ran.document["count"] == 1
    assert ran.document["agents"][0]["state_since"] == "2026-01-01T00:00:00.000Z"
    assert ran.err == ""


def test_the_credential_is_sent_and_never_printed(
    tt: CommandLine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWNHALL_API_KEY", "s3cret")
    server.script["GET /v1/status"] = problem(403, detail="Insufficient permissions", code="insufficient_scope")
    ran = tt("list", "-v")
    assert ran.code == 4
    assert server.asked("GET", "/v1/status").headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in ran.out + ran.err


def test_spawn_says_all_it_was_told(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/agents/Boss%20%5Bx%5D"] = agent("boss")
    server.script["POST /v1/agents"] = lambda request: Answer(
        201, {"agent_id": "id-1", **{key: request.body[key] for key in ("name", "cli", "role_id")}}
    )
    ran = tt("spawn", "ada", "-c", "codex", "--role", "backend", "--parent", "Boss [x]", "--max-rounds", "5")
    assert ran.out == "spawned ada (id-1)\n"
    assert "--max-rounds has no meaning here" in ran.err
    assert server.asked("POST", "/v1/agents").body == {
        "name": "ada",
        "cli": "codex",
        "role_id": "backend",
        "nickname": None,
        "parent_agent_id": "aaaa1111-0000-4000-8000-000000000001",
    }


@pytest.mark.parametrize("verb", ["kill", "interrupt", "resume", "close", "restart"])
def test_one_agent_is_acted_on(tt: CommandLine, server: ScriptedServer, verb: str) -> None:
    server.script[f"POST /v1/agents/ada/{verb}"] = {"status": "stopped", "agent": "ada"}
    assert tt(verb, "ada").out == "ada stopped\n"
    assert server.asked("POST", f"/v1/agents/ada/{verb}").headers["idempotency-key"]


def test_wait_ends_when_the_agent_has_stopped(tt: CommandLine, server: ScriptedServer) -> None:
    states = iter(["Working", "Draining", "Stopped"])
    server.script["GET /v1/agents/ada"] = lambda _: Answer(body=agent(state=next(states)))
    assert tt("wait", "ada").out == "ada is stopped\n"


def test_wait_fails_when_time_is_over(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/agents/ada"] = agent(state="Working")
    ran = tt("wait", "ada", "--timeout", "0")
    assert ran.code == 1
    assert "ada still runs: it is working" in ran.err


def test_a_task_of_many_lines_arrives_whole(
    tt: CommandLine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "line one\n\tindented — ünï\n" * 200
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    server.script["POST /v1/tasks/assign"] = Answer(
        201, {"task_id": TASK, "agent_id": agent()["id"], "agent_name": "ada"}
    )
    ran = tt("assign", "ada", "-", "--tags", "a, b", "--urgent", "--max-attempts", "5", "--timeout", "60")
    assert ran.out == f"{TASK}\n"
    assert server.asked("POST", "/v1/tasks/assign").body == {
        "agent": "ada",
        "task": text,
        "tags": ["a", "b"],
        "urgent": True,
        "max_attempts": 5,
        "timeout_secs": 60,
    }


def test_what_was_not_said_is_left_to_the_server(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["POST /v1/backlog"] = Answer(201, {"task_id": TASK, "description": "x"})
    tt("backlog", "add", "x")
    assert server.asked("POST", "/v1/backlog").body == {"description": "x"}


def test_a_list_of_many_pages_is_read_to_its_end(tt: CommandLine, server: ScriptedServer) -> None:
    def page(request: Request) -> Answer:
        last = request.query.get("cursor") == "two"
        entry = {"task_id": "t2" if last else "t1", "description": "d", "tags": [], "role": None, "urgent": last}
        return Answer(body={"backlog": [entry], "count": 1, "next_cursor": None if last else "two"})

    server.script["GET /v1/backlog"] = page
    assert [entry["task_id"] for entry in tt("backlog", "list", "--json").document["backlog"]] == ["t1", "t2"]


def test_a_limit_is_kept_over_pages(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/agents"] = {"agents": [agent()]}
    server.script["GET /v1/tasks"] = lambda request: Answer(
        body={"tasks": [task()] * min(2, int(request.query["limit"])), "count": 2, "next_cursor": "more"}
    )
    ran = tt("task", "list", "--limit", "3", "--state", "completed", "--agent", "ada")
    assert len(ran.out.splitlines()) == 3
    assert "\tada\t" in ran.out
    first = server.requests[0].query
    assert (first["state"], first["agent"], first["limit"]) == ("completed", "ada", "3")


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["complete", TASK, "--result", "ok"], "complete", {"result": "ok"}),
        (["complete", TASK], "complete", {}),
        (["fail", TASK, "broken", "--final"], "fail", {"reason": "broken", "final": True}),
        (["cancel", TASK, "--reason", "late"], "cancel", {"reason": "late"}),
        (["retry", TASK], "retry", {}),
    ],
)
def test_tasks_are_ended(
    tt: CommandLine, server: ScriptedServer, words: list[str], path: str, body: dict[str, object]
) -> None:
    server.script[f"POST /v1/tasks/{TASK}/{path}"] = task(state="completed")
    assert tt("task", *words).out == f"{TASK} is completed\n"
    assert server.asked("POST", f"/v1/tasks/{TASK}/{path}").body == body


def test_show_tells_history_and_result(tt: CommandLine, server: ScriptedServer) -> None:
    entry = {
        "at": "2026-01-01T00:00:01.000Z",
        "event": "lease_expired",
        "old_state": "running",
        "new_state": "delayed",
        "agent_id": None,
        "attempt": 1,
        "reason": "the worker fell silent",
    }
    server.script[f"GET /v1/tasks/{TASK}"] = task(history=[entry])
    out = tt("task", "show", TASK).out
    assert "took\t8.0 s" in out
    assert "Result:\n12 TODOs" in out
    assert "lease_expired  running → delayed  attempt 1  the worker fell silent" in out


def test_the_present_agents_task_is_found_by_environment(
    tt: CommandLine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYTOWN_AGENT_NAME", "ada")
    server.script["GET /v1/agents/ada"] = agent(current_task=TASK)
    server.script[f"GET /v1/tasks/{TASK}"] = task(history=[])
    assert tt("task", "current", "--json").document["task_id"] == TASK
    server.script["GET /v1/agents/ada"] = agent(current_task=None)
    assert tt("task", "current").code == 5


def test_explain_says_why_since_when_and_what_next(tt: CommandLine, server: ScriptedServer) -> None:
    server.script[f"GET /v1/tasks/{TASK}/explain"] = {
        "subject": "task bbbb",
        "state": "pending",
        "why": "no live agent has the role 'db'",
        "since": "2026-01-01T00:00:00.000Z",
        "deadline": None,
        "next": ["spawn one: tt spawn NAME --role db", "or cancel it"],
    }
    out = tt("task", "explain", TASK).out
    assert "why\tno live agent has the role 'db'" in out
    assert out.count("next\t") == 2


def test_a_long_log_is_read_in_parts(tt: CommandLine, server: ScriptedServer) -> None:
    content = b"one\ntwo\xff\nthree\n"

    def part(request: Request) -> Answer:
        offset = int(request.query["offset"])
        return Answer(
            body=content[offset : offset + 5], content_type="text/plain", headers={"X-Log-Size": str(len(content))}
        )

    server.script[f"GET /v1/tasks/{TASK}/log"] = part
    assert tt("task", "log", TASK, "--json").document == {
        "attempt": None,
        "size": len(content),
        "text": content.decode("utf-8", "replace"),
    }


def stream(*events: tuple[str, str, object]) -> Answer:
    text = "".join(f"id: {id_}\nevent: {kind}\ndata: {json.dumps(data)}\n\n" for id_, kind, data in events)
    return Answer(body=text.encode(), content_type="text/event-stream")


def test_a_followed_log_goes_on_where_the_connection_broke(tt: CommandLine, server: ScriptedServer) -> None:
    def tail(request: Request) -> Answer:
        assert request.headers["accept"] == "text/event-stream"
        if request.query["offset"] == "0":
            return stream(("1", "log", {"offset": 0, "text": "one\n"}))
        return stream(("2", "log", {"offset": 4, "text": "two\n"}), ("3", "end", {}))

    server.script[f"GET /v1/tasks/{TASK}/log"] = tail
    ran = tt("task", "log", TASK, "--follow")
    assert (ran.code, ran.out) == (0, "one\ntwo\n")
    assert [request.query["offset"] for request in server.requests] == ["0", "4"]


def an_event(number: int, **members: object) -> dict[str, object]:
    return {
        "id": f"{number}-0",
        "event_type": "task_completed",
        "message": f"event {number}",
        "timestamp": "2026-01-01T00:00:00.000Z",
        **members,
    }


def test_history_shows_the_newest_in_order(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/events"] = {"events": [an_event(1), an_event(2)], "count": 2}
    ran = tt("history", "-n", "2", "-a", "ada")
    assert [line.split("\t")[2] for line in ran.out.splitlines()] == ["event 1", "event 2"]
    assert server.asked("GET", "/v1/events").query == {"limit": "2", "agent": "ada"}


def test_followed_events_go_on_after_the_last_one_seen_and_repeat_none(tt: CommandLine, server: ScriptedServer) -> None:
    streams = iter(
        [
            stream(("2-0", "task_completed", an_event(2))),
            stream(("3-0", "gap", {"missed": 5}), ("4-0", "task_completed", an_event(4))),
            problem(403, detail="the key has expired", code="credential_expired"),
        ]
    )

    def events(request: Request) -> Answer:
        if request.headers["accept"] == "text/event-stream":
            return next(streams)
        return Answer(body={"events": [an_event(1)], "count": 1})

    server.script["GET /v1/events"] = events
    ran = tt("events", "--follow", "--json")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == ["1-0", "2-0", "4-0"]
    assert "some events are missing here" in ran.err
    assert ran.code == 4
    resumed = [r.headers.get("last-event-id") for r in server.requests if r.headers["accept"] == "text/event-stream"]
    assert resumed == ["1-0", "2-0", "4-0"]


@pytest.mark.parametrize(
    ("options", "kind"), [([], "task"), (["--query"], "query"), (["--info"], "info"), (["--ack"], "ack")]
)
def test_messages_have_a_kind_and_a_sender(
    tt: CommandLine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, options: list[str], kind: str
) -> None:
    monkeypatch.setenv("TINYTOWN_AGENT_ID", "me")
    server.script["POST /v1/messages/send"] = Answer(201, {"message_id": "m1", "to_agent": "x", "urgent": False})
    assert tt("send", "bob", "hello", *options).out == "m1\n"
    assert server.asked("POST", "/v1/messages/send").body == {
        "to": "bob",
        "message": "hello",
        "kind": kind,
        "urgent": False,
        "from": "me",
    }
    tt("send", "bob", "hello", "--from", "ada")
    assert server.asked("POST", "/v1/messages/send").body["from"] == "ada"


def test_an_inbox_is_looked_into_read_and_acknowledged(tt: CommandLine, server: ScriptedServer) -> None:
    entry = {"id": "m1", "from": "x", "type": "info", "summary": "news", "urgent": True}
    server.script["GET /v1/agents/supervisor/inbox"] = {
        "agent": "supervisor",
        "total": 0,
        "urgent": 1,
        "messages": [entry],
    }
    server.script["GET /v1/agents/ada/inbox/m1"] = {
        "id": "m1",
        "from": "x",
        "to": "y",
        "type": "info",
        "text": "long\nnews",
        "urgent": True,
        "created_at": "2026-01-01T00:00:00.000Z",
    }
    server.script["POST /v1/agents/ada/inbox/ack"] = {"acknowledged": 2}
    assert tt("inbox").out == "m1\tinfo\turgent\tx\tnews\n"
    assert tt("inbox", "ada", "--read", "m1").out.endswith("\nlong\nnews\n")
    tt("inbox", "ada", "--ack", "m1", "--ack", "m2")
    assert server.asked("POST", "/v1/agents/ada/inbox/ack").body == {"message_ids": ["m1", "m2"]}
    tt("inbox", "ada", "--ack-all")
    assert server.asked("POST", "/v1/agents/ada/inbox/ack").body == {"message_ids": None}


def test_prune_only_shows_until_it_is_told_yes(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["POST /v1/agents/prune"] = lambda request: Answer(
        body={"removed": 1, "agents": ["ada"], "dry_run": request.body["dry_run"]}
    )
    ran = tt("prune")
    assert ran.out == "would remove ada\n"
    assert [request.body["dry_run"] for request in server.requests] == [True]
    assert tt("prune", "--yes").out == "removed ada\n"
    assert [request.body["dry_run"] for request in server.requests] == [True, True, False]


def test_prune_of_all_is_not_done_without_the_towns_name(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["POST /v1/agents/prune"] = {"removed": 1, "agents": ["ada"], "dry_run": True}
    server.script["GET /v1/town"] = {"name": "t", "root": ".", "redis_url": "unix"}
    assert "would remove ada" in tt("prune", "--all").out
    assert all(request.body["dry_run"] for request in server.requests if request.method == "POST")


def test_reclaim_lists_and_moves_nothing_by_default(tt: CommandLine, server: ScriptedServer) -> None:
    pending = {"task_id": "t1", "description": "d", "agent_id": "x", "agent_name": "ada"}
    server.script["POST /v1/reclaim"] = {"reclaimed": 1, "destination": "Listed", "tasks": [pending]}
    ran = tt("reclaim")
    assert server.asked("POST", "/v1/reclaim").body == {"to_backlog": False, "to": None, "from": None}
    assert ran.out == "t1\tada\td\n"
    assert "nothing was moved" in ran.err


def test_orphans_are_destroyed_only_when_confirmed(tt: CommandLine, server: ScriptedServer) -> None:
    orphan = {"task_id": "t1", "assigned_to": "x", "state": "assigned", "reason": "agent_missing"}
    server.script["POST /v1/reclaim/orphan-tasks"] = lambda request: Answer(
        body={"action": request.body["action"], "count": 1, "orphans": [orphan]}
    )
    ran = tt("reclaim", "--orphan-tasks", "--delete")
    assert ran.code == 1
    assert [request.body["action"] for request in server.requests] == ["list"]
    assert tt("reclaim", "--orphan-tasks", "--delete", "--yes").code == 0
    assert [request.body["action"] for request in server.requests] == ["list", "list", "delete"]


def test_reset_needs_force_or_the_towns_name(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = {"name": "t", "agent_count": 2, "agents": [], "tasks": {"pending": 3}}
    server.script["POST /v1/reset"] = {"removed": 9}
    ran = tt("reset")
    assert ran.code == 1
    assert "2 agents, 3 tasks" in ran.err
    assert tt("reset", "--force").out == "9 records deleted\n"
    assert server.asked("POST", "/v1/reset").body == {"confirm": "t", "agents_only": False}


def test_status_groups_open_tasks_by_agent(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = {
        "name": "t",
        "root": "/r",
        "redis_url": "unix",
        "agent_count": 1,
        "agents": [agent()],
        "tasks": {"running": 1, "failed": 0},
    }
    server.script["GET /v1/tasks"] = lambda request: Answer(
        body={
            "tasks": [task(state="running")] if request.query["state"] == "running" else [],
            "count": 1,
            "next_cursor": None,
        }
    )
    ran = tt("status", "--tasks")
    assert "tasks\t1 running\n" in ran.out
    assert "ada: bbbb2222 running List the TODOs" in ran.out
    assert server.asked("GET", "/v1/status").query == {"deep": "true"}


def test_a_plan_is_given_out_once(tt: CommandLine, server: ScriptedServer, clean: Path) -> None:
    assert tt("init", "--name", "t").code == 0
    (clean / "tasks.toml").write_text(
        '[meta]\ndefault_agent = "ada"\n# kept\n[[tasks]]\nid = "one"\ndescription = "first"\nstatus = "pending"\n'
        '[[tasks]]\nid = "two"\ndescription = "second"\nparent = "one"\ntags = ["x"]\n'
        '[[tasks]]\nid = "old"\ndescription = "done long ago"\nstatus = "completed"\n'
    )
    given: dict[str, str] = {}

    def assign(request: Request) -> Answer:
        tag = next(tag for tag in request.body["tags"] if tag.startswith("plan:"))
        given[tag] = f"id-of-{tag[5:]}"
        return Answer(201, {"task_id": given[tag], "agent_id": "x", "agent_name": "ada"})

    def tagged(request: Request) -> Answer:
        found = given.get(request.query["tag"])
        tasks = [task(task_id=found, state="running")] if found else []
        return Answer(body={"tasks": tasks, "count": len(tasks), "next_cursor": None})

    server.script["GET /v1/tasks"] = tagged
    server.script["POST /v1/tasks/assign"] = assign
    first = tt("sync", "--json").document["tasks"]
    assert [(row["id"], row["what"]) for row in first] == [
        ("one", "given out"),
        ("two", "given out"),
        ("old", "left out: completed"),
    ]
    assert server.asked("POST", "/v1/tasks/assign").body["parent_id"] == "id-of-one"
    second = tt("sync", "push", "--json").document["tasks"]
    assert [row["what"] for row in second] == ["there already", "there already", "left out: completed"]
    assert sum(request.method == "POST" for request in server.requests) == 2
    assert tt("sync", "pull").code == 0
    text = (clean / "tasks.toml").read_text()
    assert text.count('status = "running"') == 2
    assert "# kept" in text


def test_a_lost_answer_is_asked_for_again_with_the_same_key(tt: CommandLine, server: ScriptedServer) -> None:
    keys: list[str] = []

    def lose_first(request: Request) -> Answer:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise ConnectionAbortedError
        return Answer(201, {"task_id": TASK, "description": "x"})

    server.script["POST /v1/backlog"] = lose_first
    assert tt("backlog", "add", "x").out == f"{TASK}\n"
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_an_option_may_stand_before_or_after_the_command(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = {"agents": []}
    assert tt("--json", "list").document == tt("list", "--json").document


def test_commands_do_not_dawdle(tt: CommandLine, server: ScriptedServer) -> None:
    server.script["GET /v1/status"] = {"agents": [agent()]}
    tt("list")
    started = time.monotonic()
    tt("list")
    assert time.monotonic() - started < 1.0
