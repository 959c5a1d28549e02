"""From one state of a workspace to another, through the workspace as its agent sees it."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from borough.adapters.workspaces import opening, trees
from borough.adapters.workspaces.mounting import View
from borough.adapters.workspaces.snapshots import copy_content
from borough.adapters.workspaces.trees import Changes, Node, NodeKind


def restore(view: View, now: Changes, then: Changes, *, base: Path | None, content: Callable[[str], Path]) -> None:
    """Turn the state ``now`` into ``then``, both told by what they change of ``base``.

    ``content`` is where a file's content is kept, by its hash.
    """
    with trees.opened_base(base) as below:

        def source(path: str, node: Node) -> int:
            if path in then:
                return os.open(content(node.digest or ""), os.O_RDONLY | os.O_CLOEXEC)
            return opening.reopened(-1 if below is None else below, path, os.O_RDONLY)

        wanted = {
            path: then[path] if path in then else trees.base_node(below, path)
            for path in now.keys() | then.keys()
            if now.get(path, ...) != then.get(path, ...)
        }
        # The deepest first, so that folders are empty when their turn comes.
        for path in sorted(wanted, key=lambda path: (-path.count("/"), path)):
            if _is_in_the_way(view, path, wanted[path]):
                _remove(view, path)
        for path in sorted(wanted, key=lambda path: (path.count("/"), path)):
            node = wanted[path]
            if node is not None:
                _make(view, path, node, source)


def _is_in_the_way(view: View, path: str, wanted: Node | None) -> bool:
    """Tell whether something is there that has to go first; a file is replaced in one step instead."""
    try:
        with opening.opened(view.descriptor, path) as named:
            mode = os.fstat(named).st_mode
    except (FileNotFoundError, NotADirectoryError, opening.LinkOnTheWay):
        return False
    if wanted is None:
        return True
    return stat.S_ISDIR(mode) != (wanted.kind is NodeKind.FOLDER)


def _remove(view: View, path: str) -> None:
    name = path.rpartition("/")[2]
    with opening.parent(view.descriptor, path) as folder:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        # What is still in it is of no kind that states tell of: pipes and sockets.
        inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            with os.scandir(inside) as found:
                left = [entry.name for entry in found]
            for one in left:
                os.unlink(one, dir_fd=inside)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=folder)


def _make(view: View, path: str, node: Node, source: Callable[[str, Node], int]) -> None:
    name = path.rpartition("/")[2]
    with opening.parent(view.descriptor, path, make=view.owner) as folder:
        if node.kind is NodeKind.FOLDER:
            with suppress(FileExistsError):  # it may be the base's own
                os.mkdir(name, node.mode, dir_fd=folder)
            _give(name, folder, view.owner)
            return
        draft = f".{uuid4().hex}.new"
        if node.kind is NodeKind.LINK:
            os.symlink(node.target or "", draft, dir_fd=folder)
        else:
            taken_from = source(path, node)
            try:
                file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
                try:
                    copy_content(taken_from, file)
                    os.fchmod(file, node.mode)
                finally:
                    os.close(file)
            finally:
                os.close(taken_from)
        _give(draft, folder, view.owner)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)


def _give(name: str, folder: int, owner: tuple[int, int]) -> None:
    if os.geteuid() == 0:
        os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
