"""Canonical paths: the one spelling in which a path is decided upon, and then opened.

``..`` is resolved by its letters. That is right because what opens the path opens this spelling and follows no
symbolic link on its way; a link can therefore not make the opened file another one than the decided one.
"""

from functools import lru_cache

from borough.core.errors import Invalid

LONGEST_PATH_BYTES = 4096
"""As PATH_MAX in Linux' limits.h."""
_LONGEST_NAME_BYTES = 255


@lru_cache(maxsize=512)
def canonical_path(path: str) -> str:
    """Return ``path`` without ``.``, ``..``, empty segments or a trailing slash.

    Raises:
        Invalid: it is not absolute, has a NUL or is no UTF-8 (``invalid_path``), or is too long (``path_too_long``).
    """
    if not path.startswith("/"):
        raise _refused(path, "it does not begin with a slash", "give the path from the root: /workspace/notes.txt")
    if "\0" in path:
        raise _refused(path, "it has a NUL character in it", "leave the NUL out")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise _refused(path, "it is not valid Unicode", "give the path in UTF-8") from None
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    if size > LONGEST_PATH_BYTES or any(len(segment.encode()) > _LONGEST_NAME_BYTES for segment in kept):
        raise Invalid(
            "the path is too long",
            code="path_too_long",
            reason=f"a path has at most {LONGEST_PATH_BYTES} bytes, each name in it at most {_LONGEST_NAME_BYTES}",
            resolution="use a shorter path",
        )
    return "/" + "/".join(kept)


def is_canonical(path: str) -> bool:
    """Tell whether ``path`` is in the one spelling already."""
    try:
        return canonical_path(path) == path
    except Invalid:
        return False


def _refused(path: str, reason: str, resolution: str) -> Invalid:
    return Invalid(f"{path[:200]!r} is not a path", code="invalid_path", reason=reason, resolution=resolution)
