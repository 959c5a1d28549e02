"""A security reviewer's visit to ``borough up``: proof of what an agent did, and a stricter policy tried on that."""

import json
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RunningTown, run_tool, until
from tests.e2e.test_borough_up_fleet import up
from tests.e2e.test_overview import verify
from tests.e2e.test_runs import comes_to

SURVEYOR = [sys.executable, "-m", "borough.examples.surveyor"]
MANIFEST = files("borough.examples").joinpath("surveyor.yaml").read_text()
NO_WRITING = "    - fs.write:/workspace/out/**\n"
OUT_OF_SCOPE = "List the largest modules in `docs`."
IN_SCOPE = "List the largest modules in `src/house`."


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        until(lambda: running.request("GET", "/api/status").status == 200)
        yield running


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name in ("src/house/rooms.py", "docs/plan.py"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("def kitchen() -> None: ...\n")
    return folder


def surveyed(town: RunningTown, sources: Path, task: str, comes: str) -> dict[str, Any]:
    body = {
        "task": task, "manifest": MANIFEST, "command": SURVEYOR, "image": "host",
        "source": {"kind": "folder", "path": str(sources)},
    }  # fmt: skip
    return comes_to(town, town.ok("POST", "/v1/runs", body), comes)


def borough(town: RunningTown, program: str, *words: str) -> str:
    return run_tool(f"borough.cli.{program}", *words, cwd=town.root, environ=town.environ).stdout


def test_what_an_agent_did_is_proven_and_a_stricter_policy_is_tried_on_it(
    town: RunningTown, sources: Path, tmp_path: Path
) -> None:
    allowed = surveyed(town, sources, IN_SCOPE, "succeeded")
    refused = surveyed(town, sources, OUT_OF_SCOPE, "failed")
    assert "refused" in town.request("GET", f"/v1/runs/{refused['id']}/log").body.decode()

    # The proof goes to another machine, where nothing but the file is at hand; whoever changes a byte is found out.
    for run in (allowed, refused):
        file = tmp_path / run["id"]
        borough(town, "borough", "evidence", "export", run["id"], "-o", str(file))
        code, found = verify(file)
        assert (code, found["verified"], found["of"]) == (0, True, f"run {run['id']}")
    changed = (tmp_path / refused["id"]).read_bytes().replace(b"modules in", b"modules of", 1)
    (tmp_path / "changed").write_bytes(changed)
    assert verify(tmp_path / "changed")[0] == 1
    assert json.loads(borough(town, "ash", "audit", "verify", "--json"))["ok"] is True

    # What has been judged is judged again by a manifest that forbids writing: nothing is changed by that.
    stricter = tmp_path / "stricter.yaml"
    stricter.write_text(MANIFEST.replace(NO_WRITING, ""))
    told = json.loads(borough(town, "ash", "policy", "simulate", str(stricter), "--json"))
    changes = {(each["tool"], each["was"], each["now"]["verdict"]) for each in told["changed"]}
    assert changes == {("fs.write", "allowed", "denied")}
    assert told["same"] > 0
