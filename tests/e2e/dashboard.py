"""The dashboard as its users see it: a browser tab, signed in, that notes everything that goes wrong in it."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

from tests.conftest import need
from tests.e2e.conftest import RunningTown, start_town, stop_town

PATIENCE_MS = 60_000
"""How long a page may take to come to something on a machine that is busy with other things."""
expect.set_options(timeout=PATIENCE_MS)
ROOT = Path(__file__).parent.parent.parent
BUILT = ROOT / "src" / "borough" / "web" / "static" / "index.html"
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
AXE_RUN = """
    async (tags) => {
        // What moves or fades in has neither its place nor its colours yet.
        await Promise.all(document.getAnimations().map((each) => each.effect.getComputedTiming().iterations === Infinity
            ? undefined : each.finished));
        const told = await axe.run(document, { runOnly: { type: 'tag', values: tags }, resultTypes: ['violations'] });
        return told.violations.map(({ id, nodes }) => ({
            id, nodes: nodes.map(({ html, failureSummary }) => ({ html, failureSummary })),
        }));
    }
"""
Scheme = Literal["light", "dark"]
ABSENT = re.compile(r"status of 404")
"""What is no longer there is asked about once more, which browsers write on their console by themselves."""
POLICY_WATCH = """
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
        window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
    });
    window.hacked = () => { window.violations.push('a script of the data ran'); };
"""
ONE_BY_ONE = """
    (which) => {
        // Answers come one by one, the first or the last that was asked for, each when the one before is drawn.
        const ask = window.fetch;
        const came = [];
        let asked = 0;
        window.fetch = async (at, how) => {
            if (how?.headers?.Accept === 'text/event-stream') return ask(at, how);
            asked += 1;
            try {
                const answer = await ask(at, how);
                await new Promise((go) => came.push(go));
                return answer;
            } finally {
                asked -= 1;
            }
        };
        const isShown = (each) => each.isConnected && each.checkVisibility({ visibilityProperty: true });
        const seen = new Map();
        const restless = [];
        const look = () => {
            for (const each of document.querySelectorAll('a[href], button, input, select, textarea, summary')) {
                const { x, y, width } = each.getBoundingClientRect();
                if (!width || seen.has(each) || !isShown(each)) continue;
                seen.set(each, { x, y, name: each.outerHTML.slice(0, 120) });
            }
            for (const [each, { x, y, name }] of seen) {
                const now = each.getBoundingClientRect();
                if (isShown(each) && Math.abs(now.x - x) < 1 && Math.abs(now.y - y) < 1) continue;
                restless.push(`${name} ${isShown(each) ? `moved by ${now.x - x}, ${now.y - y}` : 'went'}`);
                seen.delete(each);
            }
        };
        window.restless = new Promise((tell) => {
            let quiet = 0;
            const frame = () => {
                look();
                quiet = asked ? 0 : quiet + 1;
                const isWhole = document.querySelector('#main > *') && !document.querySelector('.arriving');
                if (quiet > 6 && isWhole) return tell(restless);
                if (asked === came.length) for (const go of came.splice(which === 'last' ? -1 : 0, 1)) go();
                return requestAnimationFrame(frame);
            };
            requestAnimationFrame(frame);
        });
    }
"""
"""Tells, in ``window.restless``, what could be pressed while a page was loaded and then moved or went."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield Debian's Chromium, or skip by name."""
    found = shutil.which("chromium")
    need(found, "Chromium", "apt-get install chromium")
    need(BUILT.is_file(), "the built dashboard", "make web")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def governed_town() -> Iterator[RunningTown]:
    """Yield a town that serves all of the dashboard; it has to end in order."""
    with tempfile.TemporaryDirectory(prefix="web") as folder:  # not below pytest's own: the path of a socket is short
        root = Path(folder).resolve() / "t"
        root.mkdir()
        running = start_town(root, governed=True)
        yield running
        assert stop_town(running) == 0


class Tab:
    """A tab with the dashboard."""

    def __init__(
        self,
        browser: Browser,
        town: RunningTown,
        *,
        width: int = 1440,
        scheme: Scheme = "light",
        phone: bool = False,
    ) -> None:
        self.town = town
        self.complaints: list[str] = []
        self._expected: list[str] = []
        self.asked: list[str] = []
        self._context = browser.new_context(
            viewport={"width": width, "height": 740 if phone else 900},
            color_scheme=scheme,
            has_touch=phone,
            is_mobile=phone,
        )
        self._context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.add_init_script(POLICY_WATCH)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._noted)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not ABSENT.search(message.text):
            self.complaints.append(message.text)

    def expects(self, complaint: str) -> None:
        """Let pass what the browser complains of, before and from now on, in such words."""
        self._expected.append(complaint)

    def _noted(self, request: Request) -> None:
        self.asked.append(request.url)

    def sign_in(self) -> "Tab":
        """Open the address that the operator gets."""
        code = self.town.ok("POST", "/v1/sign-in-codes")["code"]
        self.page.goto(f"{self.town.url}/#code={code}")
        self.page.get_by_role("heading", name="Overview").wait_for()
        return self.whole()

    def go(self, where: str, heading: str) -> "Tab":
        """Go to a page and wait until it is shown."""
        self.page.goto(f"{self.town.url}/#/{where}")
        self.page.get_by_role("heading", name=heading, exact=True, level=1).wait_for()
        return self.whole()

    def whole(self) -> "Tab":
        """Wait until all is there that the page asked for at first."""
        self.page.locator(".arriving").wait_for(state="detached")
        return self

    def main(self) -> Locator:
        """Return what the page shows beside its menu."""
        return self.page.locator("#main")

    def barriers(self) -> list[str]:
        """Return what stands in somebody's way on what is shown now: violations of WCAG 2.2, levels A and AA."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text() + "; undefined")
        found = self.page.evaluate(AXE_RUN, WCAG)
        return [
            f"{each['id']}: {node['html'][:160]} {node['failureSummary']}" for each in found for node in each["nodes"]
        ]

    def photograph(self, name: str, folder: Path) -> None:
        """Keep a picture, for people to look at."""
        into = Path(os.environ.get("BOROUGH_SCREENSHOTS") or folder)
        into.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=into / f"{name}.png")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        wider: int = self.page.evaluate(
            """() => {
                const main = document.getElementById('main');
                const inside = main ? main.scrollWidth - main.clientWidth : 0;
                return Math.max(inside, document.documentElement.scrollWidth - window.innerWidth);
            }"""
        )
        return wider

    def close(self) -> None:
        """Close it; nothing may have gone wrong in it."""
        violations = self.page.evaluate("window.violations ?? []")
        self._context.close()
        complaints = [told for told in self.complaints if not any(words in told for words in self._expected)]
        assert not complaints, complaints
        assert not violations, violations
        strangers = [url for url in self.asked if not url.startswith((f"{self.town.url}/", "data:", "blob:"))]
        assert not strangers, strangers
