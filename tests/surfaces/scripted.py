"""A small real HTTP server that answers what a test has written down, and a command line to run against it."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from borough.cli.errors import run
from borough.cli.tt import program


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Request], Answer] | Answer | Any


class ScriptedServer:
    """Answers by ``METHOD /path``; everything else is a 404 problem. Keeps what it was asked."""

    def __init__(self) -> None:
        self.script: dict[str, Script] = {}
        self.requests: list[Request] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def asked(self, method: str, path: str) -> Request:
        found = [one for one in self.requests if (one.method, one.path) == (method, path)]
        assert found, f"{method} {path} was not asked, but {[(one.method, one.path) for one in self.requests]}"
        return found[-1]

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        scripted = self.script.get(f"{request.method} {request.path}")
        if scripted is None:
            return problem(404, code="route_not_found", title="Not Found", detail="no such route")
        if callable(scripted):
            return scripted(request)
        return scripted if isinstance(scripted, Answer) else Answer(body=scripted)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("content-length", 0))
                content = self.rfile.read(length)
                request = Request(
                    method=self.command,
                    path=parts.path,
                    query={name: values[0] for name, values in parse_qs(parts.query).items()},
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=json.loads(content) if content else None,
                )
                answer = server.answer(request)
                raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(raw)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_DELETE = _any  # noqa: N815 - names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                del format, args

        return Handler


def problem(status: int, **members: Any) -> Answer:
    body = {"type": "about:blank", "title": "Problem", "status": status, "request_id": "req-1", **members}
    return Answer(status=status, body=body, content_type="application/problem+json")


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err.splitlines()[-1])


class CommandLine:
    """Runs ``tt`` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], server: ScriptedServer | None = None) -> None:
        self._capsys = capsys
        self._server = server

    def __call__(self, *words: str) -> Ran:
        self._capsys.readouterr()
        arguments: Sequence[str] = words if self._server is None else ("--server", self._server.url, *words)
        code = run(program, "tt", arguments)
        told = self._capsys.readouterr()
        return Ran(code, told.out, told.err)


def agent(name: str = "ada", **members: Any) -> dict[str, Any]:
    return {
        "id": "aaaa1111-0000-4000-8000-000000000001",
        "name": name,
        "nickname": None,
        "role_id": None,
        "parent_agent_id": None,
        "spawn_mode": "fresh",
        "cli": "claude",
        "state": "Idle",
        "current_scope": None,
        "rounds_completed": 0,
        "tasks_completed": 3,
        "inbox_len": 2,
        "urgent_len": 1,
        "label": f"{name} [{name}]",
        "state_since": "2026-01-01T00:00:00.000Z",
        "reason": None,
        "current_task": None,
        "created_at": "2026-01-01T00:00:00.000Z",
        "last_heartbeat": "2026-01-01T00:00:00.000Z",
        "last_active_at": "2026-01-01T00:00:00.000Z",
        "lease_expires_at": None,
        "live": True,
        "incarnation": 1,
        "host": "here",
        "pid": 42,
    } | members


def task(**members: Any) -> dict[str, Any]:
    return {
        "task_id": "bbbb2222-0000-4000-8000-000000000002",
        "description": "List the TODOs",
        "kind": "task_assign",
        "state": "completed",
        "role": None,
        "urgent": False,
        "tags": [],
        "sender": "00000000-0000-0000-0000-000000000001",
        "parent_id": None,
        "agent_id": "aaaa1111-0000-4000-8000-000000000001",
        "attempts": 1,
        "max_attempts": 3,
        "epoch": 1,
        "timeout_secs": None,
        "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:09.000Z",
        "started_at": "2026-01-01T00:00:01.000Z",
        "completed_at": "2026-01-01T00:00:09.000Z",
        "not_before": None,
        "lease_expires_at": None,
        "result": "12 TODOs",
        "last_error": None,
    } | members
