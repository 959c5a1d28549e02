"""What must never be shown or recorded: the values of the store of secrets, and the gateway's tokens."""

import re
from collections.abc import Callable, Mapping
from typing import cast

from borough.governance.secrets import Redactor
from borough.governance.tokens import token_sha256

_LIKE_A_TOKEN = re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{64}(?![0-9a-fA-F])")

_TOKEN_CHARACTERS = 64
_PLAIN = frozenset({int, bool, float, type(None)})
"""Types that hold no text: told apart first, since most of what is recorded is of them."""


class Scrubber:
    """Puts names in the place of secrets. Told anew whenever the store is opened, closed or changed."""

    def __init__(self, is_token: Callable[[str], bool]) -> None:
        """``is_token`` tells by a SHA-256 whether a token of the gateway has it; it must not wait."""
        self._is_token = is_token
        self._redactor = Redactor({})

    def know(self, values: Mapping[str, str]) -> None:
        """Look for these values from now on, by name, and for no others."""
        self._redactor = Redactor(values)

    def text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        text = self._redactor.text(text)
        return text if len(text) < _TOKEN_CHARACTERS else _LIKE_A_TOKEN.sub(self._token, text)

    def value(self, value: object) -> object:
        """Return a JSON value without secrets, in its keys neither."""
        kind = type(value)
        if kind is str:
            return self.text(cast("str", value))
        if kind in _PLAIN:
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def finds(self, value: object) -> tuple[str, ...]:
        """Return the names of the stored secrets that are in ``value``."""
        return self._redactor.finds(value)

    def _token(self, found: re.Match[str]) -> str:
        return "[REDACTED:token]" if self._is_token(token_sha256(found[0])) else found[0]
