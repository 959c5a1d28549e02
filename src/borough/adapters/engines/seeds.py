"""A machine's seed as it is given: a small read-only volume beside its disk, read at every start."""

from collections.abc import Sequence
from pathlib import Path

from borough.adapters.engines.places import SEED
from borough.adapters.engines.volumes import fat_volume
from borough.fleet.cloud_init import VOLUME_LABEL, Seed, documents
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.ssh_keys import is_usable


def write_seed(folder: Path, order: MachineOrder, *, key: str, nameservers: Sequence[str]) -> Path:
    """Write the machine's seed into ``folder``; ``key`` is the host's own, beside those that were asked for. Blocks.

    Raises:
        Invalid: there is too much in it (``seed_too_large``).
    """
    seed = Seed(
        vm_id=order.vm_id,
        address=order.link.address,
        network=order.link.network,
        gateway=order.link.gateway,
        nameservers=tuple(nameservers),
        ssh_keys=[*(each for each in order.spec.ssh_keys if is_usable(each)), key],
        is_clone=order.spec.origin is not None,
    )
    draft = folder / f".{SEED}"
    draft.write_bytes(fat_volume(VOLUME_LABEL, documents(seed)))
    return draft.replace(folder / SEED)
