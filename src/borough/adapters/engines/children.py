"""Machines' processes that this process started, so that it collects their exit status.

They may outlive any driver, and this process too: then the system's first process collects it.
"""

from borough.adapters.process import Child

_children: set[Child] = set()


def keep(child: Child) -> None:
    """Remember a child until it has ended."""
    _children.add(child)


def collect() -> None:
    """Collect those that have ended."""
    for child in [child for child in _children if child.poll() is not None]:
        _children.discard(child)
