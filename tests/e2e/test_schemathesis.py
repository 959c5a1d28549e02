"""Whatever the document allows or forbids is sent to a running town: no 5xx, and no answer that is not in it."""

import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import need

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / ".venv-schemathesis" / "bin" / "schemathesis"
REPORTS = ROOT / "reports"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
STREAM = "text/event-stream"
WITHIN_S = 240


class Town(Protocol):
    """The fixture ``running_town``."""

    url: str
    token: str | None
    root: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    returncode: int
    output: str
    tested: int
    """Operations for which the report has a case."""


def ask(town: Town, method: str, path: str, body: object = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if town.token:
        headers["Authorization"] = f"Bearer {town.token}"
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


def fuzz(town: Town, name: str, folder: Path, *, examples: int, phases: str, known: dict[str, str]) -> Outcome:
    """Run schemathesis on ``town``. ``known`` are values for parameters, such as an id that exists."""
    settings = folder / f"{name}.toml"
    lines = ['headers = { Authorization = "Bearer ${TOWN_TOKEN}" }'] if town.token else []
    if known:
        lines += ["[parameters]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in known.items())]
    settings.write_text("\n".join(lines) + "\n")
    excluded = [option for path in streams(ask(town, "GET", "/openapi.json")) for option in ("--exclude-path", path)]
    REPORTS.mkdir(exist_ok=True)
    report = REPORTS / f"schemathesis-{name}.xml"
    report.unlink(missing_ok=True)
    ran = subprocess.run(
        [
            PROGRAM, "--config-file", settings, "run", f"{town.url}/openapi.json",
            "--checks", CHECKS, "--phases", phases, "--max-examples", str(examples),
            "--generation-deterministic",
            "--request-timeout", "15", "--continue-on-failure", "--no-color",
            "--report", "junit", "--report-junit-path", report,
            *excluded,
        ],
        cwd=folder,
        env={**os.environ, "TOWN_TOKEN": town.token or ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )  # fmt: skip
    (REPORTS / f"schemathesis-{name}.txt").write_text(ran.stdout + ran.stderr)
    tested = len(ET.parse(report).findall(".//testcase")) if report.exists() else 0
    return Outcome(returncode=ran.returncode, output=ran.stdout + ran.stderr, tested=tested)


def expected(town: Town) -> int:
    """Return how many operations the document has that are not streams."""
    document = ask(town, "GET", "/openapi.json")
    left_out = set(streams(document))
    methods = {"get", "put", "post", "delete", "patch"}
    return sum(len(methods & set(item)) for path, item in document["paths"].items() if path not in left_out)


@pytest.fixture(autouse=True)
def _present() -> None:
    need(PROGRAM.exists(), "schemathesis", "make .venv-schemathesis/.made-from-the-lock")


def test_no_request_gets_an_answer_that_the_document_does_not_know(running_town: Town, tmp_path: Path) -> None:
    outcome = fuzz(running_town, "any", tmp_path, examples=8, phases="examples,coverage,fuzzing", known={})
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested >= expected(running_town)


def test_no_request_about_what_exists_gets_an_answer_that_the_document_does_not_know(
    running_town: Town, tmp_path: Path
) -> None:
    agent = ask(running_town, "POST", "/v1/workers", {"name": "ada", "role_id": "backend"})
    assigned = ask(running_town, "POST", "/v1/tasks/assign", {"agent": "ada", "task": "Count the modules"})
    for number in range(5):
        ask(running_town, "POST", "/v1/backlog", {"description": f"Task number {number}"})
    known = {"path.agent": "ada", "path.agent_id": agent["agent_id"], "path.task_id": assigned["task_id"]}
    outcome = fuzz(running_town, "known", tmp_path, examples=8, phases="fuzzing", known=known)
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested >= expected(running_town)
    assert ask(running_town, "GET", "/health")["status"] == "ok"
