"""The control groups of a machine: made and joined before it is known whose they are, and then given its name.

To join one may take as long as all the rest, since the kernel waits until no processor is at work with what it changes.
Groups of version 1 can be renamed with whoever is in them; of version 2 there is one alone to join, at the order. Only
the standard library and modules that need no more are imported.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from borough.adapters.engines.bubblewrap.cgroups import Amounts, Groups, Trees, remove_empty
from borough.adapters.engines.bubblewrap.keeper.entering import join_groups

RENAMED = 1
"""The version whose groups can be given another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is made before there is a machine."""

    trees: Trees | None
    """Where control groups are made, if anywhere."""
    prefix: str
    """How their names begin."""
    network: bool
    """Whether machines have networks of their own, and not links of the host's."""
    staging: str
    """An empty folder that wardens mount over, each for itself."""
    fixed: Mapping[str, str]
    """What of the host is in it, by name: bubblewrap and its libraries."""

    def told(self) -> str:
        """Return it as text."""
        trees = None if self.trees is None else told_of(self.trees)
        plain = {"prefix": self.prefix, "network": self.network, "staging": self.staging, "fixed": dict(self.fixed)}
        return json.dumps({**plain, "trees": trees})

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what ``told`` said."""
        told = json.loads(text)
        return cls(**{**told, "trees": None if told["trees"] is None else trees_of(told["trees"])})

    def remove_left(self) -> None:
        """Remove the control groups in which nobody is any more."""
        if self.trees is not None:
            remove_empty(self.trees, self.prefix)


def told_of(trees: Trees) -> dict[str, object]:
    """Return in plain values where groups can be made."""
    return {"version": trees.version, "parents": {name: str(parent) for name, parent in trees.parents.items()}}


def trees_of(told: Mapping[str, Any]) -> Trees:
    """Return what ``told_of`` said."""
    return Trees(told["version"], {name: Path(parent) for name, parent in told["parents"].items()})


class Standing:
    """Groups that this process is in and that are nobody's machine's yet."""

    def __init__(self, trees: Trees, name: str) -> None:
        """Make and join them, where they can be renamed; what goes wrong goes wrong again at the order, and is told."""
        self._groups = Groups(trees, name)
        self._joined = False
        with suppress(OSError):
            if trees.version == RENAMED:
                self._groups.make()
                join_groups(self._groups.members)
                self._joined = True

    def become(self, name: str, amounts: Amounts) -> bool:
        """Make them a machine's; ``False`` when they cannot be."""
        if self._joined:
            try:
                self._groups.rename(name)
            except OSError:
                self._joined = False
            else:
                self._groups.limit(amounts)
        return self._joined

    def remove(self) -> None:
        """Remove what there is of them; nobody is in them any more."""
        self._groups.remove()


def belong(told: Mapping[str, Any], standing: Standing | None, *, is_first: bool) -> None:
    """Be in a machine's control groups from here on; who ``is_first`` there makes them. Raises ``OSError``."""
    amounts = Amounts(**told["amounts"])
    if standing is not None and standing.become(told["name"], amounts):
        return
    groups = Groups(trees_of(told), told["name"])
    if is_first:
        groups.make(amounts)
    join_groups(groups.members)
    if standing is not None:
        standing.remove()
