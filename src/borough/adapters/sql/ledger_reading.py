"""The ledger's questions: each is answered from one snapshot, and none looks at entries that are not wanted."""

from collections.abc import Iterator
from heapq import merge

import apsw

from borough.adapters.sql import ledger_tables as tables
from borough.core.errors import Invalid, NotFound
from borough.core.paging import Page, PageRequest
from borough.governance.ledger import Sealed
from borough.governance.ports.ledger import EntryFilter
from borough.governance.verification import entry_line, header_line


def get(connection: apsw.Connection, seq: int) -> Sealed:
    """Return one entry; raises ``NotFound``."""
    row = connection.execute(f"{tables.ENTRIES} WHERE entry.seq = ?", (seq,)).get
    if row is None:
        raise no_entry(connection, seq)
    return tables.sealed(row)


def named(connection: apsw.Connection, entry_id: str) -> Sealed:
    """Return the entry of an id; raises ``NotFound``."""
    found = tables.by_id(connection, entry_id)
    if found is None:
        raise NotFound(
            f"there is no entry {entry_id[:80]!r}",
            code="entry_not_found",
            resolution="list them: ash audit; retention may have dropped it",
        )
    return found


def newest(connection: apsw.Connection, wanted: EntryFilter, limit: int) -> tuple[Sealed, ...]:
    """Return the newest wanted entries, oldest first."""
    return tuple(reversed(_take(connection, wanted, limit, descending=True)))


