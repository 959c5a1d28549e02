"""Using secrets: each use needs a pre-approval, is counted, recorded, and puts values into memory only."""

from collections.abc import Mapping, Sequence

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.core.ids import derived_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.manifests import AgentMatcher, Manifest, MatcherType
from borough.governance.ports.records import Secrets
from borough.governance.secrets import SecretPolicy, SecretUse, usable_policy
from borough.governance.services.asking import Asker
from borough.governance.services.recording import Recorder

CANARY = "canary"
"""Secrets whose names begin so are bait: nobody has a use for them, and whoever shows one has read what is not his."""


class SecretUses:
    """Resolves handles for calls that hold the capabilities already."""

    def __init__(self, secrets: Secrets, recorder: Recorder) -> None:
        self._secrets = secrets
        self._recorder = recorder

    async def resolve(
        self, asker: Asker, agent: GovernedAgent, names: Sequence[str], *, tool: str, host: str | None
    ) -> Mapping[str, str]:
        """Return the values of ``names`` for one call, each use counted against its pre-approval and recorded.

        Raises:
            Forbidden: no pre-approval matches, or it expired or was used up (``no_matching_policy``,
                ``policy_expired``, ``policy_exhausted``).
            NotFound: there is no such secret (``secret_not_found``).
            Unavailable: the store is locked (``store_locked``).
        """
        policies = await self._secrets.policies()
        chosen = [(name, usable_policy(_use(agent, name, tool, host), policies, at=utc_now())) for name in names]
        values = await self._values(names)
        for name, policy in chosen:
            await self._secrets.count_use(policy.id)
            await self._recorder.event(
                asker,
                Action.SECRET_USE,
                detail=f"{name} by {tool}" + (f" towards {host}" if host else ""),
                target=agent,
                policy_id=policy.id,
            )
        return values

    async def _values(self, names: Sequence[str]) -> Mapping[str, str]:
        try:
            return await self._secrets.values(names)
        except NotFound:
            known = set(await self._secrets.names())
            missing = next((name for name in names if name not in known), names[0])
            raise NotFound(
                f"secret '{missing}' not found",
                code="secret_not_found",
                resolution=f"add it: ash secrets add {missing}",
            ) from None
        except Unavailable as error:
            if error.code != "store_locked":
                raise
            raise Unavailable(
                "StoreLocked",
                code="store_locked",
                reason="the store of secrets is locked",
                resolution="open it: ash secrets unlock",
            ) from None

    async def adopt(self, agent: GovernedAgent, manifest: Manifest) -> None:
        """Put the pre-approvals of a starting agent's manifest in force, for this agent alone; idempotent."""
        there = {policy.id for policy in await self._secrets.policies()}
        for policy in _own_policies(agent, manifest):
            if policy.id not in there:
                await self._secrets.add_policy(policy)

    async def release(self, agent: GovernedAgent, manifest: Manifest) -> None:
        """Take back what ``adopt`` put in force; idempotent."""
        there = {policy.id for policy in await self._secrets.policies()}
        for policy in _own_policies(agent, manifest):
            if policy.id in there:
                await self._secrets.remove_policy(policy.id)


def lacks(name: str) -> Forbidden:
    """Return what a call is told whose agent may not use a secret."""
    return Forbidden(
        f"agent lacks secret.use:{name} capability",
        code="denied",
        resolution=f"declare secret.use:{name} under spec.capabilities, or have it granted",
    )


def _use(agent: GovernedAgent, name: str, tool: str, host: str | None) -> SecretUse:
    return SecretUse(name=name, tool=tool, host=host, agent_id=agent.id, agent_name=agent.name, trust=agent.trust_level)


def _own_policies(agent: GovernedAgent, manifest: Manifest) -> list[SecretPolicy]:
    return [
        SecretPolicy(
            id=derived_id("manifest policy", agent.id, agent.manifest_digest, str(number)),
            label=rule.label,
            secret=rule.secret,
            tool=rule.tool,
            host=rule.host,
            agents=AgentMatcher(type=MatcherType.BY_ID, id=agent.id),
            expires_at=rule.expires_at,
            max_uses=rule.max_uses,
            created_by=f"manifest of {agent.name}",
        )
        for number, rule in enumerate(manifest.secret_policy)
        if _speaks_of(rule.agents, agent)
    ]


def _speaks_of(matcher: AgentMatcher, agent: GovernedAgent) -> bool:
    match matcher.type:
        case MatcherType.ANY:
            return True
        case MatcherType.BY_ID:
            return matcher.id == agent.id
        case MatcherType.BY_NAME_GLOB:
            return matcher.pattern is not None and matcher.pattern.matches(agent.name)
        case MatcherType.BY_TRUST_LEVEL:
            return matcher.level is not None and agent.trust_level.at_least(matcher.level)
