"""The client's rules: which server, which credential, what a refusal means, how events are read."""

import json
import os
from pathlib import Path

import pytest

from borough.client.controller_address import find_controller
from borough.client.discovery import (
    ServerAddress,
    find_server,
    find_token,
    find_town,
    named_address,
    read_record,
    started_ticks,
)
from borough.client.fleet import machine_at
from borough.client.http import Client
from borough.client.problems import error_from
from borough.client.sse import read_events
from borough.client.urls import segment
from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable

GONE_PID = 2**22 + 1
"""Above the largest pid that Linux gives out (proc(5), pid_max)."""


def a_town(folder: Path, **record: object) -> Path:
    (folder / "tinytown.toml").write_text('name = "t"\n')
    (folder / ".tt").mkdir()
    if record:
        (folder / ".tt" / "server.json").write_text(json.dumps(record))
    return folder


def running(address: str = "http://127.0.0.1:8080") -> dict[str, object]:
    return {"address": address, "pid": os.getpid(), "started_ticks": started_ticks(os.getpid())}


def test_a_town_is_found_from_below(tmp_path: Path) -> None:
    town = a_town(tmp_path)
    below = town / "src" / "deep"
    below.mkdir(parents=True)
    assert find_town(below) == town.resolve()


def test_a_folder_that_is_not_there_has_no_town_above(tmp_path: Path) -> None:
    assert find_town(a_town(tmp_path) / "misspelt") is None


def test_a_strangers_file_above_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = a_town(tmp_path) / "below"
    below.mkdir()
    os.chown(tmp_path / "tinytown.toml", 12345, -1) if os.geteuid() == 0 else monkeypatch.setattr(
        os, "geteuid", lambda: 12345
    )
    assert find_town(below) is None
    assert find_town(tmp_path) == tmp_path.resolve()


def test_no_town_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert find_town(tmp_path) is None


def test_a_running_server_is_found_by_its_record(tmp_path: Path) -> None:
    record = read_record(a_town(tmp_path, **running()))
    assert record is not None
    assert record.address == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    "record",
    [
        {"address": "http://x", "pid": GONE_PID, "started_ticks": 1},
        {"address": "http://x", "pid": os.getpid(), "started_ticks": 1},
        {"address": "http://x"},
    ],
    ids=["process gone", "pid taken by another", "cut short"],
)
def test_a_record_of_a_server_that_is_gone_counts_as_none(tmp_path: Path, record: dict[str, object]) -> None:
    assert read_record(a_town(tmp_path, **record)) is None


def test_half_a_record_counts_as_none(tmp_path: Path) -> None:
    town = a_town(tmp_path)
    (town / ".tt" / "server.json").write_text('{"address": "http')
    assert read_record(town) is None


def test_the_option_beats_the_environment() -> None:
    environment = {"TINYTOWN_SERVER": "http://a", "TT_SERVER": "http://b"}
    assert named_address("http://c", environment) == "http://c"
    assert named_address(None, environment) == "http://a"
    assert named_address(None, {"TT_SERVER": "http://b"}) == "http://b"
    assert named_address(None, {}) is None


def test_the_operators_credential_goes_to_the_towns_own_server_only(tmp_path: Path) -> None:
    town = a_town(tmp_path, **running())
    (town / ".tt" / "operator.token").write_text("secret\n")
    own = find_server(town, None, {})
    same = find_server(town, "http://127.0.0.1:8080/", {})
    other = find_server(town, "http://elsewhere:8080", {})
    assert own is not None
    assert same is not None
    assert other is not None
    assert [own.token, same.token, other.token] == ["secret", "secret", None]


def test_credentials_are_looked_for_in_order(tmp_path: Path) -> None:
    town = a_town(tmp_path)
    (town / ".tt" / "operator.token").write_text("operator")
    (tmp_path / "token").write_text("narrow\n")
    file = {"TINYTOWN_TOKEN_FILE": str(tmp_path / "token")}
    assert find_token(town, {**file, "TOWNHALL_API_KEY": "key"}) == "narrow"
    assert find_token(town, {"TOWNHALL_API_KEY": "key"}) == "key"
    assert find_token(town, {}) == "operator"


@pytest.mark.parametrize("content", ["", "two words", "line\r\nX-Evil: 1"])
def test_a_credential_that_could_not_be_a_header_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(Invalid) as refusal:
        find_token(None, {"TINYTOWN_TOKEN_FILE": str(tmp_path / "token")})
    assert content not in refusal.value.message or not content


