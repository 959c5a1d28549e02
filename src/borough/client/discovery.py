"""Which server to speak to, and with which credential.

A server is named by an address (``--server``, ``TINYTOWN_SERVER``, ``TT_SERVER``) or found through the town's folder,
where a running one leaves ``.tt/server.json``. The credential of a town's own server lies beside that file; it is
sent to that server only, never to an address that somebody typed.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from borough.core.errors import Forbidden, Invalid, Unavailable

TOWN_FILE: Final = "tinytown.toml"
STATE_FOLDER: Final = ".tt"
SERVER_FILE: Final = "server.json"
OPERATOR_TOKEN_FILE: Final = "operator.token"  # noqa: S105 - the name of a file, not a secret
ADDRESS_VARIABLES: Final = ("TINYTOWN_SERVER", "TT_SERVER")
_MAX_TOKEN_BYTES: Final = 16_384


class NoServer(Unavailable):
    """There is no server to speak to: none is known, or the one that is does not answer."""

    default_code = "no_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecord:
    """What a running server says of itself in its town's folder."""

    address: str
    pid: int
    started_ticks: int | None
    """Clock ticks after boot, field 22 of ``/proc/PID/stat`` (proc(5)); proves that the pid is still the server's."""
    socket: str | None = None
    """The operators' Unix socket, where the server governs agents too."""
    fleet: bool = False
    """It is the fleet's controller too."""
    images: str | None = None
    """Where images for the server's machine lie, if it is a host of that fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for speaking TLS; ``None`` leaves it to the system."""

    ca_file: str | None = None
    own_certificate: str | None = None
    """The very certificate that a town's own server shows: it alone is trusted then, whatever name it is for."""
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where the server is and how to show who is asking."""

    url: str
    token: str | None = field(default=None, repr=False)
    tls: TlsFiles = TlsFiles()


def find_town(start: Path) -> Path | None:
    """Return the nearest folder at or above ``start`` that holds a town's file.

    Above ``start`` only the caller's own towns (and root's) count: a file that a stranger left in ``/tmp`` must not
    decide which programs run and who gets the caller's key.
    """
    folder = start.resolve()
    if not folder.is_dir():
        return None
    for candidate in (folder, *folder.parents):
        file = candidate / TOWN_FILE
        if file.is_file() and (candidate == folder or file.stat().st_uid in {os.geteuid(), 0}):
            return candidate
    return None


def read_record(town: Path) -> ServerRecord | None:
    """Return the record of the town's running server; ``None`` when there is none or its process is gone."""
    return record_in(town / STATE_FOLDER)