def find(connection: apsw.Connection, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
    """Return a page of wanted entries."""
    found = _take(connection, wanted, page.limit + 1, after=_position(page.after))
    items = tuple(found[: page.limit])
    return Page(items=items, after=str(items[-1].seq) if len(found) > page.limit and items else None)


def before(connection: apsw.Connection, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
    """Return the newest wanted entries before a position, oldest first."""
    end = _position(page.after) if page.after else None
    found = _take(connection, wanted, page.limit + 1, before=end, descending=True)
    items = tuple(reversed(found[: page.limit]))
    return Page(items=items, after=str(items[0].seq) if len(found) > page.limit and items else None)


def open_intents(connection: apsw.Connection) -> tuple[Sealed, ...]:
    """Return the intents that have no outcome, oldest first."""
    statement = f"{tables.ENTRIES} JOIN open_intent ON open_intent.seq = entry.seq ORDER BY entry.seq"
    return tuple(tables.sealed(row) for row in connection.execute(statement))


def node(connection: apsw.Connection, level: int, place: int) -> bytes:
    """Return the hash of a complete node; raises ``NotFound``."""
    found = tables.node(connection, level, place) if 0 <= level < 48 and 0 <= place < 2**48 else None  # noqa: PLR2004 - beyond any tree that fits on a disk
    if found is None:
        raise NotFound(
            f"the tree has no complete node {place} on level {level}",
            code="node_not_found",
            resolution="ask for nodes of a tree that is no larger than the newest checkpoint",
        )
    return found


def export_header(connection: apsw.Connection, first_seq: int, size: int) -> bytes:
    """Return the first line of an export; raises ``NotFound`` and ``Invalid``."""
    if not first_seq <= size <= tables.end(connection):
        raise Invalid(
            f"entries {first_seq} to {size} cannot be exported",
            code="invalid_range",
            reason=f"there are {tables.end(connection)} entries",
            resolution="export up to the size of a checkpoint, from a number that is not beyond it",
        )
    try:
        return header_line(tables.head_at(connection, first_seq))
    except LookupError:
        raise no_entry(connection, first_seq) from None


def export_lines(connection: apsw.Connection, first_seq: int, end: int) -> list[bytes]:
    """Return the lines of the entries from ``first_seq`` to before ``end``; raises ``NotFound`` if one was dropped."""
    statement = (
        "SELECT substr(nodes, 1, 32), canonical FROM entry JOIN tree ON tree.seq = entry.seq"
        " WHERE entry.seq >= ? AND entry.seq < ? ORDER BY entry.seq"
    )
    lines = [entry_line(leaf, canonical) for leaf, canonical in connection.execute(statement, (first_seq, end))]
    if len(lines) != end - first_seq:
        raise no_entry(connection, first_seq)
    return lines


def no_entry(connection: apsw.Connection, seq: int) -> NotFound:
    """Return the error that says why entry ``seq`` is not there."""
    first = tables.chain(connection)[0]
    dropped = 0 <= seq < first
    return NotFound(
        f"there is no entry {seq}",
        code="entry_not_found",
        reason=f"retention dropped the entries before {first}" if dropped else "the ledger does not reach that far",
        resolution="see an older export" if dropped else "ask for a number below the ledger's size",
    )


def _position(after: str) -> int:
    if not after:
        return -1
    if not after.isascii() or not after.isdigit() or len(after) > 18:  # noqa: PLR2004 - what SQLite counts to
        raise Invalid(
            "the cursor is not one that this server gave out",
            code="invalid_cursor",
            resolution="start again without a cursor and follow next_cursor from there",
        )
    return int(after)


def _take(
    connection: apsw.Connection,
    wanted: EntryFilter,
    limit: int,
    *,
    after: int = -1,
    before: int | None = None,
    descending: bool = False,
) -> list[Sealed]:
    first, end = _time_range(connection, wanted)
    end = end if before is None else min(end, before)
    since = tables.ceiling_ms(wanted.since) if wanted.since else None
    until = tables.floor_ms(wanted.until) if wanted.until else None
    found: list[Sealed] = []
    statement = f"{tables.ENTRIES} WHERE entry.seq = ?1 AND at_ms >= ifnull(?2, at_ms) AND at_ms <= ifnull(?3, at_ms)"
    for seq in _candidates(connection, wanted, max(first, after + 1), end, descending=descending):
        if len(found) >= limit:
            break
        row = connection.execute(statement, (seq, since, until)).get
        if row is not None:
            found.append(tables.sealed(row))
    return found


def _candidates(
    connection: apsw.Connection, wanted: EntryFilter, first: int, end: int, *, descending: bool
) -> Iterator[int]:
    """Yield the numbers of entries from ``first`` to before ``end`` that are of a wanted kind, in order."""
    if wanted.agents is None and not (wanted.actions or wanted.outcomes):
        yield from reversed(range(first, end)) if descending else range(first, end)
        return
    order = "DESC" if descending else "ASC"
    statement = f"SELECT seq FROM posting WHERE facet = ? AND seq >= ? AND seq < ? ORDER BY seq {order}"  # noqa: S608 - one of two words of ours
    lists = [
        (seq for (seq,) in connection.execute(statement, (number, first, end)))
        for number in _facets(connection, wanted)
    ]
    before = None
    for seq in merge(*lists, reverse=descending):
        if seq != before:  # it may be of two wanted agents
            yield seq
        before = seq


def _facets(connection: apsw.Connection, wanted: EntryFilter) -> list[int]:
    return [
        number
        for agent in sorted({tables.ANY_AGENT} if wanted.agents is None else wanted.agents - {tables.ANY_AGENT})
        for number, action, outcome in connection.execute(
            "SELECT number, action, outcome FROM facet WHERE agent = ?", (agent,)
        )
        if (not wanted.actions or action in wanted.actions) and (not wanted.outcomes or outcome in wanted.outcomes)
    ]


def _time_range(connection: apsw.Connection, wanted: EntryFilter) -> tuple[int, int]:
    """Return the first entry that may be wanted, and the first after it that cannot be, by their times.

    An entry is at most ``most_late_ms`` older than the newest before it: so much beyond ``until`` has to be looked at.
    """
    first, end = tables.chain(connection)[0], tables.end(connection)
    if wanted.since is not None:
        first = _first_with(connection, tables.ceiling_ms(wanted.since), first, end)
    if wanted.until is not None:
        late: int = connection.execute("SELECT most_late_ms FROM chain").get
        end = _first_with(connection, tables.floor_ms(wanted.until) + late + 1, first, end)
    return first, end


def _first_with(connection: apsw.Connection, latest_ms: int, low: int, high: int) -> int:
    """Return the first entry whose ``latest_ms``, which never falls, is at least this; ``high`` when there is none."""
    while low < high:
        middle = (low + high) // 2
        if connection.execute("SELECT latest_ms FROM entry WHERE seq = ?", (middle,)).get >= latest_ms:
            high = middle
        else:
            low = middle + 1
    return low
