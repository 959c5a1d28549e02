"""Changing a manifest's document before it is run: other capabilities, and paths that begin at the root."""

from collections.abc import Sequence
from posixpath import isabs, join, normpath

from borough.core.errors import BoroughError, Forbidden, Invalid
from borough.governance.capabilities import Capability, parse_capability
from borough.governance.documents import Plain
from borough.governance.manifests import Manifest
from borough.governance.rules import Effect

Document = dict[str, Plain]
_SEEN_BY_ALL = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/workspace")
"""Where every agent finds the system's programs, and its own files."""


def with_capabilities(document: Document, wanted: Sequence[str]) -> Document:
    """Return ``document`` with ``wanted`` for its capabilities; what its rules allow beyond them goes too."""
    spec = _spec(document)
    narrowed: Document = {**spec, "capabilities": [*wanted]}
    policy = spec.get("policy")
    if isinstance(policy, list):
        kept = [one for capability in wanted if (one := _parsed(capability)) is not None]
        narrowed["policy"] = [rule for rule in policy if _holds_within(rule, kept)]
    return {**document, "spec": narrowed}


def with_program(document: Document, command: str) -> Document:
    """Return ``document`` with ``command`` for the program that is started."""
    return {**document, "spec": {**_spec(document), "command": command}}


def with_absolute_paths(document: Document, folder: str | None) -> Document:
    """Return ``document`` with its paths on the host taken from ``folder``, the one where it was written.

    A program that is only a name is looked for by the agent's own search path; without a folder, what is relative is
    looked for in the workspace.

    Raises:
        Invalid: the workspace's base is relative, and to nothing that is known (``workspace_base``).
    """
    spec = dict(_spec(document))
    workspace = spec.get("workspace")
    base = workspace.get("base") if isinstance(workspace, dict) else None
    if folder is None:
        if isinstance(base, str) and not isabs(base):
            raise Invalid(
                f"the workspace's base {base[:200]!r} is relative, and nothing says to what",
                code="workspace_base",
                resolution="write it from the root, or spawn the agent with ash, which says where the manifest lies",
            )
        return document
    for name in ("command", "entrypoint"):
        path = spec.get(name)
        if isinstance(path, str) and not isabs(path) and ("/" in path or name == "entrypoint"):
            spec[name] = normpath(join(folder, path))
    if isinstance(base, str) and isinstance(workspace, dict):
        spec["workspace"] = {**workspace, "base": normpath(join(folder, base))}
    return {**document, "spec": spec}


def check_host_paths(child: Manifest, parent: Manifest, *, installed: bool) -> None:
    """Let a child pass that is shown no part of the host which its parent is not; ``installed``: its program is what
    an operator installed.

    Raises:
        Forbidden: it would be (``workspace_escalation_denied``).
    """
    base, above = child.workspace.base, parent.workspace.base
    if base is not None and (above is None or not _within(base, above)):
        raise _escalation(
            "the child's workspace would show a folder that its parent's does not",
            "leave out spec.workspace.base, or choose a folder within the parent's",
        )
    known = {parent.program.command, parent.program.entrypoint}
    for path in (child.program.command, child.program.entrypoint):
        if path is None or installed or path in known or not isabs(path):
            continue
        if not any(_within(path, place) for place in _SEEN_BY_ALL):
            raise _escalation(
                "the child's program is a file of the host that its parent does not see",
                "run one of the system's programs, one in the workspace, or an installed agent",
            )


def _within(path: str, place: str) -> bool:
    return f"{normpath(path)}/".startswith(f"{normpath(place).rstrip('/')}/")


def _escalation(reason: str, resolution: str) -> Forbidden:
    return Forbidden(
        "workspace escalation denied", code="workspace_escalation_denied", reason=reason, resolution=resolution
    )


def _holds_within(rule: Plain, kept: Sequence[Capability]) -> bool:
    if not isinstance(rule, dict) or rule.get("effect") == Effect.DENY.value:
        return True
    one = _parsed(str(rule.get("capability")))
    return one is not None and any(wide.covers(one) for wide in kept)


def _parsed(text: str) -> Capability | None:
    try:
        return parse_capability(text)
    except BoroughError:
        return None  # the manifest's own reading says what is wrong with it, and where


def _spec(document: Document) -> Document:
    spec = document.get("spec")
    return spec if isinstance(spec, dict) else {}
