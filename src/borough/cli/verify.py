"""``borough verify``: whether an export of the ledger is whole and signed, told by nothing but a public key."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import click

from borough.cli.commands import command
from borough.cli.errors import FAILED, OK, Usage

if TYPE_CHECKING:
    from borough.client.discovery import ServerAddress
    from borough.client.http import Client
    from borough.governance.checkpoints import VerifierKey
    from borough.governance.verification import Broken, Proven

_DEFAULT_ADDRESS: Final = "127.0.0.1:8080"
_STDIN: Final = "-"
_MOST_KEY_CHARACTERS: Final = 4096
_SILENCE_S: Final = 60.0
_MAGIC_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where an export is: a file, standard input, a gateway, or any other address."""

    name: str
    path: Path | None = None
    address: str | None = None
    resource: str = "/audit/export"

    @property
    def is_gateway(self) -> bool:
        return self.address is not None and self.resource == "/audit/export"


@command("verify", example="borough verify ledger.export --key-file ledger.pub\nborough verify http://127.0.0.1:8080")
@click.argument("source", metavar="[FILE|URL]", required=False)
@click.option("-k", "--key", metavar="KEY", help="The ledger's public key: NAME+ID+BASE64.")
@click.option("--key-file", metavar="FILE", type=click.Path(path_type=Path), help="A file with that key.")
@click.option("--unsigned", is_flag=True, help="Ask only whether the entries agree with each other.")
@click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path), help="A file with the gateway's token.")
@click.option("-j", "--jobs", metavar="N", type=click.IntRange(1, 256), help="Processes.  [default: one a core]")
@click.pass_context
def verify(
    context: click.Context,
    *,
    source: str | None,
    key: str | None,
    key_file: Path | None,
    unsigned: bool,
    token_file: Path | None,
    jobs: int | None,
) -> None:
    """Verify an export of the ledger, or evidence, with nothing but its public key.

    A file, '-' for standard input, an address of a file, or a gateway (http://HOST:PORT), whose export is fetched.
    Exit code 0 when every entry is whole, in its place and signed; 1 when not: the first bad entry is named. Evidence
    brings a key along; whose it is, only you can tell: give the one that you know.
    """
    own = _own_gateway()
    where = _source(source, own)
    if sum((key is not None, key_file is not None, unsigned)) > 1:
        raise Usage("give one of --key, --key-file and --unsigned", resolution="see 'borough verify --help'")
    if where.path is not None and _begins_as_evidence(where.path):
        context.exit(_tell_evidence(where.path, _given_key(key, key_file, where, needed=False)))
    if where.path is not None or where.name == _STDIN:
        found, used = _local(where, _given_key(key, key_file, where, needed=not unsigned), jobs)
    else:
        asked = _address(where, own, token_file)
        found, used = _remote(where, asked, key=key, key_file=key_file, unsigned=unsigned)
    context.exit(_tell(where, found, used))


def _own_gateway() -> "ServerAddress | None":
    from borough.client.discovery import find_gateway
    from borough.config.agentd_places import data_folder

    return find_gateway(Path(), data_folder(os.environ))


def _source(given: str | None, own: "ServerAddress | None") -> _Source:
    told = os.environ.get("AGENTD_API_ADDR")
    if given is None and not told and own is not None:
        return _Source(name=own.url, address=own.url.rstrip("/"))
    text = given or f"http://{told or _DEFAULT_ADDRESS}"
    if text == _STDIN:
        return _Source(name=text)
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _Source(name=text, path=Path(unquote(parts.path)))
    if parts.scheme in ("http", "https"):
        address = f"{parts.scheme}://{parts.netloc}"
        if parts.path in ("", "/"):
            return _Source(name=text, address=address)
        return _Source(name=text, address=address, resource=parts.path + (f"?{parts.query}" if parts.query else ""))
    return _Source(name=text, path=Path(text))


def _given_key(key: str | None, key_file: Path | None, where: _Source, *, needed: bool) -> "VerifierKey | None":
    from borough.governance.checkpoints import parse_verifier_key

    if key_file is not None:
        with key_file.open(encoding="utf-8", errors="replace") as file:
            key = file.read(_MOST_KEY_CHARACTERS)
    if key is not None:
        return parse_verifier_key(key)
    if not needed or where.is_gateway:
        return None
    raise Usage(
        "the ledger's public key is needed",
        reason="without it anybody could have written these entries",
        resolution="give --key or --key-file (a gateway tells it at /audit/key), or --unsigned to do without",
    )


def _local(where: _Source, key: "VerifierKey | None", jobs: int | None) -> "tuple[Proven | Broken, VerifierKey | None]":
    from borough.adapters.verifying import verify_file, verify_stream

    if where.path is None:
        return verify_stream(sys.stdin.buffer, key), key
    if not where.path.is_file():  # a pipe cannot be read in parts
        with where.path.open("rb") as stream:
            return verify_stream(stream, key), key
    return verify_file(where.path, key, processes=jobs), key


