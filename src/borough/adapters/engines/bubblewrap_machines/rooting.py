"""A machine's root, as its warden makes it: the machine's layer over the image's folder, and the files it is given."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from borough.adapters import beneath, system_calls
from borough.adapters.engines.bubblewrap.keeper.mounts import Staging, own_namespace
from borough.adapters.engines.bubblewrap_machines import idmapped

Order = Mapping[str, Any]


class Ground:
    """What any root is made on, before it is known whose: namespaces of this process's own, and what all roots need."""

    def __init__(self, staging: str, fixed: Mapping[str, str]) -> None:
        """Get them, and mount at ``staging`` the folder with what is ``fixed``; raises ``OSError``."""
        # It begins while we go on, since whatever it needs takes it longer than us.
        self.owners = idmapped.UserNamespace() if os.getuid() == 0 else None
        """The one by which owners are translated, where we are root."""
        self.rooted = own_namespace()
        """Whether we have the machine's own root rights here."""
        self.staging = Staging(staging, fixed)

    def close(self) -> None:
        """Collect what was needed to make roots here; those that were made stay."""
        if self.owners is not None:
            self.owners.close()


class Root:
    """The root of one machine."""

    def __init__(self, told: Order, ground: Ground) -> None:
        """Make it, with owners translated where we are root; raises ``OSError``."""
        self._told = told
        self._rooted = ground.rooted
        self.staging = ground.staging
        for name, source in told["shown"].items():
            self.staging.bind(source, name, writable=False)
        self.path = f"{self.staging.root}/root"
        if ground.owners is not None and ground.rooted:
            self._mount_translated(told, ground.owners.map(told["identity"]))
        else:
            self.staging.overlay("root", base=told["lower"], layers=told["layers"], owner=None)

    def write_files(self) -> None:
        """Write what the machine is given; raises ``OSError``."""
        with _user(self._told["identity"]) if self._rooted else contextlib.nullcontext():
            _write_files(self.path, self._told["files"])

    def _mount_translated(self, told: Order, namespace: int) -> None:
        at, uid = self.staging.root, told["identity"]
        for name, source in (("lower", told["lower"]), ("layers", told["layers"])):
            os.mkdir(f"{at}/{name}", 0o755)  # noqa: PTH102 - start-up time
            idmapped.bind(source, f"{at}/{name}", namespace)
        os.close(namespace)
        os.mkdir(self.path, 0o755)  # noqa: PTH102 - as above
        options = f"lowerdir={at}/lower,upperdir={at}/layers/upper,workdir={at}/layers/work,userxattr"
        with idmapped.files_as(uid):
            system_calls.mount("overlay", self.path, "overlay", system_calls.MS_NOSUID | system_calls.MS_NODEV, options)


@contextlib.contextmanager
def _user(uid: int) -> Iterator[None]:
    """Be a user of the host for a while, without any right of root's; other groups are given up for good."""
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        system_calls.be_seen()


def _write_files(root: str, files: list[tuple[str, str, str, bool]]) -> None:
    """Write what a machine is given into its root, as its own root user: never through a link of the image."""
    try:
        for path, mode, content, keeps in files:
            *folders, name = path.strip("/").split("/")
            directory = beneath.open_directory(Path(root), folders, create=True, mode=0o755)
            try:
                if not (keeps and name in os.listdir(directory)):  # noqa: PTH208 - by descriptor
                    beneath.write_private(directory, name, content.encode())
                    os.chmod(name, int(mode, 8), dir_fd=directory)
                if name == "authorized_keys":
                    os.fchmod(directory, 0o700)
            finally:
                os.close(directory)
    except OSError as failure:
        said = f"{failure.filename or root}: {failure.strerror}"
        raise OSError(f"the machine's own files cannot be written into its root folder: {said}") from failure
