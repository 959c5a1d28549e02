"""What a pool's manifest means for its machines: what they may reach, and how strong their walls are at least."""

from dataclasses import dataclass
from typing import Final

from borough.core.errors import Invalid
from borough.fleet.engines import ISOLATION, Engine
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifest_reading import parse_manifest
from borough.governance.trust import TrustLevel

KERNEL_OF_ITS_OWN: Final = 3
ANYWHERE: Final = "*:*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """The bounds of a pool's machines."""

    egress: tuple[str, ...] = ()
    """What may be reached beside the town's server."""
    isolation: int = 0
    """The weakest wall (``engines.ISOLATION``)."""


def confined(manifest: str | None) -> Confined:
    """Return the bounds that a manifest's text sets; without one there is no way out but to the server.

    Raises:
        Invalid: it is no manifest (as ``parse_manifest``).
    """
    if manifest is None:
        return Confined()
    read = parse_manifest(manifest)
    match read.network.policy:
        case NetworkPolicy.FULL:
            egress: tuple[str, ...] = (ANYWHERE,)
        case NetworkPolicy.ALLOWLIST:
            egress = tuple(str(endpoint) for endpoint in read.network.allowlist)
        case _:
            egress = ()
    untrusted = read.trust_level is TrustLevel.UNTRUSTED
    return Confined(egress=egress, isolation=KERNEL_OF_ITS_OWN if untrusted else 0)


def check_wall(manifest: str | None, engine: Engine) -> None:
    """Refuse an engine whose wall is too weak for a manifest.

    Raises:
        Invalid: it is (``isolation_too_weak``), or the manifest is none.
    """
    floor = confined(manifest).isolation
    if ISOLATION[engine] < floor:
        strong = ", ".join(sorted(each.value for each in Engine if ISOLATION[each] >= floor))
        raise Invalid(
            f"{engine.value} isolates less than the manifest's trust level asks for",
            code="isolation_too_weak",
            reason="code of an untrusted agent needs a kernel of its own",
            resolution=f"choose one of {strong}, or raise the trust level",
        )
