"""How much of a host is spoken for. Memory and disk are in MiB; "used" is what was promised, not what was measured."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What one machine takes."""

    cpu: int
    mem_mib: int
    disk_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a host has, and what of it is promised."""

    cpu_total: int = 0
    cpu_used: int = 0
    mem_total: int = 0
    mem_used: int = 0
    disk_total: int = 0
    disk_used: int = 0
    vm_count: int = 0

    @property
    def cpu_free(self) -> int:
        """Return how many vCPUs are left."""
        return max(0, self.cpu_total - self.cpu_used)

    @property
    def mem_free(self) -> int:
        """Return how much memory is left."""
        return max(0, self.mem_total - self.mem_used)

    @property
    def disk_free(self) -> int:
        """Return how much disk is left."""
        return max(0, self.disk_total - self.disk_used)

    def fits(self, size: Size) -> bool:
        """Tell whether ``size`` is left; all that is left may be taken."""
        return self.cpu_free >= size.cpu and self.mem_free >= size.mem_mib and self.disk_free >= size.disk_mib

    def with_one_more(self, size: Size) -> "Resource":
        """Return what is left to others when ``size`` is promised."""
        return replace(
            self,
            cpu_used=self.cpu_used + size.cpu,
            mem_used=self.mem_used + size.mem_mib,
            disk_used=self.disk_used + size.disk_mib,
            vm_count=self.vm_count + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one machine holds of its host: all of its size while it may run, its disk as long as it exists."""

    size: Size
    running: bool


def promised(totals: Resource, holdings: Iterable[Holding]) -> Resource:
    """Return ``totals`` with everything that is held counted anew; nothing is ever added up twice or forgotten."""
    cpu = mem = disk = count = 0
    for holding in holdings:
        disk += holding.size.disk_mib
        count += 1
        if holding.running:
            cpu += holding.size.cpu
            mem += holding.size.mem_mib
    return replace(totals, cpu_used=cpu, mem_used=mem, disk_used=disk, vm_count=count)
