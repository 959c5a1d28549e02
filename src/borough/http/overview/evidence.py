"""Evidence: ``/v1/evidence/{thing}``."""

from starlette.responses import Response

from borough.auth.scopes import Scope
from borough.http.operations import Answer, Call, Operation
from borough.http.overview.services import OverviewServices, visible

MEDIA_TYPE = "application/gzip"


async def evidence(call: Call) -> Response:
    services: OverviewServices = call.state
    subject, made = await services.evidence.export(call.path["thing"], visible(call.principal), by=call.principal.id)
    name = f"evidence-{subject.kind}-{subject.id}.tar.gz"
    return Response(made, media_type=MEDIA_TYPE, headers={"content-disposition": f'attachment; filename="{name}"'})


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/evidence/{thing}",
        handler=evidence,
        access=Scope.READ,
        summary="What an agent did, with the proof of it, as one file",
        description=(
            "The ledger's entries with their proofs and the signed checkpoint, the manifest, decisions, approvals and "
            "cost. `borough verify` needs nothing else. That it was handed out is recorded, and part of it."
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
    ),
)
