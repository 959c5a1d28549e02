"""The container image and the compose file, in a Docker of the test's own.

Nothing is pulled: the base image is made of this machine's Python and busybox, and the wheels are those of the lock,
downloaded once and handed in.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.contracts.engine_kit import dockerd
from tests.e2e.conftest import until
from tests.e2e.fleet_programs import build_wheel, free_port, root_folder
from tests.services.spaces import own_network

REPOSITORY = Path(__file__).parents[2]
RECIPE = REPOSITORY / "packaging" / "container"
LOCK = REPOSITORY / "packaging" / "requirements.lock"
PYTHON = Path("/usr/bin/python3")
WHEELS = REPOSITORY / "build" / "wheels"
"""Kept, since it is the same for every run; `make clean` removes it."""
SHARED = ("libpthread", "libdl", "librt", "libutil", "libm", "libstdc++", "libgcc_s")
"""Libraries that wheels for manylinux may load beside those of Python."""


@dataclass(frozen=True)
class Docker:
    """A dockerd, and what is asked of it."""

    socket: Path
    wheels: list[Path]
    """What is handed to a build."""

    def __call__(self, *arguments: str, check: bool = True, **more: Any) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.socket}", *arguments],
            capture_output=True, text=True, check=False, timeout=300, **more,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def looked_at(self, name: str) -> Any:
        return json.loads(self("inspect", name).stdout)[0]

    def inside(self, name: str, *argv: str) -> str:
        return self("exec", name, *argv).stdout


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    need(os.geteuid() == 0, "root", "run the tests as root")
    need(shutil.which("dockerd"), "dockerd", "apt-get install docker.io")
    need(has_venv(), "Debian's Python with its venv", "apt-get install python3-venv")
    folder = tmp_path_factory.mktemp("docker")
    wheels = locked_wheels()
    with own_network(), dockerd(folder, folder / "docker.sock"):
        made = Docker(folder / "docker.sock", wheels)
        base = folder / "base.tar"
        pack_base(folder / "base", base)
        made("import", str(base), "base")
        shutil.rmtree(folder / "base")
        base.unlink()
        yield made


@pytest.fixture(scope="module")
def image(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the image as its first lines say, in a folder that has what .dockerignore lets through."""
    context = tmp_path_factory.mktemp("context")
    build_wheel(context / "dist")
    for wheel in docker.wheels:
        shutil.copy(wheel, context / "dist")
    (context / "packaging" / "container").mkdir(parents=True)
    shutil.copy(LOCK, context / "packaging")
    shutil.copy(RECIPE / "start", context / "packaging" / "container")
    docker(
        "build", "--network", "none", "--build-arg", "BASE=base", "--build-arg", "PIP_NO_INDEX=1",
        "--file", str(RECIPE / "Containerfile"), "--tag", "borough", str(context),
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    return "borough"


def has_venv() -> bool:
    asked = subprocess.run([PYTHON, "-c", "import ensurepip, venv"], check=False, capture_output=True)
    return asked.returncode == 0


def locked_wheels() -> list[Path]:
    """Return the wheels of the lock; pip downloads what is not here yet, and checks all hashes in either case."""
    WHEELS.mkdir(parents=True, exist_ok=True)
    [bundled] = Path("/usr/share/python-wheels").glob("pip-*.whl")  # of the Python that will install them
    pip = [PYTHON, bundled / "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    told = ["--require-hashes", "-r", LOCK, "--find-links", WHEELS, "--dest", WHEELS]
    for where in (["--no-index"], []):  # a registry is asked only if something is not here
        done = subprocess.run([*pip, *told, *where], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return sorted(WHEELS.glob("*.whl"))


def pack_base(root: Path, into: Path) -> None:
    """Pack a root folder of busybox and this machine's Python: programs, modules, and the libraries that they load."""
    root_folder(root)
    program = PYTHON.resolve()
    modules = Path("/usr/lib") / program.name
    for source in (modules, Path("/usr/share/python-wheels")):
        shutil.copytree(source, root / source.relative_to("/"), symlinks=True, ignore_dangling_symlinks=True)
    (root / "usr" / "bin").mkdir(parents=True)
    shutil.copy(program, root / "usr" / "bin")
    (root / "usr" / "bin" / "python3").symlink_to(program.name)
    shared = {path for name in SHARED for path in Path("/usr/lib").glob(f"*-linux-gnu/{name}.so.?")}
    for library in libraries([program, *modules.glob("lib-dynload/*.so"), *shared]) | shared:
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    with tarfile.open(into, "w") as packed:
        packed.add(root, arcname=".")


def libraries(files: list[Path]) -> set[Path]:
    """Return what the dynamic linker loads for some files."""
    told = subprocess.run(["ldd", *files], check=False, capture_output=True, text=True).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", told)}


@contextmanager
def running(docker: Docker, image: str, name: str, *options: str) -> Iterator[str]:
    """Run a container as it is meant to be: confined, and with nothing but its volume to write to."""
    confined = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init")
    docker("run", "--detach", "--name", name, *confined, "--health-interval", "1s", *options, image)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def healthy(docker: Docker, name: str) -> bool:
    state = docker.looked_at(name)["State"]
    assert state["Running"], docker("logs", name).stderr
    return bool(state["Health"]["Status"] == "healthy")


@pytest.fixture(scope="module")
def container(docker: Docker, image: str) -> Iterator[str]:
    with running(docker, image, "confined") as name:
        until(lambda: healthy(docker, name))
        yield name


def test_the_image_is_small_runs_as_nobody_and_carries_no_secret(docker: Docker, image: str) -> None:
    told = docker.looked_at(image)
    assert told["Config"]["User"] == "10001:10001"
    assert list(told["Config"]["Volumes"]) == ["/town"]
    assert told["Config"]["Healthcheck"]["Test"][0] == "CMD"
    assert not [word for word in told["Config"]["Env"] if "PIP_" in word]
    added = told["Size"] - docker.looked_at("base")["Size"]
    assert added < 150 * 1024 * 1024, added
    listed = docker(
        "run", "--rm", image, "sh", "-c", "find / -xdev -type f -perm -4000; find /town /root -type f"
    ).stdout
    assert listed == "", "nothing is in the town yet, and nothing gives more rights"


def test_a_confined_container_serves_a_town_that_lets_in_who_has_a_key(docker: Docker, container: str) -> None:
    ask = "import urllib.request as r, sys; print(r.urlopen('http://127.0.0.1:8080' + sys.argv[1]).read(300).decode())"
    assert '"status":"ready"' in docker.inside(container, "python3", "-c", ask, "/ready").replace(" ", "")
    assert "<title>Borough</title>" in docker.inside(container, "python3", "-c", ask, "/")
    refused = docker("exec", container, "python3", "-c", ask, "/v1/tasks", check=False)
    assert "401" in refused.stderr
    assert docker.inside(container, "borough", "open").startswith("http://127.0.0.1:8080/#code=")
    modes = docker.inside(container, "stat", "-c", "%a %u", "/town/.tt/operator.token").split()
    assert modes == ["600", "10001"]


def test_commands_work_in_it(docker: Docker, container: str) -> None:
    docker.inside(container, "tt", "backlog", "add", "from inside")
    assert "from inside" in docker.inside(container, "tt", "backlog", "list")
    docker.inside(container, "tt", "spawn", "ada", "--cli", "cat")
    docker.inside(container, "tt", "assign", "ada", "count to three")

    def done() -> bool:
        tasks = json.loads(docker.inside(container, "tt", "task", "list", "--json"))["tasks"]
        return {task["state"] for task in tasks} == {"completed"}

    until(done)


def test_it_says_what_does_not_work_in_a_container(docker: Docker, container: str) -> None:
    told = docker("exec", container, "borough", "doctor", check=False).stdout
    assert "no\tuser namespaces\tno box can be made" in told


def test_boxes_of_agents_hold_in_it_where_the_container_lets_them(docker: Docker, image: str) -> None:
    walls = [word for wall in ("seccomp=unconfined", "systempaths=unconfined") for word in ("--security-opt", wall)]
    told = docker("run", "--rm", "--init", "--cap-drop", "ALL", *walls, image, "borough", "doctor", check=False).stdout
    for wall in ("user namespaces", "seccomp", "egress listener"):
        assert f"ok\t{wall}\tholds, as seen from inside a box" in told


def test_the_compose_file_starts_a_server_and_workers(docker: Docker, image: str, tmp_path: Path) -> None:
    need(shutil.which("docker-compose"), "docker-compose", "apt-get install docker-compose")
    port = free_port()
    key = tmp_path / "town.key"
    environ = {
        **os.environ,
        "DOCKER_HOST": f"unix://{docker.socket}",
        "BOROUGH_IMAGE": image,
        "BOROUGH_WORKER_IMAGE": image,
        "BOROUGH_PUBLISH": f"127.0.0.1:{port}",
        "BOROUGH_WORKER_KEY_FILE": str(key),
        "TINYTOWN_AGENT_CLI": "cat",
    }

    def compose(*words: str) -> str:
        argv = ["docker-compose", "-p", "borough", "-f", str(RECIPE / "compose.yaml"), *words]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=120)
        told = docker("logs", "borough_borough_1", check=False).stderr
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}\n{told}"
        return done.stdout

    try:
        compose("run", "--rm", "-T", "borough", "start-in-container", "--only-make")
        shown = compose("run", "--rm", "-T", "borough", "tt", "auth", "keys", "add", "workers")
        key.write_text(re.findall(r"^[0-9a-f]{64}$", shown, re.MULTILINE)[0])
        key.chmod(0o444)  # who may read it in the container is not who may here
        compose("--profile", "workers", "up", "--detach", "--scale", "worker=2")
        compose("exec", "-T", "borough", "tt", "backlog", "add", "for whoever is there")

        def done() -> bool:
            tasks = json.loads(compose("exec", "-T", "borough", "tt", "task", "list", "--json"))["tasks"]
            return [task["state"] for task in tasks] == ["completed"]

        until(done)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            assert answer.status == 200
    finally:
        compose("--profile", "workers", "down", "--volumes")


def test_it_stops_in_order_and_goes_on_with_its_volume(docker: Docker, image: str) -> None:
    volume = ("--volume", "kept:/town")
    try:
        with running(docker, image, "first", *volume) as name:
            until(lambda: healthy(docker, name))
            docker.inside(name, "tt", "backlog", "add", "to be kept")
            began = time.monotonic()
            docker("stop", "--timeout", "60", name)
            assert time.monotonic() - began < 30
            assert docker.looked_at(name)["State"]["ExitCode"] == 0
            assert '"event":"server.stopped"' in docker("logs", name).stderr
        with running(docker, image, "second", *volume) as name:
            until(lambda: healthy(docker, name))
            assert "to be kept" in docker.inside(name, "tt", "backlog", "list")
    finally:
        docker("volume", "rm", "kept")
