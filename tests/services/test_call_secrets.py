"""Secrets in calls: when one may be used, and that none is ever seen, in whatever form."""

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.governance.agents import GovernedAgent
from borough.governance.escalations import EscalationKind
from borough.governance.globs import compile_glob
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.secrets import SecretPolicy
from tests.services.tool_shop import Shop, agents_own, manifest, opened, operator

pytestmark = pytest.mark.anyio
VALUE = "sk-live+/=0123456789 äöü"
POLICY = "  secret_policy:\n  - {label: all, secret_pattern: '*', tool_pattern: echo, max_uses: 2}\n"

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda value: value,
    "url": lambda value: quote(value, safe=""),
    "hex": lambda value: value.encode().hex(),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 within": lambda value: base64.b64encode(f"user:{value}:end".encode()).decode(),
    "json": lambda value: orjson.dumps(value).decode(),
}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(tmp_path / "state") as shop:
        await shop.secrets.unlock(b"a passphrase")
        await keep(shop, key=VALUE)
        yield shop


async def keep(shop: Shop, **values: str) -> None:
    for name, value in values.items():
        await shop.secrets.put(name.replace("_", "-"), value.encode(), description=None)
    await shop.know_secrets()


async def user(shop: Shop, *, more: str = POLICY, name: str = "worker") -> GovernedAgent:
    agent = await shop.agent(manifest("tool.invoke:echo", "secret.use:key", "secret.use:gone", more=more, name=name))
    await shop.tooling.on_start(agent)
    return agent


async def echo(shop: Shop, agent: GovernedAgent, **arguments: Any) -> object:
    return (await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", arguments)).output


async def test_a_secret_goes_in_and_does_not_come_out(shop: Shop) -> None:
    agent = await user(shop)
    assert await echo(shop, agent, header="Bearer {{secret:key}}") == {"header": "Bearer [REDACTED:key]"}
    (use,) = await shop.entries("SecretUse")
    (policy,) = await shop.secrets.policies()
    assert (use["detail"], use["policy_id"], policy.use_count) == ("key by echo", policy.id, 1)
    intent, *_, outcome = await shop.entries("ToolInvoke")
    assert orjson.loads(intent["data"]["arguments"]) == {"header": "Bearer {{secret:key}}"}
    assert outcome["data"]["redacted"] == ["key"]


async def test_each_reason_against_a_use_has_its_own_words(shop: Shop) -> None:
    agent = await user(shop)
    with pytest.raises(Forbidden, match=r"agent lacks secret\.use:other capability"):
        await echo(shop, agent, a="{{secret:other}}")
    with pytest.raises(NotFound, match="secret 'gone' not found"):
        await echo(shop, agent, a="{{secret:gone}}")
    await echo(shop, agent, a="{{secret:key}}")
    await echo(shop, agent, a="{{secret:key}}")
    with pytest.raises(Forbidden, match="pre-approval policy exhausted") as used_up:
        await echo(shop, agent, a="{{secret:key}}")
    assert used_up.value.code == "policy_exhausted"
    bare = await user(shop, more="", name="bare")
    with pytest.raises(Forbidden, match=r"no pre-approval policy matches \(key, echo, an unknown host\)"):
        await echo(shop, bare, a="{{secret:key}}")
    await shop.tooling.on_end(agent.id)
    assert await shop.secrets.policies() == ()
    await shop.secrets.add_policy(SecretPolicy(id="p", label="all", secret=compile_glob("*"), tool=compile_glob("*")))
    await shop.secrets.lock()
    with pytest.raises(Unavailable, match="StoreLocked") as locked:
        await echo(shop, bare, a="{{secret:key}}")
    assert locked.value.code == "store_locked"


async def test_bait_that_is_taken_is_told_of_and_not_sent_out(shop: Shop) -> None:
    await keep(shop, canary_db="bait-0123456789")
    agent = await shop.agent(manifest("tool.invoke:*"))
    assert await echo(shop, agent, a="bait-0123456789") == {"a": "[REDACTED:canary-db]"}
    (told,) = await shop.entries("AnomalyDetected")
    assert told["data"]["rule"] == "canary_leak"
    assert [each.kind for each in await shop.tooling.escalations.open(operator())] == [EscalationKind.ANOMALY]
    pending = await shop.tooling.tools.invoke(
        agents_own(agent), agent.id, "sensitive-op", {"a": "bait-0123456789"}, wait=False
    )
    await shop.tooling.approvals.approve(operator(), str(pending.approval_id))
    _, kept = await shop.tooling.approvals.get(operator(), str(pending.approval_id))
    assert kept is not None
    assert kept.refusal is not None
    assert kept.refusal.code == "canary_leak"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_tool_gives_back_never_shows_a_secret(shop: Shop, form: str, *, fails: bool) -> None:
    agent = await user(shop, more="")
    shown = FORMS[form](VALUE)

    class Talkative:
        async def call(self, _call: ToolCall) -> ToolReply:
            return ToolReply(status="error" if fails else "success", output={"error": shown, "list": [{shown: shown}]})

    toolbox = shop.tooling.tools._toolbox
    found = await toolbox.find(agent.id, "echo")
    assert found is not None
    toolbox._builtin["echo"] = type(found)(found.tool, Talkative(), found.alone)  # type: ignore[arg-type]  # it offers nothing of its own
    made = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "echo", {"given": shown})
    body = VALUE.encode().hex()[:20]
    for text in (orjson.dumps(made.output).decode(), str(await shop.entries())):
        assert VALUE not in text
        assert shown.strip('"') not in text
        assert body not in text
        assert "REDACTED:key" in text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters='"\\{}'), min_size=8),
    before=st.text(max_size=5),
    form=st.sampled_from(sorted(FORMS)),
)
async def test_no_value_in_any_form_reaches_ledger_or_output(shop: Shop, value: str, before: str, form: str) -> None:
    value = f"~k~{value}"  # what no hash and no other field happens to hold
    await keep(shop, key=value)
    agent = await user(shop, more="")
    shown = f"{before}{FORMS[form](value)}"
    output = await echo(shop, agent, a=shown, nested=[{"b": shown}])
    written = orjson.dumps([dict(each) for each in await shop.entries()]).decode()
    for text in (orjson.dumps(output).decode(), written):
        for known in FORMS.values():
            assert known(value) not in text
