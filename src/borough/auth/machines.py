"""How machines of the fleet call the server: by a name of its own, through the proxy of their host.

What came by that name came from inside a machine, whatever address it seems to come from: the proxy takes care that
nothing else is said. So it is let in with a credential only, and counted for the machine, not for the host.
"""

from borough.core.errors import Forbidden

SERVER_NAME = "borough.internal"
SERVER_PORT = 80
MACHINE_HEADER = "x-borough-machine"
"""In which the proxy says whose request it passes on; what a machine says there itself is dropped."""
_LONGEST = 64


def is_machines(host: str | None) -> bool:
    """Tell whether a request with this ``Host`` came from inside a machine."""
    return host is not None and host.partition(":")[0].rstrip(".").lower() == SERVER_NAME


def caller_of(machine: str | None) -> str:
    """Return what stands for the address of such a request."""
    return f"machine {(machine or 'unknown')[:_LONGEST]}"


def check_credential(*, has_one: bool) -> None:
    """Refuse whoever shows nothing, or nothing that this server asks for.

    Raises:
        Forbidden: ``authentication_required``, or ``invalid_credentials``.
    """
    if not has_one:
        raise Forbidden(
            "Authentication required",
            code="authentication_required",
            reason="from inside a machine nothing is done for callers without a credential",
            resolution="send the credential that the run was given as 'Authorization: Bearer <token>'",
        )
    raise Forbidden(
        "Invalid credentials",
        code="invalid_credentials",
        resolution="send the credential that the run was given, as it is",
    )
