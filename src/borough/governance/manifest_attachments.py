"""What a manifest attaches to an agent: pre-approvals for secrets, and MCP servers."""

import re

from borough.core.errors import Invalid
from borough.governance.globs import compile_glob
from borough.governance.manifest_fields import Fields, Problem
from borough.governance.manifests import AgentMatcher, MatcherType, McpServer, SecretRule, Transport
from borough.governance.rule_fields import parse_moment
from borough.governance.trust import TrustLevel

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HTTP_URL = re.compile(r"https?://[^\s/]+\S*")


def read_secret_rules(spec: Fields) -> tuple[SecretRule, ...]:
    """Return the pre-approvals under ``secret_policy``."""
    found = []
    for fields in spec.sections("secret_policy"):
        fields.require("label", "secret_pattern", "tool_pattern")
        secret, tool = fields.text("secret_pattern"), fields.text("tool_pattern")
        host = fields.text("host_pattern")
        rule = SecretRule(
            label=fields.text("label") or "",
            secret=compile_glob(secret or ""),
            tool=compile_glob(tool or ""),
            host=compile_glob(host.lower()) if host else None,
            expires_at=fields.parsed("expires_at", fields.text("expires_at"), parse_moment),
            max_uses=fields.whole("max_uses", least=1, most=2**53 - 1),
            agents=_matcher(fields.section("agent_matcher")),
        )
        fields.close()
        found.append(rule)
    return tuple(found)


_MATCHER_FIELDS = {MatcherType.BY_ID: "id", MatcherType.BY_NAME_GLOB: "pattern", MatcherType.BY_TRUST_LEVEL: "level"}


def _matcher(fields: Fields) -> AgentMatcher:
    kind = fields.word("type", MatcherType) or MatcherType.ANY
    pattern = fields.text("pattern")
    matcher = AgentMatcher(
        type=kind,
        id=fields.text("id"),
        pattern=compile_glob(pattern) if pattern else None,
        level=fields.word("level", TrustLevel),
    )
    if kind in _MATCHER_FIELDS:
        fields.require(_MATCHER_FIELDS[kind])
    fields.close()
    return matcher


def read_mcp_servers(spec: Fields) -> tuple[McpServer, ...]:
    """Return the servers under ``mcp_servers``."""
    found: list[McpServer] = []
    for fields in spec.sections("mcp_servers"):
        fields.require("name", "transport")
        transport = fields.word("transport", Transport, {"Stdio": Transport.STDIO, "Http": Transport.HTTP})
        if transport is not None:
            fields.require("command" if transport is Transport.STDIO else "url")
        server = McpServer(
            name=fields.text("name", pattern=_SERVER_NAME, rule="use letters, digits, '_' and '-'") or "",
            transport=transport or Transport.STDIO,
            command=fields.text("command"),
            args=tuple(text for _, text in fields.texts("args")),
            url=fields.text("url", pattern=_HTTP_URL, rule="write it as http://… or https://…"),
            env_template=tuple(_pairs(fields)),
            description=fields.text("description"),
        )
        if server.name and any(server.name == other.name for other in found):
            fields.note("name", f"is {server.name!r}, which another server has")
        fields.close()
        found.append(server)
    return tuple(found)


def check_server(server: McpServer) -> McpServer:
    """Return a definition that was not read from a manifest, if it can be used.

    Raises:
        Invalid: it cannot (``invalid_mcp_server``).
    """
    needs_command = server.transport is Transport.STDIO
    wrong = [
        what
        for what, holds in (
            ("its name has to be made of letters, digits, '_' and '-'", _SERVER_NAME.fullmatch(server.name)),
            ("with transport stdio it has to have a command", server.command or not needs_command),
            ("with transport http it has to have a url", server.url or needs_command),
            ("its url has to begin with http:// or https://", not server.url or _HTTP_URL.fullmatch(server.url)),
            (
                "the names in env_template have to be names of variables",
                all(VARIABLE.fullmatch(name) for name, _ in server.env_template),
            ),
        )
        if not holds
    ]
    if wrong:
        raise Invalid(
            f"the server {server.name[:80]!r} cannot be used",
            code="invalid_mcp_server",
            reason="; ".join(wrong),
            resolution="mend the definition",
        )
    return server


def _pairs(fields: Fields) -> list[tuple[str, str]]:
    pairs = []
    for path, item in fields.items("env_template"):
        match item:
            case [str(name), str(value)] if VARIABLE.fullmatch(name):
                pairs.append((name, value))
            case _:
                fields.problems.append(Problem(path=path, message=f"'{path}' has to be a pair [NAME, value]"))
    return pairs
