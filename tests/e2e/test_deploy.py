"""``tt deploy dist`` over a real SSH server: what is put there runs, and nobody sees the key on the way."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import need
from tests.e2e.fleet_programs import Api, build_wheel, free_port
from tests.e2e.ssh_server import SshServer, ssh_server

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a deployment is root's")


class Watch:
    """Looks at every process's arguments for words that must not be there, until it is ended."""

    def __init__(self, words: bytes) -> None:
        self._words = words
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.programs: set[str] = set()
        self.found: set[bytes] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    words = (process / "cmdline").read_bytes()
                except OSError:
                    continue  # it has ended
                self.programs.add(Path(os.fsdecode(words.partition(b"\0")[0])).name)
                if self._words in words:
                    self.found.add(words)


@dataclass(slots=True)
class Deployed:
    """A fleet that was put on a machine."""

    server: SshServer
    file: Path
    prefix: Path
    controller: int
    host: int
    key: str = ""
    said: list[str] = field(default_factory=list)
    watch: Watch | None = None

    def deploy(self, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "borough.cli.tt", "deploy", "dist", str(self.file)]
        argv += ["--no-start", "--ssh-config", str(self.server.client_config), *options]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=700, check=False)
        self.said.append(done.stdout + done.stderr)
        return done

    def unit(self, name: str) -> str:
        return (self.prefix / "etc" / f"{name}.service").read_text()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("deploy")
    build_wheel(folder / "dist")
    with ssh_server(folder / "ssh") as server:
        made = Deployed(
            server=server,
            file=folder / "deploy.toml",
            prefix=folder / "opt",
            controller=free_port(),
            host=free_port(),
        )
        made.file.write_text(f"""
[general]
prefix = "{made.prefix}"
user = "root"
release_dir = "{folder}/dist"
api_key = "{KEY}"

[controller]
host = "127.0.0.1"
ssh_port = {server.port}
listen = "127.0.0.1:{made.controller}"
data_dir = "{folder}/ctl"

[[agents]]
host = "127.0.0.1"
ssh_port = {server.port}
listen = "0.0.0.0:{made.host}"
image_dir = "{folder}/images"
runtime_dir = "{folder}/runtime"
data_dir = "{folder}/data"
host_id = "rack1"
join_only = true
user_network = true
""")
        with Watch(KEY.encode()) as watch:
            done = made.deploy()
        assert done.returncode == 0, done.stderr + (server.folder / "log").read_text()
        made.watch = watch
        yield made
    shutil.rmtree(made.prefix)


KEY = "a-key-that-nobody-sees-5f1c"


def test_the_key_is_in_one_private_file_and_was_in_no_ones_arguments(deployed: Deployed) -> None:
    assert deployed.watch is not None
    assert {"ssh", "sh"} <= deployed.watch.programs
    assert deployed.watch.found == set()
    files = [path for path in deployed.prefix.glob("etc/*") if KEY in path.read_text()]
    assert files == [deployed.prefix / "etc" / "tt-ctl.env"]
    assert {path.stat().st_mode & 0o777 for path in deployed.prefix.glob("etc/*.env")} == {0o600}
    for folder in ("ctl", "data", "images", "runtime"):
        assert (deployed.file.parent / folder).stat().st_mode & 0o777 == 0o700
    assert KEY not in "".join(deployed.said)
    assert KEY not in (deployed.server.folder / "log").read_text()


def test_a_dry_run_asks_nobody_and_shows_no_key(deployed: Deployed) -> None:
    log = deployed.server.folder / "log"
    before = log.read_text()
    done = deployed.deploy("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "KEY-OF-THE-FLEET" in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert log.read_text() == before


def test_systemd_accepts_the_units(deployed: Deployed) -> None:
    need(shutil.which("systemd-analyze"), "systemd-analyze", "apt-get install systemd")
    for name in ("tt-ctl", "tt-agent"):
        unit = deployed.prefix / "etc" / f"{name}.service"
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        about_it = [line for line in done.stderr.splitlines() if name in line]
        assert (done.returncode, about_it) == (0, []), done.stderr
        assert "KillMode=process\n" in unit.read_text()
        # A unit that systemd would refuse is refused here: the check above checks something.
        broken = deployed.file.with_name(f"broken-{name}.service")
        broken.write_text(unit.read_text().replace(f"bin/{name}", "bin/absent"))
        refused = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, check=False
        )
        assert refused.returncode != 0


