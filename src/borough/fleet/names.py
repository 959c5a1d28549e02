"""Names in the fleet: of environments, machines, hosts and images."""

import re

from borough.core.errors import Invalid

MOST_NAME_BYTES = 128
MOST_REFERENCE_BYTES = 512
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


def check_name(name: str, *, what: str) -> str:
    """Return ``name`` if ``what`` (an environment, an image …) may be called so.

    Raises:
        Invalid: it may not (``invalid_name``).
    """
    if len(name.encode()) > MOST_NAME_BYTES or not _NAME.fullmatch(name) or ".." in name:
        raise Invalid(
            f"{name[:80]!r} is not a name for {what}",
            code="invalid_name",
            reason="a name has 1 to 128 letters, digits, '-', '_' and '.', no dot first, and no two dots in a row",
            resolution="choose another, as in ci-42",
        )
    return name


def check_reference(reference: str) -> str:
    """Return ``reference`` if a container runtime may be asked for it: registry, path, tag and digest are welcome.

    Raises:
        Invalid: it may not (``invalid_name``).
    """
    if len(reference) > MOST_REFERENCE_BYTES or not _REFERENCE.fullmatch(reference) or ".." in reference:
        raise Invalid(
            f"{reference[:80]!r} is not an image reference",
            code="invalid_name",
            resolution="write it as the runtime does: alpine, nginx:1.27, images.example:5000/tool@sha256:…",
        )
    return reference
