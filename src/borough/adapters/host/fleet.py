"""A fleet's controller over HTTP: the port ``House`` of runs, for a program that is not the controller itself.

The inside of machines is asked for as at a host: both programs have those routes alike.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from borough.adapters.host import wire
from borough.adapters.host.connection import Answer, HostConnection
from borough.adapters.host.http import HttpHost
from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.fleet.engines import Engine, Offer
from borough.fleet.environments import EnvState
from borough.fleet.orders import EnvOrder, Ids
from borough.fleet.placement import NotPlaced, Placed, Plan
from borough.fleet.vms import Action, Vm, VmId, VmSpec
from borough.runs.ports import Made, Reserved

LOOK_AGAIN_S: Final = 1.0


class SaidEnv(Struct, kw_only=True):
    state: EnvState


class SaidDetail(Struct, kw_only=True):
    env: SaidEnv
    vms: list[wire.SaidVm]
    warnings: list[str] = []
    operation_id: str | None = None


class SaidPlaced(Struct, kw_only=True):
    host_id: str
    why: str
    others: dict[str, str]


class SaidPreview(Struct, kw_only=True):
    placed: list[SaidPlaced]
    refused: str = ""
    number: int = 0
    hosts: dict[str, str] = {}
    later: list[str] = []


class SaidHost(Struct, kw_only=True):
    offers: list[wire.SaidOffer] = []


class SaidHostsImage(Struct, kw_only=True):
    name: str
    host_id: str
    digest: str | None = None


class FleetConnection(HostConnection):
    """The connection to a controller, with errors of its own."""

    def said(self, status: int, body: bytes, wanted: type[Answer]) -> Answer:
        """Return what the controller says."""
        try:
            return super().said(status, body, wanted)
        except Forbidden as error:
            if error.code != "host_refused_key":
                raise
            raise Forbidden(
                f"the fleet at {self.addr} does not accept this program's key",
                code="fleet_refused_key",
                reason=error.reason,
                resolution="start both with the same TT_API_KEY",
            ) from None

    def _no_host(self, status: int) -> Unavailable:
        return Unavailable(
            f"what answers at {self.addr} is no fleet",
            code="not_a_fleet",
            reason=f"it answered {status}, and not as a controller does",
            resolution="check BOROUGH_FLEET: it is the address of a tt-ctl, as in http://127.0.0.1:9200",
        )

    def unreachable(self, reason: str) -> Unavailable:
        """Return the error for a controller that does not answer."""
        return Unavailable(
            f"the fleet at {self.addr} does not answer",
            code="fleet_unreachable",
            reason=reason,
            resolution="see whether its tt-ctl runs and can be reached; it is asked again by itself",
            details={"retry_after_s": 1},
        )


class HttpFleet(HttpHost):
    """One controller at an address."""

    connects_by = FleetConnection

    def __repr__(self) -> str:
        return f"HttpFleet({self._host.addr!r})"

    async def preview(self, order: EnvOrder) -> Plan | NotPlaced:
        """Return where machines would go, or why not and where later."""
        said = await self._host.call("POST", "/api/envs", SaidPreview, params={"dry_run": "1"}, json=env_body(order))
        if said.refused:
            number = min(said.number, len(order.specs) - 1)
            later = frozenset(said.later)
            return NotPlaced(
                number=number, spec=order.specs[number], reason=said.refused, hosts=said.hosts, later=later
            )  # fmt: skip
        placed = zip(order.specs, said.placed, strict=False)
        return Plan(
            placed=tuple(
                Placed(spec=spec, host_id=each.host_id, why=each.why, others=each.others) for spec, each in placed
            )
        )

    async def offers(self, engine: Engine) -> Sequence[Offer]:
        """Return what each host that has an engine can do with it."""
        found = await self._host.get("/api/hosts", list[SaidHost])
        return [
            self._host.meant(wire.offer_of, each)
            for host in found
            for each in host.offers
            if each.engine == engine.value
        ]

    async def digests(self, image: str) -> Mapping[str, str]:
        """Return for each host the digest of an image as it is there."""
        found = await self._host.get("/api/images", list[SaidHostsImage])
        return {one.host_id: one.digest for one in found if one.name == image and one.digest is not None}

    async def make(self, order: EnvOrder, ids: Ids, *, reserved: Reserved) -> Made:
        """Make an environment; sent again with the same ids it means the same one."""
        said = await self._host.call(
            "POST", "/api/envs", SaidDetail, json=env_body(order), within_s=self._act_s, headers=_key(ids.operation)
        )
        made = self._made(said)
        await reserved(made)
        return made

    async def detail(self, env_id: str) -> Made:
        """Return an environment."""
        return self._made(await self._host.get(f"/api/envs/{env_id}", SaidDetail))

    async def settles(self, operation_id: str, *, timeout_s: float) -> None:
        """Return when an operation is over, or the time is."""
        path, wait = f"/api/operations/{operation_id}", {"wait": str(timeout_s)}
        try:
            await self._host.call("GET", path, msgspec.Raw, params=wait, within_s=timeout_s + self._host.answer_s)
        except NotFound:  # an earlier request made the environment, and its operation is not known here
            await asyncio.sleep(min(LOOK_AGAIN_S, timeout_s))

    async def act(self, vm_id: VmId, action: Action) -> Vm:
        """Start or pause a machine."""
        return await self._act(vm_id, action.value)

    async def delete(self, env_id: str, *, operation_id: str, waits: bool) -> None:
        """Have an environment deleted."""
        later = {"async": str(int(not waits))}
        within_s = self._act_s if waits else None
        await self._host.call(
            "DELETE", f"/api/envs/{env_id}", msgspec.Raw, params=later, within_s=within_s, headers=_key(operation_id)
        )

    async def change(
        self, env_id: str, *, lifetime_s: int, owner: str | None = None, labels: Mapping[str, str] | None = None
    ) -> None:
        """Let an environment live for so long from now, and be another owner's."""
        body: dict[str, object] = {"lifetime": lifetime_s}
        body |= {} if owner is None else {"owner": owner}
        body |= {} if labels is None else {"labels": dict(labels)}
        await self._host.call("PATCH", f"/api/envs/{env_id}", msgspec.Raw, json=body)

    def _made(self, said: SaidDetail) -> Made:
        vms = tuple(self._host.meant(wire.vm_of, each) for each in said.vms)
        return Made(state=said.env.state, vms=vms, warnings=tuple(said.warnings), operation=said.operation_id)


