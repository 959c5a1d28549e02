"""Messages about what agents keep and tell each other, and the ledger of it all."""

from collections.abc import Mapping

from borough.ipc.rows import AGENT, Variant, ok, one, row, same, wrapped

_KEY = {"id": "agent_id", "key": "key"}
_SEVERAL = frozenset({"action", "outcome"})


RECORDS: Mapping[str, Variant] = {
    "AuditQuery": Variant(
        rows=(
            row(
                "GET",
                "/agents/{id}/audit",
                parameters=AGENT,
                query=same("limit", "since", "until", "action", "outcome"),
                lists=_SEVERAL,
            ),
            row(
                "GET",
                "/audit",
                query=same("limit", "cursor", "order", "since", "until", "action", "outcome"),
                lists=_SEVERAL,
                defaults={"order": "newest"},
            ),
        ),
        answer=wrapped("Entries", "entries"),
    ),
    "AuditEntry": one(
        row("GET", "/audit/entries/{seq}", parameters=same("seq"), numbers=frozenset({"seq"})),
        wrapped("Entry", "entry"),
    ),
    "AuditKey": one(row("GET", "/audit/key"), wrapped("Key", "key")),
    "AuditCheckpoint": one(row("GET", "/audit/checkpoint"), wrapped("Checkpoint", "note")),
    "AuditProof": one(row("GET", "/audit/proof", query=same("seq", "from", "to")), wrapped("Proof")),
    "AuditVerify": one(row("GET", "/audit/verify", query=same("from", "limit")), wrapped("Verified")),
    "ObservationAppend": one(
        row("POST", "/agents/{id}/observations", parameters=AGENT, body=same("action", "result", "tags", "metadata")),
        wrapped("Observation"),
    ),
    "ObservationQuery": one(
        row(
            "GET",
            "/agents/{id}/observations",
            parameters=AGENT,
            query=same("since", "until", "keyword", "tag", "limit"),
        ),
        wrapped("Observations", "observations"),
    ),
    "MemoryRead": one(row("GET", "/agents/{id}/memory/{key...}", parameters=_KEY), wrapped("Value")),
    "MemoryWrite": one(
        row("PUT", "/agents/{id}/memory/{key...}", parameters=_KEY, body=same("value", "ttl_secs")), wrapped("Value")
    ),
    "MemoryWriteCas": one(
        row(
            "PUT",
            "/agents/{id}/memory/{key...}",
            parameters=_KEY,
            body=same("value", "ttl_secs", "expected_version"),
        ),
        wrapped("Value"),
    ),
    "MemoryDelete": one(row("DELETE", "/agents/{id}/memory/{key...}", parameters=_KEY), ok),
    "MemoryList": one(
        row("GET", "/agents/{id}/memory", parameters=AGENT, query=same("pattern", "limit", "cursor")),
        wrapped("Keys", "keys"),
    ),
    "BlackboardRead": one(row("GET", "/blackboard/{key...}", parameters=same("key")), wrapped("Value"), own="agent_id"),
    "BlackboardWrite": one(
        row("PUT", "/blackboard/{key...}", parameters=same("key"), body=same("value", "ttl_secs")),
        wrapped("Value"),
        own="agent_id",
    ),
    "BlackboardCas": one(
        row("POST", "/blackboard/{key...}", parameters=same("key"), body=same("expected", "new_value", "ttl_secs")),
        wrapped("Value"),
        own="agent_id",
    ),
    "BlackboardDelete": one(row("DELETE", "/blackboard/{key...}", parameters=same("key")), ok, own="agent_id"),
    "BlackboardList": one(
        row("GET", "/blackboard", query=same("pattern", "limit", "cursor")), wrapped("Keys", "keys"), own="agent_id"
    ),
    "BusPublish": one(row("POST", "/bus/messages", body=same("topic", "payload", "agent_id")), ok),
    "BusSubscribe": one(row("PUT", "/agents/{id}/subscriptions", parameters=AGENT, body=same("pattern")), ok),
    "BusUnsubscribe": one(row("DELETE", "/agents/{id}/subscriptions", parameters=AGENT, query=same("pattern")), ok),
    "BusSubscriptions": one(
        row("GET", "/agents/{id}/subscriptions", parameters=AGENT), wrapped("Subscriptions", "patterns")
    ),
    "BusPoll": one(row("POST", "/agents/{id}/mailbox/poll", parameters=AGENT), wrapped("Messages")),
}