def test_a_credential_never_shows_in_a_repr() -> None:
    assert "secret" not in repr(ServerAddress(url="http://x", token="secret"))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:99999", "http://u:p@x", "http://x/?q=1", "http://[x"]
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Client(ServerAddress(url=url))
    assert refusal.value.code == "invalid_address"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (422, Invalid),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_a_status_becomes_its_kind_of_error(status: int, kind: type[BoroughError]) -> None:
    assert type(error_from(status, {}, b"")) is kind


def test_everything_that_the_server_said_is_kept() -> None:
    body = {
        "title": "Conflict",
        "detail": "ada has ended",
        "code": "agent_not_running",
        "reason": "it is stopped",
        "resolution": "restart it",
        "request_id": "r-1",
        "errors": [{"pointer": "/agent", "detail": "ended"}],
    }
    error = error_from(409, {"retry-after": "3"}, json.dumps(body).encode())
    assert (error.message, error.code, error.resolution) == ("ada has ended", "agent_not_running", "restart it")
    assert error.reason == "it is stopped; /agent: ended"
    assert error.details == {"status": 409, "request_id": "r-1", "errors": body["errors"], "retry_after": "3"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"detail": 5, "errors": "x"}'])
def test_an_answer_of_another_program_is_an_error_all_the_same(body: bytes) -> None:
    assert error_from(502, {}, body).message == "the server answered 502"


def test_a_segment_cannot_leave_its_place_in_the_path() -> None:
    assert segment("Ada [x]/../y?z#") == "Ada%20%5Bx%5D%2F..%2Fy%3Fz%23"


def test_events_are_read_as_the_standard_says() -> None:
    lines = [
        b": keep-alive\n",
        b"\n",
        b"id: 1-0\r\n",
        b"event: task_assigned\r\n",
        b"data: one\r\n",
        b"data:two\r\n",
        b"\r\n",
        b"data: three\n",
        b"\n",
        b"event: nothing\n",
        b"\n",
        b"data: cut off",
    ]
    events = list(read_events(lines))
    assert [(one.type, one.data, one.id) for one in events] == [
        ("task_assigned", "one\ntwo", "1-0"),
        ("message", "three", "1-0"),
    ]


# -- the fleet's controller --------------------------------------------------------------------------------------------


def saved_at(home: Path, address: str, key: str = "a-saved-key") -> dict[str, str]:
    home.mkdir()
    (home / ".ttconfig").write_text(f"{address}\n{key}\n")
    return {"HOME": str(home)}


def test_a_controller_is_the_named_then_the_environment_s_then_the_town_s_then_the_saved_one(tmp_path: Path) -> None:
    environ = saved_at(tmp_path / "home", "10.0.0.9:9200")
    town = a_town(tmp_path, **running(), fleet=True)
    (town / ".tt" / "operator.token").write_text("bop_own\n")

    def found(named: str | None = None, start: Path = town, **more: str) -> tuple[str, str | None]:
        address = find_controller({**environ, **more}, named=named, key=None, start=start)
        return address.url, address.token

    assert found() == ("http://127.0.0.1:8080", "bop_own")
    assert found(TT_API_KEY="another-fleet-s") == ("http://127.0.0.1:8080", "bop_own")
    assert found("127.0.0.1:8080") == ("http://127.0.0.1:8080", "bop_own")
    assert found(TT_SERVER="10.0.0.1:9200") == ("http://10.0.0.1:9200", None)
    assert found("10.0.0.2:9200", TT_SERVER="10.0.0.1:9200", TT_API_KEY="k") == ("http://10.0.0.2:9200", "k")
    assert found("10.0.0.9:9200") == ("http://10.0.0.9:9200", "a-saved-key")
    assert found(start=Path("/")) == ("http://10.0.0.9:9200", "a-saved-key")
    assert find_controller(environ, named=None, key="given", start=town).token == "given"


def test_a_town_whose_server_is_no_controller_is_none(tmp_path: Path) -> None:
    town = a_town(tmp_path, **running())
    environ = saved_at(tmp_path / "home", "10.0.0.9:9200")
    assert find_controller(environ, named=None, key=None, start=town).url == "http://10.0.0.9:9200"


@pytest.mark.parametrize(
    ("addr", "controller", "name"),
    [
        ("10.0.0.2:9100", "http://127.0.0.1:9200", "10.0.0.2"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "http://localhost:8080", "::1"),
        ("127.0.0.1:8080", "https://rack1.example:8080", "rack1.example"),
    ],
)
def test_a_host_on_the_controller_s_loopback_is_where_the_controller_is(addr: str, controller: str, name: str) -> None:
    assert machine_at(addr, controller=controller) == name
