"""Secrets: names, the handles by which calls refer to them, when one may be used, and keeping values from sight."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, quote_plus

from borough.core.errors import Forbidden, Invalid
from borough.governance.globs import Glob
from borough.governance.manifests import AgentMatcher, MatcherType
from borough.governance.trust import TrustLevel

LEAST_SCRUBBED_CHARACTERS = 6
"""Shorter values are not looked for: they would be found everywhere."""
MOST_SECRET_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HANDLE = re.compile(r"\{\{secret:([A-Za-z0-9][A-Za-z0-9._-]{0,63})\}\}")
_BITS_PER_BYTE, _BITS_PER_LETTER = 8, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPolicy:
    """A pre-approval: which secrets which tool may use towards which host."""

    id: str
    label: str
    secret: Glob
    tool: Glob
    host: Glob | None = None
    agents: AgentMatcher = field(default_factory=AgentMatcher)
    expires_at: datetime | None = None
    max_uses: int | None = None
    use_count: int = 0
    created_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """Who wants to use which secret for what."""

    name: str
    tool: str
    host: str | None
    """``None`` when it is not known where the value would go."""
    agent_id: str
    agent_name: str
    trust: TrustLevel


def check_secret_name(name: str) -> str:
    """Return ``name`` if a secret may be called so.

    Raises:
        Invalid: it may not (``invalid_secret_name``).
    """
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"{name[:80]!r} is not a name for a secret",
            code="invalid_secret_name",
            resolution="use up to 64 letters, digits, '.', '_' and '-', a letter or digit first",
        )
    return name


def check_secret_value(value: bytes) -> str:
    """Return ``value`` as the text that handles are replaced by.

    Raises:
        Invalid: it is empty, too long or no text (``invalid_secret_value``). What it is, is not told.
    """
    try:
        text = value.decode() if 0 < len(value) <= MOST_SECRET_BYTES else None
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise Invalid(
            "the value cannot be kept as a secret",
            code="invalid_secret_value",
            reason=f"a secret is text of 1 to {MOST_SECRET_BYTES} bytes in UTF-8",
            resolution="encode other things in base64 first",
        )
    return text


def handles_in(value: object) -> tuple[str, ...]:
    """Return the names of all secrets that ``value`` refers to, each once, in order."""
    return tuple(dict.fromkeys(name for text in _texts(value) for name in _HANDLE.findall(text)))


def substitute(value: object, values: Mapping[str, str]) -> object:
    """Return ``value`` with each handle replaced by its secret. Keys of mappings are left alone.

    Raises:
        KeyError: a secret is not among ``values``.
    """
    if isinstance(value, str):
        return _HANDLE.sub(lambda found: values[found[1]], value)
    if isinstance(value, Mapping):
        return {key: substitute(inner, values) for key, inner in value.items()}
    return [substitute(inner, values) for inner in value] if isinstance(value, list) else value


def usable_policy(use: SecretUse, policies: tuple[SecretPolicy, ...], *, at: datetime) -> SecretPolicy:
    """Return the first pre-approval under which ``use`` may happen.

    Raises:
        Forbidden: none matches (``no_matching_policy``), or those that do have expired (``policy_expired``) or were
            used up (``policy_exhausted``).
    """
    matching = [policy for policy in policies if _matches(policy, use)]
    alive = [policy for policy in matching if policy.expires_at is None or at < policy.expires_at]
    for policy in alive:
        if policy.max_uses is None or policy.use_count < policy.max_uses:
            return policy
    if alive:
        code, message = "policy_exhausted", "pre-approval policy exhausted"
    elif matching:
        code, message = "policy_expired", "pre-approval policy expired"
    else:
        where = use.host or "an unknown host"
        code, message = "no_matching_policy", f"no pre-approval policy matches ({use.name}, {use.tool}, {where})"
    raise Forbidden(message, code=code, resolution="add one: ash secrets policy add --label … --secret … --tool …")


def _matches(policy: SecretPolicy, use: SecretUse) -> bool:
    if not (policy.secret.matches(use.name) and policy.tool.matches(use.tool) and _is_meant(policy.agents, use)):
        return False
    # A policy that names hosts is of no use where the value could go anywhere.
    return policy.host is None or (use.host is not None and policy.host.matches(use.host))


def _is_meant(matcher: AgentMatcher, use: SecretUse) -> bool:
    match matcher.type:
        case MatcherType.ANY:
            return True
        case MatcherType.BY_ID:
            return matcher.id == use.agent_id
        case MatcherType.BY_NAME_GLOB:
            return matcher.pattern is not None and matcher.pattern.matches(use.agent_name)
        case MatcherType.BY_TRUST_LEVEL:
            return matcher.level is not None and use.trust.at_least(matcher.level)


class Redactor:
    """Finds known secrets in text, also in base64, URL-encoded, hex and JSON form, and puts their names there."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        for name, value in values.items():
            for form in forms_of(value):
                self._names.setdefault(form, name)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        """Return ``text`` without any of the secrets."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[REDACTED:{self._names[found[0]]}]", text)

    def value(self, value: object) -> object:
        """Return a JSON value without any of the secrets, in its keys neither."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key) if isinstance(key, str) else key: self.value(inner) for key, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list | tuple) else value

    def finds(self, value: object) -> tuple[str, ...]:
        """Return the names of the secrets that are in ``value``, each once."""
        if self._pattern is None:
            return ()
        found = (self._names[form] for text in _texts(value) for form in self._pattern.findall(text))
        return tuple(dict.fromkeys(found))


def forms_of(value: str) -> frozenset[str]:
    """Return the spellings in which a secret is looked for; none when it is too short."""
    if len(value) < LEAST_SCRUBBED_CHARACTERS:
        return frozenset()
    raw = value.encode(errors="surrogatepass")
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value), raw.hex(), raw.hex().upper()}
    forms |= {quote(value, safe="").replace("%", "%25")}
    forms |= {json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms |= {_base64_middle(raw, shift, encode(bytes(shift) + raw).decode()) for shift in range(3)}
    return frozenset(form for form in forms if len(form) >= LEAST_SCRUBBED_CHARACTERS)


def _base64_middle(raw: bytes, shift: int, encoded: str) -> str:
    """Return the letters that the secret alone decides, wherever in a longer text it was encoded."""
    begin = -(-shift * _BITS_PER_BYTE // _BITS_PER_LETTER)
    end = (shift + len(raw)) * _BITS_PER_BYTE // _BITS_PER_LETTER
    return encoded[begin:end]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
