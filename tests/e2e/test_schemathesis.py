"""Whatever the document allows or forbids is sent to a running town: no 5xx, and no answer that is not in it."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import need
from tests.e2e.conftest import start_town, stop_town

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / ".venv-schemathesis" / "bin" / "schemathesis"
REPORTS = ROOT / "reports"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
STREAM = "text/event-stream"
EXAMPLES = 6
WITHIN_S = 240
OF_WORKERS = (
    "/v1/agents/{agent}/start",
    "/v1/agents/{agent}/claim",
    "/v1/agents/{agent}/heartbeat",
    "/v1/agents/{agent}/drain",
    "/v1/tasks/{task_id}/release",
)
"""Without leaving: nothing can be tested of a worker that has left."""


class Town(Protocol):
    """The fixture ``running_town``."""

    url: str
    token: str
    root: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    returncode: int
    output: str
    tested: int
    """Operations for which the report has a case."""


def ask(town: Town, method: str, path: str, body: object = None) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {town.token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(town.url + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def streams(document: dict[str, Any]) -> list[str]:
    """Return the paths that answer with a stream: it does not end by itself, so it has tests of its own."""
    return [
        path
        for path, item in document["paths"].items()
        for operation in item.values()
        if isinstance(operation, dict)
        and any(STREAM in answer.get("content", {}) for answer in operation.get("responses", {}).values())
    ]


def fuzz(
    town: Town,
    name: str,
    folder: Path,
    *,
    phases: str,
    token: str | None = None,
    known: dict[str, str] | None = None,
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    without_methods: tuple[str, ...] = (),
    known_at: dict[str, dict[str, str]] | None = None,
) -> Outcome:
    """Run schemathesis on ``town``, on all routes that are no streams (``without`` some), or ``only`` on some.

    ``token`` is used instead of the operator's; ``known`` are values for parameters, such as an id that exists, and
    ``known_at`` the same for the paths that a regular expression matches, the first that does.
    """
    settings = folder / f"{name}.toml"
    lines = ['headers = { Authorization = "Bearer ${TOWN_TOKEN}" }']
    if known:
        lines += ["[parameters]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in known.items())]
    for pattern, values in (known_at or {}).items():
        told = ", ".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items())
        lines += ["[[operations]]", f"include-path-regex = {json.dumps(pattern)}", f"parameters = {{ {told} }}"]
    settings.write_text("\n".join(lines) + "\n")
    left_out = [*streams(ask(town, "GET", "/openapi.json")), *without]
    chosen = [("--include-path", path) for path in only] or [("--exclude-path", path) for path in left_out]
    chosen += [("--exclude-method", method) for method in without_methods]
    REPORTS.mkdir(exist_ok=True)
    report = REPORTS / f"schemathesis-{name}.xml"
    report.unlink(missing_ok=True)
    ran = subprocess.run(
        [
            PROGRAM, "--config-file", settings, "run", f"{town.url}/openapi.json",
            "--checks", CHECKS, "--phases", phases, "--max-examples", str(EXAMPLES),
            "--generation-deterministic",
            "--request-timeout", "15", "--continue-on-failure", "--no-color",
            "--report", "junit", "--report-junit-path", report,
            *(word for option in chosen for word in option),
        ],
        cwd=folder,
        env={**os.environ, "TOWN_TOKEN": token or town.token},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )  # fmt: skip
    (REPORTS / f"schemathesis-{name}.txt").write_text(ran.stdout + ran.stderr)
    tested = len(ET.parse(report).findall(".//testcase")) if report.exists() else 0
    return Outcome(returncode=ran.returncode, output=ran.stdout + ran.stderr, tested=tested)


def expected(town: Town, *, without: tuple[str, ...] = (), without_methods: tuple[str, ...] = ()) -> int:
    """Return how many operations can be tested: all but streams (and ``without``), and the document, which the program
    only loads.
    """
    document = ask(town, "GET", "/openapi.json")
    left_out = {*streams(document), *without, "/openapi.json"}
    methods = {"get", "put", "post", "delete", "patch"} - {method.lower() for method in without_methods}
    return sum(len(methods & set(item)) for path, item in document["paths"].items() if path not in left_out)


def make_room(town: Town) -> None:
    """Remove whoever was spawned before: the town holds few."""
    ask(town, "POST", "/v1/agents/prune", {"all": True})


@pytest.fixture(autouse=True)
def _present() -> None:
    need(PROGRAM.exists(), "schemathesis", "make .venv-schemathesis/.made-from-the-lock")


@pytest.fixture(scope="module")
def fuzzed_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town of its own: whoever is spawned in it does nothing, and there are few of them."""
    town = start_town(tmp_path_factory.mktemp("fuzzed"), settings={"default_cli": "true", "max_agents": "3"})
    yield town
    assert stop_town(town) == 0


def test_no_request_gets_an_answer_that_the_document_does_not_know(fuzzed_town: Town, tmp_path: Path) -> None:
    outcome = fuzz(fuzzed_town, "any", tmp_path, phases="examples,coverage")
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == expected(fuzzed_town)


def test_no_request_about_what_exists_gets_an_answer_that_the_document_does_not_know(
    fuzzed_town: Town, tmp_path: Path
) -> None:
    make_room(fuzzed_town)
    agent = ask(fuzzed_town, "POST", "/v1/workers", {"name": "ada", "role_id": "backend"})
    assigned = ask(fuzzed_town, "POST", "/v1/tasks/assign", {"agent": "ada", "task": "Count the modules"})
    for number in range(5):
        ask(fuzzed_town, "POST", "/v1/backlog", {"description": f"Task number {number}"})
    known = {"path.agent": "ada", "path.agent_id": agent["agent_id"], "path.task_id": assigned["task_id"]}
    outcome = fuzz(fuzzed_town, "known", tmp_path, phases="fuzzing", known=known)
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == expected(fuzzed_town)
    assert ask(fuzzed_town, "GET", "/health")["status"] == "ok"


def test_no_request_of_a_worker_gets_an_answer_that_the_document_does_not_know(
    fuzzed_town: Town, tmp_path: Path
) -> None:
    make_room(fuzzed_town)
    worker = ask(fuzzed_town, "POST", "/v1/workers", {"name": "bob"})
    task = ask(fuzzed_town, "POST", "/v1/tasks/assign", {"agent": "bob", "task": "Count the modules"})
    known = {"path.agent": worker["agent_id"], "path.task_id": task["task_id"], "query.wait": "0"}
    outcome = fuzz(
        fuzzed_town, "worker", tmp_path, phases="coverage,fuzzing", token=worker["token"], known=known, only=OF_WORKERS
    )
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == len(OF_WORKERS)
    assert "Authentication failed" not in outcome.output
