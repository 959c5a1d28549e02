"""The checked-in API documents: written from the running routes, compared with them by ``make lint``."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from borough.http.fleet.document import fleet_document
from borough.http.governance.about import gateway_document
from borough.http.host.document import host_document
from borough.http.openapi.documents import Document, to_yaml
from borough.http.overview.about import overview_document
from borough.http.pools.about import pools_document
from borough.http.runs.about import runs_document
from borough.http.town.about import town_document
from borough.http.web.document import dashboard_document

FOLDER = Path("docs/openapi")
DOCUMENTS: Mapping[Path, Callable[[], Document]] = {
    FOLDER / "agentd-v1.yaml": gateway_document,
    FOLDER / "dashboard-v1.yaml": dashboard_document,
    FOLDER / "fleet-v1.yaml": fleet_document,
    FOLDER / "host-v1.yaml": host_document,
    FOLDER / "overview-v1.yaml": overview_document,
    FOLDER / "pools-v1.yaml": pools_document,
    FOLDER / "runs-v1.yaml": runs_document,
    FOLDER / "townhall-v1.yaml": town_document,
}


def main(arguments: list[str]) -> int:
    """Write the documents (``--write``) or tell whether they are up to date (``--check``)."""
    wanted = {path: to_yaml(make()) for path, make in DOCUMENTS.items()}
    if arguments == ["--write"]:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, text in wanted.items():
            path.write_text(text, encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        old = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
        for path in old:
            sys.stderr.write(f"{path} is not what the routes say; run: make openapi\n")
        return 1 if old else 0
    sys.stderr.write("usage: python -m borough.openapi --write | --check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
