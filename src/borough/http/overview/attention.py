"""What needs a person: ``/v1/attention``."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from borough.auth.scopes import Scope
from borough.core.clock import rfc3339
from borough.core.paging import DEFAULT_LIMIT, PageRequest, decode_cursor, encode_cursor
from borough.http.operations import Answer, Call, Operation, Reply
from borough.http.overview.services import OverviewServices, visible
from borough.http.overview.wire import Limit, Subject, subject_view
from borough.http.town.wire import Timestamp
from borough.overview.attention import Kind, Need, Settling

KindWord = Literal[
    "approval", "question", "budget", "host", "stuck_lease", "orphan_task", "vm", "pool", "run", "dead_letter"
]  # fmt: skip


class AttentionQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None
    kind: KindWord | None = None


class Action(Struct, kw_only=True):
    """A request that settles it, and the command that sends it."""

    label: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    command: str
    body: dict[str, Any] | None = None


class Item(Struct, kw_only=True):
    """Something that a person has to decide or mend."""

    id: str
    kind: KindWord
    title: str
    why: str
    since: Timestamp
    urgency: Annotated[
        Literal["now", "soon", "whenever"],
        Meta(description="somebody waits; something is not as it should be; it is over, and may be looked at"),
    ]
    subject: Subject
    safe_default: Annotated[str, Meta(description="what happens if nobody acts")]
    deadline: Annotated[Timestamp | None, Meta(description="when that happens, where it is known")]
    actions: list[Action]


class Attention(Struct, kw_only=True):
    items: list[Item]
    next_cursor: str | UnsetType | None = UNSET


async def attention(call: Call) -> object:
    query: AttentionQuery = call.query
    services: OverviewServices = call.state
    page = PageRequest(limit=query.limit, after=decode_cursor(query.cursor) if query.cursor else "")
    kind = None if query.kind is None else Kind(query.kind)
    found = await services.attention.page(visible(call.principal), page, kind=kind)
    cursor = None if found.after is None else encode_cursor(found.after)
    link = {} if cursor is None else {"link": f'<?limit={query.limit}&cursor={cursor}>; rel="next"'}
    items = [_item(need) for need in found.items]
    return Reply(status=200, body=Attention(items=items, next_cursor=cursor), headers=link)


def _item(need: Need) -> Item:
    return Item(
        id=need.id,
        kind=need.kind.value,
        title=need.title,
        why=need.why,
        since=rfc3339(need.since),
        urgency=need.urgency.value,
        subject=subject_view(need.subject),
        safe_default=need.safe_default,
        deadline=None if need.deadline is None else rfc3339(need.deadline),
        actions=[_action(each) for each in need.settled_by],
    )


def _action(settling: Settling) -> Action:
    return Action(
        label=settling.label,
        method=settling.method,  # type: ignore[arg-type]  # one of the three
        path=settling.path,
        command=settling.command,
        body=None if settling.body is None else dict(settling.body),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/attention",
        handler=attention,
        access=Scope.READ,
        summary="What needs a person, what happens if nobody acts, and what settles it",
        description=(
            "One queue over all contexts: calls that wait for agreement, questions, spent budgets, hosts that do not "
            "answer, leases that nobody ends, orphans, machines in trouble, runs that failed, dead letters; each kind "
            "with what has waited longest first. A page may be short and have a next one."
        ),
        tag="attention",
        query=AttentionQuery,
        answers=(Answer(status=200, body=Attention, description="by kind, then oldest first"),),
        errors={"invalid_cursor": 400},
    ),
)
