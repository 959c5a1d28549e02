"""Workers' tokens: they say whom they speak for, and only the town's key can have made them. Nothing is stored.

A token is ``bwt_``, the payload in base64url, a dot, and the payload's HMAC-SHA256 in base64url. It ends with the
incarnation (or the attempt) that it names: the store refuses what speaks for an older one.
"""

import base64
import hmac
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from borough.auth.principals import Principal, WorkerGrant
from borough.auth.scopes import Scope
from borough.core.errors import Forbidden
from borough.core.ids import AgentId, TaskId

PREFIX = "bwt_"
KEY_BYTES = 32
_LONGEST_TOKEN = 512
_DOMAIN = b"borough worker token 1\0"
_WORKER_SCOPES = frozenset({Scope.READ})
_ATTEMPT_SCOPES = frozenset({Scope.READ, Scope.WRITE})


_Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Number = Annotated[int, Meta(ge=0)]


class _Said(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The payload: a JSON array in this order."""

    agent_id: _Id
    incarnation: _Number
    task_id: _Id | None = None
    epoch: _Number | None = None


_READ = msgspec.json.Decoder(_Said)


class SignedTokens:
    """Makes and verifies workers' tokens with one town's key (the port ``town.ports.workers.WorkerTokens``)."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key has to have {KEY_BYTES} bytes")
        self._key = key

    def mint(
        self, *, agent_id: AgentId, incarnation: int, task_id: TaskId | None = None, epoch: int | None = None
    ) -> str:
        """Return a token that says exactly this and cannot be forged.

        Raises:
            ValueError: only one of ``task_id`` and ``epoch`` is given.
        """
        if (task_id is None) != (epoch is None):
            raise ValueError("an attempt is a task and an epoch")
        payload = _encode(
            msgspec.json.encode(_Said(agent_id=agent_id, incarnation=incarnation, task_id=task_id, epoch=epoch))
        )
        return f"{PREFIX}{payload}.{self._sign(payload)}"

    def verify(self, token: str) -> Principal:
        """Return whom ``token`` speaks for.

        Raises:
            Forbidden: this town did not make it (``invalid_credentials``).
        """
        payload, dot, signature = token[len(PREFIX) :].partition(".")
        fits = token.startswith(PREFIX) and token.isascii() and len(token) <= _LONGEST_TOKEN and dot
        if not fits or not hmac.compare_digest(self._sign(payload), signature):
            raise _refused()
        return _principal(_grant(payload))

    def _sign(self, payload: str) -> str:
        return _encode(hmac.digest(self._key, _DOMAIN + payload.encode(), "sha256"))


def is_worker_token(secret: str) -> bool:
    """Tell whether ``secret`` means to be a worker's token."""
    return secret.startswith(PREFIX)


def _grant(payload: str) -> WorkerGrant:
    """Read a payload whose signature was verified; what another version signed is refused all the same."""
    try:
        said = _READ.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, msgspec.MsgspecError):
        raise _refused() from None
    if (said.task_id is None) != (said.epoch is None):
        raise _refused()
    return WorkerGrant(
        agent_id=AgentId(said.agent_id),
        incarnation=said.incarnation,
        task_id=TaskId(said.task_id) if said.task_id is not None else None,
        epoch=said.epoch,
    )


def _principal(grant: WorkerGrant) -> Principal:
    if grant.task_id is None:
        return Principal(id=f"worker:{grant.agent_id}", scopes=_WORKER_SCOPES, worker=grant)
    return Principal(id=f"attempt:{grant.task_id}#{grant.epoch}", scopes=_ATTEMPT_SCOPES, worker=grant)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _refused() -> Forbidden:
    return Forbidden(
        "the worker's token is not one of this town",
        code="invalid_credentials",
        resolution="start the worker again through the town: tt restart NAME",
    )
