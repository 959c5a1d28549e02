"""Folders that an overlay wrote to."""

import os
import shutil
from contextlib import suppress
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a file or folder, if it is there; folders that the overlay left without any rights get them first."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for folder, folders, _ in os.walk(path):
        for name in folders:
            below = Path(folder, name)
            if not below.is_symlink() and not os.access(below, os.R_OK | os.W_OK | os.X_OK):
                # Another's: then the removal says so. Gone: somebody else removes it too.
                with suppress(PermissionError, FileNotFoundError):
                    below.chmod(0o700)
    while path.exists():
        with suppress(FileNotFoundError):  # what is in it is being removed by somebody else too: look again
            shutil.rmtree(path)