def env_body(order: EnvOrder) -> dict[str, object]:
    """Return the body that asks for an environment."""
    constraints = order.constraints
    return {
        "id": order.id,
        "owner": order.owner,
        "ssh_keys": [],
        "vms": [_spec_body(spec) for spec in order.specs],
        "lifetime": order.lifetime_s,
        "labels": dict(order.labels),
        "on_expiry": order.on_expiry.value,
        "placing": {
            "spread": constraints.spread.value,
            "labels": dict(constraints.labels),
            "near": sorted(constraints.near),
            "apart": sorted(constraints.apart),
            "isolation": constraints.isolation,
        },
        "private_network": order.private_network,
        "wait_for_capacity": order.wait_s,
    }


def _spec_body(spec: VmSpec) -> dict[str, object]:
    return {
        "image": spec.image,
        "engine": spec.engine.value,
        "cpu": spec.size.cpu,
        "mem": spec.size.mem_mib,
        "disk": spec.size.disk_mib,
        "ports": list(spec.ports),
        "deny_outgoing": spec.deny_outgoing,
        "ssh_keys": list(spec.ssh_keys),
        "egress_allowlist": list(spec.egress_allowlist),
        "command": list(spec.command),
        "env": dict(spec.env),
        "required": sorted(spec.required),
    }


def _key(operation_id: str) -> dict[str, str]:
    return {"idempotency-key": operation_id}
