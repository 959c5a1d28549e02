"""Evidence: ``/v1/evidence/{thing}``."""

from starlette.responses import Response

from borough.auth.scopes import Scope
from borough.core.errors import Forbidden
from borough.http.operations import Answer, Call, Handler, Operation
from borough.http.overview.services import OverviewServices, visible
from borough.overview.occurrences import Context

MEDIA_TYPE = "application/gzip"


async def evidence(call: Call) -> Response:
    return await _evidence(call, call.path["thing"])


async def of_run(call: Call) -> Response:
    return await _evidence(call, call.path["run_id"])


async def _evidence(call: Call, word: str) -> Response:
    services: OverviewServices = call.state
    seen = visible(call.principal)
    if Context.GOVERNANCE not in seen:
        raise Forbidden(
            f"the ledger is not shown to {call.principal.id}",
            code="insufficient_scope",
            resolution=f"use the operator's credential, or one with the scope {Scope.ADMIN}",
        )
    subject, made = await services.evidence.export(word, seen, by=call.principal.id)
    name = f"evidence-{subject.kind}-{subject.id}.tar.gz"
    return Response(made, media_type=MEDIA_TYPE, headers={"content-disposition": f'attachment; filename="{name}"'})


def _row(path: str, handler: Handler, summary: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        handler=handler,
        access=Scope.READ,
        summary=summary,
        description=(
            "The ledger's entries with their proofs and the signed checkpoint, the manifest, decisions, approvals and "
            "cost; of a run also its admission, and the digests of patch and logs. `borough verify` needs nothing "
            "else. That it was handed out is recorded, and part of it."
        ),
        tag="evidence",
        streaming=True,
        answers=(Answer(status=200, body=bytes, description="the evidence", content_type=MEDIA_TYPE),),
        errors={
            "thing_not_found": 404,
            "ambiguous": 409,
            "no_evidence": 422,
            "evidence_too_large": 409,
            "ledger_unavailable": 503,
        },
    )


OPERATIONS = (
    _row("/v1/evidence/{thing}", evidence, "What an agent or a run did, with the proof of it, as one file"),
    _row("/v1/runs/{run_id}/evidence", of_run, "What a run did, with the proof of it, as one file"),
)
