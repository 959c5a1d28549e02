"""Admission: may this run be, where, and under what, as one pure decision that always says why.

The isolation that is asked for is a floor. Trust raises it, never lowers it; a place that cannot give it is not used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from borough.fleet.engines import ISOLATION, Capability, Engine
from borough.fleet.placement import NotPlaced, Plan
from borough.governance.hosts import NetworkPolicy, reaches
from borough.governance.manifests import Layer, Manifest
from borough.governance.trust import TrustLevel
from borough.runs.orders import Budget, Isolation, RunOrder, remote_of

FLOORS: Mapping[TrustLevel, Isolation] = {
    TrustLevel.UNTRUSTED: Isolation.VM,
    TrustLevel.SANDBOXED: Isolation.PROCESS,
    TrustLevel.TRUSTED: Isolation.PROCESS,
    TrustLevel.PRIVILEGED: Isolation.PROCESS,
}
"""The weakest wall for each trust level: code of nobody's has a kernel of its own."""

LAYERS: Mapping[Layer, Capability] = {
    Layer.CGROUPS: Capability.MEMORY_LIMIT,
    Layer.EGRESS_PROXY: Capability.EGRESS_ALLOWLIST,
}
"""What a manifest's required layers mean for a machine; the others every engine has by what it is."""

ALWAYS = frozenset({Capability.EXEC, Capability.FILES})
PREFERRED: tuple[Engine, ...] = (
    Engine.BUBBLEWRAP, Engine.DOCKER, Engine.JAIL, Engine.FIRECRACKER, Engine.QEMU, Engine.BHYVE,
)  # fmt: skip
"""The lightest first."""
_BY_PROXY = frozenset({"https", "http"})
"""How remotes can be cloned through a machine's proxy."""
EXPECTED_START_MS: Mapping[Engine, int] = {
    Engine.BUBBLEWRAP: 300,
    Engine.DOCKER: 1_000,
    Engine.JAIL: 1_000,
    Engine.FIRECRACKER: 2_000,
    Engine.QEMU: 30_000,
    Engine.BHYVE: 30_000,
}
"""Until there is something measured."""
EXPECTED_WARM_MS = 80
READY_TOLD = "a machine stands ready"
NO_ROOM_TOLD = "there is no room for it now: it waits for some"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something is, or is not, so."""

    subject: str
    """What it is about: an engine, a host, the budget."""
    reason: str


class Start(StrEnum):
    """Whether a machine has to be made first."""

    WARM = "warm"
    """One stands ready."""
    COLD = "cold"


NOTHING_MEASURED: Mapping[tuple[Engine, Start], int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The decision about a run."""

    ok: bool
    image: str
    isolation: Isolation
    """The floor that holds."""
    trust_level: TrustLevel
    engine: Engine | None = None
    host_id: str | None = None
    image_digest: str | None = None
    capabilities: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    """What may be reached from inside; ``*``: anything."""
    budget: Budget = field(default_factory=Budget)
    tools: bool = False
    """Whether the server, and with it the agent's tools, is reached from inside."""
    start: Start = Start.COLD
    expected_start_ms: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def why_not(self) -> str:
        """Return the reasons in one line."""
        return "; ".join(f"{each.subject}: {each.reason}" for each in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A machine that stands ready, and is just as it is wanted."""

    host_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a machine of one engine would go now, or the one that is there."""

    engine: Engine
    plan: Plan | NotPlaced | Ready
    tools: bool = False
    """Whether it would reach the server."""
    later: bool = False
    """Whether some host could take it once it has room, where none can now."""


def floor_of(trust: TrustLevel, asked: Isolation) -> Isolation:
    """Return the weakest wall that may be around a run: never weaker than was asked for, nor than trust allows."""
    return max(asked, FLOORS[trust], key=lambda each: each.rank)


def allowed_engines(floor: Isolation, asked: Engine | None) -> tuple[tuple[Engine, ...], tuple[Reason, ...]]:
    """Return the engines that may be used, the lightest first, and why not the others that could have been meant."""
    wanted = PREFERRED if asked is None else (asked,)
    allowed = tuple(engine for engine in wanted if ISOLATION[engine] >= floor.rank)
    weak = (engine for engine in wanted if engine not in allowed)
    told = f"it isolates less than {floor.value}, which is the least here"
    return allowed, tuple(Reason(subject=engine.value, reason=told) for engine in weak)


def needs_of(manifest: Manifest) -> frozenset[Capability]:
    """Return what an engine has to be able to do for a run under ``manifest``, beyond its network."""
    return ALWAYS | {LAYERS[layer] for layer in manifest.require if layer in LAYERS}


def domains_of(manifest: Manifest) -> tuple[str, ...]:
    """Return what may be reached from inside, as the manifest lists it."""
    match manifest.network.policy:
        case NetworkPolicy.FULL:
            return ("*",)
        case NetworkPolicy.ALLOWLIST:
            return tuple(str(endpoint) for endpoint in manifest.network.allowlist)
        case _:
            return ()


def budget_of(manifest: Manifest, asked: Budget) -> Budget:
    """Return the budget that holds: the less of what was asked for and what the manifest gives."""
    given = manifest.budget
    return Budget(
        tokens=_less(given.tokens, asked.tokens),
        cost_micros=_less(given.cost_micros, asked.cost_micros),
        tool_calls=_less(given.calls, asked.tool_calls),
    )


def admit(
    order: RunOrder,
    manifest: Manifest,
    places: Sequence[Place],
    *,
    digests: Callable[[str], str | None] = lambda host_id: None,  # noqa: ARG005 - its name is its meaning
    measured_ms: Mapping[tuple[Engine, Start], int] = NOTHING_MEASURED,
) -> Admission:
    """Decide about a run; ``places`` tells for each engine that may be used where its machine would go.

    ``digests`` returns the digest of the run's image on a host, ``measured_ms`` how long starts took lately (ms).
    """
    floor = floor_of(manifest.trust_level, order.isolation)
    allowed, reasons = allowed_engines(floor, order.engine)
    unplaced: list[Reason] = []
    engine: Engine | None = None
    host_id = why = ""
    start = Start.COLD
    tools = False
    for place in sorted((each for each in places if each.engine in allowed), key=lambda each: _rank(each.engine)):
        if not isinstance(place.plan, NotPlaced):
            engine, tools = place.engine, place.tools
            start, host_id, why = _placed(place.plan)
            break
        unplaced += _unplaced(place.engine, place.plan)
    if engine is None and not (reasons or unplaced):
        unplaced.append(Reason(subject="hosts", reason="there is none that could take it"))
    if engine is None and (later := _first_later(places, allowed)) is not None:
        engine, tools = later.engine, later.tools
        unplaced.insert(0, Reason(subject=later.engine.value, reason=NO_ROOM_TOLD))
    chosen = (Reason(subject=host_id, reason=why),) if host_id else ()
    unmet = (*_commandless(order, manifest), *_unreached(order, manifest, is_open=is_open(manifest, tools=tools)))
    return Admission(
        ok=engine is not None and not unmet,
        engine=engine,
        host_id=host_id or None,
        image=order.image,
        image_digest=digests(host_id) if host_id else None,
        isolation=floor,
        trust_level=manifest.trust_level,
        capabilities=tuple(str(capability) for capability in manifest.capabilities),
        domains=domains_of(manifest),
        budget=budget_of(manifest, order.budget),
        tools=tools,
        start=start,
        expected_start_ms=0 if engine is None else expected_start_ms(engine, start, measured_ms),
        reasons=(*chosen, *unmet, *(() if host_id else (*reasons, *unplaced))),
    )


def expected_start_ms(engine: Engine, start: Start, measured_ms: Mapping[tuple[Engine, Start], int]) -> int:
    """Return after how many milliseconds a command is expected to run: as it was lately, or as it usually is."""
    usual = EXPECTED_WARM_MS if start is Start.WARM else EXPECTED_START_MS[engine]
    return measured_ms.get((engine, start), usual)


def reserved_elsewhere(admission: Admission, host_id: str | None, waits_for: Sequence[str]) -> Admission:
    """Return an admission whose place turned out, when it was reserved, to be another, or to be in the line (``None``,
    with what is waited for).
    """
    if host_id is not None:
        return replace(admission, host_id=host_id, reasons=(Reason(subject=host_id, reason="it has room now"),))
    subject = "hosts" if admission.engine is None else admission.engine.value
    told = [each.partition(": ") for each in waits_for]
    reasons = (Reason(subject=subject, reason=NO_ROOM_TOLD), *(Reason(subject=one, reason=why) for one, _, why in told))
    return replace(admission, host_id=None, reasons=reasons)


def _placed(plan: Plan | Ready) -> tuple[Start, str, str]:
    """Return how it starts, on which host, and why there."""
    if isinstance(plan, Ready):
        return Start.WARM, plan.host_id, READY_TOLD
    return Start.COLD, plan.placed[0].host_id, plan.placed[0].why


def _first_later(places: Sequence[Place], allowed: Sequence[Engine]) -> Place | None:
    waits = [each for each in places if each.later and each.engine in allowed]
    return min(waits, key=lambda each: _rank(each.engine), default=None)


def _commandless(order: RunOrder, manifest: Manifest) -> tuple[Reason, ...]:
    if order.command or manifest.program.command is not None:
        return ()
    return (Reason(subject="command", reason="neither the request nor the manifest says what is to be run inside"),)


def _unreached(order: RunOrder, manifest: Manifest, *, is_open: bool) -> tuple[Reason, ...]:
    """Return why a remote cannot be cloned inside: what is brought in comes the way that the manifest leaves open."""
    remote = None if order.source is None or order.source.url is None else remote_of(order.source.url)
    if remote is None or is_open:
        return ()
    if remote.scheme not in _BY_PROXY:
        why = f"{remote.scheme}:// does not pass the proxy of its machine: name the remote by https:// or http://"
        return (Reason(subject="source", reason=why),)
    network = manifest.network
    if reaches(network.policy, network.allowlist, host=remote.host, port=remote.port) is not None:
        return ()
    why = f"the manifest's network ({network.policy.value}) does not reach {remote.host}:{remote.port}"
    return (Reason(subject="source", reason=f"{why}: put it on its allowlist"),)


def is_open(manifest: Manifest, *, tools: bool) -> bool:
    """Tell whether a machine has a network without a list: only where there is no way by list that leads here too."""
    return manifest.network.policy is NetworkPolicy.FULL and not tools


def _unplaced(engine: Engine, plan: NotPlaced) -> list[Reason]:
    hosts = [Reason(subject=host, reason=f"{engine.value}: {reason}") for host, reason in plan.hosts.items()]
    return hosts or [Reason(subject=engine.value, reason=plan.reason)]


def _rank(engine: Engine) -> int:
    return PREFERRED.index(engine)


def _less(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return min(known) if known else None
