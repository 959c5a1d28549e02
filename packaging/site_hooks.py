"""What mkdocs does beyond its own: pages from outside of ``docs/``, and links that lead to them."""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parent.parent
REFERENCES: Final = ROOT / "build" / "references"
OUTSIDE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
"""Pages of the repository's root, each with its name on the site."""
LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
"""Also of pictures, which begin with an exclamation mark."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere, and those that were written from the code."""
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for page in ("commands.md", "routes.md"):
        files.append(File.generated(config, page, content=(REFERENCES / page).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links within the repository into links within the site; what is not on the site stays as text."""
    here = page.file.src_uri
    names = {page: name for name, page in OUTSIDE.items()}
    before = names.get(here, posixpath.join("docs", here))

    def led(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, mark, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not path or before in ("docs/commands.md", "docs/routes.md"):
            return match[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(before), path))
        inside = OUTSIDE.get(there) or (there.removeprefix("docs/") if there.startswith("docs/") else None)
        if inside is None:
            return text
        return f"{picture}[{text}]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{mark}{anchor})"

    return LINK.sub(led, markdown)