def _begins_as_evidence(path: Path) -> bool:
    from borough.overview.evidence import is_evidence

    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_evidence(file.read(_MAGIC_BYTES))


def _tell_evidence(path: Path, key: "VerifierKey | None") -> int:
    from borough.cli.output import output, say, warn
    from borough.overview.evidence import Tampered, verify_evidence

    out, found = output(), verify_evidence(path.read_bytes(), key)
    if isinstance(found, Tampered):
        broken = {"part": found.part, "reason": found.reason}
        out.show(
            {"verified": False, "source": str(path), **broken},
            lambda: out.fields([("verified", "no"), *broken.items()]),
        )
        say(f"{path} is not whole: {found.part}: {found.reason}")
        return FAILED
    fields: dict[str, Any] = {
        "of": f"{found.subject.kind} {found.subject.id}",
        "entries": found.entries,
        "files": len(found.files),
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
        "signed_by": found.key.name,
        "key": str(found.key),
    }
    out.show(
        {"verified": True, "source": str(path), **fields}, lambda: out.fields([("verified", "yes"), *fields.items()])
    )
    if found.is_own_key:
        warn("the key was told by the evidence itself; compare it with the one that you know, or give that: --key KEY")
    return OK


def _address(where: _Source, own: "ServerAddress | None", token_file: Path | None) -> "ServerAddress":
    """Return whom to ask and what to show: a token that was named, else one's own to one's own gateway alone."""
    from borough.client.discovery import ServerAddress

    if not where.is_gateway:
        return ServerAddress(url=where.address or "")
    token = _token(token_file)
    if token is None and own is not None and own.url.rstrip("/") == where.address:
        return own
    return ServerAddress(url=where.address or "", token=token)


def _remote(
    where: _Source, asked: "ServerAddress", *, key: str | None, key_file: Path | None, unsigned: bool
) -> "tuple[Proven | Broken, VerifierKey | None]":
    from borough.adapters.verifying import verify_stream
    from borough.client.discovery import NoServer
    from borough.client.http import Client

    used = _given_key(key, key_file, where, needed=not unsigned)
    try:
        with Client(asked, timeout_s=_SILENCE_S) as server:
            if used is None and not unsigned:
                used = _key_of(server)
            with server.download(where.resource) as stream:
                return verify_stream(stream, used), used
    except NoServer as problem:
        raise NoServer(
            problem.message,
            reason=problem.reason,
            resolution="start 'agentd' there, or verify a file that was exported before",
        ) from problem


def _key_of(server: "Client") -> "VerifierKey":
    from borough.cli.output import warn
    from borough.governance.checkpoints import parse_verifier_key

    answer = server.request("GET", "/audit/key")
    is_document = answer.body.lstrip().startswith(b"{")
    key = parse_verifier_key(str(answer.json().get("key")) if is_document else answer.body.decode(errors="replace"))
    warn(f"the key was told by the gateway that is verified; keep it and give it next time: --key '{key}'")
    return key


def _token(file: Path | None) -> str | None:
    if file is None and (named := os.environ.get("BOROUGH_TOKEN_FILE")):
        file = Path(named)
    if file is not None:
        return file.read_text(encoding="ascii").strip()
    return os.environ.get("BOROUGH_TOKEN", "").strip() or None


def _tell(where: _Source, found: "Proven | Broken", key: "VerifierKey | None") -> int:
    from borough.cli.output import output, say
    from borough.governance.verification import Broken

    out = output()
    if isinstance(found, Broken):
        document = {"verified": False, "source": where.name, **_broken_fields(found)}
        out.show(document, lambda: out.fields([("verified", "no"), *_broken_fields(found).items()]))
        say(f"{where.name} is not whole: {_place(found)}: {found.reason}")
        return FAILED
    fields: dict[str, Any] = {
        "first_seq": found.first_seq,
        "entries": found.head.size - found.first_seq,
        "size": found.head.size,
        "head": found.head.hash,
        "root": found.head.frontier.root().hex(),
        "signed_by": key.name if key and found.checkpoint else None,
    }
    out.show(
        {"verified": True, "source": where.name, **fields}, lambda: out.fields([("verified", "yes"), *fields.items()])
    )
    if found.checkpoint is None:
        say("the entries agree with each other; nobody vouches for them, since no key was given")
    return OK


def _broken_fields(found: "Broken") -> dict[str, Any]:
    return {"part": found.part, "seq": found.seq, "line": found.line, "reason": found.reason}


def _place(found: "Broken") -> str:
    where = f"entry {found.seq}" if found.seq is not None else f"the {found.part}"
    return f"{where} (line {found.line})"
