"""The API document that is checked in opens, whole and without an error, in the viewers that people load it into."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.conftest import need
from tests.e2e.conftest import RunningTown

ROOT = Path(__file__).parent.parent.parent
VIEWERS = Path(__file__).parent / "viewers"
DOCUMENT = ROOT / "docs" / "openapi" / "townhall-v1.yaml"
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
RENDERED_WITHIN_MS = 60_000
SVG = "image/svg+xml"
FROM_OUTSIDE = re.compile(r"^https://.*\.svg$")
"""A viewer may ask for its maker's logo, which nobody here can fetch; anything else from outside is a complaint."""

HEAD = '<!doctype html><meta charset="utf-8"><title>viewer</title><link rel="icon" href="data:,">'
SWAGGER = f"""{HEAD}
<link rel="stylesheet" href="swagger-ui-dist/swagger-ui.css"><div id="viewer"></div>
<script src="swagger-ui-dist/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{
  url: "townhall-v1.yaml", dom_id: "#viewer", docExpansion: "list", validatorUrl: null,
  onComplete: () => {{ document.title = "rendered"; }},
}});
</script>"""
REDOC = f"""{HEAD}
<div id="viewer"></div>
<script src="redoc/bundles/redoc.standalone.js"></script>
<script>
Redoc.init("townhall-v1.yaml", {{ disableSearch: true }}, document.getElementById("viewer"), (error) => {{
  if (error) {{ console.error(error); }}
  document.title = "rendered";
}});
</script>"""


def operations() -> list[tuple[str, str, str]]:
    """Return method, path and summary of every operation of the document."""
    paths = yaml.safe_load(DOCUMENT.read_text())["paths"]
    return [
        (method, path, item[method].get("summary", ""))
        for path, item in paths.items()
        for method in METHODS
        if method in item
    ]


def documented_answers(method: str, path: str) -> int:
    """Return how many answers the document gives an operation."""
    return len(yaml.safe_load(DOCUMENT.read_text())["paths"][path][method]["responses"])


@pytest.fixture(scope="module")
def packages() -> Path:
    """The viewers, installed as their lock says."""
    npm = shutil.which("npm")
    need(npm, "npm", "apt-get install npm")
    assert npm is not None
    installed = VIEWERS / "node_modules" / ".package-lock.json"
    lock = VIEWERS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=VIEWERS,
            check=True,
            capture_output=True,
            timeout=300,
        )
        installed.touch()
    return VIEWERS / "node_modules"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Keep the test's output clean."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("viewers")
    for name in ("swagger-ui-dist", "redoc"):
        (folder / name).symlink_to(packages / name)
    shutil.copy(DOCUMENT, folder / "townhall-v1.yaml")
    (folder / "swagger.html").write_text(SWAGGER)
    (folder / "redoc.html").write_text(REDOC)
    with served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    need(chromium, "Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page that notes everything that goes wrong on it."""

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page = browser.new_page()
    page.route(
        FROM_OUTSIDE, lambda route: route.fulfill(body="<svg xmlns='http://www.w3.org/2000/svg'/>", content_type=SVG)
    )
    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    page.on(
        "response", lambda answer: complaints.append(f"{answer.url}: {answer.status}") if answer.status >= 400 else None
    )
    yield page
    page.close()


def open_viewer(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_function("document.title === 'rendered'", timeout=RENDERED_WITHIN_MS)


def test_swagger_ui_shows_every_operation(page: Page, site: str, complaints: list[str]) -> None:
    open_viewer(page, f"{site}/swagger.html")
    expected = {(method.upper(), path) for method, path, _ in operations()}
    page.wait_for_function(
        "count => document.querySelectorAll('.opblock').length >= count", arg=len(expected), timeout=RENDERED_WITHIN_MS
    )
    shown = page.eval_on_selector_all(
        ".opblock",
        """blocks => blocks.map(block => [
            block.querySelector('.opblock-summary-method').textContent.trim(),
            block.querySelector('[data-path]').dataset.path,
        ])""",
    )
    assert expected
    assert {(method, path) for method, path in shown} == expected
    # One of each group, and one open at a time, as people read it: all of them at once take minutes to lay out.
    for section in page.locator(".opblock-tag-section").all():
        block = section.locator(".opblock").first
        method = block.locator(".opblock-summary-method").inner_text().lower()
        path = block.locator("[data-path]").get_attribute("data-path")
        button = block.locator(".opblock-summary-control")
        button.click()
        block.locator(".responses-table .response").first.wait_for()
        assert block.locator(".responses-table .response").count() == documented_answers(method, path or "")
        button.click()
    assert page.locator(".errors-wrapper").count() == 0, page.locator(".errors-wrapper").all_inner_texts()
    assert complaints == []


def test_redoc_shows_every_operation(page: Page, site: str, complaints: list[str]) -> None:
    open_viewer(page, f"{site}/redoc.html")
    expected = operations()
    # Redoc writes a button with method and path beside each operation; the path goes through word breaks.
    page.wait_for_function(
        "count => document.querySelectorAll('.http-verb').length >= count",
        arg=len(expected),
        timeout=RENDERED_WITHIN_MS,
    )
    shown = page.eval_on_selector_all(
        ".http-verb", "verbs => verbs.map(verb => [verb.textContent.trim(), verb.parentElement.textContent])"
    )
    told = {(verb.lower(), text.removeprefix(verb).replace("\u200b", "").strip()) for verb, text in shown}
    assert told == {(method, path) for method, path, _ in expected}
    assert complaints == []


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_our_own_page_fits_the_screen_and_needs_nothing_else(
    browser: Browser, running_town: RunningTown, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{running_town.url}/")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    cut = "areas => areas.filter(area => area.scrollWidth > area.clientWidth).length"
    assert page.eval_on_selector_all(".scroll", cut) == 0
    assert page.locator("article h3 a").count() == len(operations())
    broken = "links => links.map(link => link.hash).filter(hash => hash && !document.getElementById(hash.slice(1)))"
    assert page.eval_on_selector_all("a", broken) == []
    assert [url for url in asked if not url.endswith(("/", "/docs", "/favicon.ico"))] == []
    assert [text for text in complaints if "favicon" not in text] == []
    page.close()
