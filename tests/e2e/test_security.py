"""What a town keeps to itself and whom it lets in, on a real server: TLS, keys, tokens, limits, files, its end."""

import json
import os
import signal
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.e2e.conftest import Answer, RunningTown, run_tool, start_town, stop_town, until
from tests.services.issuer import running_issuer

YEAR = timedelta(days=365)
AGENT = """
import os, pathlib, sys, time
text = sys.stdin.read()
here = pathlib.Path(__file__).parent
(here / "attempt.token").write_text(pathlib.Path(os.environ["TINYTOWN_TOKEN_FILE"]).read_text())
(here / "agent.pid").write_text(str(os.getpid()))
if "please sleep" in text:
    time.sleep(600)
print("did it")
"""


def prepared(root: Path, more: str = "", **settings: str) -> Path:
    """Make a town whose file also says ``more``; its agents run a small program."""
    root.mkdir(exist_ok=True)
    (root / "agent.py").write_text(AGENT)
    run_tool("borough.cli.tt", "init", "--name", "guarded", "--cli", f"{sys.executable} {root / 'agent.py'}", cwd=root)
    for key, value in settings.items():
        run_tool("borough.cli.tt", "config", "--here", key, value, cwd=root)
    with (root / "tinytown.toml").open("a") as file:
        file.write(f"\n{more}\n")
    return root


def log_in(town: RunningTown, credential: str, path: str = "/v1/status", method: str = "GET", body: Any = None) -> int:
    """Return how a request with ``credential`` is answered."""
    return town.request(method, path, body, token=credential).status


# -- TLS ---------------------------------------------------------------------------------------------------------------


class Authority:
    """An authority and the files that it makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(self.key, "authority", is_authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *, until_at: datetime | None = None, at: str = "127.0.0.1") -> tuple[Path, Path]:
        """Return the files of a new certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(key, name, until_at=until_at, at=at)
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key_file.chmod(0o600)
        return cert_file, key_file

    def _signed(
        self,
        key: ec.EllipticCurvePrivateKey,
        name: str,
        *,
        is_authority: bool = False,
        until_at: datetime | None = None,
        at: str = "127.0.0.1",
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        public = self.key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - YEAR)
            .not_valid_after(until_at or now + YEAR)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(at))]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def client(self, files: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.file))
        if files is not None:
            context.load_cert_chain(*files)
        return context


def tls_settings(cert_file: Path, key_file: Path, more: str = "") -> str:
    return f'[townhall.tls]\nenabled = true\ncert_file = "{cert_file}"\nkey_file = "{key_file}"\n{more}'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "pki"
    folder.mkdir()
    return Authority(folder)


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.7"])
def test_tls_is_served_and_the_towns_own_programs_trust_it(authority: Authority, tmp_path: Path, address: str) -> None:
    """Also where the certificate is for an address by which only others reach the server."""
    root = prepared(tmp_path / "town", tls_settings(*authority.issue("server", at=address)))
    context = authority.client()
    context.check_hostname = address == "127.0.0.1"
    town = start_town(root, tls=context)
    try:
        assert town.url.startswith("https://")
        plain = RunningTown(root=root, process=town.process, url=f"http{town.url[5:]}", token=town.token, log=town.log)
        with pytest.raises((OSError, HTTPException)):
            plain.request("GET", "/health")
        town.tt("spawn", "ada")
        task = town.tt("assign", "ada", "anything").stdout.strip()
        until(lambda: town.ok("GET", f"/v1/tasks/{task}")["state"] == "completed")
        stranger = {"TINYTOWN_SERVER": town.url, "TINYTOWN_CA_FILE": str(Authority(root).file)}
        refused = run_tool("borough.cli.tt", "status", cwd=root, environ=stranger, check=False)
        assert refused.returncode == 3
        assert "certificate verify failed" in refused.stderr
    finally:
        assert stop_town(town) == 0


