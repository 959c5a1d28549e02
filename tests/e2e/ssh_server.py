"""An SSH server of one's own on loopback: its key, who is let in, and what whoever logs in finds there."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.e2e.fleet_programs import free_port

_SEPARATION = Path("/run/sshd")
"""Without it the server does not start as root (sshd(8))."""


@dataclass(slots=True)
class SshServer:
    """A server that runs, and how its user reaches it."""

    port: int
    folder: Path

    @property
    def client_config(self) -> Path:
        """Return the file for ``ssh -F``."""
        return self.folder / "client_config"

    @property
    def known_hosts(self) -> Path:
        """Return where the user's ``ssh`` remembers machines."""
        return self.folder / "known_hosts"


@contextmanager
def ssh_server(folder: Path, *, port: int = 0) -> Iterator[SshServer]:
    """Run a server until the block ends. In the same folder it is another time the same user's, with another key."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    need(program, "sshd", "apt-get install openssh-server")
    need(shutil.which("ssh-keygen") and shutil.which("ssh"), "ssh", "apt-get install openssh-client")
    folder.mkdir(exist_ok=True)
    server = SshServer(port=port or free_port(), folder=folder)
    _write_files(server)
    made_separation = not _SEPARATION.exists()
    _SEPARATION.mkdir(mode=0o755, exist_ok=True)
    argv = [program or "", "-D", "-e", "-f", str(folder / "sshd_config")]
    try:
        with (folder / "log").open("ab") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
            try:
                _answers(server, process)
                yield server
            finally:
                process.terminate()
                process.wait(timeout=30)
    finally:
        if made_separation:
            _SEPARATION.rmdir()


def _write_files(server: SshServer) -> None:
    folder = server.folder
    for name in ("host_key", "client_key"):
        if name == "host_key" or not (folder / name).exists():
            for old in (folder / name, folder / f"{name}.pub"):
                old.unlink(missing_ok=True)
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(argv, check=True, capture_output=True)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    there = {
        "PATH": f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}",
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        "PIP_NO_COMPILE": "1",  # the machine's own setting of pip: this test is in a hurry
    }
    (folder / "sshd_config").write_text(f"""
ListenAddress 127.0.0.1:{server.port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv {" ".join(f'"{name}={value}"' for name, value in there.items())}
""")
    (folder / "client_config").write_text(f"""
IdentityFile {folder}/client_key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
""")


def _answers(server: SshServer, process: subprocess.Popen[bytes], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        assert process.poll() is None, (server.folder / "log").read_text()
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail((server.folder / "log").read_text())
