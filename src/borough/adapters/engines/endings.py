"""The port ``Endings``: one pidfd (pidfd_open(2)) a machine, which the event loop waits for.

A pidfd means exactly one process, also after its number was given out again, and it is readable as soon as that has
ended, whoever is its parent: so machines that an earlier daemon has started are watched alike.
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


class ProcessEndings:
    """Watches the machines of those engines that have processes here. Use it from one event loop."""

    def __init__(self, drivers: Mapping[Engine, object], *, most: int | None = None) -> None:
        """``drivers``: those of this host; ``most``: how many machines are watched at a time; ``None``: as many as
        descriptors allow.
        """
        self._drivers = drivers
        self._most = _most() if most is None else most
        self._watched: dict[VmId, int | None] = {}
        """By machine: its pidfd; ``None`` while its engine is asked."""
        self._is_told = False

    @property
    def watched(self) -> frozenset[VmId]:
        """Return the machines that are watched now."""
        return frozenset(self._watched)

    async def watch(self, vm: Vm, ended: Callable[[VmId], None]) -> None:
        """Have ``ended`` called once when the machine's last process has ended."""
        driver = self._drivers.get(vm.spec.engine)
        if not isinstance(driver, WithProcess) or vm.id in self._watched:
            return
        if len(self._watched) >= self._most:
            self._tell(f"{self._most} machines are watched already")
            return
        self._watched[vm.id] = None
        ref, descriptor = None, None
        try:
            ref = await driver.last_process(vm.id)
            descriptor = None if ref is None else _opened(ref)
        except (BoroughError, OSError) as error:
            self._tell(str(error))
            ref = None
        finally:
            is_wanted = self._watched.pop(vm.id, 0) is None  # not if all was closed meanwhile
        loop = asyncio.get_running_loop()
        if descriptor is not None and is_wanted:
            self._watched[vm.id] = descriptor
            loop.add_reader(descriptor, partial(self._over, vm.id, descriptor, ended))
        elif descriptor is not None:
            os.close(descriptor)
        elif ref is not None and is_wanted:
            loop.call_soon(ended, vm.id)  # it ended between the look that found it running and this one

    def close(self) -> None:
        """Watch nothing any more."""
        watched, self._watched = self._watched, {}
        for descriptor in watched.values():
            if descriptor is not None:
                _let_go(descriptor)

    def _over(self, vm_id: VmId, descriptor: int, ended: Callable[[VmId], None]) -> None:
        del self._watched[vm_id]
        _let_go(descriptor)
        ended(vm_id)

    def _tell(self, reason: str) -> None:
        """Say why a machine is not watched; once, since it is looked at all the same."""
        if not self._is_told:
            log.warning("endings.not_watched", reason=reason)
        self._is_told = True


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
