"""What the town's store needs from a connection."""

from typing import Any, Protocol

Argument = str | bytes | int


class Link(Protocol):
    """Calls server-side functions for one town, whose prefix is ``KEYS[1]``; answers stay as the server gave them.

    A lost connection may be mended by calling again with the same arguments: every function allows that.
    """

    prefix: str

    async def call(self, function: str, *arguments: Argument) -> Any:
        """Call ``function`` (``FCALL``)."""

    async def read(self, function: str, *arguments: Argument) -> Any:
        """Call ``function`` that writes nothing (``FCALL_RO``)."""
