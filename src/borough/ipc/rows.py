"""How a message fills a row of the operation table, and how the row's answer becomes a message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from borough.core.errors import BoroughError, Forbidden, Invalid
from borough.core.ids import AgentId, derived_id
from borough.http.answers import Rendered
from borough.ipc.refusals import told

Fields = Mapping[str, Any]
Answer = Callable[[Rendered], object]
Refusal = Callable[[BoroughError, str], object]

AGENT = {"id": "agent_id"}
"""Fills a path's agent from the message's."""

_RETRIED = "idempotency_key"
"""A field that every message may have: repeated with the same one, a request makes the same things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A row with everything that a message says for it."""

    method: str
    path: str
    parameters: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any
    """``None``: none came."""
    headers: Mapping[str, str]
    key: str | None = None

    def operation_key(self, principal: str) -> str | None:
        """Return what the request's ids derive from, where it may be repeated."""
        return None if self.key is None else derived_id(principal, self.method, self.path, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the operation table, and which fields of a message go where in it."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameter of the path → field."""
    numbers: frozenset[str] = frozenset()
    """Fields of the path that are numbers; all others are texts."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Field → parameter of the query."""
    lists: frozenset[str] = frozenset()
    """Fields of the query that may be one text or several."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the query that the message's name says, unless a field says something else."""
    body: Mapping[str, str] | None = None
    """Field → member of the body."""
    whole: str | None = None
    """The field that is the body."""
    headers: Mapping[str, Callable[[Fields], str]] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    """Members of the body that the message's name says."""

    def fields(self) -> set[str]:
        """Return the fields that go somewhere."""
        whole = set() if self.whole is None else {self.whole}
        return {*self.parameters.values(), *self.query, *(self.body or ()), *whole}

    def fits(self, fields: Fields) -> bool:
        """Tell whether all parameters of the path are there."""
        return all(self._is_word(name, fields.get(name)) for name in self.parameters.values())

    def _is_word(self, name: str, value: object) -> bool:
        if name in self.numbers:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, str) and value != ""

    def fill(self, fields: Fields, key: str | None) -> Filled:
        """Return the row with ``fields`` in it. A ``null`` says something in a body, and nothing in a query."""
        body: Any = None
        if self.whole is not None:
            body = fields.get(self.whole)
        elif self.body is not None or self.constant:
            members = self.body or {}
            body = {members[name]: value for name, value in fields.items() if name in members}
            body |= self.constant
        return Filled(
            method=self.method,
            path=self.path,
            parameters={name: str(fields[source]) for name, source in self.parameters.items()},
            query=self._query(fields),
            body=body,
            headers={name: make(fields) for name, make in self.headers.items()},
            key=key,
        )

    def _query(self, fields: Fields) -> dict[str, Any]:
        said = dict(self.defaults)
        for name, value in fields.items():
            if name in self.query and value is not None:
                several = name in self.lists and not isinstance(value, list)
                said[self.query[name]] = [value] if several else value
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A message that can be sent, the rows that it may mean (the first that fits) and its answer."""

    rows: tuple[Row, ...]
    answer: Answer
    refusal: Refusal = told
    own: str | None = None
    """The field that names the agent in whose place this is asked: an agent's own id, and nobody else's."""
    target: str | None = "agent_id"
    """The field that names the agent that is meant: an agent that leaves it out means itself."""
    unused: frozenset[str] = frozenset()
    """Fields of the reference that have no meaning here."""

    def fill(self, fields: Fields, *, own: AgentId | None) -> Filled:
        """Return the row that a message means; ``own`` is the agent that sends it, if one does.

        Raises:
            Invalid: a field is missing or unknown (``invalid_request``).
            Forbidden: an agent speaks for another one (``denied``).
        """
        known = {_RETRIED, *self.unused, *(name for row in self.rows for name in row.fields())}
        if self.own is not None:
            known.add(self.own)
        unknown = sorted(set(fields) - known)
        if unknown:
            raise invalid(f"there is no field {unknown[0][:80]!r}; there are: {', '.join(sorted(known - {_RETRIED}))}")
        said = dict(fields)
        if own is not None:
            self._check_own(said, own)
            for name in (self.target, self.own):
                if name is not None and name in known and said.get(name) is None:
                    said[name] = own
        row = next((row for row in self.rows if row.fits(said)), None)
        if row is None:
            raise invalid(f"a value is needed in: {', '.join(sorted(self.rows[0].parameters.values()))}")
        key = said.get(_RETRIED)
        if key is not None and not isinstance(key, str):
            raise invalid(f"{_RETRIED} must be a text")
        return row.fill(said, key)

    def _check_own(self, said: Fields, own: AgentId) -> None:
        if self.own is not None and said.get(self.own) not in (None, own):
            raise Forbidden(
                "permission denied",
                code="denied",
                reason=f"{self.own} names another agent than the one that this socket belongs to",
                resolution=f"leave {self.own} out",
            )


def invalid(reason: str) -> Invalid:
    """Return the refusal of a message that does not fit."""
    return Invalid(
        "invalid request", code="invalid_request", reason=reason, resolution="see the messages in docs/sockets.md"
    )


def same(*names: str) -> dict[str, str]:
    """Return fields that have the names of what they fill."""
    return {name: name for name in names}


def row(method: str, path: str, **more: Any) -> Row:
    """Return a row; ``more`` as in :class:`Row`."""
    return Row(method=method, path=path, **more)


def one(only: Row, answer: Answer, **more: Any) -> Variant:
    """Return a message that means one row alone; ``more`` as in :class:`Variant`."""
    return Variant(rows=(only,), answer=answer, **more)


def ok(_rendered: Rendered) -> object:
    """Answer that it was done."""
    return "Ok"


def bare(name: str) -> Answer:
    """Answer with ``name`` alone."""
    return lambda _rendered: name


def wrapped(name: str, member: str | None = None, *, renamed: Mapping[str, str] | None = None) -> Answer:
    """Answer with the row's answer under ``name``: its members, or the whole of it as the one ``member``."""

    def answer(rendered: Rendered) -> object:
        if rendered.status == HTTPStatus.NO_CONTENT:
            return "Ok"
        if member is not None:
            return {name: {member: content(rendered), **_more(rendered)}}
        if not renamed:
            return {name: content(rendered)}
        members = msgspec.json.decode(rendered.body, type=dict[str, msgspec.Raw])
        return {name: {renamed.get(key, key): value for key, value in members.items()}}

    return answer


def _more(rendered: Rendered) -> dict[str, object]:
    """Return what HTTP tells in headers: where the next page or the rest of a log begins, and whether there is more."""
    headers = dict(rendered.headers)
    if b"x-log-next-offset" in headers:
        return {
            "next_offset": int(headers[b"x-log-next-offset"]),
            "over": headers[b"x-log-over"] == b"true",
            "run_id": headers[b"x-log-run-id"].decode("latin-1"),
        }
    for name, value in rendered.headers:
        if name == b"link":
            target = value.decode("latin-1").partition("<")[2].partition(">")[0]
            cursors = parse_qs(urlsplit(target).query).get("cursor")
            return {"cursor": cursors[0]} if cursors else {}
    return {}


def content(rendered: Rendered) -> object:
    """Return what the row answered as a JSON value; a text that is no JSON as a string."""
    if rendered.content_type.startswith("application/json"):
        return msgspec.Raw(rendered.body)
    return rendered.body.decode("utf-8", "replace")
