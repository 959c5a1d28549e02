"""What the keeper mounts: a folder of its own in memory, in which the parts of boxes lie under short plain names."""

import os
import signal
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from borough.adapters import system_calls
from borough.adapters.system_calls import MS_BIND, MS_NODEV, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT, MS_SLAVE


def own_namespace() -> bool:
    """Get a mount namespace of our own, for ordinary users in a user namespace of our own.

    Returns whether we have the machine's own root rights in it.

    Raises:
        OSError: this machine allows neither.
    """
    uid, gid = os.getuid(), os.getgid()
    rooted = uid == 0
    if rooted:
        try:
            system_calls.unshare(system_calls.CLONE_NEWNS)
        except PermissionError:
            rooted = False  # root of a container, without the right to mount
    if not rooted:
        system_calls.unshare(system_calls.CLONE_NEWUSER | system_calls.CLONE_NEWNS)
        write_setting("/proc/self/setgroups", "deny")
        write_setting("/proc/self/uid_map", f"{uid} {uid} 1")
        write_setting("/proc/self/gid_map", f"{gid} {gid} 1")
    system_calls.mount("none", "/", None, MS_REC | MS_SLAVE)
    return rooted


class Staging:
    """The folder. It is searchable for everyone who sees it, which are the keeper's own children only."""

    def __init__(self, root: str, fixed: Mapping[str, str]) -> None:
        """Mount it at ``root``, with the host's folders or files ``fixed`` read-only under their names."""
        os.makedirs(root, mode=0o755, exist_ok=True)  # noqa: PTH103 - pathlib would cost start-up time
        # Opened before the folder covers what may lie beneath it.
        sources = {name: _open_source(path) for name, path in fixed.items()}
        system_calls.mount("borough", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0711,size=16m")
        self.root = root
        for name, source in sources.items():
            self._bind_open(source, f"{root}/{name}", writable=False)

    def bind(self, source: str, name: str, *, writable: bool) -> str:
        """Show ``source`` of the host as ``name``; links on its way are refused. Returns where it is now."""
        target = f"{self.root}/{name}"
        self._bind_open(_open_source(source), target, writable=writable)
        return target

    def overlay(self, name: str, *, base: str, layers: str, owner: tuple[int, int] | None) -> str:
        """Mount ``layers``/upper over ``base`` as ``name``; there must be an empty ``layers``/work, too.

        With ``owner``, what belongs to the owner of the base is seen as theirs, so that they may change it: the base
        itself stays as it is.
        """
        target = f"{self.root}/{name}"
        lower = self._bind_as(base, f"{name}.base", owner) if owner else self.bind(base, f"{name}.base", writable=False)
        over = self.bind(layers, f"{name}.layers", writable=True)
        os.mkdir(target, 0o755)  # noqa: PTH102 - as above
        options = f"lowerdir={lower},upperdir={over}/upper,workdir={over}/work,userxattr"
        system_calls.mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options)
        return target

    def _bind_as(self, source: str, name: str, owner: tuple[int, int]) -> str:
        """Bind ``source`` with its owner shown as ``owner``; where the file system cannot do that, as it is."""
        target = f"{self.root}/{name}"
        opened = _open_source(source)
        try:
            os.makedirs(target, mode=0o755, exist_ok=True)  # noqa: PTH103 - as above
            found = os.fstat(opened)
            with _mapping((found.st_uid, owner[0]), (found.st_gid, owner[1])) as namespace:
                system_calls.mount_mapped(opened, target, namespace)
        except OSError:
            os.rmdir(target)  # noqa: PTH106 - as above
            return self.bind(source, name, writable=False)
        finally:
            os.close(opened)
        _make_read_only(target)
        return target

    def remove(self, name: str) -> None:
        """Take away what is shown as ``name`` and beneath it; what is not there is passed over."""
        for mounted in reversed(_mounted_beneath(f"{self.root}/{name}")):
            system_calls.unmount(mounted)
        for suffix in ("", ".base", ".layers"):
            self._remove_targets(f"{self.root}/{name}{suffix}")

    def _remove_targets(self, path: str) -> None:
        """Remove empty mount points, and nothing that is not in our own folder of memory."""
        if not os.path.lexists(path):
            return
        if os.lstat(path).st_dev != os.lstat(self.root).st_dev:
            raise OSError(f"{path} is still mounted")
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)  # noqa: PTH108 - as above
            return
        for below in os.listdir(path):  # noqa: PTH208 - as above
            self._remove_targets(f"{path}/{below}")
        os.rmdir(path)  # noqa: PTH106 - as above

    def _bind_open(self, source: int, target: str, *, writable: bool) -> None:
        try:
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120 - as above
            if os.path.isdir(f"/proc/self/fd/{source}"):  # noqa: PTH112 - as above
                os.mkdir(target, 0o755)  # noqa: PTH102 - as above
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            system_calls.mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)
            if not writable:
                _make_read_only(target)
        finally:
            os.close(source)


@contextmanager
def _mapping(user: tuple[int, int], group: tuple[int, int]) -> Iterator[int]:
    """Yield a user namespace that maps one user and one group; it needs a process to begin with."""
    made_r, made_w = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            system_calls.unshare(system_calls.CLONE_NEWUSER)
            os.write(made_w, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(made_w)
    try:
        if not os.read(made_r, 1):
            raise OSError("no user namespace can be made")
        write_setting(f"/proc/{child}/uid_map", f"{user[0]} {user[1]} 1")
        write_setting(f"/proc/{child}/gid_map", f"{group[0]} {group[1]} 1")
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield namespace
        finally:
            os.close(namespace)
    finally:
        os.close(made_r)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _make_read_only(target: str) -> None:
    flags = os.statvfs(target).f_flag  # those that a user namespace locks must be named again
    kept = flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME | os.ST_RELATIME)
    system_calls.mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _as_mount_flags(kept))


def _as_mount_flags(kept: int) -> int:
    """Turn flags of statvfs(3) into those of mount(2); all but the last have the same bit."""
    relatime = 0x200000 if kept & os.ST_RELATIME else 0
    return (kept & ~os.ST_RELATIME) | relatime


def _open_source(path: str) -> int:
    return system_calls.openat2(
        -1,  # an absolute path needs no folder to begin from
        path,
        os.O_PATH,
        resolve=system_calls.RESOLVE_NO_SYMLINKS,
    )


def _mounted_beneath(path: str) -> list[str]:
    """Return the mounts at and below ``path``, outer ones first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123 - as above
        points = [line.split()[4] for line in table]
    return [point for point in points if point == path or point.startswith((f"{path}/", f"{path}."))]


def write_setting(path: str, text: str) -> None:
    """Write a setting of the kernel's. A file opened as text would have its encoding looked for first, on disk."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
