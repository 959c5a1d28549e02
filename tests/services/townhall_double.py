# ruff: noqa: ARG002 - handlers share one signature, whether they need all of it or not
"""A small real HTTP server that speaks the routes of workers, with a state that tests script and inspect."""

import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from borough.adapters.process import OWNER, Marker
from borough.core.ids import AgentId
from borough.town.ports.workers import LaunchOrder

SUPERVISOR = "00000000-0000-0000-0000-000000000001"
NOON = "2030-01-01T12:00:00.000Z"


def task(description: str, **more: Any) -> dict[str, Any]:
    return {
        "task_id": str(uuid4()), "description": description, "kind": "task_assign", "state": "assigned",
        "role": None, "urgent": False, "tags": [], "sender": SUPERVISOR, "parent_id": None, "agent_id": None,
        "attempts": 0, "max_attempts": 3, "epoch": 0, "timeout_secs": None, "created_at": NOON, "updated_at": NOON,
        "started_at": None, "completed_at": None, "not_before": None, "lease_expires_at": None, "result": None,
        "last_error": None, **more,
    }  # fmt: skip


class No(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass
class State:
    """The town, as far as one worker sees it. ``changed`` guards everything."""

    argv: list[str]
    input: str = "stdin"
    on_exit_zero: str = "complete"
    workdir: str | None = None
    timeout_secs: int = 60
    idle_timeout_secs: int = 0
    heartbeat_ms: int = 500
    changed: threading.Condition = field(default_factory=threading.Condition)
    agent_id: str = field(default_factory=lambda: str(uuid4()))
    token: str = "worker-token"
    operator_token: str = "operator-token"
    directive: str = "run"
    fenced: bool = False
    down: bool = False
    waiting: list[dict[str, Any]] = field(default_factory=list)
    mail: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: str | None = None
    logs: dict[tuple[str, int], bytearray] = field(default_factory=dict)
    beats: list[tuple[float, str | None]] = field(default_factory=list)
    reports: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    leaves: list[dict[str, Any]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    registrations: list[dict[str, Any]] = field(default_factory=list)
    refuse_leaves: int = 0
    result_limit: int | None = None
    requests: int = 0


ATTEMPT = "attempt-token:"


class Townhall:
    """Use it as a context manager; ``url`` is its address. ``stop`` and ``start`` keep state and port."""

    def __init__(self, state: State, *, tls: ssl.SSLContext | None = None) -> None:
        self.state = state
        self.tls = tls
        self.port = 0
        self.server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        state = self.state

        class Bound(Handler):
            town = state

        self.server = Server(("127.0.0.1", self.port), Bound)
        self.port = self.server.server_address[1]
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        state.down = False
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self.server is None:
            return
        with self.state.changed:
            self.state.down = True
            self.state.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self.server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def give(self, description: str, **more: Any) -> dict[str, Any]:
        given = task(description, **more)
        with self.state.changed:
            self.state.tasks[given["task_id"]] = given
            self.state.waiting.append(given)
            self.state.changed.notify_all()
        return given

    def say(self, directive: str) -> None:
        with self.state.changed:
            self.state.directive = directive
            self.state.changed.notify_all()

    def cancel(self, task_id: str) -> None:
        with self.state.changed:
            cancelled = self.state.tasks[task_id]
            cancelled["state"], cancelled["epoch"] = "cancelled", cancelled["epoch"] + 1
            self.state.held = None
            self.state.changed.notify_all()

    def wait_for(self, holds: Callable[[State], Any], *, within_s: float = 60.0) -> None:
        with self.state.changed:
            assert self.state.changed.wait_for(lambda: holds(self.state), within_s), "the town did not come to this"

    def ended(self, task_id: str) -> dict[str, Any]:
        """Wait until the task is over or was given back; return it."""
        self.wait_for(lambda state: state.tasks[task_id]["state"] not in ("assigned", "running"))
        return self.state.tasks[task_id]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients that leave in the middle are what we test
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    town: State

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        return

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            with self.town.changed:
                self.town.requests += 1
                status, body = self._answer(method, parts.path, query, raw)
                self.town.changed.notify_all()
                if self.town.down:
                    self.close_connection = True
                    return
        except No as no:
            status, body = no.status, {"type": "about:blank", "title": no.code, "code": no.code, "status": no.status}
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, method: str, path: str, query: dict[str, str], raw: bytes) -> tuple[int, Any]:
        if path == "/v1/workers":
            return self._register(json.loads(raw))
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if bearer != self.town.token and not bearer.startswith(ATTEMPT):
            raise No(401, "unauthorised")
        if found := re.fullmatch(r"/v1/agents/([^/]+)/(\w+)", path):
            if self.town.fenced:
                raise No(409, "stale_incarnation")
            return getattr(self, f"_{found[2]}")(query, json.loads(raw) if raw else {})
        found = re.fullmatch(r"/v1/tasks/([^/]+)(?:/(\w+))?", path)
        assert found is not None
        wanted = self.town.tasks[found[1]]
        if method == "GET":
            return 200, wanted
        # Only the attempt's own token may end the attempt or write its log.
        task_id, _, epoch = bearer.removeprefix(ATTEMPT).rpartition(":")
        if task_id != wanted["task_id"]:
            raise No(403, "other_attempt")
        if found[2] == "log":
            return self._log(wanted, int(epoch), query, raw)
        return self._report(wanted, int(epoch), found[2], json.loads(raw))

    def _register(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.headers.get("Authorization") != f"Bearer {self.town.operator_token}":
            raise No(403, "forbidden")
        self.town.registrations.append(body | {"key": self.headers.get("Idempotency-Key")})
        return 201, {
            "agent_id": self.town.agent_id, "name": body["name"], "cli": "test", "role_id": body["role_id"],
            "nickname": None, "parent_agent_id": None, "incarnation": 1, "token": self.town.token,
        }  # fmt: skip

    def _start(self, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        self.town.starts.append(body)
        cli = {
            "name": "test", "argv": self.town.argv, "input": self.town.input, "workdir": self.town.workdir,
            "env": {"FROM_PRESET": "yes"}, "timeout_secs": self.town.timeout_secs,
            "on_exit_zero": self.town.on_exit_zero,
        }  # fmt: skip
        return 200, {
            "agent_id": self.town.agent_id, "name": "alder", "town": "double", "role": "default", "state": "idle",
            "lease_ms": 3 * self.town.heartbeat_ms, "heartbeat_ms": self.town.heartbeat_ms,
            "idle_timeout_secs": self.town.idle_timeout_secs, "cli": cli,
        }  # fmt: skip

    def _claim(self, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        town = self.town
        town.changed.wait_for(
            lambda: town.waiting or town.held or town.down or town.directive != "run" or town.fenced,
            float(query["wait"]),
        )
        if town.down or town.directive != "run" or not (town.waiting or town.held):
            return 204, None
        if town.held is None:
            taken = town.waiting.pop(0)
            taken.update(state="running", epoch=taken["epoch"] + 1, attempts=taken["attempts"] + 1)
            town.held = taken["task_id"]
        mail, town.mail = town.mail, []
        return 200, {
            "task": town.tasks[town.held],
            "attempt_token": f"{ATTEMPT}{town.held}:{town.tasks[town.held]['epoch']}",
            "mail": mail,
        }

    def _heartbeat(self, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        town = self.town
        town.beats.append((time.monotonic(), body["task_id"]))
        town.changed.notify_all()
        news = lambda: town.down or town.fenced or self._directive(body) != body["known"]  # noqa: E731 - used once
        town.changed.wait_for(news, float(query["wait"]))
        if town.fenced:
            raise No(409, "stale_incarnation")
        return 200, {"directive": self._directive(body), "lease_expires_at": NOON}

    def _directive(self, body: dict[str, Any]) -> str:
        if body["task_id"] is not None and self.town.directive != "stop":
            named = self.town.tasks[body["task_id"]]
            if named["epoch"] != body["epoch"] or named["state"] != "running":
                return "drop"
        return self.town.directive

    def _drain(self, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"draining": not self.town.waiting}

    def _leave(self, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        if self.town.refuse_leaves:
            self.town.refuse_leaves -= 1
            raise No(409, "work_waiting")
        self.town.leaves.append(body)
        return 200, {"status": "stopped", "agent": "alder"}

    def _log(self, wanted: dict[str, Any], epoch: int, query: dict[str, str], raw: bytes) -> tuple[int, Any]:
        if epoch != wanted["epoch"]:
            raise No(409, "stale_epoch")
        log = self.town.logs.setdefault((wanted["task_id"], epoch), bytearray())
        offset = int(query["offset"])
        if offset > len(log):
            raise No(409, "log_hole")
        log += raw[len(log) - offset :]
        return 200, {"size": len(log)}

    def _report(self, wanted: dict[str, Any], epoch: int, how: str, body: dict[str, Any]) -> tuple[int, Any]:
        if epoch != wanted["epoch"]:
            raise No(409, "stale_epoch")
        if wanted["state"] != "running":
            raise No(409, "task_finished")
        if self.town.result_limit is not None and len(body.get("result", "")) > self.town.result_limit:
            raise No(413, "too_large")
        self.town.reports.append((wanted["task_id"], how, body))
        wanted["state"] = {"complete": "completed", "fail": "delayed", "release": "assigned-again"}[how]
        wanted["result"] = body.get("result")
        wanted["last_error"] = body.get("reason")
        self.town.held = None
        return 200, wanted


def everyone(town: Townhall) -> Marker:
    """Return what every process of the double's worker carries."""
    return Marker(OWNER, f"{town.state.agent_id}:")


def order(town: Townhall, incarnation: int = 1, *, cli: str = "") -> LaunchOrder:
    """Return the order to launch the double's worker."""
    return LaunchOrder(
        agent_id=AgentId(town.state.agent_id),
        name="alder",
        incarnation=incarnation,
        server_url=town.url,
        token=town.state.token,
        cli=cli,
    )
