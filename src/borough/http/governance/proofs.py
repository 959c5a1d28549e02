"""Proof that the ledger is what it was: its key, checkpoints, proofs, and a check on the server."""

from typing import Annotated

from msgspec import Meta, Struct, field

from borough.core.errors import Invalid
from borough.governance.services.proofs import MOST_CHECKED, Checked, Consistency, Inclusion
from borough.http.governance.common import LEDGER_ERRORS, REFUSALS, asker
from borough.http.operations import Access, Answer, Call, Operation, Reply

Number = Annotated[int, Meta(ge=0)]
Hex = Annotated[str, Meta(description="SHA-256 in hex")]


class ProofQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    seq: Annotated[int, Meta(ge=0, description="an entry, for a proof that it is there")] | None = None
    old: Annotated[int, Meta(ge=1, description="a size, for a proof that the ledger only grew since")] | None = field(
        name="from", default=None
    )
    new: Annotated[int, Meta(ge=1, description="the later size; that of the checkpoint by default")] | None = field(
        name="to", default=None
    )


class VerifyQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    first: Annotated[int, Meta(ge=0, description="the number of the first entry")] = field(name="from", default=0)
    limit: Annotated[int, Meta(ge=1, le=MOST_CHECKED)] = MOST_CHECKED


class InclusionProof(Struct, kw_only=True, tag_field="kind", tag="inclusion"):
    """An entry is in the tree that the checkpoint signs (RFC 6962, 2.1.1)."""

    seq: Number
    leaf_index: Number
    tree_size: Number
    leaf: Hex
    hashes: list[Hex]
    checkpoint: str


class ConsistencyProof(Struct, kw_only=True, tag_field="kind", tag="consistency"):
    """The later tree begins with the older one (RFC 6962, 2.1.2)."""

    from_size: Number
    to_size: Number
    from_root: Hex
    to_root: Hex
    hashes: list[Hex]
    checkpoint: str


class VerifyReport(Struct, kw_only=True):
    """What a check on the server found. Who does not trust the server verifies an export instead."""

    ok: bool
    first_seq: Number
    entries: Number
    next_seq: Number | None
    """Where to go on with ``from``; ``null`` at the end."""
    head: str
    """The hash of the last entry that is whole."""
    first_bad: Number | None
    reason: str | None
    checkpoint: str


async def key(call: Call) -> Reply:
    return Reply(status=200, body=f"{await call.state.proofs.key(asker(call))}\n")


async def checkpoint(call: Call) -> Reply:
    return Reply(status=200, body=(await call.state.proofs.checkpoint(asker(call))).note)


async def proof(call: Call) -> InclusionProof | ConsistencyProof:
    query: ProofQuery = call.query
    if (query.seq is None) == (query.old is None) or (query.new is not None and query.old is None):
        raise Invalid(
            "there is no such proof",
            code="invalid_request",
            resolution="give seq, or from (and to)",
        )
    if query.seq is not None:
        return _inclusion(await call.state.proofs.inclusion(asker(call), query.seq))
    return _consistency(await call.state.proofs.consistency(asker(call), query.old, query.new))


async def verify(call: Call) -> VerifyReport:
    query: VerifyQuery = call.query
    return _report(await call.state.proofs.check(asker(call), first_seq=query.first, limit=query.limit))


def _inclusion(found: Inclusion) -> InclusionProof:
    return InclusionProof(
        seq=found.seq,
        leaf_index=found.seq,
        tree_size=found.checkpoint.size,
        leaf=found.leaf.hex(),
        hashes=[each.hex() for each in found.hashes],
        checkpoint=found.checkpoint.note,
    )


def _consistency(found: Consistency) -> ConsistencyProof:
    return ConsistencyProof(
        from_size=found.old,
        to_size=found.new,
        from_root=found.old_root.hex(),
        to_root=found.new_root.hex(),
        hashes=[each.hex() for each in found.hashes],
        checkpoint=found.checkpoint.note,
    )


def _report(found: Checked) -> VerifyReport:
    return VerifyReport(
        ok=found.broken is None,
        first_seq=found.first_seq,
        entries=found.entries,
        next_seq=found.next_seq,
        head=found.head,
        first_bad=found.broken.seq if found.broken else None,
        reason=found.broken.reason if found.broken else None,
        checkpoint=found.checkpoint.note,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/audit/key",
        handler=key,
        access=Access.CALLER,
        summary="The key by which checkpoints are verified",
        tag="audit",
        answers=(Answer(status=200, body=str, description="a verifier key", content_type="text/plain; charset=utf-8"),),
        errors=REFUSALS,
    ),
    Operation(
        method="GET",
        path="/audit/checkpoint",
        handler=checkpoint,
        access=Access.CALLER,
        summary="A signed statement of the ledger's size and root",
        description="A note as in c2sp.org/tlog-checkpoint. Keep it: whoever does can prove later what was there.",
        tag="audit",
        answers=(Answer(status=200, body=str, description="a note", content_type="text/plain; charset=utf-8"),),
        errors={**REFUSALS, **LEDGER_ERRORS},
    ),
    Operation(
        method="GET",
        path="/audit/proof",
        handler=proof,
        access=Access.CALLER,
        summary="That an entry is there (`seq`), or that the ledger only grew (`from`, `to`)",
        tag="audit",
        query=ProofQuery,
        answers=(Answer(status=200, body=InclusionProof | ConsistencyProof, description="a proof"),),
        errors={**REFUSALS, **LEDGER_ERRORS, "entry_not_found": 404, "invalid_range": 400, "invalid_request": 400},
    ),
    Operation(
        method="GET",
        path="/audit/verify",
        handler=verify,
        access=Access.CALLER,
        summary="Check a range of the ledger on the server",
        description="Each entry against its hashes and the one before, and all of them against the signed root.",
        tag="audit",
        query=VerifyQuery,
        streaming=True,
        answers=(Answer(status=200, body=VerifyReport, description="what was found"),),
        errors={**REFUSALS, **LEDGER_ERRORS, "entry_not_found": 404},
    ),
)