def test_what_was_deployed_serves_as_its_units_say_and_joins(deployed: Deployed) -> None:
    with _unit_runs(deployed, "tt-ctl"), _unit_runs(deployed, "tt-agent"):
        controller = Api(f"127.0.0.1:{deployed.controller}", key=KEY)
        bin_folder = deployed.prefix / "bin"
        argv = [str(bin_folder / "tt-agent"), "--invite", "--data-dir", str(deployed.file.parent / "data")]
        line = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
        env = {"PATH": f"{bin_folder}:/usr/bin:/bin", "TT_API_KEY": KEY, "HOME": str(deployed.file.parent)}
        argv = ["sh", "-c", f"{line} --server http://{controller.address} --json"]
        added = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert added.returncode == 0, added.stderr
        assert json.loads(added.stdout)["id"] == "rack1"
        (host,) = controller.data("GET", "/api/hosts")
        assert (host["id"], host["state"]) == ("rack1", "online")
        assert Api(controller.address, key=None).ask("GET", "/api/hosts")[0] == 401


def test_deploying_again_changes_nothing_that_is_the_same(deployed: Deployed) -> None:
    (release,) = (deployed.prefix / "releases").iterdir()
    before = (release.stat().st_ino, release.stat().st_mtime_ns)
    assert deployed.deploy("--known-hosts-only").returncode == 0
    assert list((deployed.prefix / "releases").iterdir()) == [release]
    assert (release.stat().st_ino, release.stat().st_mtime_ns) == before
    assert (deployed.prefix / "venv").resolve() == release


def test_an_unknown_machine_is_refused_where_only_known_ones_are_meant(deployed: Deployed, tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh") as other:
        elsewhere, keys = _elsewhere(deployed, other, tmp_path), set()
        for _ in range(2):
            done = elsewhere.deploy("--known-hosts-only", "--json")
            assert done.returncode == 1
            assert "host_key_refused" in done.stdout + done.stderr
            kept = tmp_path / "deploy.toml.api-key"
            assert kept.stat().st_mode & 0o777 == 0o600
            keys.add(kept.read_text().strip())
        assert not (tmp_path / "opt").exists()
        (key,) = keys
        assert len(key) >= 32
        assert key not in "".join(elsewhere.said)


def test_a_machine_whose_key_has_changed_is_told_nothing(deployed: Deployed, tmp_path: Path) -> None:
    with ssh_server(tmp_path / "ssh") as first:
        probe = ["ssh", "-F", str(first.client_config), "-o", "StrictHostKeyChecking=accept-new", "-p", str(first.port)]
        subprocess.run([*probe, "127.0.0.1", "true"], check=True, capture_output=True, timeout=60)
        remembered = first.known_hosts.read_text()
    with ssh_server(tmp_path / "ssh", port=first.port) as impostor:
        done = _elsewhere(deployed, impostor, tmp_path).deploy("--json")
        assert done.returncode == 1
        assert "host_key_refused" in done.stdout + done.stderr
        assert "Accepted" not in (impostor.folder / "log").read_text().rpartition("Server listening")[2]
        assert impostor.known_hosts.read_text() == remembered
        assert not (tmp_path / "opt").exists()


def _elsewhere(deployed: Deployed, server: SshServer, folder: Path) -> Deployed:
    """Return the same fleet, to be put under another prefix by another server, with a key that is made for it."""
    file = folder / "deploy.toml"
    text = deployed.file.read_text().replace(f"ssh_port = {deployed.server.port}", f"ssh_port = {server.port}")
    text = text.replace(f'api_key = "{KEY}"', "")
    file.write_text(text.replace(f'prefix = "{deployed.prefix}"', f'prefix = "{folder}/opt"'))
    return Deployed(server=server, file=file, prefix=folder / "opt", controller=deployed.controller, host=deployed.host)


@contextmanager
def _unit_runs(deployed: Deployed, name: str) -> Iterator[None]:
    """Start what a unit's ``ExecStart`` says, with what its ``EnvironmentFile`` says, and end it as systemd would.

    As ``Type=notify`` promises, it is there once it has said so.
    """
    entries = dict(line.split("=", 1) for line in deployed.unit(name).splitlines() if "=" in line)
    argv = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(entries["ExecStart"])]
    words = shlex.split(Path(entries["EnvironmentFile"]).read_text())
    env = {"PATH": os.environ["PATH"], "HOME": str(deployed.file.parent), **dict(word.split("=", 1) for word in words)}
    assert entries["Type"] == "notify"
    with (
        tempfile.TemporaryDirectory() as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        (deployed.file.parent / f"{name}.log").open("ab") as log,
    ):
        told.bind(f"{short}/notify")
        told.settimeout(60)
        process = subprocess.Popen(argv, env={**env, "NOTIFY_SOCKET": f"{short}/notify"}, stdout=log, stderr=log)
        try:
            assert told.recv(100) == b"READY=1"
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0, Path(log.name).read_text()
