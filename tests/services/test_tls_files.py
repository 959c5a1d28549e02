import os
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_connection, create_server

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from borough.adapters.tls import check_tls_files, server_context
from borough.core.errors import Invalid

NOW = datetime.now(UTC)
NOBODY = 65534
YEAR = timedelta(days=365)
Key = ec.EllipticCurvePrivateKey


class Authority:
    """Makes certificates as an authority does."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.sign(self.key, "authority", is_authority=True)

    def sign(
        self,
        key: Key,
        name: str,
        *,
        start: datetime = NOW - YEAR,
        end: datetime = NOW + YEAR,
        is_authority: bool = False,
    ) -> x509.Certificate:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


class Files:
    """The three files, good unless a test changes one."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert_file, self.key_file, self.ca_file = (folder / f"{name}.pem" for name in ("cert", "key", "ca"))
        self.write_certificate(self.authority.sign(self.key, "localhost"))
        self.write_key(self.key)
        self.ca_file.write_bytes(self.authority.certificate.public_bytes(Encoding.PEM))

    def write_certificate(self, certificate: x509.Certificate) -> None:
        self.cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def write_key(self, key: Key, encryption: KeySerializationEncryption | None = None) -> None:
        self.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
        self.key_file.chmod(0o600)

    def check(self) -> tuple[str, ...]:
        return check_tls_files(cert_file=self.cert_file, key_file=self.key_file, ca_file=self.ca_file, at=NOW)

    def refusal(self, file: Path) -> str:
        with pytest.raises(Invalid) as caught:
            self.check()
        assert caught.value.code == "invalid_tls_file"
        assert str(file) in caught.value.message
        assert "\n" not in caught.value.message
        return caught.value.message


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_good_files_pass_without_a_word(files: Files) -> None:
    assert files.check() == ()


@pytest.mark.parametrize("which", ["cert_file", "key_file", "ca_file"])
def test_a_missing_file(files: Files, which: str) -> None:
    path = getattr(files, which)
    path.unlink()
    assert "not there" in files.refusal(path)


@pytest.mark.parametrize("which", ["cert_file", "key_file", "ca_file"])
@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_garbage(files: Files, which: str, garbage: bytes) -> None:
    path = getattr(files, which)
    path.write_bytes(garbage)
    assert "PEM" in files.refusal(path)


@pytest.mark.parametrize("which", ["cert_file", "key_file", "ca_file"])
def test_a_folder_in_place_of_a_file(files: Files, which: str) -> None:
    path = getattr(files, which)
    path.unlink()
    path.mkdir()
    assert "ordinary file" in files.refusal(path)


def test_a_file_that_may_not_be_read(files: Files) -> None:
    files.key_file.chmod(0)
    user = os.geteuid()
    if user == 0:
        # Modes do not bind root.
        os.seteuid(NOBODY)
    try:
        refusal = files.refusal(files.key_file if user else files.cert_file)
    finally:
        os.seteuid(user)
    assert "cannot be read" in refusal


def test_an_expired_certificate(files: Files) -> None:
    files.write_certificate(files.authority.sign(files.key, "localhost", end=NOW - timedelta(days=1)))
    assert "expired" in files.refusal(files.cert_file)


def test_a_certificate_of_the_future(files: Files) -> None:
    files.write_certificate(files.authority.sign(files.key, "localhost", start=NOW + timedelta(days=1)))
    assert "valid only from" in files.refusal(files.cert_file)


def test_another_certificates_key(files: Files) -> None:
    files.write_key(ec.generate_private_key(ec.SECP256R1()))
    assert str(files.cert_file) in files.refusal(files.key_file)


def test_an_encrypted_key(files: Files) -> None:
    files.write_key(files.key, BestAvailableEncryption(b"password"))
    assert "encrypted" in files.refusal(files.key_file)


def test_certificate_and_key_in_each_others_place(files: Files) -> None:
    files.cert_file, files.key_file = files.key_file, files.cert_file
    files.refusal(files.cert_file)


def test_an_authority_that_is_none(files: Files) -> None:
    files.ca_file.write_bytes(files.cert_file.read_bytes())
    assert "CA:TRUE" in files.refusal(files.ca_file)


def test_an_expired_authority(files: Files) -> None:
    old = files.authority.sign(files.authority.key, "authority", end=NOW - timedelta(days=1), is_authority=True)
    files.ca_file.write_bytes(old.public_bytes(Encoding.PEM))
    assert "expired" in files.refusal(files.ca_file)
    files.ca_file.write_bytes(old.public_bytes(Encoding.PEM) + files.authority.certificate.public_bytes(Encoding.PEM))
    assert files.check() == ()


def test_what_its_operator_is_told(files: Files) -> None:
    files.write_certificate(files.authority.sign(files.key, "localhost", end=NOW + timedelta(days=3)))
    files.key_file.chmod(0o644)
    soon, readable = files.check()
    assert "expires" in soon
    assert "chmod 600" in readable


@pytest.mark.parametrize(
    ("required", "shows_one", "served"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_clients_certificates_are_really_checked(
    files: Files, *, required: bool, shows_one: bool, served: bool
) -> None:
    context = server_context(
        cert_file=files.cert_file, key_file=files.key_file, ca_file=files.ca_file, client_certificate_required=required
    )
    client = ssl.create_default_context(cafile=str(files.ca_file))
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the test's authority has no key identifiers
    if shows_one:
        client.load_cert_chain(files.cert_file, files.key_file)
    with create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_greet_once, args=(listener, context))
        thread.start()
        try:
            assert _greeting(listener.getsockname()[1], client) == (b"hello" if served else None)
        finally:
            thread.join()


def _greet_once(listener: object, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()  # type: ignore[attr-defined]  # a socket
    with connection:
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(b"hello")
        except OSError:
            return


def _greeting(port: int, client: ssl.SSLContext) -> bytes | None:
    try:
        with (
            create_connection(("127.0.0.1", port)) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as s,
        ):
            return s.recv(5) or None
    except OSError:
        return None
