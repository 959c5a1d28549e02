"""The wheel of this tree, installed as a person installs it, in an environment that has nothing else."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.e2e.conftest import until
from tests.e2e.fleet_programs import build_wheel

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = ("agentd", "ash", "borough", "townhall", "tt", "tt-agent", "tt-ctl")
PIPX = REPOSITORY / ".venv-packaging" / "bin" / "pipx"
LOCK = REPOSITORY / "packaging" / "requirements.lock"


@dataclass(frozen=True)
class Installed:
    """Where the programs are, and what those who start them have in their environment."""

    programs: Path
    environ: dict[str, str]

    def run(self, name: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.programs / name, *arguments],
            cwd=cwd, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module", params=["uv tool", "pipx"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    wheel, programs = build_wheel(folder / "dist"), folder / "bin"
    home = {"HOME": str(folder / "home"), "PATH": f"{programs}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    registry = {name: word for name, word in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_", "http"))}
    if request.param == "uv tool":
        uv = Path(sys.executable).with_name("uv")
        need(uv.exists(), "uv", "make setup")
        cache = subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
        own = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(programs), "UV_CACHE_DIR": cache}
        argv = [uv, "tool", "install", "--python", sys.executable, "--constraints", LOCK, wheel]
    else:
        need(PIPX.exists(), "pipx", "make .venv-packaging/.made-from-the-lock")
        own = {"PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(programs), "PIPX_MAN_DIR": str(folder / "man")}
        versions = folder / "constraints"  # pip takes no hashes for what it did not resolve from them
        versions.write_text("\n".join(f"{name}=={version}" for name, version in locked(LOCK).items()))
        argv = [PIPX, "install", "--python", sys.executable, f"--pip-args=--constraint {versions}", wheel]
    done = subprocess.run(
        argv, env={**registry, **home, **own}, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield Installed(programs, home)
    shutil.rmtree(folder)


def locked(path: Path) -> dict[str, str]:
    """Return the versions that a lock names."""
    lines = [line.split(";")[0].rstrip(" \\").split("==") for line in path.read_text().splitlines()]
    return {words[0]: words[1] for words in lines if len(words) == 2 and not words[0].startswith((" ", "#"))}


def test_what_an_image_holds_is_what_the_tests_ran_with() -> None:
    tested = locked(REPOSITORY / "requirements.lock")
    packed = locked(LOCK)
    assert len(packed) > 30
    assert packed.items() <= tested.items()


def test_every_program_is_there_and_says_how_it_is_used(installed: Installed, tmp_path: Path) -> None:
    assert sorted(path.name for path in installed.programs.iterdir()) == sorted(PROGRAMS)
    for name in PROGRAMS:
        told = installed.run(name, "--help", cwd=tmp_path)
        assert (told.returncode, told.stderr) == (0, ""), name
        assert "usage" in told.stdout.lower()


def test_it_serves_a_town_where_there_was_nothing_and_the_doctor_is_content(
    installed: Installed, tmp_path: Path
) -> None:
    state = tmp_path / ".tt" / "server.json"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [installed.programs / "borough", "up", "--port", "0"],
            cwd=tmp_path, env=installed.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(state.exists, process=server)
        address = json.loads(state.read_text())["address"]

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"{address}/ready", timeout=10) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until(ready, process=server)
        status = installed.run("tt", "--json", "status", cwd=tmp_path)
        assert json.loads(status.stdout)["name"], status.stderr
        told = installed.run("borough", "doctor", cwd=tmp_path)
        assert told.returncode == 0, told.stdout + told.stderr
    finally:
        server.terminate()
        ended = server.wait(60)
    assert ended == 0, (tmp_path / "log").read_text()


def test_the_package_says_that_it_is_typed_and_leads_to_the_sandbox(installed: Installed, tmp_path: Path) -> None:
    python = (installed.programs / "borough").resolve().with_name("python")
    asked = (
        "import borough, pathlib; print(pathlib.Path(borough.__file__).with_name('py.typed').exists(), borough.Sandbox)"
    )
    told = subprocess.run([python, "-c", asked], cwd=tmp_path, env=installed.environ, capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert told.stdout.startswith("True <class 'borough.sandbox.")
