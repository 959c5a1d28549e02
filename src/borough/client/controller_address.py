"""Which fleet controller to speak to: a named one, else the one that runs in this town, else the one that was saved.

What was saved is in ``~/.ttconfig``, the reference's file: the address on the first line, the key, if there is one, on
the second.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from borough.client.discovery import NoServer, ServerAddress, find_fleet, named_address, operated
from borough.core.errors import Invalid

SAVED_FILE: Final = ".ttconfig"
KEY_VARIABLE: Final = "TT_API_KEY"
_MAX_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What the file says."""

    address: str
    key: str | None = field(default=None, repr=False)


def saved_file(environ: Mapping[str, str]) -> Path:
    """Return where the address is saved: in the home folder, or in the present one where there is no home."""
    home = environ.get("HOME")
    return Path(home, SAVED_FILE) if home else Path(SAVED_FILE)


def read_saved(environ: Mapping[str, str]) -> Saved | None:
    """Return what was saved, if anything was.

    Raises:
        Invalid: the file is none of ours (``invalid_ttconfig``).
    """
    path = saved_file(environ)
    try:
        with path.open("rb") as file:
            lines = file.read(_MAX_BYTES).decode().splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise _unusable(path, str(problem)) from None
    address = lines[0].strip() if lines else ""
    if not address:
        raise _unusable(path, "its first line is empty")
    return Saved(address=address, key=(lines[1].strip() or None) if len(lines) > 1 else None)


def save(environ: Mapping[str, str], address: str, key: str | None) -> Path:
    """Write address and key for this user's eyes only; return where.

    Raises:
        Invalid: the address (``invalid_address``) or key (``invalid_key``) is none.
    """
    controller_url(address)
    if key is not None:
        check_key(key)
    path = saved_file(environ)
    # Made under another name, which nobody else can read from the first moment on, and then put in place.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{SAVED_FILE}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{address}\n" + (f"{key}\n" if key else ""))
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path


def find_controller(
    environ: Mapping[str, str], *, named: str | None, key: str | None, start: Path = Path()
) -> ServerAddress:
    """Return the controller: the named one, the environment's, that of the town at or above ``start``, the saved one.

    The key is the one given, else ``TT_API_KEY``, else the saved one, which goes to the saved address only. The town's
    own server is shown its operator's credential, and no other is; a key in the environment may be another fleet's.

    Raises:
        NoServer: none is named, none runs here, and none was saved.
        Invalid: the address (``invalid_address``) or key (``invalid_key``) is none.
        Forbidden: the operator's credential is another user's (``credential_unreadable``).
    """
    wanted = named_address(named, environ)
    here = find_fleet(start)
    if here is not None and (wanted is None or controller_url(wanted) == controller_url(here[1])):
        own = operated(*here, environ)
        return replace(own, token=check_key(key)) if key else own
    saved = read_saved(environ)
    address = wanted or (saved.address if saved else None)
    if address is None:
        raise NoServer(
            "there is no controller to speak to",
            reason=f"none is named, none runs in a town here, and {saved_file(environ)} does not exist",
            resolution="start one: 'borough up'; save its address: 'tt config HOST:PORT'; or name it: --server",
        )
    url = controller_url(address)
    kept = saved.key if saved and controller_url(saved.address) == url else None
    token = key or environ.get(KEY_VARIABLE) or kept
    return ServerAddress(url=url, token=check_key(token) if token else None)


def controller_url(address: str) -> str:
    """Return ``address`` with a scheme: ``10.0.0.1:9200`` is ``http://10.0.0.1:9200``.

    Raises:
        Invalid: it is empty or more than an address (``invalid_address``).
    """
    if not address.strip() or any(character.isspace() for character in address.strip()):
        raise Invalid(
            f"{address[:80]!r} is not a controller's address",
            code="invalid_address",
            resolution="write it as HOST:PORT, as in 127.0.0.1:9200",
        )
    bare = address.strip().rstrip("/")
    return bare if bare.startswith(("http://", "https://")) else f"http://{bare}"


def check_key(key: str) -> str:
    """Return ``key``; raises ``Invalid`` (``invalid_key``)."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Invalid(
            "the API key is not usable",
            code="invalid_key",
            reason="it has to be printable ASCII without blanks",
            resolution=f"correct --api-key or {KEY_VARIABLE}",
        )
    return key


def _unusable(path: Path, why: str) -> Invalid:
    return Invalid(
        f"{path} cannot be read",
        code="invalid_ttconfig",
        reason=why,
        resolution="write it anew with 'tt config HOST:PORT', or remove it",
    )
