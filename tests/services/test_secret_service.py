"""Secrets: opened and closed, used under policies, kept from sight."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.core.clock import utc_now
from borough.core.errors import Forbidden, Invalid, NotFound, Unavailable
from borough.governance.agents import GovernedAgent
from borough.governance.globs import compile_glob
from borough.governance.manifests import SecretRule
from borough.governance.secrets import SecretPolicy, SecretUse
from tests.services.records_house import Records, as_agent, operator, told

pytestmark = pytest.mark.anyio
VALUE = "s3cret-value-of-github"


def use_of(agent: GovernedAgent, name: str = "github", host: str | None = "api.github.com") -> SecretUse:
    return SecretUse(
        name=name, tool="web.fetch", host=host, agent_id=agent.id, agent_name=agent.name, trust=agent.trust_level
    )


def policy(**other: Any) -> SecretPolicy:
    fields = {"id": "", "label": "l", "secret": compile_glob("git*"), "tool": compile_glob("web.*"), **other}
    return SecretPolicy(**fields)


async def opened(records: Records) -> None:
    await records.secrets.unlock(operator(), b"open sesame")
    await records.secrets.put(operator(), "github", VALUE, description="a token")


async def test_the_store_is_opened_closed_and_rekeyed(records: Records, tmp_path: Path) -> None:
    assert await records.secrets.unlock(operator(), b"open sesame") == 0
    assert await records.secrets.put(operator(), "github", VALUE, description=None) is None
    assert await records.secrets.put(operator(), "pin", "1234", description=None) is not None
    assert await records.secrets.rekey(operator(), b"open sesame", b"another") == 2
    await records.secrets.lock(operator())
    with pytest.raises(Unavailable) as locked:
        await records.secrets.put(operator(), "third", VALUE, description=None)
    assert locked.value.code == "store_locked"
    with pytest.raises(Forbidden) as wrong:
        await records.secrets.unlock(operator(), b"open sesame")
    assert wrong.value.code == "wrong_passphrase"
    assert await records.secrets.unlock(operator(), b"another") == 2
    assert await records.secrets.names(operator()) == ("github", "pin")
    await records.secrets.remove(operator(), "pin")
    with pytest.raises(NotFound):
        await records.secrets.remove(operator(), "pin")
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    for hidden in (VALUE.encode(), b"open sesame"):
        assert hidden not in files
    outcomes = [entry for entry in await records.entries("SecretStoreUnlock") if entry["kind"] == "outcome"]
    assert [entry["outcome"] for entry in outcomes] == ["success", "denied", "success"]


async def test_what_is_shown_and_recorded_follows_the_store(records: Records) -> None:
    text = f"it is {VALUE}"
    assert records.scrubber.text(text) == text
    await opened(records)
    assert records.scrubber.text(text) == "it is [REDACTED:github]"
    await records.secrets.put(operator(), "github", "another-value", description=None)
    assert records.scrubber.text(text) == text
    assert records.scrubber.text("another-value") == "[REDACTED:github]"
    await records.secrets.lock(operator())
    assert records.scrubber.text("another-value") == "another-value"
    await records.secrets.unlock(operator(), b"open sesame")
    assert records.scrubber.text("another-value") == "[REDACTED:github]"
    await records.secrets.remove(operator(), "github")
    assert records.scrubber.text("another-value") == "another-value"


async def test_agents_do_not_manage_secrets(records: Records) -> None:
    agent = await records.agent("secret.use:git*")
    for refused in (
        records.secrets.unlock(as_agent(agent), b"x"),
        records.secrets.names(as_agent(agent)),
        records.secrets.policies(as_agent(agent)),
        records.secrets.put(as_agent(agent), "a", "b", description=None),
    ):
        with pytest.raises(Forbidden) as error:
            await refused
        assert error.value.code == "scope_missing"


async def test_a_use_takes_a_policy_and_is_counted(records: Records) -> None:
    agent = await records.agent()
    await opened(records)
    with pytest.raises(Forbidden) as none:
        await records.secrets.resolve([use_of(agent)])
    assert none.value.code == "no_matching_policy"
    made = await records.secrets.add_policy(operator(), policy(max_uses=2, host=compile_glob("*.github.com")))
    assert made.created_by == "operator"
    assert await records.secrets.resolve([use_of(agent)]) == {"github": VALUE}
    with pytest.raises(Forbidden):
        await records.secrets.resolve([use_of(agent, host="evil.example")])
    assert await records.secrets.use(operator(), agent, [use_of(agent)]) == {"github": VALUE}
    with pytest.raises(Forbidden) as exhausted:
        await records.secrets.use(operator(), agent, [use_of(agent)])
    assert exhausted.value.code == "policy_exhausted"
    assert (await records.secrets.policy(operator(), made.id)).use_count == 2
    entries = await records.entries("SecretUse")
    assert told(entries, "outcome", "policy_id", "on_behalf_of") == [
        ("success", made.id, agent.id),
        ("denied", None, agent.id),
    ]
    await records.secrets.remove_policy(operator(), made.id)
    with pytest.raises(NotFound):
        await records.secrets.policy(operator(), made.id)


async def test_a_missing_secret_or_policy_costs_no_use(records: Records) -> None:
    agent = await records.agent()
    await opened(records)
    made = await records.secrets.add_policy(operator(), policy(max_uses=1))
    with pytest.raises(NotFound):
        await records.secrets.resolve([use_of(agent), use_of(agent, "gitlab")])
    await records.secrets.put(operator(), "other", VALUE, description=None)
    with pytest.raises(Forbidden):
        await records.secrets.resolve([use_of(agent), use_of(agent, "other")])
    assert (await records.secrets.policy(operator(), made.id)).use_count == 0
    expired = policy(expires_at=utc_now() - timedelta(seconds=1), secret=compile_glob("other"))
    await records.secrets.add_policy(operator(), expired)
    with pytest.raises(Forbidden) as refused:
        await records.secrets.resolve([use_of(agent, "other")])
    assert refused.value.code == "policy_expired"


async def test_a_manifests_policies_hold_for_its_agent_while_it_is_there(records: Records) -> None:
    agent, other = await records.agent(), await records.agent(name="other")
    await opened(records)
    rule = SecretRule(label="l", secret=compile_glob("github"), tool=compile_glob("web.fetch"))
    await records.secrets.adopt(operator(), agent, [rule])
    await records.secrets.adopt(operator(), agent, [rule])
    assert len(await records.secrets.policies(operator())) == 1
    assert await records.secrets.resolve([use_of(agent)]) == {"github": VALUE}
    with pytest.raises(Forbidden):
        await records.secrets.resolve([use_of(other)])
    await records.secrets.disown(operator(), agent)
    assert await records.secrets.policies(operator()) == ()


async def test_a_canary_that_shows_is_recorded(records: Records) -> None:
    agent = await records.agent()
    await opened(records)
    await records.secrets.put(operator(), "canary.aws", "AKIA-not-a-real-key", description=None)
    assert not await records.secrets.report_canaries(as_agent(agent), agent, {"text": VALUE}, where="fs.read")
    output = {"text": ["some AKIA-not-a-real-key here"]}
    assert await records.secrets.report_canaries(as_agent(agent), agent, output, where="fs.read")
    (entry,) = await records.entries("AnomalyDetected")
    assert entry["data"]["kind"] == "canary_leak"
    assert entry["detail"] == "canary.aws in fs.read"


async def test_names_and_values_have_rules(records: Records) -> None:
    await opened(records)
    for name, value, code in (("a b", VALUE, "invalid_secret_name"), ("a", "", "invalid_secret_value")):
        with pytest.raises(Invalid) as refused:
            await records.secrets.put(operator(), name, value, description=None)
        assert refused.value.code == code
