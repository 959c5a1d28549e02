"""Names of towns, agents and roles, and the one mailbox that is nobody's process.

They become file names, keys and arguments, so what they may hold is closed.
"""

import re

from borough.core.errors import Invalid
from borough.core.ids import AgentId

SUPERVISOR_ID = AgentId("00000000-0000-0000-0000-000000000001")
"""The well-known mailbox of the human (or the program) that leads the town; it has no agent record."""

SUPERVISOR_NAMES = frozenset({"supervisor", "conductor"})
DEFAULT_ROLE = "default"
GENERALIST_ROLES = frozenset({DEFAULT_ROLE, "worker"})
"""Agents of these roles take work of every role."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_RULE = "are 1 to 63 characters: lower-case letters, digits, '-' and '_', beginning with a letter or digit"
TOWN_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"


def agent_name(text: str) -> str:
    """Return ``text`` if an agent may be called so.

    Raises:
        Invalid: it breaks the pattern or is reserved.
    """
    if text.strip().lower() in SUPERVISOR_NAMES:
        raise Invalid(
            f"the name {text.strip()!r} is reserved for the supervisor's mailbox",
            code="reserved_name",
            resolution="choose another name, such as 'helper-1'",
        )
    if not re.fullmatch(NAME_PATTERN, text):
        raise Invalid(
            f"{text!r} cannot be an agent's name",
            code="invalid_name",
            reason=f"names {_RULE}",
            resolution=f"try {suggested_name(text)!r}",
        )
    return text


def role_name(text: str) -> str:
    """Return ``text`` if a role may be called so; raises ``Invalid`` otherwise."""
    if not re.fullmatch(NAME_PATTERN, text):
        raise Invalid(
            f"{text!r} cannot be a role",
            code="invalid_role",
            reason=f"roles {_RULE}",
            resolution=f"try {suggested_name(text)!r}",
        )
    return text


def town_name(text: str) -> str:
    """Return ``text`` if a town may be called so; raises ``Invalid`` otherwise."""
    if not re.fullmatch(TOWN_PATTERN, text):
        raise Invalid(
            f"{text!r} cannot be a town's name",
            code="invalid_town_name",
            reason="names are 1 to 63 characters: letters, digits, '.', '-' and '_', beginning with a letter or digit",
            resolution=f"try {suggested_name(text)!r}",
        )
    return text


def suggested_name(text: str) -> str:
    """Return the nearest name to ``text`` that is allowed."""
    cleaned = re.sub(r"[^a-z0-9_-]+", "-", text.strip().lower()).strip("-_")[:63]
    return cleaned or "agent-1"
