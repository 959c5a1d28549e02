"""What can go wrong with boxes, as the kinds of errors that callers know."""

from collections.abc import Mapping

from borough.core.errors import Unavailable
from borough.governance.manifests import Layer


def start_failed(what: str, reason: str) -> Unavailable:
    """Return the error for a box or program that could not be started."""
    return Unavailable(
        f"{what} cannot be started",
        code="start_failed",
        reason=reason,
        resolution="run borough doctor, which says what this machine allows, and check the agent's command",
    )


def enforcement_missing(missing: Mapping[Layer, str]) -> Unavailable:
    """Return the error for layers that are required and do not hold here."""
    names = ", ".join(sorted(layer.value for layer in missing))
    return Unavailable(
        f"this host cannot enforce what is required: {names}",
        code="enforcement_missing",
        reason="; ".join(f"{layer.value}: {reason}" for layer, reason in sorted(missing.items())),
        resolution="run the agent on a host that can, or take the layer out of the manifest's require list",
        details={"missing": sorted(layer.value for layer in missing)},
    )


def keeper_unavailable(reason: str) -> Unavailable:
    """Return the error for a keeper that does not start or answer."""
    return Unavailable(
        "the keeper of boxes does not answer",
        code="start_failed",
        reason=reason,
        resolution="see keeper.log in the state folder; borough doctor says whether user namespaces are allowed here",
    )
