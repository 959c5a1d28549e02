"""Commands of the pages that are marked as run are run, on a town that `borough up` serves."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import need
from tests.e2e.conftest import RunningTown, start_town, stop_town
from tests.test_docs import BIN, PAGES, ROOT, shell_blocks, shown

RUN = [(page, script) for page in PAGES for marker, script in shell_blocks(page) if marker == "run"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTown]:
    root = tmp_path_factory.mktemp("pages")
    shutil.copy(ROOT / "examples" / "governed-agent" / "manifest.yaml", root)
    made = start_town(root, governed=True)
    yield made
    stop_town(made)


@pytest.mark.parametrize(("page", "script"), RUN, ids=[f"{shown(page)}-{n}" for n, (page, _) in enumerate(RUN)])
def test_it_is_run_to_its_end(page: Path, script: str, town: RunningTown) -> None:
    for program in re.findall(r"\b(curl|jq)\b", script):
        need(shutil.which(program), program, f"apt-get install {program}")
    try:
        done = _run(script, town)
    finally:  # the next page finds room, and no machine outlives the town
        for env in town.ok("GET", "/api/envs")["data"]:
            town.ok("DELETE", f"/api/envs/{env['id']}")
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert done.stdout


def _run(script: str, town: RunningTown) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:8080", urlsplit(town.url).netloc)],
        cwd=town.root,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_each_kind_of_page_has_commands_that_are_run() -> None:
    assert {"README.md", "docs/fleet.md", "docs/moving/ttstack.md", "docs/moving/scarab.md"} <= {
        shown(page) for page, _ in RUN
    }
