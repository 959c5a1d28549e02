"""``tt auth``: API keys and the town's list of them. Keys are shown once and written nowhere."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from borough.cli import key_file
from borough.cli.commands import LazyGroup, command
from borough.cli.output import Output, output, say
from borough.cli.session import town_folder

_HERE: Final = "borough.cli.tt_auth"
_SCOPES: Final = ("town.read", "town.write", "agent.manage", "admin")
_HINT_LENGTH: Final = 8

auth = LazyGroup(
    "auth",
    help="Keys for the REST API.",
    example="tt auth gen-key\ntt auth keys add ci --scope town.read --days 90",
    table={
        "gen-key": (f"{_HERE}:gen_key", "Make a key and its hash; nothing is written."),
        "keys": (f"{_HERE}:keys", "The town's named keys, in tinytown.toml: list, add, revoke, rotate."),
    },
)
keys = LazyGroup(
    "keys",
    help="The town's named keys, in tinytown.toml.",
    example="tt auth keys list\ntt auth keys rotate ci --grace-hours 24",
    table={
        "list": (f"{_HERE}:keys_list", "List them, with scopes and expiry."),
        "add": (f"{_HERE}:keys_add", "Make a key and write its hash into tinytown.toml."),
        "revoke": (f"{_HERE}:keys_revoke", "Take a key off the list."),
        "rotate": (f"{_HERE}:keys_rotate", "Make a new key and let the old one end after a while."),
    },
)


def new_key() -> tuple[str, str]:
    """Return a fresh key and its Argon2id hash in PHC form (m=19456, t=2, p=1)."""
    from argon2 import PasswordHasher, Type

    from borough.auth.credentials import KEY_BYTES, format_key

    key = format_key(secrets.token_bytes(KEY_BYTES))
    hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
    return key, hasher.hash(key)


@command("gen-key", example="tt auth gen-key")
def gen_key() -> None:
    """Make a key and its hash; nothing is written.

    The key is shown this once: keep it where secrets are kept.
    """
    key, phc = new_key()
    output().show({"key": key, "hash": phc}, lambda: _print_key(output(), key, phc))


def _print_key(out: Output, key: str, phc: str) -> None:
    out.line("API key (shown this once, keep it secret):")
    out.line(key)
    out.line("Its Argon2id hash:")
    out.line(phc)
    out.block(
        "\nIn tinytown.toml:\n\n"
        "[townhall.auth]\n"
        'mode = "api_key"\n'
        f'api_key_hash = "{phc}"\n'
        'api_key_scopes = ["town.read", "town.write", "agent.manage"]\n'
        "\nThen, with the key in TOWNHALL_API_KEY:\n\n"
        f'curl -H "Authorization: Bearer $TOWNHALL_API_KEY" http://127.0.0.1:8080/v1/status   '
        f"# the key that begins with {key[:_HINT_LENGTH]}"
    )


@command("list", example="tt auth keys list")
def keys_list() -> None:
    """List them, with scopes and expiry; the keys themselves are known to nobody."""
    found = key_file.read_keys(town_folder())
    out = output()
    out.show(
        {"keys": [_document(key) for key in found]},
        lambda: out.table(
            ("key", "scopes", "from", "until"),
            [
                (
                    key["id"],
                    ", ".join(key.get("scopes", ())) or "all",
                    out.when(_time(key.get("not_before"))),
                    out.when(_time(key.get("expires_at"))) or "no end",
                )
                for key in found
            ],
            empty="there are no named keys; add one with 'tt auth keys add ID'",
        ),
    )


@command("add", example="tt auth keys add ci --scope town.read --scope town.write --days 90")
@click.argument("key_id", metavar="ID")
@click.option("--scope", "scopes", type=click.Choice(_SCOPES), multiple=True, help="May be repeated.  [default: all]")
@click.option("--days", type=click.IntRange(min=1), help="How long it is valid.  [default: no end]")
def keys_add(*, key_id: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make a key and write its hash into tinytown.toml.

    The key is shown this once.
    """
    key, phc = new_key()
    expires = None if days is None else _now() + timedelta(days=days)
    added = key_file.new_entry(key_id, phc, scopes=scopes, expires_at=expires)
    key_file.change_keys(town_folder(), lambda known: key_file.with_key(known, added))
    _show_new(key, added)


@command("revoke", example="tt auth keys revoke ci")
@click.argument("key_id", metavar="ID")
def keys_revoke(*, key_id: str) -> None:
    """Take a key off the list: it opens nothing any more."""
    key_file.change_keys(town_folder(), lambda known: key_file.without_key(known, key_id))
    output().show({"revoked": key_id}, lambda: output().line(f"revoked {key_id}"))
    _tell_server()


@command("rotate", example="tt auth keys rotate ci --grace-hours 24")
@click.argument("key_id", metavar="ID")
@click.option("--grace-hours", type=click.FloatRange(min=0), default=24.0, show_default=True, help="For the old one.")
def keys_rotate(*, key_id: str, grace_hours: float) -> None:
    """Make a new key and let the old one end after a while.

    The new one has the same scopes and an id of its own: ID-2, ID-3 …
    """
    key, phc = new_key()
    town = town_folder()
    old = key_file.find_key(key_file.read_keys(town), key_id)
    new_id = key_file.next_id(key_id, taken={str(known["id"]) for known in key_file.read_keys(town)})
    added = key_file.new_entry(new_id, phc, scopes=tuple(old.get("scopes", ())))
    end = _now() + timedelta(hours=grace_hours)
    key_file.change_keys(town, lambda known: key_file.with_key(key_file.ending(known, key_id, end), added))
    _show_new(key, added)
    if not output().json_asked:
        say(f"{key_id} ends {end.isoformat().replace('+00:00', 'Z')}")


def _show_new(key: str, added: dict[str, Any]) -> None:
    out = output()

    def human() -> None:
        out.line(f"API key {added['id']} (shown this once, keep it secret):")
        out.line(key)

    out.show({"key": key, **_document(added)}, human)
    _tell_server()


def _tell_server() -> None:
    if not output().json_asked:
        say("tinytown.toml is changed; restart a running server for it to hold: 'tt stop --server', then 'tt start'")


def _document(key: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": key["id"],
        "scopes": list(key.get("scopes", ())),
        "not_before": _time(key.get("not_before")),
        "expires_at": _time(key.get("expires_at")),
    }


def _time(value: object) -> str | None:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
