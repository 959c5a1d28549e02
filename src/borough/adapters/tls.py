"""Certificate files: checked before a port is opened, so that TLS is served as asked or the server does not start."""

import ssl
import stat
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from borough.core.errors import Invalid

_LARGEST_FILE_BYTES = 1_048_576
_WARN_BEFORE = timedelta(days=14)
Parsed = TypeVar("Parsed")


def check_tls_files(*, cert_file: Path, key_file: Path, ca_file: Path | None = None, at: datetime) -> tuple[str, ...]:
    """Return warnings about files that TLS can be served with.

    Raises:
        Invalid: it cannot (``invalid_tls_file``); one line says which file and why.
    """
    chain = _certificates(cert_file, what="certificate")
    _in_its_time(chain[0], cert_file, at=at)
    key = _private_key(key_file)
    if _public_bytes(key.public_key()) != _public_bytes(chain[0].public_key()):
        raise _invalid("key", key_file, f"it is not the key of the certificate in {cert_file}")
    if ca_file is not None:
        _check_authority(ca_file, at=at)
    server_context(cert_file=cert_file, key_file=key_file, ca_file=ca_file, client_certificate_required=False)
    return tuple(_warnings(chain[0], cert_file, key_file, at=at))


def server_context(
    *, cert_file: Path, key_file: Path, ca_file: Path | None, client_certificate_required: bool
) -> ssl.SSLContext:
    """Return the context to serve with: TLS 1.2 or newer; with ``ca_file``, clients' certificates are checked.

    Raises:
        Invalid: the library does not accept a file (``invalid_tls_file``).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise _invalid("certificate", cert_file, f"it cannot be served: {_one_line(error)}") from None
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ValueError) as error:
            raise _invalid("authority", ca_file, f"it cannot be used: {_one_line(error)}") from None
        context.verify_mode = ssl.CERT_REQUIRED if client_certificate_required else ssl.CERT_OPTIONAL
    return context


def _no_password() -> str:
    # Without this the library would ask on the terminal.
    raise ValueError("the key is encrypted")


def _content(path: Path, *, what: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _invalid(what, path, "it is not an ordinary file")
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _invalid(what, path, "it is not there") from None
    except OSError as error:
        raise _invalid(what, path, f"it cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise _invalid(what, path, "it is larger than 1 MiB")
    return content


def _parsed(parse: Callable[[], Parsed], path: Path, *, what: str, problem: str) -> Parsed:
    try:
        return parse()
    except (ValueError, TypeError):
        raise _invalid(what, path, problem) from None


def _certificates(path: Path, *, what: str) -> Sequence[x509.Certificate]:
    content = _content(path, what=what)
    return _parsed(
        lambda: x509.load_pem_x509_certificates(content), path, what=what, problem="it holds no certificate in PEM form"
    )


def _private_key(path: Path) -> PrivateKeyTypes:
    content = _content(path, what="key")
    if b"ENCRYPTED" in content:
        raise _invalid("key", path, "it is encrypted, and nobody is there to type the password")
    return _parsed(
        lambda: load_pem_private_key(content, password=None),
        path,
        what="key",
        problem="it holds no private key in PEM form",
    )


def _public_bytes(key: object) -> bytes:
    encode = getattr(key, "public_bytes")  # noqa: B009 - the library's union includes keys that cannot serve TLS
    encoded: bytes = encode(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _in_its_time(certificate: x509.Certificate, path: Path, *, at: datetime, what: str = "certificate") -> None:
    if at >= certificate.not_valid_after_utc:
        raise _invalid(what, path, f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if at < certificate.not_valid_before_utc:
        raise _invalid(what, path, f"it is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")


def _check_authority(path: Path, *, at: datetime) -> None:
    authorities = [found for found in _certificates(path, what="authority") if _is_authority(found)]
    if not authorities:
        raise _invalid("authority", path, "none of its certificates belongs to an authority (CA:TRUE)")
    if not any(found.not_valid_before_utc <= at < found.not_valid_after_utc for found in authorities):
        _in_its_time(authorities[0], path, at=at, what="authority")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _warnings(certificate: x509.Certificate, cert_file: Path, key_file: Path, *, at: datetime) -> Sequence[str]:
    warnings = []
    if certificate.not_valid_after_utc - at < _WARN_BEFORE:
        warnings.append(f"the certificate {cert_file} expires on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if stat.S_IMODE(key_file.stat().st_mode) & 0o007:
        warnings.append(f"the key {key_file} can be read by everybody: chmod 600 {key_file}")
    return warnings


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _invalid(what: str, path: Path, why: str) -> Invalid:
    return Invalid(
        f"the TLS {what} file {path}: {why}",
        code="invalid_tls_file",
        resolution="correct the file or the setting that names it under [townhall.tls] or [townhall.mtls]",
    )