def record_in(state_folder: Path) -> ServerRecord | None:
    """Return the record that a running server keeps in its state folder; ``None`` when none runs there."""
    try:
        document = json.loads((state_folder / SERVER_FILE).read_text())
        ticks = document.get("started_ticks", document.get("start_ticks"))
        record = ServerRecord(
            address=str(document["address"]),
            pid=int(document["pid"]),
            started_ticks=None if ticks is None else int(ticks),
            socket=str(document["socket"]) if document.get("socket") else None,
            fleet=document.get("fleet") is True,
            images=str(document["images"]) if document.get("images") else None,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut short by a crash while it was written: the server that wrote it is not there
    return record if is_running(record) else None


def find_gateway(start: Path, data_folder: Path) -> ServerAddress | None:
    """Return the gateway of the caller's own, with its credential: that of the town at or above ``start``, else the
    daemon's that keeps its state in ``data_folder``.
    """
    town = find_town(start)
    for folder in ([] if town is None else [town / STATE_FOLDER]) + [data_folder]:
        record, token = record_in(folder), folder / OPERATOR_TOKEN_FILE
        if record is not None and record.socket is not None and token.exists():
            return ServerAddress(url=record.address, token=_read_token(token), tls=tls_files(town, os.environ))
    return None


def find_socket(start: Path) -> Path | None:
    """Return the operators' socket of the server that runs in the town at or above ``start``, if it has one.

    A socket of another user (but root) is none: whoever listens there would be told the caller's secrets.
    """
    town = find_town(start)
    record = read_record(town) if town else None
    if record is None or record.socket is None:
        return None
    path = Path(record.socket)
    try:
        owner = path.stat().st_uid
    except OSError:
        return None  # it has just gone: nobody can be asked there
    return path if owner in {os.geteuid(), 0} else None


def find_fleet(start: Path) -> tuple[Path, str] | None:
    """Return the town at or above ``start`` and its server's address, if one runs that is a controller too."""
    town = find_town(start)
    record = read_record(town) if town else None
    return None if town is None or record is None or not record.fleet else (town, record.address)


def operated(town: Path, url: str, environment: Mapping[str, str]) -> ServerAddress:
    """Return a town's own server with its operator's credential, whatever other keys the caller has.

    Raises:
        Forbidden: the credential is another user's (``credential_unreadable``).
    """
    token = town / STATE_FOLDER / OPERATOR_TOKEN_FILE
    own = _read_token(token) if token.exists() else None
    return ServerAddress(url=url, token=own, tls=tls_files(town, environment))


def is_running(record: ServerRecord) -> bool:
    """Tell whether the very process that wrote ``record`` still runs."""
    ticks = started_ticks(record.pid)
    return ticks is not None and record.started_ticks in (None, ticks)


def started_ticks(pid: int) -> int | None:
    """Return when process ``pid`` started, in clock ticks after boot; ``None`` if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may itself hold blanks and parentheses (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def named_address(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the address that the caller named, if any."""
    if option:
        return option
    return next((environment[name] for name in ADDRESS_VARIABLES if environment.get(name)), None)


def find_server(town: Path | None, named: str | None, environment: Mapping[str, str]) -> ServerAddress | None:
    """Return the server to use: the named one, else the one that runs in ``town``, else ``None``."""
    record = read_record(town) if town else None
    if named is not None:
        own = town if record and _same(record.address, named) else None
        return address_of(named, own, environment)
    if town and record:
        return address_of(record.address, town, environment)
    return None


def address_of(url: str, town: Path | None, environment: Mapping[str, str]) -> ServerAddress:
    """Return ``url`` with the caller's credential; ``town`` is given when the server is that town's own."""
    return ServerAddress(url=url.rstrip("/"), token=find_token(town, environment), tls=tls_files(town, environment))


def find_token(town: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the credential: the file in ``TINYTOWN_TOKEN_FILE``, ``TOWNHALL_API_KEY``, else the operator's own."""
    named = environment.get("TINYTOWN_TOKEN_FILE")
    if named:
        return _read_token(Path(named))
    key = environment.get("TOWNHALL_API_KEY", "").strip()
    if key:
        return key
    if town is None:
        return None
    own = town / STATE_FOLDER / OPERATOR_TOKEN_FILE
    return _read_token(own) if own.exists() else None


def tls_files(town: Path | None, environment: Mapping[str, str]) -> TlsFiles:
    """Return the PEM files named by the environment; a town's own certificate is trusted for its own server."""
    named = environment.get("TINYTOWN_CA_FILE")
    return TlsFiles(
        ca_file=named,
        own_certificate=None if named else _own_certificate(town),
        cert_file=environment.get("TINYTOWN_CLIENT_CERT"),
        key_file=environment.get("TINYTOWN_CLIENT_KEY"),
    )


def _own_certificate(town: Path | None) -> str | None:
    if town is None:
        return None
    import tomllib  # noqa: PLC0415 - only where a town's own server is spoken to

    try:
        settings = tomllib.loads((town / TOWN_FILE).read_text())
    except (OSError, ValueError):
        return None  # the server says what is wrong with its file; a client needs only this one entry
    tls = settings.get("townhall", {}).get("tls", {})
    named = tls.get("cert_file") if tls.get("enabled") else None
    return str(town / named) if isinstance(named, str) else None


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_MAX_TOKEN_BYTES).decode().strip()
    except PermissionError:
        raise Forbidden(
            f"the credential in {path} cannot be read",
            code="credential_unreadable",
            reason=f"the file belongs to another user than the present one (uid {os.geteuid()})",
            resolution="run as the user who started the server, or set TOWNHALL_API_KEY",
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise Invalid(
            f"the credential in {path} cannot be read",
            code="credential_unreadable",
            reason=str(problem),
            resolution="check TINYTOWN_TOKEN_FILE, or unset it",
        ) from None
    if not token or any(character.isspace() or not character.isprintable() for character in token):
        raise Invalid(
            f"{path} holds no credential",
            code="credential_invalid",
            reason="a credential is one line of printable characters without blanks",
            resolution="write the key, and nothing else, into that file",
        )
    return token


def _same(one: str, other: str) -> bool:
    return one.rstrip("/").lower() == other.rstrip("/").lower()
