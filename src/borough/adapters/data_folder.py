"""The folder in which a daemon keeps everything: made where it lacks, and nobody else enters."""

import os
import stat
from pathlib import Path

from borough.core.errors import Conflict, Unavailable

_MODE = 0o700
_OTHERS = 0o077


def prepare_data_folder(folder: Path) -> Path:
    """Return the data folder, made where it lacks; nobody else enters.

    Raises:
        Conflict: something else is there, or somebody else's folder (``data_folder_taken``).
        Unavailable: it cannot be made (``data_folder_refused``).
    """
    try:
        folder.mkdir(mode=_MODE, parents=True, exist_ok=True)
        found = folder.stat()
    except FileExistsError:
        raise _taken(folder, "it is not a folder") from None
    except OSError as error:
        raise Unavailable(
            f"the data folder {folder} cannot be used: {error.strerror}",
            code="data_folder_refused",
            resolution="set AGENTD_DATA_DIR to a folder of yours",
        ) from None
    if found.st_uid != os.geteuid():
        raise _taken(folder, f"it belongs to uid {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        folder.chmod(_MODE)
    return folder


def _taken(folder: Path, reason: str) -> Conflict:
    return Conflict(
        f"{folder} cannot be the data folder: {reason}",
        code="data_folder_taken",
        resolution="set AGENTD_DATA_DIR to a folder of yours",
    )
