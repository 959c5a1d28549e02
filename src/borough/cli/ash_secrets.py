"""``ash secrets``: the sealed store, and the policies under which agents may use what is in it.

Passphrases and values are asked for on the terminal or read from standard input; they are never arguments, which
every process of the machine can read.
"""

import sys
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, flat, member, show_done, show_table, when
from borough.cli.errors import Usage
from borough.cli.output import output, warn

_HERE: Final = "borough.cli.ash_secrets"
_TRUST: Final = ("untrusted", "sandboxed", "trusted", "privileged")

secrets = AshGroup(
    "secrets",
    help="Secrets, and when agents may use them.",
    example="ash secrets unlock\nash secrets add github-token\nash secrets policy list",
    table={
        "unlock": (f"{_HERE}:unlock", "Open the store; the first time, make it."),
        "lock": (f"{_HERE}:lock", "Close the store and forget every value."),
        "rekey": (f"{_HERE}:rekey", "Seal everything under another passphrase."),
        "add": (f"{_HERE}:add", "Put a secret in, or change it."),
        "list": (f"{_HERE}:list_secrets", "List the names."),
        "remove": (f"{_HERE}:remove", "Forget a secret."),
        "policy": (f"{_HERE}:policy", "When secrets may be used: add, list, show, remove."),
    },
)
policy = AshGroup(
    "policy",
    help="Which secrets which tools may use towards which hosts, without asking again.",
    example="ash secrets policy add --label ci --secret 'github-*' --tool web.fetch --host api.github.com",
    table={
        "add": (f"{_HERE}:add_policy", "Allow a use."),
        "list": (f"{_HERE}:list_policies", "List the policies."),
        "show": (f"{_HERE}:show_policy", "Show one."),
        "remove": (f"{_HERE}:remove_policy", "Allow it no more."),
    },
)


def hidden(question: str, *, twice: bool = False) -> str:
    """Return what is typed without being shown, or the first line of standard input where nobody types.

    Raises:
        Usage: there is nothing.
    """
    if sys.stdin.isatty():
        typed: str = click.prompt(question, hide_input=True, confirmation_prompt=twice, err=True)
    else:
        typed = sys.stdin.readline().rstrip("\n")
    if not typed:
        raise Usage(
            f"{question.lower()}: nothing was given",
            reason="it is asked for on the terminal, or read from standard input",
            resolution="type it, or hand it over as in 'pass show borough | ash secrets unlock'",
        )
    return typed


@ash_command("unlock", example="ash secrets unlock")
def unlock() -> None:
    """Open the store; the first time, make it."""
    found = ask("SecretUnlock", passphrase=hidden("Passphrase"))
    output().show(found, lambda: output().line(f"Unlocked: {found['secrets']} secrets"))


@ash_command("lock", example="ash secrets lock")
def lock() -> None:
    """Close the store and forget every value."""
    show_done("SecretLock", "Locked")


@ash_command("rekey", example="ash secrets rekey")
def rekey() -> None:
    """Seal everything under another passphrase."""
    old = hidden("Old passphrase")
    done = ask("SecretRekey", old_passphrase=old, new_passphrase=hidden("New passphrase", twice=True))
    output().show(done, lambda: output().line("Sealed anew"))


@ash_command("add", example="ash secrets add github-token --description 'for the release job'")
@click.argument("name")
@click.option("--description", metavar="TEXT", help="What it is for.")
def add(*, name: str, description: str | None) -> None:
    """Put a secret in, or change it; its value is typed, or read from standard input."""
    made = ask("SecretAdd", name=name, value=hidden("Value", twice=True), description=description)
    if made.get("warning"):
        warn(made["warning"])
    output().show(made, lambda: output().line(f"Kept {name}"))


@ash_command("list", example="ash secrets list")
def list_secrets() -> None:
    """List the names; values are never shown."""
    show_table(ask("SecretList")["secrets"], [("name", member("name"))], empty="no secrets")


@ash_command("remove", example="ash secrets remove github-token")
@click.argument("name")
def remove(*, name: str) -> None:
    """Forget a secret."""
    show_done("SecretRemove", f"Forgot {name}", name=name)


@ash_command("add", example="ash secrets policy add --label ci --secret 'github-*' --tool web.fetch --max-uses 10")
@click.option("--label", required=True, metavar="TEXT", help="What the policy is known by.")
@click.option("--secret", "secret_pattern", required=True, metavar="GLOB", help="Which secrets.")
@click.option("--tool", "tool_pattern", required=True, metavar="GLOB", help="For which tools.")
@click.option("--host", "host_pattern", metavar="GLOB", help="Towards which hosts only.")
@click.option("--expires", "expires_at", metavar="TIME", help="Until then (RFC 3339).")
@click.option("--max-uses", type=click.IntRange(min=1), help="So often.")
@click.option("--trust-level", type=click.Choice(_TRUST), help="For agents of at least this level.")
def add_policy(**wanted: Any) -> None:
    """Allow a use."""
    made = ask("SecretPolicyAdd", **wanted)
    output().show(made, lambda: output().line(f"Policy {made['id']}"))


@ash_command("list", example="ash secrets policy list")
def list_policies() -> None:
    """List the policies."""
    show_table(
        ask("SecretPolicyList")["policies"],
        [
            ("id", member("id")),
            ("label", member("label")),
            ("secret", member("secret_pattern")),
            ("tool", member("tool_pattern")),
            ("expires", when("expires_at")),
        ],
        empty="no policies",
    )


@ash_command("show", example="ash secrets policy show 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("policy_id")
def show_policy(*, policy_id: str) -> None:
    """Show one."""
    found = ask("SecretPolicyShow", id=policy_id)
    output().show(found, lambda: output().fields(flat(found)))


@ash_command("remove", example="ash secrets policy remove 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e")
@click.argument("policy_id")
def remove_policy(*, policy_id: str) -> None:
    """Allow it no more."""
    show_done("SecretPolicyRemove", f"Removed {policy_id}", id=policy_id)
