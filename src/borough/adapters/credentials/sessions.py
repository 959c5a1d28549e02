"""How the operator's browser is let in: a code that is good for one exchange, and the session that it becomes.

A code is what an address may carry: soon too old, and worth nothing once it was used. A session is what the page then
keeps. Both are known here by their digests alone. Sessions outlive the server, codes do not.
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from borough.adapters.credentials import files
from borough.adapters.credentials.operator import OperatorToken
from borough.core.clock import utc_now
from borough.core.errors import Forbidden

SESSIONS_FILE = "sessions.json"
CODE_LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(hours=12)
MOST_CODES = 16
MOST_SESSIONS = 64
"""Of each; the oldest gives way."""
_PREFIX = "bop_s_"
_LONGEST = 128


class _Kept(msgspec.Struct, frozen=True):
    """The file: digest → when it ends, in seconds since the epoch."""

    sessions: dict[str, int]


class Sessions:
    """Codes and sessions of one server. It knows the operator's own credential too: who asks wants one answer."""

    def __init__(self, state_folder: Path, operator: OperatorToken, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Read the sessions that are left in ``state_folder``; a file that cannot be understood lets nobody in.

        Raises:
            Invalid: the file is not safe (``unsafe_file``).
        """
        self._path = state_folder / SESSIONS_FILE
        self._operator = operator
        self._clock = clock
        self._codes: OrderedDict[str, datetime] = OrderedDict()
        self._sessions = self._read()

    def matches(self, secret: str) -> bool:
        """Tell whether ``secret`` is the operator's credential or a session that lasts."""
        return self._operator.matches(secret) or self.until(secret) is not None

    def until(self, secret: str) -> datetime | None:
        """Return when the session of ``secret`` ends; ``None``: it is none that lasts."""
        if not secret.startswith(_PREFIX) or len(secret) > _LONGEST:
            return None
        end = self._sessions.get(_digest(secret), 0)
        return _moment(end) if end > self._clock().timestamp() else None

    def new_code(self) -> tuple[str, int]:
        """Return a code that is good for one exchange, and for how many seconds it is."""
        while len(self._codes) >= MOST_CODES:
            self._codes.popitem(last=False)
        code = secrets.token_urlsafe(32)
        self._codes[_digest(code)] = self._clock() + CODE_LIFETIME
        return code, int(CODE_LIFETIME.total_seconds())

    def exchange(self, code: str) -> tuple[str, datetime]:
        """Return the secret of a new session for ``code``, and when it ends.

        Raises:
            Forbidden: the code is none, was used, or is too old (``invalid_code``).
            Invalid: the session cannot be kept (``unsafe_file``).
        """
        good_until = self._codes.pop(_digest(code), None) if len(code) <= _LONGEST else None
        if good_until is None or good_until <= self._clock():
            raise Forbidden(
                "this address has been used, or is too old",
                code="invalid_code",
                resolution="ask for a fresh one with: borough open",
            )
        secret = f"{_PREFIX}{secrets.token_hex(32)}"
        end = int((self._clock() + SESSION_LIFETIME).timestamp())
        self._sessions[_digest(secret)] = end
        self._write()
        return secret, _moment(end)

    def end(self, secret: str) -> None:
        """End the session of ``secret``, if it is one."""
        if self._sessions.pop(_digest(secret), None) is not None:
            self._write()

    def _read(self) -> dict[str, int]:
        content = files.read_private(self._path)
        try:
            return {} if content is None else msgspec.json.decode(content, type=_Kept).sessions
        except msgspec.MsgspecError:
            return {}

    def _write(self) -> None:
        now = self._clock().timestamp()
        lasting = sorted((end, digest) for digest, end in self._sessions.items() if end > now)
        self._sessions = {digest: end for end, digest in lasting[-MOST_SESSIONS:]}
        files.replace_file(self._path, msgspec.json.encode(_Kept(self._sessions)), mode=files.PRIVATE)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)


def _digest(secret: str) -> str:
    # Of 256 bits of chance: what is looked up tells nobody who measures how much of it was right.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
