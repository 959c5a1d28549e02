"""The capability sheet: what a manifest lets an agent do, for the person who is to agree to it."""

from borough.governance.ceilings import level_of
from borough.governance.manifests import Manifest, SecretRule
from borough.governance.rules import Rule

Section = tuple[str, tuple[str, ...]]


def sheet(manifest: Manifest) -> tuple[Section, ...]:
    """Return the sheet's sections: a heading and its lines."""
    resources, network, budget = manifest.resources, manifest.network, manifest.budget
    limits = {
        "memory": resources.memory_limit_bytes and f"{resources.memory_limit_bytes} bytes",
        "CPU weight": resources.cpu_shares,
        "open files": resources.max_open_files,
        "processes": resources.max_processes,
        "run time": manifest.lifecycle.timeout_s and f"{manifest.lifecycle.timeout_s} s",
        "calls": budget.calls,
        "tokens": budget.tokens,
        "cost": None if budget.cost_micros is None else f"{budget.cost_micros / 1_000_000:g}",
    }
    return (
        ("Trust", (manifest.trust_level.value,)),
        (
            "Capabilities",
            tuple(f"{one} (takes {level_of(one).value})" for one in manifest.capabilities) or ("none",),
        ),
        ("Rules", tuple(_rule(rule) for rule in manifest.policy) or ("none",)),
        ("Limits", tuple(f"{name}: {value}" for name, value in limits.items() if value is not None)),
        ("Network", (network.policy.value, *(str(line) for line in network.allowlist))),
        (
            "Secrets",
            tuple(_secret(rule) for rule in manifest.secret_policy) or ("none",),
        ),
        ("MCP servers", tuple(f"{one.name} ({one.transport.value})" for one in manifest.mcp_servers) or ("none",)),
        ("Required confinement", tuple(sorted(manifest.require)) or ("none",)),
    )


def as_markdown(manifest: Manifest) -> str:
    """Return the sheet as a Markdown page."""
    lines = [f"# {manifest.name} {manifest.version}", ""]
    if manifest.description:
        lines += [_plain(manifest.description), ""]
    for heading, items in sheet(manifest):
        lines += [f"## {heading}", "", *(f"- {_plain(item)}" for item in items), ""]
    return "\n".join(lines)


def _rule(rule: Rule) -> str:
    conditions = f", under {len(rule.when)} condition(s)" if rule.when else ""
    return f"{rule.id}: {rule.effect.value} {rule.capability}{conditions}"


def _secret(rule: SecretRule) -> str:
    host = rule.host.pattern if rule.host else "any host"
    return f"{rule.label}: {rule.secret.pattern} for {rule.tool.pattern} at {host}"


def _plain(text: str) -> str:
    """Keep what a stranger wrote from becoming markup or more lines of the page."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in printable)
