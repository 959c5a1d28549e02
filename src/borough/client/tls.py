"""Connections over TLS: whom a client trusts, and what it shows of itself."""

import http.client
from pathlib import Path
from typing import TYPE_CHECKING, Final

from borough.client.discovery import TlsFiles
from borough.core.errors import Invalid

if TYPE_CHECKING:
    import ssl

_PEM_END: Final = "-----END CERTIFICATE-----"


def tls_connection(host: str, port: int, files: TlsFiles, timeout_s: float) -> http.client.HTTPSConnection:
    """Return a connection that is not open yet; raises ``Invalid`` (``invalid_tls_files``)."""
    try:
        context = tls_context(files.ca_file, files.own_certificate)
        if files.cert_file:
            context.load_cert_chain(files.cert_file, files.key_file)
    except (OSError, ValueError) as problem:
        raise Invalid(
            "the certificate files for this server cannot be used",
            code="invalid_tls_files",
            reason=f"{files.ca_file or files.own_certificate or files.cert_file}: {problem}",
            resolution="check TINYTOWN_CA_FILE, TINYTOWN_CLIENT_CERT and TINYTOWN_CLIENT_KEY",
        ) from problem
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def tls_context(ca_file: str | None, own_certificate: str | None) -> "ssl.SSLContext":
    """Return a context that trusts the authorities in ``ca_file`` (``None``: the system's), or one certificate alone.

    ``own_certificate`` is the first in that file: who shows it and has its key is the server, by whatever address it
    was reached; nobody whom its issuer trusts besides is.
    """
    import ssl  # noqa: PLC0415 - a plain connection should not pay for it

    if own_certificate is None:
        context = ssl.create_default_context(cafile=ca_file)
    else:
        text = Path(own_certificate).read_text(encoding="ascii")
        context = ssl.create_default_context(cadata=text[: text.index(_PEM_END) + len(_PEM_END)])
        context.check_hostname = False
    # A town's own certificate is often its own issuer without being marked as an authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
