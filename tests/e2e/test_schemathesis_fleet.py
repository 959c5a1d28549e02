"""Whatever the documents of the fleet allow or forbid is sent to both programs: no answer that is not in them."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.e2e.fleet_programs import KEY, Api, free_port, host_program, program, root_folder
from tests.e2e.test_schemathesis import PROGRAM, expected, fuzz

ENGINE = "bubblewrap"
ENDS = ("/api/hosts/{id}/detach",)
"""It is, with ``DELETE``, left out where what exists is asked about: afterwards it would not."""
MOVED = r"^/api/vms/\{id\}/(stop|start|pause|snapshots.*)$"
"""Asked about a machine of its own: of one that does not run, the rest would only be told that it does not."""


@dataclass(kw_only=True)
class Fuzzed:
    """One of the two programs, as the fuzzing of the town knows its server."""

    api: Api
    root: Path
    known_at: dict[str, dict[str, str]]
    token: str = KEY

    @property
    def url(self) -> str:
        return f"http://{self.api.address}"


@pytest.fixture(autouse=True)
def _present() -> None:
    need(PROGRAM.exists(), "schemathesis", "make .venv-schemathesis/.made-from-the-lock")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Fuzzed]]:
    with running_fleet(tmp_path_factory.mktemp("fuzzed-fleet")) as running:
        yield running


@pytest.fixture(scope="module")
def kept_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Fuzzed]]:
    """One of its own: what may be deleted is, by the ids that lists tell."""
    with running_fleet(tmp_path_factory.mktemp("kept-fleet")) as running:
        yield running


@contextmanager
def running_fleet(folder: Path) -> Iterator[dict[str, Fuzzed]]:
    """Run a controller, and a host with two machines."""
    root_folder(folder / "host" / "images" / "tiny")
    with ExitStack() as undo:
        host = undo.enter_context(host_program(free_port(), folder / "host", "h1"))
        controller = undo.enter_context(
            program("borough.cli.tt_ctl", free_port(), folder / "ctl", "--data-dir", str(folder / "ctl" / "data"))
        )
        asked = Api(controller.address)
        asked.data("POST", "/api/hosts", {"addr": host.address}, status=201)
        wanted = {"image": "tiny", "engine": ENGINE, "cpu": 1, "mem": 64, "disk": 512}
        for name in ("known", "moved"):
            asked.data("POST", "/api/envs", {"id": name, "ssh_keys": [], "vms": [wanted]}, status=201)
        known, moved = (asked.data("GET", f"/api/envs/{name}")["env"]["vm_ids"][0] for name in ("known", "moved"))
        still = {
            r"^/api/vms/\{id\}/logs$": {"path.id": known, "query.follow": "0"}
        }  # else it ends when the machine does
        machines = {**still, MOVED: {"path.id": moved, "path.name": "kept"}, r"^/api/vms/\{id\}": {"path.id": known}}
        others = {
            r"^/api/envs/\{id\}/(stop|start)$": {"path.id": "moved"},
            r"^/api/envs/\{id\}$": {"path.id": "known"},
            r"^/api/hosts/\{id\}": {"path.id": "h1"},
            r"^/api/operations/\{id\}": {"path.id": asked.data("GET", "/api/operations")[0]["id"], "query.wait": "0"},
        }
        yield {
            "controller": Fuzzed(api=asked, root=folder, known_at={**machines, **others}),
            "host": Fuzzed(
                api=Api(host.address), root=folder, known_at={**machines, r"images/\{": {"path.name": "tiny"}}
            ),
        }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("which", ["controller", "host"])
def test_no_request_gets_an_answer_that_the_document_does_not_know(
    fleet: dict[str, Fuzzed], which: str, tmp_path: Path
) -> None:
    fuzzed = fleet[which]
    outcome = fuzz(fuzzed, f"{which}-any", tmp_path, phases="examples,coverage")
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == expected(fuzzed)


@pytest.mark.parametrize("which", ["controller", "host"])
def test_no_request_about_what_exists_gets_an_answer_that_the_document_does_not_know(
    kept_fleet: dict[str, Fuzzed], which: str, tmp_path: Path
) -> None:
    fuzzed = kept_fleet[which]
    outcome = fuzz(
        fuzzed,
        f"{which}-known",
        tmp_path,
        phases="fuzzing",
        without=ENDS,
        without_methods=("DELETE",),
        known_at=fuzzed.known_at,
    )
    assert outcome.returncode == 0, outcome.output[-12_000:]
    assert outcome.tested == expected(fuzzed, without=ENDS, without_methods=("DELETE",))
    assert fuzzed.api.ask("GET", "/ready")[0] == 200
