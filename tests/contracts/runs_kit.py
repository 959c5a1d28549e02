"""Runs to put into stores and rules."""

from datetime import UTC, datetime
from typing import Any

from borough.core.ids import AgentId, TaskId, derived_id, new_id
from borough.fleet.engines import Engine
from borough.fleet.vms import vm_id_of
from borough.governance.trust import TrustLevel
from borough.runs.admission import Admission
from borough.runs.orders import Isolation, RunOrder
from borough.runs.runs import Attempt, Machine, Run, RunAgent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def a_run(run_id: str | None = None, *, labels: dict[str, str] | None = None, **other: Any) -> Run:
    id_ = run_id or new_id()
    run: dict[str, Any] = {
        "id": id_,
        "order": RunOrder(task="a task", command=("true",), image="base", labels=labels or {}),
        "manifest": "text",
        "agent": RunAgent(
            id=AgentId(derived_id(id_, "agent")),
            name="worker",
            trust_level=TrustLevel.SANDBOXED,
            manifest_digest="0" * 64,
        ),
        "admission": Admission(
            ok=True,
            image="base",
            isolation=Isolation.PROCESS,
            trust_level=TrustLevel.SANDBOXED,
            engine=Engine.BUBBLEWRAP,
        ),
        "task_id": TaskId(derived_id(id_, "task")),
        "worker_id": AgentId(derived_id(id_, "worker")),
        "created_by": "operator",
        "created_at": NOON,
        "since": NOON,
    }
    return Run(**{**run, **other})


def an_attempt(number: int = 1, **other: Any) -> Attempt:
    machine = Machine(env_id=f"run-{number}", vm_id=vm_id_of(new_id()), engine=Engine.BUBBLEWRAP)
    attempt: dict[str, Any] = {
        "number": number, "epoch": number, "machine": machine, "token_name": f"run.{number}", "begun_at": NOON
    }  # fmt: skip
    return Attempt(**{**attempt, **other})
