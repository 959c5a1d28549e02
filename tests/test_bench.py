"""The harness counts right, overhears right, and writes where it should."""

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bench.__main__ import NAMES
from bench.figures import PAGE, Figure, Section, percentile, write
from bench.store_load import StoreConnection, again, drive_store, overhear, parsed

from tests.conftest import eventually, need

TASK, OTHER = "0a48343e-f44e-41e3-beb3-1dd4b8e29bbf", "11111111-2222-4333-8444-555555555555"
SUPERVISOR = "00000000-0000-0000-0000-000000000001"


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([3.0], 99) == 3
    assert percentile([2.0, 1.0], 50) == 1


def test_a_section_replaces_what_stood_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- bench: one -->\nold\n<!-- end -->\nbetween\n<!-- bench: two -->\nkept\n<!-- end -->\n"
    )
    section = Section(name="one", title="One", how="Somehow.", figures=[Figure(what="x", value="5 \\d", met=False)])
    write(section, page)
    write(section, page)
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n<!-- bench: one -->\n## One\n")
    assert text.count("| x | 5 \\d |  | **no** |") == 1
    assert text.endswith("<!-- end -->\nbetween\n<!-- bench: two -->\nkept\n<!-- end -->\n")
    with pytest.raises(LookupError):
        write(Section(name="three", title="", how=""), page)


def test_the_page_has_a_place_for_every_measurement() -> None:
    text = PAGE.read_text()
    assert [name for name in NAMES if f"<!-- bench: {name} -->" not in text] == []


def test_a_call_that_was_overheard_is_read_back_byte_for_byte() -> None:
    line = rb'1700000000.123456 [0 unix:/tmp/s.sock] "FCALL" "add" "1" "{t}" "a \"b\" \\ \xc3\xa9\n" ""'
    assert parsed(line) == (b"FCALL", b"add", b"1", b"{t}", b'a "b" \\ \xc3\xa9\n', b"")


def test_a_call_is_made_again_for_another_task() -> None:
    command = (b"FCALL", b"add", SUPERVISOR.encode(), TASK.encode(), json.dumps({"id": TASK}).encode())
    assert again(command, OTHER) == (
        b"FCALL", b"add", SUPERVISOR.encode(), OTHER.encode(), json.dumps({"id": OTHER}).encode(),
    )  # fmt: skip


LIBRARY = b"""#!lua name=town
redis.register_function('add', function(keys, args)
  redis.call('HSET', keys[1] .. args[1], 'text', args[2])
  return redis.call('INCR', keys[1] .. 'count')
end)
"""


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    program = shutil.which("redis-server")
    need(program, "Redis", "apt-get install redis-server")
    path = tmp_path / "s.sock"
    argv = [str(program), "--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        yield path
        server.terminate()


@pytest.mark.anyio
async def test_what_was_overheard_can_be_sent_again_many_times(socket: Path) -> None:
    connections: list[StoreConnection] = []

    async def connected() -> bool:
        with suppress(FileNotFoundError, ConnectionRefusedError):  # its socket is there before anybody listens
            connections.append(await StoreConnection.open(socket))
        return bool(connections)

    await eventually(connected)
    (connection,) = connections
    await connection.call((b"FUNCTION", b"LOAD", LIBRARY))

    async def act() -> None:
        await connection.call((b"FCALL", b"add", b"1", b"town:", TASK.encode(), b'say "hello"\n'))

    command = await overhear(socket, act, text=b"hello")
    assert command == (b"FCALL", b"add", b"1", b"town:", TASK.encode(), b'say "hello"\n')
    run = await drive_store(socket, command, connections=4, count=50)
    assert len(run.latencies_s) == 50
    connection.send((b"GET", b"town:count"))
    assert await connection.reply() == b"51"
    connection.send((b"KEYS", b"town:*-*"))
    keys = await connection.reply()
    assert isinstance(keys, list)
    assert len({str(uuid.UUID(key.decode().removeprefix("town:"))) for key in keys}) == 51
    connection.close()
