"""The part of the secrets' store that is never locked: pre-approvals for the use of secrets."""

from typing import Final

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, json_text, moment, ms, places, row, rows
from borough.core.errors import Forbidden, NotFound
from borough.governance.globs import Glob, compile_glob
from borough.governance.manifests import AgentMatcher, MatcherType
from borough.governance.secrets import SecretPolicy
from borough.governance.trust import TrustLevel

_COLUMNS: Final = "id, label, secret, tool, host, agents, expires_at_ms, max_uses, use_count, created_by"
_ADD: Final = f"INSERT INTO secret_policies ({_COLUMNS}) VALUES ({places(_COLUMNS)}) ON CONFLICT (id) DO NOTHING"
_COUNT: Final = f"""
  UPDATE secret_policies SET use_count = use_count + 1
  WHERE id = ? AND (max_uses IS NULL OR use_count < max_uses) RETURNING {_COLUMNS}
"""


class SqlSecretPolicies:
    """What the port ``Secrets`` promises of policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def policies(self) -> tuple[SecretPolicy, ...]:
        """Return every policy, oldest first."""
        statement = f"SELECT {_COLUMNS} FROM secret_policies ORDER BY number"
        return tuple(map(_policy, await self._database.read(lambda connection: rows(connection, statement))))

    async def add_policy(self, policy: SecretPolicy) -> None:
        """Store a policy."""
        await self._database.write(lambda connection: rows(connection, _ADD, _values(policy)))

    async def remove_policy(self, policy_id: str) -> None:
        """Forget a policy."""

        def step(connection: apsw.Connection) -> None:
            if row(connection, "DELETE FROM secret_policies WHERE id = ? RETURNING id", (policy_id,)) is None:
                raise _not_found(policy_id)

        await self._database.write(step)

    async def count_use(self, policy_id: str) -> SecretPolicy:
        """Count one more use in one step."""

        def step(connection: apsw.Connection) -> SecretPolicy:
            counted = row(connection, _COUNT, (policy_id,))
            if counted is None:
                if row(connection, "SELECT 1 FROM secret_policies WHERE id = ?", (policy_id,)) is None:
                    raise _not_found(policy_id)
                raise Forbidden(
                    "pre-approval policy exhausted",
                    code="policy_exhausted",
                    resolution="add one: ash secrets policy add --label … --secret … --tool …",
                )
            return _policy(counted)

        return await self._database.write(step)


def _values(policy: SecretPolicy) -> Row:
    agents = policy.agents
    return (
        policy.id,
        policy.label,
        policy.secret.pattern,
        policy.tool.pattern,
        _pattern(policy.host),
        json_text({"type": agents.type, "id": agents.id, "pattern": _pattern(agents.pattern), "level": agents.level}),
        ms(policy.expires_at),
        policy.max_uses,
        policy.use_count,
        policy.created_by,
    )


def _policy(stored: Row) -> SecretPolicy:
    id_, label, secret, tool, host, agents, expires_at_ms, max_uses, use_count, created_by = stored
    matcher = orjson.loads(agents)
    return SecretPolicy(
        id=id_,
        label=label,
        secret=compile_glob(secret),
        tool=compile_glob(tool),
        host=_glob(host),
        agents=AgentMatcher(
            type=MatcherType(matcher["type"]),
            id=matcher["id"],
            pattern=_glob(matcher["pattern"]),
            level=None if matcher["level"] is None else TrustLevel(matcher["level"]),
        ),
        expires_at=moment(expires_at_ms),
        max_uses=max_uses,
        use_count=use_count,
        created_by=created_by,
    )


def _pattern(glob: Glob | None) -> str | None:
    return None if glob is None else glob.pattern


def _glob(pattern: str | None) -> Glob | None:
    return None if pattern is None else compile_glob(pattern)


def _not_found(policy_id: str) -> NotFound:
    return NotFound(
        f"there is no policy {policy_id}",
        code="policy_not_found",
        resolution="list those that are there: ash secrets policy list",
    )