def test_mtls_lets_in_who_shows_a_certificate_of_the_authority(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("client")
    more = f'[townhall.mtls]\nenabled = true\nrequired = true\nca_file = "{authority.file}"\n'
    root = prepared(tmp_path / "town", tls_settings(*authority.issue("server"), more))
    shown = {"TINYTOWN_CLIENT_CERT": str(own[0]), "TINYTOWN_CLIENT_KEY": str(own[1])}
    town = start_town(root, tls=authority.client(own), environ=shown)
    try:
        assert town.request("GET", "/v1/status").status == 200
        town.tt("spawn", "ada")
        task = town.tt("assign", "ada", "anything").stdout.strip()
        until(lambda: town.ok("GET", f"/v1/tasks/{task}")["state"] == "completed")
        (tmp_path / "other").mkdir()
        strangers = Authority(tmp_path / "other").issue("stranger")
        for context in (authority.client(), authority.client(strangers)):
            town.tls = context
            with pytest.raises((OSError, HTTPException)):
                town.request("GET", "/health", token=None)
        assert run_tool("borough.cli.tt", "status", cwd=root, environ=shown).returncode == 0
        assert run_tool("borough.cli.tt", "status", cwd=root, check=False).returncode == 3
    finally:
        assert stop_town(town) == 0


# -- start-up refusals -------------------------------------------------------------------------------------------------


def refused_start(root: Path, told: str, *arguments: str, bind: str = "127.0.0.1") -> str:
    """Start a server that must not start; return its one line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ("rest", "--bind", bind, "--port", str(port), *arguments)
    done = run_tool("borough.cli.townhall", *words, cwd=root, check=False)
    assert done.returncode == 1, (done.stdout, done.stderr)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told in line
    assert "Traceback" not in done.stderr
    assert not (root / ".tt" / "server.json").exists()
    assert not (root / ".tt" / "redis.sock").exists()
    return line


def test_no_server_starts_with_certificate_files_that_cannot_be_served(authority: Authority, tmp_path: Path) -> None:
    good, key = authority.issue("good")
    _, other = authority.issue("other")
    old, old_key = authority.issue("old", until_at=datetime.now(UTC) - timedelta(days=1))
    garbage = authority.folder / "garbage.pem"
    garbage.write_text("no certificate\n")
    cases = [
        (good, tmp_path / "absent.key", "not there"),
        (garbage, key, "PEM"),
        (good, garbage, "PEM"),
        (good, other, "not the key"),
        (old, old_key, "expired"),
        (authority.folder, key, "ordinary file"),
    ]
    if os.geteuid() != 0:  # modes do not bind root
        _, hidden = authority.issue("hidden")
        hidden.chmod(0)
        cases.append((good, hidden, "cannot be read"))
    root = prepared(tmp_path / "town")
    plain = (root / "tinytown.toml").read_text()
    for cert_file, key_file, told in cases:
        (root / "tinytown.toml").write_text(plain + tls_settings(cert_file, key_file))
        line = refused_start(root, told)
        assert str(cert_file) in line or str(key_file) in line
    mtls = f'[townhall.mtls]\nrequired = true\nca_file = "{garbage}"\n'
    (root / "tinytown.toml").write_text(plain + tls_settings(good, key, mtls))
    assert str(garbage) in refused_start(root, "PEM")


def test_no_server_starts_with_settings_that_are_not_safe_or_not_known(tmp_path: Path) -> None:
    root = prepared(tmp_path / "town")
    plain = (root / "tinytown.toml").read_text()
    refused_start(root, 'refusing to bind to 0.0.0.0 with townhall.auth.mode = "none"', bind="0.0.0.0")
    for more, told in (
        ("[townhall.mtls]\nrequired = true\n", "townhall.mtls.required"),
        ("[townhall.tls]\nenabled = true\n", "townhall.tls.cert_file"),
        ("[townhall.tls]\nenabeld = true\n", "enabled"),
        ("[townhall.tls\n", "tinytown.toml"),
    ):
        (root / "tinytown.toml").write_text(plain + more)
        refused_start(root, told)


def test_a_second_server_is_refused_and_a_taken_port_names_its_holder(
    running_town: RunningTown, tmp_path: Path
) -> None:
    again = run_tool("borough.cli.townhall", "rest", "--port", "0", cwd=running_town.root, check=False)
    assert again.returncode == 1
    [line] = again.stderr.splitlines()
    assert f"pid {running_town.process.pid} at {running_town.url}" in line
    root = prepared(tmp_path / "other")
    port = running_town.url.rpartition(":")[2]
    taken = run_tool("borough.cli.townhall", "rest", "--port", port, cwd=root, check=False)
    assert taken.returncode == 1
    [line] = taken.stderr.splitlines()
    assert f"port {port} on 127.0.0.1 is in use by pid {running_town.process.pid}" in line


# -- keys --------------------------------------------------------------------------------------------------------------


def new_key(root: Path, *words: str) -> str:
    made = run_tool("borough.cli.tt", "auth", "keys", *words, "--json", cwd=root)
    key: str = json.loads(made.stdout)["key"]
    return key


def test_named_keys_have_scopes_and_an_end(tmp_path: Path) -> None:
    root = prepared(tmp_path / "town", "", **{"townhall.auth.mode": "api_key"})
    reader = new_key(root, "add", "reader", "--scope", "town.read")
    writer = new_key(root, "add", "writer", "--scope", "town.write", "--scope", "town.read")
    rotated = new_key(root, "rotate", "writer", "--grace-hours", "0")
    brief = new_key(root, "add", "brief", "--days", "1")
    text = (root / "tinytown.toml").read_text()
    [written] = [
        line for line in text.splitlines() if line.startswith("expires_at") and line in text.split('"brief"')[1]
    ]
    soon = datetime.now(UTC) + timedelta(seconds=12)
    (root / "tinytown.toml").write_text(text.replace(written, f"expires_at = {soon.isoformat()}"))
    town = start_town(root)
    port = int(town.url.rpartition(":")[2])
    try:
        assert log_in(town, brief) == 200
        assert (log_in(town, reader), log_in(town, rotated)) == (200, 200)
        assert log_in(town, writer) == 401  # rotated without a grace
        work = {"description": "work", "role": "nobody"}
        assert log_in(town, reader, "/v1/backlog", "POST", work) == 403
        assert log_in(town, rotated, "/v1/backlog", "POST", work) == 201
        assert log_in(town, rotated, "/v1/recover", "POST") == 403
        assert town.request("GET", "/v1/status", token=None, headers={"X-API-Key": reader}).status == 200
        assert town.request("GET", "/v1/status", token=None).headers["www-authenticate"].startswith("Bearer")
        # A key that was verified before and is remembered ends all the same.
        until(lambda: log_in(town, brief) == 401)
        town.tt("auth", "keys", "revoke", "reader")
        assert stop_town(town) == 0
        town = start_town(root, port=port)
        assert log_in(town, reader) == 401
        assert log_in(town, rotated) == 200
    finally:
        stop_town(town)


def test_tokens_of_an_issuer_are_let_in_with_their_scopes(tmp_path: Path) -> None:
    with running_issuer() as issuer:
        auth = {"townhall.auth.mode": "oidc", "townhall.auth.issuer": issuer.url, "townhall.auth.audience": "town"}
        town = start_town(prepared(tmp_path / "town", "", **auth))
        try:
            assert log_in(town, issuer.token()) == 200
            assert log_in(town, issuer.token(), "/v1/backlog", "POST", {"description": "x", "role": "none"}) == 201
            assert log_in(town, issuer.token(), "/v1/recover", "POST") == 403
            assert log_in(town, issuer.token(scope="openid")) == 403
            assert log_in(town, issuer.token(scope=None, scp=["town.read"])) == 200
            assert log_in(town, issuer.token(aud="another")) == 401
            assert log_in(town, issuer.token(exp=1_000_000_000)) == 401
            assert log_in(town, issuer.token(iss="http://127.0.0.1:1")) == 401
            assert log_in(town, issuer.token() + "x") == 401
            assert town.request("GET", "/v1/status", token=None).status == 401
        finally:
            assert stop_town(town) == 0


# -- requests ----------------------------------------------------------------------------------------------------------


def test_other_hosts_and_other_origins_are_refused(running_town: RunningTown) -> None:
    def sent(method: str, **headers: str) -> Answer:
        return running_town.request(method, "/v1/recover" if method == "POST" else "/v1/status", headers=headers)

    assert sent("GET", Host="evil.example").json()["code"] == "host_not_allowed"
    foreign = sent("POST", Origin="http://evil.example")
    assert (foreign.status, foreign.json()["code"]) == (403, "cross_origin")
    assert "access-control-allow-origin" not in foreign.headers
    assert sent("POST", Origin=running_town.url).status == 200
    assert sent("POST", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert sent("GET").status == 200


def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    limits = "[townhall.rate_limit]\nenabled = true\nrequests_per_minute = 40\nmutating_requests_per_minute = 30\n"
    town = start_town(prepared(tmp_path / "town", limits + "burst_size = 4\n"))
    try:
        answers = [town.request("GET", "/v1/town") for _ in range(8)]
        assert [answer.status for answer in answers[:4]] == [200] * 4
        assert answers[0].headers["ratelimit-policy"] == '"reads";q=40;w=60'
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.json()["code"] == "rate_limited"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["ratelimit"].startswith('"reads";r=0;t=')
        work = {"description": "x", "role": "nobody"}
        assert town.request("POST", "/v1/backlog", work).status == 201  # writes are counted apart
        assert town.request("GET", "/health", token=None).status == 200
    finally:
        assert stop_town(town) == 0


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningTown, str]]:
    """A town with an API key and an agent at work; and the key."""
    root = prepared(tmp_path_factory.mktemp("busy") / "town", "", **{"townhall.auth.mode": "api_key"})
    key = new_key(root, "add", "ci")
    town = start_town(root)
    town.tt("spawn", "ada")
    task = town.tt("assign", "ada", "please sleep").stdout.strip()
    until(lambda: town.ok("GET", f"/v1/tasks/{task}")["state"] == "running" and (root / "agent.pid").exists())
    assert log_in(town, key) == 200
    yield town, key
    stop_town(town)


def test_a_refused_login_is_an_event_that_does_not_tell_the_credential(busy: tuple[RunningTown, str]) -> None:
    town, _ = busy
    wrong = "a-guessed-credential-0123456789"
    assert log_in(town, wrong) == 401
    found = until(lambda: town.ok("GET", "/v1/events?type=login_refused")["events"])
    assert "127.0.0.1" in found[-1]["message"]
    assert wrong not in json.dumps(found)
    assert wrong not in town.log.read_text()


def test_no_secret_is_in_a_log_an_event_or_an_argument(busy: tuple[RunningTown, str]) -> None:
    town, key = busy
    registered = town.ok("POST", "/v1/workers", {"name": "bob"})
    secrets = {
        "operator token": town.token,
        "API key": key,
        "registered worker's token": registered["token"],
        "attempt's token": (town.root / "attempt.token").read_text().strip(),
        **{f"token in {path}": path.read_text().strip() for path in (town.root / ".tt" / "agents").rglob("token")},
    }
    assert len(secrets) >= 5
    assert all(len(secret) > 20 for secret in secrets.values())
    told = {str(path): path.read_bytes() for path in [town.log, *(town.root / ".tt" / "logs").rglob("*.log")]}
    told["events"] = town.request("GET", "/v1/events?limit=1000").body
    told["metrics"] = town.request("GET", "/metrics", token=None).body
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            told[str(process)] = process.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
    assert len(told) > 5
    leaks = [
        (name, place) for name, secret in secrets.items() for place, text in told.items() if secret.encode() in text
    ]
    assert leaks == []


def test_an_agents_environment_holds_no_secret_of_the_server(busy: tuple[RunningTown, str]) -> None:
    town, key = busy
    agent = int((town.root / "agent.pid").read_text())
    environ = Path(f"/proc/{agent}/environ").read_bytes()
    assert b"TINYTOWN_TASK_ID=" in environ
    for secret in (town.token, key, (town.root / "attempt.token").read_text().strip()):
        assert secret.encode() not in environ


def test_nobody_else_may_read_what_is_below_the_state_folder(busy: tuple[RunningTown, str]) -> None:
    town, _ = busy
    state = town.root / ".tt"
    found = {path: path.lstat().st_mode for path in [state, *state.rglob("*")]}
    assert len(found) > 10
    assert {path: oct(stat.S_IMODE(mode)) for path, mode in found.items() if stat.S_IMODE(mode) & 0o077} == {}


# -- the end -----------------------------------------------------------------------------------------------------------


def test_sigterm_drains_and_the_next_start_goes_on(tmp_path: Path) -> None:
    root = prepared(tmp_path / "town")
    town = start_town(root)
    port = int(town.url.rpartition(":")[2])
    town.tt("spawn", "ada")
    task = town.tt("assign", "ada", "please sleep").stdout.strip()
    first = until(lambda: (root / "agent.pid").exists() and (root / "agent.pid").read_text())
    body = json.dumps({"description": "slowly said", "role": "nobody"}).encode()
    slow = town.connection()
    slow.putrequest("POST", "/v1/backlog")
    for name, value in (("Authorization", f"Bearer {town.token}"), ("Content-Type", "application/json")):
        slow.putheader(name, value)
    slow.putheader("Content-Length", str(len(body)))
    slow.endheaders(body[:10])
    until(lambda: town.request("GET", "/health", token=None).status == 200)  # the slow request came before this one
    town.process.send_signal(signal.SIGTERM)
    until(lambda: not accepts(port))
    slow.send(body[10:])
    answer = slow.getresponse()
    assert answer.status == 201
    queued = json.loads(answer.read())["task_id"]
    slow.close()
    assert town.process.wait(timeout=40) == 0
    assert not Path(f"/proc/{first}").exists()
    assert not (root / ".tt" / "server.json").exists()

    (root / "agent.pid").unlink()
    town = start_town(root, port=port)
    try:
        assert town.ok("GET", f"/v1/tasks/{queued}")["description"] == "slowly said"
        until((root / "agent.pid").exists)
        again = until(lambda: (now := town.ok("GET", f"/v1/tasks/{task}"))["state"] == "running" and now)
        assert again["attempts"] == 1  # given back, not failed
        assert town.ok("GET", "/v1/agents/ada")["state"] == "Working"
    finally:
        assert stop_town(town) == 0


def accepts(port: int) -> bool:
    """Tell whether somebody listens on ``port``."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
