"""The port ``Endings``: the event loop waits for machines that are processes here, and for what engines tell.

A machine that is a process has a pidfd (pidfd_open(2)), which means exactly one process, also after its number was
given out again, and is readable as soon as that has ended, whoever is its parent: so machines that an earlier daemon
has started are watched alike. Where a runtime keeps machines, it is asked to answer at the machine's end.
"""

import asyncio
import os
import resource
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol, runtime_checkable

import structlog

from borough.adapters.process import ProcessRef, is_alive
from borough.core.errors import BoroughError
from borough.fleet.engines import Engine
from borough.fleet.vms import Vm, VmId

log = structlog.get_logger(__name__)

MOST_WATCHED: Final = 4096
SHARE_OF_DESCRIPTORS: Final = 4
"""One in so many of the descriptors that this process may have open is for machines that are watched."""


@runtime_checkable
class WithProcess(Protocol):
    """An engine whose machines are processes of this host."""

    async def last_process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the process that ends last of a machine, proven to be its; ``None`` when it does not run."""


@runtime_checkable
class WithEnd(Protocol):
    """An engine whose runtime says when a machine ends."""

    async def over(self, vm_id: VmId) -> None:
        """Return as soon as the machine does not run; raises ``NotFound``, and ``Unavailable`` when nobody can say."""


class EngineEndings:
    """Watches the machines of those engines that can tell. Use it from one event loop."""

    def __init__(self, drivers: Mapping[Engine, object], *, most: int | None = None) -> None:
        """``drivers``: those of this host; ``most``: how many machines are watched at a time; ``None``: as many as
        descriptors allow.
        """
        self._drivers = drivers
        self._most = _most() if most is None else most
        self._watched: dict[VmId, Callable[[], None] | None] = {}
        """By machine: what lets go of it; ``None`` while its engine is asked."""
        self._is_told = False

    @property
    def watched(self) -> frozenset[VmId]:
        """Return the machines that are watched now."""
        return frozenset(self._watched)

    async def watch(self, vm: Vm, ended: Callable[[VmId], None]) -> None:
        """Have ``ended`` called once when the machine's last process has ended."""
        driver = self._drivers.get(vm.spec.engine)
        if vm.id in self._watched or not isinstance(driver, WithProcess | WithEnd):
            return
        if len(self._watched) >= self._most:
            self._tell(f"{self._most} machines are watched already")
        elif isinstance(driver, WithProcess):
            await self._watch_process(vm.id, driver, ended)
        else:
            task = asyncio.create_task(self._wait(vm.id, driver, ended), name=f"wait for the end of {vm.id}")
            self._watched[vm.id] = partial(_cancel, task)

    def close(self) -> None:
        """Watch nothing any more."""
        watched, self._watched = self._watched, {}
        for let_go in watched.values():
            if let_go is not None:
                let_go()

    async def _watch_process(self, vm_id: VmId, driver: WithProcess, ended: Callable[[VmId], None]) -> None:
        self._watched[vm_id] = None
        ref, descriptor = None, None
        try:
            ref = await driver.last_process(vm_id)
            descriptor = None if ref is None else _opened(ref)
        except (BoroughError, OSError) as error:
            self._tell(str(error))
            ref = None
        finally:
            is_wanted = vm_id in self._watched  # not if all was closed meanwhile
            self._watched.pop(vm_id, None)
        loop = asyncio.get_running_loop()
        if descriptor is not None and is_wanted:
            self._watched[vm_id] = partial(_let_go, descriptor)
            loop.add_reader(descriptor, self._over, vm_id, descriptor, ended)
        elif descriptor is not None:
            os.close(descriptor)
        elif ref is not None and is_wanted:
            loop.call_soon(ended, vm_id)  # it ended between the look that found it running and this one

    async def _wait(self, vm_id: VmId, driver: WithEnd, ended: Callable[[VmId], None]) -> None:
        try:
            await driver.over(vm_id)
        except BoroughError as error:  # whoever looks at the machine next sees what became of it
            log.debug("endings.not_told", vm=vm_id, reason=error.message)
            self._watched.pop(vm_id, None)
            return
        if self._watched.pop(vm_id, None) is not None:
            ended(vm_id)

    def _over(self, vm_id: VmId, descriptor: int, ended: Callable[[VmId], None]) -> None:
        del self._watched[vm_id]
        _let_go(descriptor)
        ended(vm_id)

    def _tell(self, reason: str) -> None:
        """Say why a machine is not watched; once, since it is looked at all the same."""
        if not self._is_told:
            log.warning("endings.not_watched", reason=reason)
        self._is_told = True


def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()


def _let_go(descriptor: int) -> None:
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


def _opened(ref: ProcessRef) -> int | None:
    """Return a pidfd of exactly this process, ``None`` when it has ended."""
    try:
        descriptor = os.pidfd_open(ref.pid)
    except ProcessLookupError:
        return None
    if is_alive(ref):
        return descriptor
    os.close(descriptor)
    return None


def _most() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_WATCHED if soft == resource.RLIM_INFINITY else min(MOST_WATCHED, soft // SHARE_OF_DESCRIPTORS)
