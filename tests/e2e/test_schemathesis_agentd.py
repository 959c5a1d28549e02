"""Whatever the gateway's document allows or forbids is sent to a daemon: no 5xx, and no answer that is not in it."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.e2e.test_agentd import Daemon, fresh, manifest
from tests.e2e.test_schemathesis import PROGRAM, expected, fuzz

NOT_YET = ("/anomalies", "/agents/{id}/timeline")
"""They answer 501 until there is something to tell."""


@dataclass(kw_only=True)
class Fuzzed:
    """A daemon as the fuzzing of the town knows its server."""

    daemon: Daemon

    @property
    def url(self) -> str:
        return self.daemon.url

    @property
    def token(self) -> str:
        return self.daemon.token

    @property
    def root(self) -> Path:
        return self.daemon.folder


@pytest.fixture(autouse=True)
def _present() -> None:
    need(PROGRAM.exists(), "schemathesis", "make .venv-schemathesis/.made-from-the-lock")


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    with tempfile.TemporaryDirectory(prefix="agentd") as folder:
        daemon = fresh(Path(folder))
        daemon.start()
        yield Fuzzed(daemon=daemon)
        assert daemon.stop() == 0


def test_no_request_gets_an_answer_that_the_document_does_not_know(fuzzed: Fuzzed, tmp_path: Path) -> None:
    outcome = fuzz(fuzzed, "agentd-any", tmp_path, phases="examples,coverage", without=NOT_YET)
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == expected(fuzzed, without=NOT_YET)


def test_no_request_about_what_exists_gets_an_answer_that_the_document_does_not_know(
    fuzzed: Fuzzed, tmp_path: Path
) -> None:
    daemon = fuzzed.daemon
    agent = daemon.ok("POST", "/agents", {"manifest_yaml": manifest("fuzzed")})["id"]
    daemon.ok("PUT", f"/agents/{agent}/memory/a", {"value": 1})
    known = {"path.id": agent, "path.name": "echo", "path.key": "a"}
    outcome = fuzz(fuzzed, "agentd-known", tmp_path, phases="fuzzing", known=known, without=NOT_YET)
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == expected(fuzzed, without=NOT_YET)
    assert daemon.request("GET", "/health", token=None)[1]["status"] == "ok"
    assert daemon.ok("GET", "/audit/verify")["ok"]
