"""What file tools say when they do not do it, wherever the files are."""

from borough.core.errors import Conflict, Forbidden, NotFound


def over_a_link(path: str) -> Forbidden:
    """Return the error for a path with a symbolic link on its way or at its end."""
    return Forbidden(
        f"{path} leads over a symbolic link",
        code="outside_workspace",
        reason="links are not followed, so that a path is what was decided upon",
        resolution="name the file that the link points to",
    )


def not_found(path: str) -> NotFound:
    """Return the error for what is not there."""
    return NotFound(f"there is no {path}", code="file_not_found", resolution="list the folder to see what is there")


def is_a_directory(path: str) -> Conflict:
    """Return the error for a folder where a file is needed."""
    return Conflict(f"{path} is a directory", code="is_a_directory", resolution="name a file in it, or list it")


def not_a_directory(path: str) -> Conflict:
    """Return the error for what is no folder where one is needed."""
    return Conflict(f"{path} is not a directory", code="not_a_directory", resolution="read it, or list its folder")


def not_a_file(path: str) -> Conflict:
    """Return the error for what is neither file nor folder."""
    return Conflict(
        f"{path} is not a file",
        code="not_a_file",
        reason="it is a device, a pipe or a socket",
        resolution="name a regular file",
    )


def full(path: str, reason: str) -> Conflict:
    """Return the error for a file for which there is no room."""
    return Conflict(
        f"{path} cannot be written: disk full",
        code="disk_full",
        reason=reason,
        resolution="delete what is not needed from the workspace, or write less",
    )
