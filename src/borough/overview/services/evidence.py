"""Handing out evidence: what was done, and the proof of it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

import orjson

from borough.core.clock import rfc3339, utc_now
from borough.core.errors import Conflict, Invalid, NotFound
from borough.core.ids import new_id
from borough.core.paging import PageRequest
from borough.governance.actions import Action
from borough.governance.checkpoints import VerifierKey
from borough.governance.ledger import Sealed
from borough.governance.merkle import HASH_BYTES, NodeHash, inclusion_proof
from borough.governance.ports.ledger import EntryFilter, Ledger
from borough.governance.services.asking import daemon
from borough.governance.services.recording import Recorder
from borough.overview.evidence import EntryProof, Gathered, contents_of, make_evidence
from borough.overview.occurrences import Context, Subject
from borough.overview.ports import EvidenceOf
from borough.overview.services.explaining import ExplainService

MOST_ENTRIES: Final = 20_000
_PAGE: Final = 1_000
_DECISIONS: Final = frozenset({"denied", "pending", "timeout"})


class EvidenceService:
    """Makes evidence; that it was handed out, and what, is recorded in the ledger and so a part of it."""

    def __init__(
        self,
        explain: ExplainService,
        sources: Sequence[EvidenceOf],
        ledger: Ledger,
        recorder: Recorder,
        key: VerifierKey,
    ) -> None:
        self._explain = explain
        self._sources = {source.kind: source for source in sources}
        self._ledger = ledger
        self._recorder = recorder
        self._key = key

    async def export(self, word: str, contexts: Collection[Context], *, by: str) -> tuple[Subject, bytes]:
        """Return the thing that a word names, and the evidence of it.

        Raises:
            NotFound: it names nothing (``thing_not_found``).
            Conflict: it may mean several things (``ambiguous``), or has too many entries (``evidence_too_large``).
            Invalid: there is no evidence of such a thing (``no_evidence``).
            Unavailable: the ledger cannot be written (``ledger_unavailable``).
        """
        subject = await self._explain.the_one(word, contexts)
        source = self._sources.get(subject.kind)
        if source is None:
            raise Invalid(
                f"there is no evidence of the {subject.kind} {subject.id}",
                code="no_evidence",
                resolution=f"ask for that of one of these: {', '.join(sorted(self._sources))}",
            )
        gathered = await source.gather(subject)
        entries = await self._entries(gathered)
        files = {**gathered.files, "decisions.json": _decisions(entries)}
        contents = contents_of(subject, files, made_at=rfc3339(utc_now()))
        last = await self._recorded(subject, contents, by=by)
        signed = await self._ledger.sign_now()
        proven = await self._proven((*entries, last), signed.size)
        return subject, make_evidence(files, contents, proven, note=signed.note, key=self._key)

    async def _entries(self, gathered: Gathered) -> list[Sealed]:
        found: dict[int, Sealed] = {}
        for entry_id in gathered.entries:
            with suppress(NotFound):  # retention dropped it
                entry = await self._ledger.named(entry_id)
                found[entry.seq] = entry
        wanted, after = EntryFilter(agents=gathered.agents), ""
        while True:
            page = await self._ledger.find(wanted, PageRequest(limit=_PAGE, after=after))
            found.update((each.seq, each) for each in page.items)
            if len(found) > MOST_ENTRIES:
                raise Conflict(
                    f"more than {MOST_ENTRIES} entries of the ledger belong to it",
                    code="evidence_too_large",
                    resolution="hand out the whole ledger instead: GET /audit/export",
                )
            if page.after is None:
                return [found[seq] for seq in sorted(found)]
            after = page.after

    async def _recorded(self, subject: Subject, contents: bytes, *, by: str) -> Sealed:
        data = {
            "subject_kind": subject.kind,
            "subject_id": subject.id,
            "contents_sha256": sha256(contents).hexdigest(),
            "by": by,
        }
        detail = f"evidence of the {subject.kind} {subject.name or subject.id} was handed out"
        return await self._recorder.event(
            daemon(f"evidence:{new_id()}"), Action.EVIDENCE_EXPORT, detail=detail, data=dict(data)
        )

    async def _proven(self, entries: Sequence[Sealed], size: int) -> list[EntryProof]:
        """Return each entry with its proof: made once to learn which nodes are needed, and once with them."""
        wanted: dict[tuple[int, int], None] = {}

        def learn(level: int, place: int) -> bytes:
            wanted[level, place] = None
            return bytes(HASH_BYTES)

        for entry in entries:
            inclusion_proof(entry.seq, size, learn)
        nodes = await self._ledger.nodes(wanted)
        node: NodeHash = lambda level, place: nodes[level, place]  # noqa: E731 - the shape that proofs are made with
        return [
            EntryProof(seq=entry.seq, canonical=entry.canonical, hashes=inclusion_proof(entry.seq, size, node))
            for entry in entries
        ]


def _decisions(entries: Sequence[Sealed]) -> bytes:
    """Return what was decided, with the rule that decided it; the entries themselves say the rest."""
    fields: list[Mapping[str, Any]] = [orjson.loads(entry.canonical) for entry in entries]
    told = [
        {
            "seq": one["seq"],
            "at": one["timestamp"],
            "action": one["action"],
            "outcome": one["outcome"],
            "rule": one.get("decision_rule"),
            "detail": one["detail"],
        }
        for one in fields
        if one.get("decision_rule") or one["outcome"] in _DECISIONS
    ]
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
