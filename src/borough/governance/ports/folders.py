"""The folders of installed agents."""

from typing import Protocol


class InstallFolders(Protocol):
    """Where installed agents have their programs and a copy of their manifest."""

    async def prepare(self, name: str, *, folder: str | None, manifest_yaml: str) -> str:
        """Put a copy of the manifest into the agent's folder (its default one, made if need be, when ``folder`` is
        ``None``) and return the folder's absolute path.

        Raises:
            Invalid: ``folder`` is no folder (``install_folder``).
        """

    async def program(self, folder: str, name: str) -> str | None:
        """Return the path of the program that the folder holds under the agent's name, if there is one."""

    async def discard(self, folder: str, name: str) -> None:
        """Take the copy of the manifest away again, and the folder where it is the default one; idempotent."""
