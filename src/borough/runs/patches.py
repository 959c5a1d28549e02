"""What a run changed: the files before and after, as one unified patch that ``git apply`` and ``patch -p1`` take."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from borough.runs.runs import ChangedFile, ChangeKind

MOST_TEXT_BYTES = 1 << 20
"""Of one file; larger ones are only named."""
MOST_PATCH_BYTES = 16 << 20
NO_NEWLINE = "\\ No newline at end of file"
REGULAR, EXECUTABLE, LINK = "100644", "100755", "120000"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImage:
    """A file at one moment."""

    digest: str
    mode: str = REGULAR
    """As git writes it."""
    text: str | None = None
    """``None``: it is no text, or too large. Of a link, where it leads."""


Tree = Mapping[str, FileImage]
"""Path (relative, with ``/``) → what is there."""


def changes(before: Tree, after: Tree) -> tuple[ChangedFile, ...]:
    """Return what became of every file that is not as it was, by path."""
    differing = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return tuple(ChangedFile(path=path, kind=_kind(before.get(path), after.get(path))) for path in differing)


def patch(before: Tree, after: Tree) -> str:
    """Return the changes as a unified patch; what is no text is named only, as is what would make it too long."""
    parts: list[str] = []
    size = 0
    for changed in changes(before, after):
        part = _file_patch(changed.path, before.get(changed.path), after.get(changed.path))
        if size + len(part) > MOST_PATCH_BYTES:
            part = f"# {changed.path}: left out, the patch is too long\n"
        parts.append(part)
        size += len(part)
    return "".join(parts)


def _kind(before: FileImage | None, after: FileImage | None) -> ChangeKind:
    if after is None:
        return ChangeKind.DELETED
    if after.text is None or (before is not None and before.text is None):
        return ChangeKind.BINARY
    return ChangeKind.ADDED if before is None else ChangeKind.MODIFIED


def _file_patch(path: str, before: FileImage | None, after: FileImage | None) -> str:
    old, new = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    head = [f"diff --git {old} {new}", *_modes(before, after)]
    here, there = (old if before else "/dev/null"), (new if after else "/dev/null")
    if any(image is not None and image.text is None for image in (before, after)):
        if before is None or after is None or before.digest != after.digest:
            head.append(f"Binary files {here} and {there} differ")
        return _joined(head)
    old_text, new_text = (before.text if before else "") or "", (after.text if after else "") or ""
    if old_text == new_text:
        return _joined(head)
    return _joined([*head, f"--- {here}", f"+++ {there}", *_hunks(old_text, new_text)])


def _modes(before: FileImage | None, after: FileImage | None) -> Sequence[str]:
    if before is None:
        return [] if after is None else [f"new file mode {after.mode}"]
    if after is None:
        return [f"deleted file mode {before.mode}"]
    if before.mode == after.mode:
        return []
    return [f"old mode {before.mode}", f"new mode {after.mode}"]


def _hunks(old: str, new: str) -> list[str]:
    lines = difflib.unified_diff(_lines(old), _lines(new), lineterm="")
    told: list[str] = []
    for number, line in enumerate(lines):
        if number < 2:  # noqa: PLR2004 - its own two lines of names: ours are written already
            continue
        if line.startswith("@@"):
            told.append(line)
        elif line.endswith("\n"):
            told.append(line[:-1])
        else:
            told += [line, NO_NEWLINE]
    return told


def _lines(text: str) -> list[str]:
    """Return the lines with their ends; only a line feed ends one, whatever else Unicode has."""
    lines = text.split("\n")
    ended = [f"{line}\n" for line in lines[:-1]]
    return [*ended, lines[-1]] if lines[-1] else ended


def _quoted(path: str) -> str:
    """Return a name as git writes it: quoted where it would be misread."""
    if path.isascii() and path.isprintable() and not set(path) & set('"\\'):
        return path
    inside = "".join(_escaped(byte) for byte in path.encode("utf-8", "surrogateescape"))
    return f'"{inside}"'


def _escaped(byte: int) -> str:
    char = chr(byte)
    if char in '"\\':
        return f"\\{char}"
    return char if char.isascii() and char.isprintable() else f"\\{byte:03o}"


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
