"""Running the tools that images are made with; what they say becomes our errors."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from borough.adapters import process
from borough.core.errors import Unavailable

_WITHIN_S = 1800.0
_AGAIN = "see the reason; nothing of the image is left, so it can be tried again"
_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    otherwise: str = _AGAIN,
) -> bytes:
    """Run a tool that has to succeed, and return what it printed; ``otherwise`` is the way out if it fails. Blocks.

    Raises:
        Unavailable: it is not here (``program_missing``) or failed (``image_failed``), with its own words.
    """
    finished = process.run(argv, env={**_ENVIRONMENT, **(env or {})}, cwd=cwd, stdin=stdin, timeout_s=_WITHIN_S)
    if finished.code != 0:
        said = f"{os.path.basename(argv[0])} said: {finished.words}"  # noqa: PTH119 - a name
        raise image_failed(said, " ".join(argv), otherwise=otherwise)
    return finished.stdout


def image_failed(said: str, tried: str, *, otherwise: str = _AGAIN) -> Unavailable:
    """Return the error for an image that could not be made."""
    return Unavailable(
        f"the image could not be made: {said}",
        code="image_failed",
        reason=f"tried: {tried[:500]}",
        resolution=otherwise,
    )
