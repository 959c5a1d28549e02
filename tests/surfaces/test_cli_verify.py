"""``borough verify``: files, standard input and gateways; what is whole, and the first entry that is not."""

import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from borough.adapters.verifying import verify_file, verify_stream
from borough.cli.borough import program
from borough.cli.errors import run
from borough.governance.checkpoints import Checkpoint, VerifierKey, sign_checkpoint
from borough.governance.ledger import GENESIS, Draft, Head, Outcome, seal
from borough.governance.verification import Broken, Proven, checkpoint_lines, entry_line, header_line

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey(name="ledger.example", public_key=PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
AT = datetime(2026, 2, 22, 12, 34, 56, tzinfo=UTC)
COUNT = 60


def draft(number: int) -> Draft:
    return Draft(
        id=str(number),
        at=AT + timedelta(seconds=number),
        agent_id="550e8400-e29b-41d4-a716-446655440000",
        action="ToolInvoke",
        outcome=Outcome.SUCCESS,
        detail="x" * (number * 7 % 90),
    )


def exported(first: int = 0, count: int = COUNT) -> bytes:
    head, start, lines = GENESIS, GENESIS, []
    for number in range(count):
        entry, head = seal(draft(number), head)
        if number == first - 1:
            start = head
        if number >= first:
            lines.append(entry_line(entry.leaf, entry.canonical))
    checkpoint = Checkpoint(origin=KEY.name, size=head.size, root=head.frontier.root())
    note = sign_checkpoint(checkpoint, KEY, PRIVATE.sign)
    return header_line(start if first else Head()) + b"".join(lines) + checkpoint_lines(note)


WHOLE = exported()


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def borough(clean: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("BOROUGH_TOKEN", "BOROUGH_TOKEN_FILE", "AGENTD_API_ADDR"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: object) -> Ran:
        code = run(program, "borough", [str(word) for word in words])
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return call


@pytest.fixture
def export(clean: Path) -> Path:
    (clean / "ledger.pub").write_text(f"{KEY}\n")
    (clean / "ledger.export").write_bytes(WHOLE)
    return clean / "ledger.export"


def spoiled(place: int, change: int = 1) -> bytes:
    data = bytearray(WHOLE)
    data[place] ^= change
    return bytes(data)


def test_a_whole_export_is_told_by_its_key_alone(borough: Any, export: Path) -> None:
    for words in ((export, "--key", KEY), (export, "--key-file", "ledger.pub"), (export.as_uri(), "--key", KEY)):
        ran = borough("verify", *words, "--json")
        assert ran.code == 0, ran.err
        told = ran.document
        assert (told["verified"], told["first_seq"], told["entries"], told["size"]) == (True, 0, COUNT, COUNT)
        assert told["signed_by"] == "ledger.example"
    assert "verified\tyes" in borough("verify", export, "--key", KEY).out


def test_the_first_bad_entry_is_named(borough: Any, export: Path) -> None:
    place = WHOLE.index(b'"seq":41')
    export.write_bytes(spoiled(place + 8))
    ran = borough("verify", export, "--key", KEY, "--json")
    assert ran.code == 1
    assert (ran.document["verified"], ran.document["part"], ran.document["seq"]) == (False, "entry", 41)
    assert "entry 41 (line 43)" in ran.err


def test_another_key_does_not_vouch(borough: Any, export: Path) -> None:
    other = VerifierKey(name="ledger.example", public_key=bytes(32))
    ran = borough("verify", export, "--key", other, "--json")
    assert ran.code == 1
    assert ran.document["part"] == "checkpoint"


def test_without_a_key_nothing_is_called_verified_unless_that_is_asked_for(borough: Any, export: Path) -> None:
    refused = borough("verify", export)
    assert refused.code == 2
    assert "--key-file" in refused.err
    ran = borough("verify", export, "--unsigned", "--json")
    assert ran.code == 0
    assert ran.document["signed_by"] is None
    assert "nobody vouches" in ran.err
    assert borough("verify", export, "--unsigned", "--key", KEY).code == 2


def test_what_cannot_be_read_is_told(borough: Any, export: Path) -> None:
    assert borough("verify", "missing", "--key", KEY).code == 1
    assert "key cannot be read" in borough("verify", export, "--key", "nonsense").err


def test_standard_input_is_read_in_a_process_of_its_own(export: Path) -> None:
    argv = [sys.executable, "-m", "borough.cli.borough", "verify", "-", "--key", str(KEY), "--json"]
    ran = subprocess.run(argv, input=WHOLE, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["entries"] == COUNT


# -- many processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 17, 59])
def test_parts_in_many_processes_prove_what_one_does(export: Path, first: int) -> None:
    data = exported(first)
    export.write_bytes(data)
    found = verify_file(export, KEY, processes=3, least_part_bytes=100)
    assert isinstance(found, Proven)
    assert found == verify_stream(io.BytesIO(data), KEY)


def test_wherever_a_byte_changes_many_processes_name_the_same_entry_as_one(export: Path) -> None:
    for place in range(0, len(WHOLE), len(WHOLE) // 23):
        data = spoiled(place)
        export.write_bytes(data)
        found = verify_file(export, KEY, processes=2, least_part_bytes=100)
        alone = verify_stream(io.BytesIO(data), KEY)
        assert isinstance(found, Broken), place
        assert isinstance(alone, Broken)
        assert (found.part, found.seq, found.line) == (alone.part, alone.seq, alone.line), place


def test_a_missing_line_between_parts_is_found(export: Path) -> None:
    lines = WHOLE.split(b"\n")
    for gone in (1, 20, 31, 45, COUNT):
        data = b"\n".join(lines[:gone] + lines[gone + 1 :])
        export.write_bytes(data)
        found = verify_file(export, KEY, processes=3, least_part_bytes=100)
        assert isinstance(found, Broken)
        assert found.seq == verify_stream(io.BytesIO(data), KEY).seq  # type: ignore[union-attr] # it is broken too


def test_an_endless_line_and_an_endless_checkpoint_take_bounded_memory() -> None:
    class Endless(io.RawIOBase):
        """Says ``start``, then one letter for ever."""

        def __init__(self, start: bytes) -> None:
            self.start, self.read_bytes = start, 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece, self.start = self.start[: len(buffer)], self.start[len(buffer) :]
            piece = piece or b"a" * len(buffer)
            buffer[: len(piece)] = piece
            self.read_bytes += len(piece)
            return len(piece)

    for start in (b"", WHOLE[: WHOLE.index(b"\n") + 1], WHOLE):
        endless = Endless(start)
        assert isinstance(verify_stream(io.BufferedReader(endless), KEY), Broken)
        assert endless.read_bytes < 4_000_000


# -- gateways ----------------------------------------------------------------------------------------------------------


@dataclass
class Gateway:
    """A gateway that hands out an export, in chunks, to who has the token."""

    address: str = ""
    tokens: list[str | None] = field(default_factory=list)
    key_body: bytes = str(KEY).encode()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    told = Gateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base has
            """Say nothing."""

        def do_GET(self) -> None:
            token = self.headers["Authorization"]
            told.tokens.append(token)
            if self.path.startswith("/audit") and token != "Bearer secret":
                body, status = b'{"error":"no token","code":"unauthorized"}', 401
            else:
                body, status = (told.key_body if self.path == "/audit/key" else WHOLE), 200
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 1000):
                piece = body[at : at + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield told
        server.shutdown()
        thread.join()


def test_a_gateway_is_asked_for_its_export_and_its_key(
    borough: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, clean: Path
) -> None:
    assert borough("verify", f"http://{gateway.address}").code == 4
    (clean / "token").write_text("secret\n")
    for body in (gateway.key_body, json.dumps({"key": str(KEY)}).encode()):
        gateway.key_body = body
        ran = borough("verify", f"http://{gateway.address}/", "--token-file", "token", "--json")
        assert ran.code == 0, ran.err
        assert ran.document["entries"] == COUNT
        assert f"--key '{KEY}'" in ran.err
    monkeypatch.setenv("AGENTD_API_ADDR", gateway.address)
    monkeypatch.setenv("BOROUGH_TOKEN", "secret")
    assert borough("verify", "--key", KEY).code == 0


def test_any_other_address_gets_no_token(borough: Any, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOROUGH_TOKEN", "secret")
    ran = borough("verify", f"http://{gateway.address}/exports/ledger.export", "--key", KEY)
    assert ran.code == 0, ran.err
    assert gateway.tokens == [None]


def test_a_gateway_that_is_not_there_is_told(borough: Any) -> None:
    ran = borough("verify", "http://127.0.0.1:9", "--key", KEY)
    assert ran.code == 3
    assert "agentd" in ran.err
    assert "Traceback" not in ran.err
