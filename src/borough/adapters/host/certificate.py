"""A host's own certificate: made at the first start, kept in a private file, known by its fingerprint.

Nobody signs for it and its names and dates mean nothing: a controller has the fingerprint from the join token, and
accepts this certificate and no other. It has no end (RFC 5280 §4.1.2.5), so that no host falls silent on a date.
"""

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from borough.adapters.credentials import files
from borough.adapters.tls import server_context
from borough.core.clock import utc_now
from borough.core.errors import Invalid

CERTIFICATE_FILE: Final = "tls.pem"
_NO_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_CLOCKS_DIFFER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificate:
    """What a host proves itself with."""

    fingerprint: str
    """SHA-256 of the certificate (DER), in hexadecimal."""
    context: ssl.SSLContext
    """To serve with."""


def host_certificate(folder: Path) -> HostCertificate:
    """Return the certificate of a host whose private folder this is; it is made where there is none.

    Key and certificate are one file of mode 0600: there is no moment in which one does not fit the other.

    Raises:
        Invalid: others may read the file (``unsafe_file``), or it is not what was written (``damaged_file``).
    """
    path = folder / CERTIFICATE_FILE
    content = files.private_content(path, _made)
    try:
        certificate = x509.load_pem_x509_certificate(content)
        context = server_context(cert_file=path, key_file=path, ca_file=None, client_certificate_required=False)
    except (ValueError, Invalid) as error:
        raise Invalid(
            f"{path} is not a key with its certificate any more",
            code="damaged_file",
            reason=" ".join(str(error).split()),
            resolution="restore it; or remove it, start again, and let each controller join anew",
        ) from None
    der = certificate.public_bytes(Encoding.DER)
    return HostCertificate(fingerprint=hashlib.sha256(der).hexdigest(), context=context)


def _made() -> bytes:
    """Return a new private key and its certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tt-agent")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - _CLOCKS_DIFFER)
        .not_valid_after(_NO_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    kept = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return kept + certificate.public_bytes(Encoding.PEM)
