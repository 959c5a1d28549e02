import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from borough.adapters.credentials.operator import (
    announce_server,
    find_operator_token,
    find_server,
    operator_token,
    process_start_ticks,
    town_key,
    withdraw_server,
)
from borough.core.errors import Invalid

NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / ".tt"
    folder.mkdir(mode=0o700)
    return folder


def test_the_token_is_made_once_and_only_its_owner_reads_it(state: Path) -> None:
    token = operator_token(state)
    assert token.reveal().startswith("bop_")
    assert stat.S_IMODE((state / "operator.token").stat().st_mode) == 0o600
    assert operator_token(state).reveal() == token.reveal()
    found = find_operator_token(state)
    assert found is not None
    assert found.matches(token.reveal())
    assert not found.matches(token.reveal()[:-1])
    assert token.reveal() not in repr(token)


def test_no_server_no_token(state: Path, tmp_path: Path) -> None:
    assert find_operator_token(state) is None
    assert find_operator_token(tmp_path / "nowhere") is None
    assert find_server(state) is None
    assert find_server(tmp_path / "nowhere") is None


def test_many_at_once_get_the_same_key(state: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: town_key(state), range(40)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert stat.S_IMODE((state / "town.key").stat().st_mode) == 0o600
    assert [entry.name for entry in state.iterdir()] == ["town.key"]


@pytest.mark.parametrize("name", ["operator.token", "town.key"])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_planted_link_is_neither_read_nor_written_through(
    *, state: Path, tmp_path: Path, name: str, dangling: bool
) -> None:
    target = tmp_path / "target"
    if not dangling:
        target.write_bytes(b"x" * 32)
    (state / name).symlink_to(target)
    with pytest.raises(Invalid) as caught:
        (operator_token if name == "operator.token" else town_key)(state)
    assert caught.value.code == "unsafe_file"
    assert not dangling or not target.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_secret_that_others_can_read_is_refused(state: Path, mode: int) -> None:
    operator_token(state)
    (state / "operator.token").chmod(mode)
    for use in (operator_token, find_operator_token):
        with pytest.raises(Invalid) as caught:
            use(state)
        assert caught.value.code == "unsafe_file"
        assert "rm " in (caught.value.resolution or "")


def test_a_folder_that_others_can_write_to_is_refused(state: Path) -> None:
    state.chmod(0o777)
    with pytest.raises(Invalid) as caught:
        operator_token(state)
    assert "chmod" in (caught.value.resolution or "")


def test_a_linked_state_folder_is_refused(state: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(state)
    with pytest.raises(Invalid):
        operator_token(link)


@pytest.mark.parametrize("whose", ["operator.token", "folder"])
def test_what_another_user_owns_is_refused(state: Path, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator_token(state)
    if os.geteuid() == 0:
        os.chown(state / whose if whose != "folder" else state, NOBODY, NOBODY)
    else:
        # Only root can give a file away; others see the same when they are somebody else.
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(Invalid) as caught:
        find_operator_token(state)
    assert "another user" in caught.value.message


def test_a_pipe_in_place_of_the_file_does_not_block(state: Path) -> None:
    os.mkfifo(state / "operator.token", 0o600)
    with pytest.raises(Invalid, match="ordinary file"):
        operator_token(state)


@pytest.mark.parametrize("content", [b"", b"bop_short", b"\xff" * 68])
def test_a_damaged_token_is_told(state: Path, content: bytes) -> None:
    (state / "operator.token").write_bytes(content)
    (state / "operator.token").chmod(0o600)
    with pytest.raises(Invalid) as caught:
        operator_token(state)
    assert caught.value.code == "damaged_file"


def test_a_short_town_key_is_refused(state: Path) -> None:
    (state / "town.key").write_bytes(b"short")
    (state / "town.key").chmod(0o600)
    with pytest.raises(Invalid) as caught:
        town_key(state)
    assert caught.value.code == "damaged_file"


def test_a_server_is_found_while_it_runs(state: Path) -> None:
    record = announce_server(state, "http://127.0.0.1:8080")
    assert find_server(state) == record
    assert stat.S_IMODE((state / "server.json").stat().st_mode) == 0o600
    assert record.start_ticks == process_start_ticks(os.getpid())
    assert withdraw_server(state, record)
    assert find_server(state) is None
    assert not withdraw_server(state, record)


def test_a_server_that_ended_is_not_found_even_before_it_is_reaped(state: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = announce_server(state, "http://127.0.0.1:1", pid=child.pid)
    assert find_server(state) == record
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert find_server(state) is None
    child.communicate()
    assert find_server(state) is None


def test_a_later_servers_record_is_not_withdrawn(state: Path) -> None:
    mine = announce_server(state, "http://127.0.0.1:1")
    later = announce_server(state, "http://127.0.0.1:2")
    assert not withdraw_server(state, mine)
    assert find_server(state) == later


def test_a_link_in_place_of_the_record_is_replaced_not_followed(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (state / "server.json").symlink_to(target)
    with pytest.raises(Invalid):
        find_server(state)
    record = announce_server(state, "http://127.0.0.1:1")
    assert target.read_text() == "precious"
    assert find_server(state) == record


def test_a_record_that_others_can_write_is_refused(state: Path) -> None:
    announce_server(state, "http://127.0.0.1:1")
    (state / "server.json").chmod(0o666)
    with pytest.raises(Invalid):
        find_server(state)


def test_nonsense_in_place_of_the_record_is_told(state: Path) -> None:
    (state / "server.json").write_text('{"address": 3}')
    (state / "server.json").chmod(0o644)
    with pytest.raises(Invalid) as caught:
        find_server(state)
    assert caught.value.code == "damaged_file"
