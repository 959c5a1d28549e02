"""Server-sent events, read as the HTML standard describes them (section "Interpreting an event stream")."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """One event. ``id`` is the last one that the stream has set, '' before the first."""

    type: str
    data: str
    id: str


def read_events(lines: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield the events in ``lines`` (with their line ends); one that is cut off by the end is dropped."""
    last_id, kind, data = "", "", list[str]()
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerSentEvent(type=kind or "message", data="\n".join(data), id=last_id)
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
