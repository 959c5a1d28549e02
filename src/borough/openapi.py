"""The checked-in API document: written from the running routes, compared with them by ``make lint``."""

import sys
from pathlib import Path

from borough.http.openapi import to_yaml
from borough.http.pages import town_document

DOCUMENT = Path("docs/openapi/townhall-v1.yaml")


def main(arguments: list[str]) -> int:
    """Write the document (``--write``) or tell whether it is up to date (``--check``)."""
    wanted = to_yaml(town_document())
    if arguments == ["--write"]:
        DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
        DOCUMENT.write_text(wanted, encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        if DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write(f"{DOCUMENT} is not what the routes say; run: make openapi\n")
        return 1
    sys.stderr.write("usage: python -m borough.openapi --write | --check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
