"""MCP servers, real ones: defined, attached, called, withheld and detached."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from borough.adapters.mcp.servers import McpReport, McpSessions
from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.tables import MIGRATIONS
from borough.adapters.sql.governance.tool_pins import SqlToolPins
from borough.core.errors import Conflict, Forbidden, Invalid, NotFound
from borough.core.ids import new_id
from borough.governance.globs import compile_glob
from borough.governance.manifests import McpServer, Transport
from borough.governance.secrets import SecretPolicy
from tests.services.tool_shop import Shop, agents_own, manifest, opened, operator

pytestmark = pytest.mark.anyio
PEER = Path(__file__).with_name("mcp_peer.py")


async def ignore(_: McpReport) -> None:
    """What sessions report is looked at elsewhere."""


@asynccontextmanager
async def attaching(folder: Path) -> AsyncIterator[Shop]:
    folder.mkdir(mode=0o700, exist_ok=True)
    pins = await Database.open(folder / "pins.db", MIGRATIONS)
    sessions = McpSessions(installation=new_id(), on_report=ignore, pins=SqlToolPins(pins))
    try:
        async with opened(folder / "shop", servers=sessions) as shop:
            yield shop
    finally:
        await sessions.close()
        await pins.close()


def peer(folder: Path, *, name: str = "peer", env: tuple[tuple[str, str], ...] = ()) -> McpServer:
    args = ("-W", "ignore", str(PEER), str(folder / "other-tools"))
    return McpServer(name=name, transport=Transport.STDIO, command=sys.executable, args=args, env_template=env)


async def test_an_attached_servers_tools_are_tools_like_others(tmp_path: Path) -> None:
    async with attaching(tmp_path / "state") as shop:
        attachments, invoke = shop.tooling.attachments, shop.tooling.tools.invoke
        await attachments.add(operator(), peer(tmp_path))
        agent = await shop.agent(manifest("tool.invoke:mcp.peer.*"))
        other = await shop.agent(manifest("tool.invoke:mcp.peer.say", name="other"))
        me = agents_own(agent)
        with pytest.raises(NotFound, match="mcp server not found: none"):
            await attachments.attach(me, agent.id, "none")
        made = await attachments.attach(me, agent.id, "peer")
        assert "mcp.peer.say" in {tool.name for tool in made.tools}
        said = await invoke(me, agent.id, "mcp.peer.say", {"text": "hello"})
        assert said.status == "success"
        assert "hello" in str(said.output)
        # It only reads, and so it brings in what others wrote.
        assert (await shop.stores.agents.get(agent.id)).tainted
        await shop.stores.agents.taint(agent.id, tainted=False)
        failed = await invoke(me, agent.id, "mcp.peer.fail", {})
        assert failed.status == "error"
        assert "it did not work" in str(failed.output)
        with pytest.raises(Forbidden, match="permission denied"):
            await attachments.attach(agents_own(other), other.id, "peer")
        # An operator may attach what the agent may not use: it is shown, and calls are refused.
        await attachments.attach(operator(), other.id, "peer")
        assert "mcp.peer.fail" in {tool.name for tool in await shop.tooling.tools.list(operator(), other.id)}
        with pytest.raises(Forbidden, match="access denied"):
            await invoke(agents_own(other), other.id, "mcp.peer.fail", {})
        gone = await attachments.detach(me, agent.id, "peer")
        assert "mcp.peer.say" in gone
        with pytest.raises(NotFound):
            await invoke(me, agent.id, "mcp.peer.say", {})
        with pytest.raises(NotFound):
            await attachments.detach(me, agent.id, "peer")
        await shop.tooling.on_end(other.id)
        assert await attachments.attached(operator(), other.id) == ()


async def test_environment_secrets_need_pre_approval_and_are_not_kept(tmp_path: Path) -> None:
    async with attaching(tmp_path / "state") as shop:
        await shop.secrets.unlock(b"a passphrase")
        await shop.secrets.put("token", b"hidden-9876543210", description=None)
        await shop.know_secrets()
        await shop.tooling.attachments.add(operator(), peer(tmp_path, env=(("TOKEN", "{{secret:token}}"),)))
        poor = await shop.agent(manifest("tool.invoke:mcp.peer.*", name="poor"))
        with pytest.raises(Forbidden, match=r"agent lacks secret\.use:token capability"):
            await shop.tooling.attachments.attach(agents_own(poor), poor.id, "peer")
        agent = await shop.agent(manifest("tool.invoke:mcp.peer.*", "secret.use:token"))
        with pytest.raises(Forbidden, match=r"no pre-approval policy matches \(token, mcp\.peer, an unknown host\)"):
            await shop.tooling.attachments.attach(agents_own(agent), agent.id, "peer")
        await shop.secrets.add_policy(
            SecretPolicy(id="p", label="mcp", secret=compile_glob("token"), tool=compile_glob("mcp.*"))
        )
        await shop.tooling.attachments.attach(agents_own(agent), agent.id, "peer")
        made = await shop.tooling.tools.invoke(agents_own(agent), agent.id, "mcp.peer.environment", {})
        assert "[REDACTED:token]" in str(made.output)
        assert "hidden-9876543210" not in str(await shop.entries())


async def test_a_manifests_servers_are_attached_at_its_start_and_a_failure_is_recorded(tmp_path: Path) -> None:
    async with attaching(tmp_path / "state") as shop:
        good = f"{{name: good, transport: stdio, command: {sys.executable}, args: [-W, ignore, {PEER}, {tmp_path}/t]}}"
        bad = "{name: bad, transport: stdio, command: /no/such/program}"
        agent = await shop.agent(manifest("tool.invoke:mcp.good.*", more=f"  mcp_servers: [{bad}, {good}]\n"))
        assert await shop.tooling.on_start(agent) == ("bad",)
        attached = await shop.tooling.attachments.attached(operator(), agent.id)
        assert [each.server for each in attached] == ["good"]
        outcomes = [(each["detail"], each["outcome"]) for each in await shop.entries("McpAttach")]
        assert ("bad", "failure") in outcomes
        assert ("good", "success") in outcomes


async def test_tools_that_changed_are_withheld_until_an_operator_agrees(tmp_path: Path) -> None:
    (tmp_path / "other-tools").touch()
    async with attaching(tmp_path / "state") as shop:
        await shop.tooling.attachments.add(operator(), peer(tmp_path))
        agent = await shop.agent(manifest("tool.invoke:mcp.peer.*"))
        (tmp_path / "other-tools").unlink()
        await shop.tooling.attachments.attach(agents_own(agent), agent.id, "peer")
        await shop.tooling.attachments.detach(agents_own(agent), agent.id, "peer")
        (tmp_path / "other-tools").touch()
        changed = await shop.tooling.attachments.attach(agents_own(agent), agent.id, "peer", accept_changes=True)
        assert set(changed.withheld) == {"mcp.peer.say", "mcp.peer.new"}
        assert "mcp.peer.say" not in {tool.name for tool in await shop.tooling.tools.list(operator(), agent.id)}
        agreed = await shop.tooling.attachments.attach(operator(), agent.id, "peer", accept_changes=True)
        assert agreed.withheld == ()
        assert "mcp.peer.new" in {tool.name for tool in await shop.tooling.tools.list(operator(), agent.id)}


async def test_definitions_are_checked_and_belong_to_operators(tmp_path: Path) -> None:
    async with attaching(tmp_path / "state") as shop:
        attachments = shop.tooling.attachments
        for wrong in (
            McpServer(name="a.b", transport=Transport.STDIO, command="x"),
            McpServer(name="a", transport=Transport.STDIO),
            McpServer(name="a", transport=Transport.HTTP, url="ftp://x"),
            McpServer(name="a", transport=Transport.STDIO, command="x", env_template=(("no name", "x"),)),
        ):
            with pytest.raises(Invalid) as refused:
                await attachments.add(operator(), wrong)
            assert refused.value.code == "invalid_mcp_server"
        agent = await shop.echoing()
        with pytest.raises(Forbidden):
            await attachments.add(agents_own(agent), peer(tmp_path))
        await attachments.add(operator(), peer(tmp_path))
        with pytest.raises(Conflict):
            await attachments.add(operator(), peer(tmp_path / "elsewhere"))
        assert [each.name for each in await attachments.all(agents_own(agent))] == ["peer"]
        await attachments.remove(operator(), "peer")
        with pytest.raises(NotFound):
            await attachments.remove(operator(), "peer")
