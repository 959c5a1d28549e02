"""``borough up`` as one: events of all contexts in one stream, what needs a person, why, and the proof."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

import pytest

from tests.e2e.conftest import RunningTown, until
from tests.e2e.test_borough_up_fleet import SMALL, up


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        until(lambda: running.ok("GET", "/ready")["fleet"] == "ready")
        yield running


class Listener:
    """Reads a stream of events in a thread of its own."""

    def __init__(self, stream: HTTPResponse) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.gaps: list[dict[str, Any]] = []
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        try:
            for line in self._stream:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    told = json.loads(fields["data"])
                    if fields["event"] == "gap":
                        self.gaps.append(told)
                    else:
                        self.events.append(told)
                        self.ids.append(fields["id"])
                    fields = {}
        except (OSError, ValueError, AttributeError):
            return  # the test has closed it

    def has(self, **wanted: Any) -> dict[str, Any]:
        """Return the first event with these members, as soon as it is there."""
        found: dict[str, Any] = until(
            lambda: next((each for each in self.events if wanted.items() <= each.items()), None)
        )
        return found


@contextmanager
def listening(town: RunningTown, query: str = "", *, after: str = "", token: str | None = "") -> Iterator[Listener]:
    connection = town.connection()
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
    if token is not None:
        headers["Authorization"] = f"Bearer {token or town.token}"
    connection.request("GET", f"/v1/events{query}", headers=headers)
    sock = connection.sock
    assert sock is not None
    try:
        yield Listener(connection.getresponse())
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        connection.close()


# -- one stream --------------------------------------------------------------------------------------------------------


def test_all_contexts_are_in_one_stream_and_it_is_resumed_over_all_of_them(town: RunningTown) -> None:
    with listening(town) as all_of_it, listening(town, "?context=fleet&subject=one") as of_one:
        task = town.ok("POST", "/v1/backlog", {"description": "one of three"})["task_id"]
        town.tt("env", "create", "one", "-i", "local-root", *SMALL)
        queued = all_of_it.has(context="town", kind="task_queued")
        made = all_of_it.has(context="fleet", kind="env.created")
        town.tt("env", "delete", "one")
        all_of_it.has(context="fleet", kind="env.removed")
        of_one.has(kind="env.removed")
    assert (queued["task_id"], queued["event_type"], queued["subject"]) == (
        task, "task_queued", {"kind": "task", "id": task},
    )  # fmt: skip
    assert (made["subject"], made["data"]["by"]) == ({"kind": "env", "id": "one"}, "operator")
    assert {event["context"] for event in of_one.events} == {"fleet"}
    assert all("one" in event["data"].values() for event in of_one.events)

    middle = all_of_it.events.index(made)
    with listening(town, after=all_of_it.ids[middle]) as rest:
        rest.has(kind="env.removed")
    known = [event["id"] for event in all_of_it.events]
    again = [event["id"] for event in rest.events]
    assert again[: len(known) - middle - 1] == known[middle + 1 :]
    assert len(set(again)) == len(again)


def test_what_the_ledger_has_of_governance_itself_comes_once(town: RunningTown) -> None:
    with listening(town) as listener:
        assert town.request("GET", "/agents", token="a-guess").status == 401
        told = listener.has(context="governance")
    assert told["data"]["via"] == "http"
    assert told["kind"] == told["data"]["action"]
    assert not [
        event for event in listener.events if event["context"] == "governance" and event["kind"].startswith("town.")
    ]


def test_the_list_has_all_contexts_and_leads_on_to_the_stream(town: RunningTown) -> None:
    first = town.ok("POST", "/v1/backlog", {"description": "listed"})["task_id"]
    listed = town.ok("GET", "/v1/events?limit=1000")
    assert {"town", "fleet", "governance"} <= {event["context"] for event in listed["events"]}
    assert town.ok("GET", f"/v1/events?task={first}&type=task_queued")["count"] == 1
    second = town.ok("POST", "/v1/backlog", {"description": "followed"})["task_id"]
    with listening(town, after=listed["cursor"]) as listener:
        assert listener.has(kind="task_queued")["task_id"] == second
    # A client that knows of the town alone goes on with one of its ids.
    last = [event["id"] for event in listed["events"] if event["context"] == "town"][-1]
    with listening(town, after=last) as listener:
        assert listener.has(kind="task_queued")["task_id"] == second


def test_what_was_never_there_is_told_as_a_gap_of_its_context(town: RunningTown) -> None:
    with listening(town, after="fleet:900000") as listener:
        assert until(lambda: listener.gaps)[0] == {
            "context": "fleet",
            "missed_after": "900000",
            "resumes_at": until(lambda: listener.gaps)[0]["resumes_at"],
        }
    refused = town.request(
        "GET", "/v1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "no such thing"}
    )
    assert (refused.status, refused.json()["code"]) == (400, "invalid_last_event_id")


def test_whoever_has_no_credential_sees_the_town_alone(town: RunningTown) -> None:
    listed = json.loads(town.request("GET", "/v1/events?limit=1000", token=None).body)
    assert {event["context"] for event in listed["events"]} == {"town"}
    refused = town.request("GET", "/v1/events?context=governance", token=None)
    assert (refused.status, refused.json()["code"]) == (403, "insufficient_scope")
    assert town.request("GET", "/v1/events?context=moon").status == 400
