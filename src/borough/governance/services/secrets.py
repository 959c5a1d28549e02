"""The store of secrets: opened and closed by operators, used under pre-approvals, kept from sight everywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.ledger import Outcome
from borough.governance.manifests import AgentMatcher, MatcherType, SecretRule
from borough.governance.ports.records import Secrets
from borough.governance.secrets import (
    LEAST_SCRUBBED_CHARACTERS,
    SecretPolicy,
    SecretUse,
    check_secret_name,
    usable_policy,
)
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber

CANARY_PREFIX = "canary."
"""Secrets of such names are for nothing but to be found where none should be."""
ATTEMPTS = 8
"""How often another policy is looked for when one was used up meanwhile."""


class SecretService:
    """Secrets and the policies for their use. Values go into a call, and nowhere else."""

    def __init__(self, secrets: Secrets, gate: Gate, recorder: Recorder, scrubber: Scrubber) -> None:
        self._secrets = secrets
        self._gate = gate
        self._recorder = recorder
        self._scrubber = scrubber

    # -- the store -----------------------------------------------------------------------------------------------------

    async def unlock(self, asker: Asker, passphrase: bytes) -> int:
        """Open the store (or make it, the first time) and return how many secrets it holds.

        Raises:
            Forbidden: the passphrase is wrong (``wrong_passphrase``), or the caller may not.
            Invalid: it is empty (``invalid_passphrase``).
        """
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        async with self._recorder.act(asker, Action.SECRET_STORE_UNLOCK) as act:
            count = await self._secrets.unlock(passphrase)
            await self._learn()
            act.data["secrets"] = count
        return count

    async def lock(self, asker: Asker) -> None:
        """Close the store: no call can use a secret, and none is known any more."""
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        async with self._recorder.act(asker, Action.SECRET_STORE_LOCK):
            await self._secrets.lock()
            self._scrubber.know({})

    async def rekey(self, asker: Asker, old: bytes, new: bytes) -> int:
        """Seal everything under another passphrase, all or nothing; return how many secrets that were.

        Raises:
            Forbidden: the old passphrase is wrong (``wrong_passphrase``).
            Invalid: the new one is empty (``invalid_passphrase``).
        """
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        async with self._recorder.act(asker, Action.SECRET_STORE_REKEY) as act:
            count = await self._secrets.rekey(old, new)
            act.data["secrets"] = count
        return count

    async def put(self, asker: Asker, name: str, value: str, *, description: str | None) -> str | None:
        """Seal a value under ``name``, and return what its owner should be warned of, if anything.

        Raises:
            Invalid: name or value cannot be used.
            Unavailable: the store is locked (``store_locked``).
        """
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        async with self._recorder.act(asker, Action.SECRET_ADD, detail=check_secret_name(name)):
            await self._secrets.put(name, value.encode(errors="surrogatepass"), description=description)
            await self._learn()
        if len(value) < LEAST_SCRUBBED_CHARACTERS:
            return f"values of fewer than {LEAST_SCRUBBED_CHARACTERS} characters are not looked for in what is shown"
        return None

    async def names(self, asker: Asker) -> tuple[str, ...]:
        """Return the names, locked or not."""
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        return await self._secrets.names()

    async def remove(self, asker: Asker, name: str) -> None:
        """Forget a secret; raises ``NotFound`` (``secret_not_found``)."""
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        async with self._recorder.act(asker, Action.SECRET_REMOVE, detail=name):
            await self._secrets.remove(name)
            await self._learn()

    async def _learn(self) -> None:
        """Have every present value kept out of what is shown and recorded; nothing is known while it is locked."""
        try:
            values = await self._secrets.every_value()
        except Unavailable as error:
            if error.code != "store_locked":
                raise
            values = {}
        self._scrubber.know(values)

    # -- pre-approvals -------------------------------------------------------------------------------------------------

    async def policies(self, asker: Asker) -> tuple[SecretPolicy, ...]:
        """Return every policy, oldest first."""
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        return await self._secrets.policies()

    async def policy(self, asker: Asker, policy_id: str) -> SecretPolicy:
        """Return a policy; raises ``NotFound`` (``policy_not_found``)."""
        for policy in await self.policies(asker):
            if policy.id == policy_id:
                return policy
        raise NotFound(
            f"there is no policy {policy_id[:80]!r}",
            code="policy_not_found",
            resolution="list the policies: ash secrets policy list",
        )

    async def add_policy(self, asker: Asker, policy: SecretPolicy) -> SecretPolicy:
        """Store a policy, under an id and with a creator that the request says."""
        await self._gate.admit(asker, Verb.MANAGE_SECRETS)
        made = replace(policy, id=asker.derived("secret-policy"), use_count=0, created_by=asker.caller.token_name)
        async with self._recorder.act(
            asker, Action.POLICY_ADD, detail=_told(made), data={"policy_id": made.id, "label": made.label}
        ):
            await self._secrets.add_policy(made)
        return made

    async def remove_policy(self, asker: Asker, policy_id: str) -> None:
        """Forget a policy; raises ``NotFound`` (``policy_not_found``)."""
        policy = await self.policy(asker, policy_id)
        async with self._recorder.act(
            asker, Action.POLICY_REMOVE, detail=_told(policy), data={"policy_id": policy.id, "label": policy.label}
        ):
            await self._secrets.remove_policy(policy_id)

    async def adopt(self, asker: Asker, agent: GovernedAgent, rules: Sequence[SecretRule]) -> None:
        """Store the pre-approvals of an agent's manifest, for this agent only; idempotent.

        Whoever lets the agent start has agreed to them.
        """
        for number, rule in enumerate(rules):
            policy = _policy_of(agent, number, rule)
            async with self._recorder.act(
                asker, Action.POLICY_ADD, detail=_told(policy), target=agent, data={"policy_id": policy.id}
            ):
                await self._secrets.add_policy(policy)

    async def disown(self, asker: Asker, agent: GovernedAgent) -> None:
        """Forget the pre-approvals that came with an agent: it has ended."""
        for policy in await self._secrets.policies():
            if policy.created_by != _manifest_of(agent):
                continue
            async with self._recorder.act(
                asker, Action.POLICY_REMOVE, detail=_told(policy), target=agent, data={"policy_id": policy.id}
            ):
                await self._secrets.remove_policy(policy.id)

    # -- use -----------------------------------------------------------------------------------------------------------

    async def resolve(self, uses: Sequence[SecretUse]) -> Mapping[str, str]:
        """Return the values by name, having counted each use under a policy that allows it.

        All uses are looked at before any is counted. That the caller's capabilities allow them was decided before.

        Raises:
            NotFound: there is no such secret (``secret_not_found``).
            Unavailable: the store is locked (``store_locked``).
            Forbidden: no policy allows it (``no_matching_policy``, ``policy_expired``, ``policy_exhausted``).
        """
        return (await self._resolved(uses))[0]

    async def use(self, asker: Asker, agent: GovernedAgent, uses: Sequence[SecretUse]) -> Mapping[str, str]:
        """Return what ``resolve`` does, having recorded each use with its policy; refusals are recorded too."""
        try:
            values, permitted = await self._resolved(uses)
        except Forbidden as refusal:
            names = ", ".join(use.name for use in uses)
            data = {"code": refusal.code, "reason": refusal.reason or refusal.message}
            await self._recorder.event(
                asker, Action.SECRET_USE, outcome=Outcome.DENIED, detail=names, target=agent, data=data
            )
            raise
        for use, policy in zip(uses, permitted, strict=True):
            detail = f"{use.name} by {use.tool}" + (f" for {use.host}" if use.host else "")
            await self._recorder.event(asker, Action.SECRET_USE, detail=detail, target=agent, policy_id=policy.id)
        return values

    async def _resolved(self, uses: Sequence[SecretUse]) -> tuple[Mapping[str, str], list[SecretPolicy]]:
        values = await self._secrets.values([use.name for use in uses])
        policies, now = await self._secrets.policies(), utc_now()
        for use in uses:
            usable_policy(use, policies, at=now)
        return values, [await self._count(use) for use in uses]

    async def _count(self, use: SecretUse) -> SecretPolicy:
        for _ in range(ATTEMPTS):
            policy = usable_policy(use, await self._secrets.policies(), at=utc_now())
            try:
                return await self._secrets.count_use(policy.id)
            except (Forbidden, NotFound) as error:
                if error.code not in {"policy_exhausted", "policy_not_found"}:
                    raise
                # Another call took the last use, or somebody removed the policy: the next one may still do.
        raise Forbidden(
            "pre-approval policy exhausted", code="policy_exhausted", resolution="add one: ash secrets policy add"
        )

    # -- canaries ------------------------------------------------------------------------------------------------------

    async def report_canaries(self, asker: Asker, agent: GovernedAgent, value: object, *, where: str) -> bool:
        """Record it where a canary is in ``value`` (an output, say), and tell whether one was."""
        found = [name for name in self._scrubber.finds(value) if name.startswith(CANARY_PREFIX)]
        if not found:
            return False
        await self._recorder.event(
            asker,
            Action.ANOMALY_DETECTED,
            outcome=Outcome.FAILURE,
            detail=f"{', '.join(found)} in {where}",
            target=agent,
            data={"kind": "canary_leak", "rule": "canary_leak", "severity": "critical", "secrets": found},
        )
        return True


def _manifest_of(agent: GovernedAgent) -> str:
    return f"manifest:{agent.id}"


def _policy_of(agent: GovernedAgent, number: int, rule: SecretRule) -> SecretPolicy:
    own = AgentMatcher(type=MatcherType.BY_ID, id=agent.id)
    return SecretPolicy(
        id=f"{agent.id}:{number}",
        label=rule.label,
        secret=rule.secret,
        tool=rule.tool,
        host=rule.host,
        agents=own,
        expires_at=rule.expires_at,
        max_uses=rule.max_uses,
        created_by=_manifest_of(agent),
    )


def _told(policy: SecretPolicy) -> str:
    where = f" for {policy.host.pattern}" if policy.host else ""
    return f"{policy.label}: {policy.secret.pattern} by {policy.tool.pattern}{where}"
