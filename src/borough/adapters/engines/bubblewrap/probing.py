"""What this machine can enforce, found out by doing it: a box is made, and looks at itself from inside."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap import plans, skeleton
from borough.adapters.engines.bubblewrap.cgroups import Trees
from borough.adapters.engines.bubblewrap.errors import enforcement_missing, start_failed
from borough.adapters.engines.bubblewrap.keeping import Hello
from borough.adapters.engines.bubblewrap.making import BoxMaker
from borough.adapters.engines.bubblewrap.plans import BoxOrder, Private
from borough.core.errors import Unavailable
from borough.governance.manifests import Layer, Manifest, Resources, Runtime
from borough.governance.ports.confinement import Enforcement
from borough.governance.trust import TrustLevel

BACKEND = "bubblewrap"
_NAMESPACES = ("user", "pid", "net", "ipc", "uts", "mnt", "cgroup")
_FILES = 77
_UNLISTED = "/run/borough/unlisted"
"""A file that is there and readable for all, but that no rule of Landlock allows."""
_SCRIPT = f"""
for kind in {" ".join(_NAMESPACES)}; do echo "$kind $(readlink /proc/self/ns/$kind)"; done
while read -r name value; do case $name in NoNewPrivs:|Seccomp:|CapEff:) echo "$name $value";; esac; done \
  < /proc/self/status
echo "files $(ulimit -n)"
if cat {_UNLISTED} > /dev/null 2>&1; then echo 'unlisted read'; else echo 'unlisted refused'; fi
"""
_WITHIN_S = 20.0


class Prober:
    """Probes once and remembers."""

    def __init__(self, maker: BoxMaker, *, has_proxy: bool) -> None:
        self._maker = maker
        self._has_proxy = has_proxy
        self._found: Enforcement | None = None
        self._probing = asyncio.Lock()

    async def probe(self) -> Enforcement:
        """Return what holds. A machine on which no box can be made enforces nothing, and is asked again next time."""
        async with self._probing:
            if self._found is None:
                try:
                    told = await self._look()
                except (Unavailable, TimeoutError) as failure:
                    return _nothing(getattr(failure, "reason", None) or str(failure) or "the probe did not end")
                self._found = self._judge(told)
            return self._found

    async def check(self, manifest: Manifest, *, what: str) -> Enforcement:
        """Return what holds, if it is all that ``manifest`` requires and its way out can be guarded.

        Raises:
            Unavailable: a required layer does not hold (``enforcement_missing``), or the network policy needs a proxy
                and there is none (``start_failed``).
        """
        found = await self.probe()
        missing = {
            layer: found.reasons.get(layer, "it does not hold")
            for layer in manifest.require
            if not found.layers.get(layer, False)
        }
        if missing:
            raise enforcement_missing(missing)
        if plans.has_way_out(manifest) and not self._has_proxy:
            raise start_failed(what, "its network policy needs a proxy, and this daemon was started without one")
        return found

    async def _look(self) -> Mapping[str, str]:
        hello = await self._maker.hello()
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._maker.settings.state))
        read, write = os.pipe()
        try:
            (folder / "upper").mkdir()
            order = await self._order(hello, folder)
            async with self._maker.opened(order, {"stdout": write}) as running:
                await self._maker.go(running)
                os.close(write)
                write = -1
                async with asyncio.timeout(_WITHIN_S):
                    await asyncio.shield(running.ended)
            await self._maker.clear(running)
            await self._maker.keeper.forget_workspace(order.box)
            printed = os.read(read, 65536).decode()
        finally:
            for descriptor in (read, write):
                if descriptor >= 0:
                    os.close(descriptor)
            await asyncio.to_thread(shutil.rmtree, folder)
        return dict(line.split(" ", 1) for line in printed.splitlines() if " " in line)

    async def _order(self, hello: Hello, folder: Path) -> BoxOrder:
        name = f"probe-{uuid4()}"
        identity = plans.identity_of(name) if hello.rooted else None
        if identity is not None:
            os.chown(folder / "upper", *identity)
        try:
            workspace, descriptor = await self._maker.keeper.mount_workspace(
                name, base=None, layers=str(folder), owner=identity or (os.getuid(), os.getgid())
            )
        except OSError as failure:
            raise Unavailable("a folder cannot be mounted", code="start_failed", reason=str(failure)) from failure
        os.close(descriptor)
        manifest = Manifest(
            name="probe", version="0.0.0", trust_level=TrustLevel.SANDBOXED, resources=Resources(max_open_files=_FILES)
        )
        shell = skeleton.interpreters().sh or "/bin/sh"
        return BoxOrder(
            box=name, owner=f"probe:{name}", manifest=manifest, runtime=Runtime.RUST, argv=[shell, "-c", _SCRIPT],
            env=plans.environment(manifest, {}, sdk=False), workspace=workspace, identity=identity, lasts=False,
            at_once=True, record=folder / "end.json", private=[Private(path=_UNLISTED, mode="0444", content=b"x")],
        )  # fmt: skip

    def _judge(self, told: Mapping[str, str]) -> Enforcement:
        shared = [kind for kind in _NAMESPACES if told.get(kind) in (None, _own(kind))]
        trees = self._maker.trees
        reasons = {
            Layer.NAMESPACES: f"shared with the host: {', '.join(shared)}" if shared else None,
            Layer.NO_NEW_PRIVS: None if told.get("NoNewPrivs:") == "1" else "the kernel did not set it",
            Layer.SECCOMP: None if told.get("Seccomp:") == "2" else "no filter was in force in the box",
            Layer.LANDLOCK: self._landlock(told),
            Layer.RLIMITS: None if told.get("files") == str(_FILES) else "the limit on open files did not hold",
            Layer.CGROUPS: None if isinstance(trees, Trees) else str(trees),
            Layer.EGRESS_PROXY: None if self._has_proxy else "this daemon was started without a proxy",
        }
        if int(told.get("CapEff:", "1"), 16) != 0:
            reasons[Layer.NO_NEW_PRIVS] = f"the box kept capabilities: {told.get('CapEff:')}"
        return Enforcement(
            backend=BACKEND,
            layers={layer: reason is None for layer, reason in reasons.items()},
            reasons={layer: reason for layer, reason in reasons.items() if reason is not None},
        )

    def _landlock(self, told: Mapping[str, str]) -> str | None:
        if not self._maker.settings.use_landlock:
            return "switched off"
        if system_calls.landlock_version() == 0:
            return "this kernel does not have it, or it was not switched on at boot"
        return None if told.get("unlisted") == "refused" else "a file that no rule allows could be read"


def _own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - it is a name, not a path


def _nothing(reason: str) -> Enforcement:
    """Return what holds where no box can be made. Nothing is started there, since namespaces are never optional."""
    return Enforcement(
        backend=BACKEND,
        layers=dict.fromkeys(Layer, False),
        reasons=dict.fromkeys(Layer, f"no box can be made: {reason}"),
    )
