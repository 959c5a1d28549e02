"""The dashboard for whoever sees little, has no mouse, or only a phone: its pages full of what really happened."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import AGENT_CLI, RunningTown, until
from tests.e2e.dashboard import ONE_BY_ONE, Scheme, Tab
from tests.e2e.test_borough_up_fleet import data, up
from tests.e2e.test_runs import ASKS, CALL, begun, comes_to


@dataclass(frozen=True, kw_only=True)
class Full:
    """A server on which there is something of everything, and where it is shown."""

    town: RunningTown
    places: dict[str, str]
    """Place → heading."""


@pytest.fixture(scope="module")
def full() -> Iterator[Full]:
    with up() as town:
        until(lambda: town.request("GET", "/api/status").status == 200)
        until(lambda: {image["name"] for image in data(town, "/api/images")} >= {"host", "local-root"})
        failed = comes_to(town, begun(town, "sh", "-c", "echo sorry; exit 3"), "failed")
        run = comes_to(town, begun(town, "sh", "-c", "echo kept > notes; echo forty-two"), "succeeded")
        asking = {"image": "host", "memory_mib": 256, "manifest": ASKS, "task": "tell the world"}
        waiting = comes_to(town, begun(town, "python3", "-c", CALL, **asking), "waiting")
        worker = town.ok("POST", "/v1/agents", {"name": "ada", "cli": AGENT_CLI})["agent_id"]
        task = town.ok("POST", "/v1/tasks/assign", {"agent": "ada", "task": "count to three"})["task_id"]
        until(lambda: town.ok("GET", f"/v1/tasks/{task}")["state"] == "completed")
        town.ok("PUT", "/v1/pools/coder", {"command": ["cat"], "max": 0})
        machine = waiting["machine"]
        yield Full(
            town=town,
            places={
                "": "Overview",
                "runs": "Runs",
                f"runs/{run['id']}": "a task",
                f"runs/{failed['id']}": "a task",
                f"runs/{waiting['id']}": "tell the world",
                "tasks": "Tasks",
                f"tasks/{task}": "count to three",
                "agents": "Agents",
                "agents?kind=governed&ended=yes": "Agents",
                f"agents/workers/{worker}": "ada",
                f"agents/governed/{waiting['agent']['id']}": "asker",
                "environments": "Environments",
                f"environments/{machine['env_id']}": machine["env_id"],
                f"machines/{machine['vm_id']}": machine["vm_id"],
                "hosts": "Hosts",
                "pools": "Pools",
                "approvals": "Approvals",
                "ledger": "Ledger",
                "ledger/3": "",
                "ledger/export": "Verify the ledger elsewhere",
                "events": "Live events",
                "settings": "Settings",
                "nowhere": "",
            },
        )
        town.request("POST", f"/v1/runs/{waiting['id']}/cancel", {})  # nobody has agreed
        until(lambda: data(town, "/api/envs") == [])


@pytest.fixture
def tab(browser: Browser, full: Full) -> Iterator[Tab]:
    opened = Tab(browser, full.town)
    yield opened.sign_in()
    opened.close()


LOOKS: list[tuple[int, Scheme]] = [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_no_page_has_a_barrier(browser: Browser, full: Full, width: int, scheme: Scheme) -> None:
    tab = Tab(browser, full.town, width=width, scheme=scheme)
    tab.page.goto(full.town.url)
    tab.page.get_by_role("button", name="Sign in").wait_for()
    found = {"signing in": tab.barriers()}
    tab.sign_in()
    for where, heading in full.places.items():
        if heading:
            tab.go(where, heading)
        else:
            tab.page.goto(f"{full.town.url}/#/{where}")
            tab.main().locator(".facts, .empty").first.wait_for()
        tab.page.locator(".loading").first.wait_for(state="detached")
        for folded in tab.main().locator("details.rare > summary").all():
            folded.click()
        found[where] = tab.barriers()
    tab.close()
    barred = {where: barriers for where, barriers in found.items() if barriers}
    assert not barred, json.dumps(barred, indent=2)


@pytest.mark.parametrize(("width", "order"), [(1440, "first"), (360, "last")])
def test_what_can_be_pressed_stays_where_it_is(browser: Browser, full: Full, width: int, order: str) -> None:
    tab = Tab(browser, full.town, width=width).sign_in()
    tab.page.add_init_script(f"({ONE_BY_ONE})('{order}')")
    found = {}
    for number, where in enumerate(full.places):
        tab.page.goto(f"{full.town.url}/?{number}#/{where}")
        found[where] = tab.page.evaluate("window.restless")
        assert tab.main().locator(".skeleton").count() == 0, f"{where}: something is never known"
    tab.close()
    restless = {where: moved for where, moved in found.items() if moved}
    assert not restless, json.dumps(restless, indent=2)


@pytest.mark.parametrize(("width", "scheme"), [LOOKS[1], LOOKS[2]])
def test_nothing_that_opens_has_a_barrier(browser: Browser, full: Full, width: int, scheme: Scheme) -> None:
    tab = Tab(browser, full.town, width=width, scheme=scheme).sign_in()
    page = tab.page
    form = page.get_by_role("dialog")
    found = {}
    if width < 720:
        page.get_by_role("button", name="Menu").click()
        found["menu"] = tab.barriers()
        page.get_by_role("button", name="Menu").click()
    for where, heading, button in FORMS:
        tab.go(where, heading).main().get_by_role("button", name=button).first.click()
        form.locator("form").wait_for()
        for folded in form.locator("details > summary").all():
            folded.click()
        found[button] = tab.barriers()
        page.keyboard.press("Escape")
        expect(form).to_have_count(0)
    for key, name in {"Control+k": "palette", "?": "keys"}.items():
        page.keyboard.press(key)
        form.wait_for()
        found[name] = tab.barriers()
        page.keyboard.press("Escape")
        expect(form).to_have_count(0)
    spec = {"image": "local-root", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 64}
    full.town.ok("POST", "/api/envs", {"id": "shell", "owner": "web", "ssh_keys": [], "vms": [spec]})
    tab.go("environments/shell", "shell")
    page.locator(".heading").get_by_role("button", name="Delete", exact=True).click()
    form.wait_for()
    found["question"] = tab.barriers()
    page.keyboard.press("Escape")
    expect(form).to_have_count(0)
    page.locator(".heading .menu summary").first.click()
    found["menu of a deed"] = tab.barriers()
    tab.main().get_by_role("table").get_by_role("link").first.click()
    page.get_by_role("button", name="Open a terminal").click()
    page.locator(".terminal .xterm-rows").wait_for()
    found["terminal"] = tab.barriers()
    full.town.ok("DELETE", "/api/envs/shell")
    tab.close()
    barred = {what: barriers for what, barriers in found.items() if barriers}
    assert not barred, json.dumps(barred, indent=2)


FORMS = [
    ("runs", "Runs", "Start a run"),
    ("tasks", "Tasks", "Assign a task"),
    ("agents", "Agents", "Spawn a worker"),
    ("agents", "Agents", "Spawn a governed agent"),
    ("environments", "Environments", "Create an environment"),
    ("hosts", "Hosts", "Add a host"),
    ("pools", "Pools", "Make a pool"),
]


class Keyboard:
    """Whoever has nothing else."""

    def __init__(self, tab: Tab) -> None:
        self.page = tab.page
        self.press = tab.page.keyboard.press
        self.type = tab.page.keyboard.type

    def to(self, name: str) -> None:
        """Move the focus on until it is on what is named so; on every step it is seen where it is."""
        for _ in range(80):
            self.press("Tab")
            assert self.page.evaluate(FOCUS_SEEN), self.page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
            if name in self.page.evaluate(FOCUSED_NAME):
                return
        pytest.fail(f"the focus does not come to {name!r}")

    def comes(self, heading: str) -> None:
        self.page.get_by_role("heading", name=heading, level=1).wait_for()
        self.page.locator(".arriving").wait_for(state="detached")
        expect(self.page).to_have_title(f"{heading} · Borough")


def test_a_run_is_begun_with_the_keyboard_alone(browser: Browser, full: Full) -> None:
    tab = Tab(browser, full.town)
    tab.expects("status of 401")
    tab.page.goto(full.town.url)
    keys = Keyboard(tab)
    tab.page.get_by_label("Or a credential").wait_for()
    keys.to("Or a credential")
    keys.type(full.town.token)
    keys.press("Enter")
    keys.comes("Overview")
    keys.to("Skip to the page")
    keys.press("Enter")
    keys.to("Start a run")
    keys.press("Enter")
    expect(tab.page.get_by_label("What is to be done")).to_be_focused()
    keys.type("by keyboard")
    keys.to("Command")
    keys.type("echo typed")
    keys.to("Start")
    keys.press("Enter")
    keys.comes("by keyboard")
    expect(tab.main().get_by_role("region", name="How it stands")).to_contain_text("Succeeded")
    keys.to("Retry: copy")
    keys.press("Enter")
    keys.to("Copy as command")
    keys.press("Enter")
    tab.page.get_by_text("The command copied").wait_for()
    assert tab.page.evaluate("navigator.clipboard.readText()").startswith("borough retry ")
    tab.close()


def test_an_environment_and_the_ledger_with_the_keyboard_alone(tab: Tab) -> None:
    keys = Keyboard(tab)
    keys.press("Control+k")
    keys.type("create an env")
    keys.press("Enter")
    expect(tab.page.get_by_label("Name")).to_be_focused()
    keys.type("typed")
    keys.to("Image")
    keys.press("Control+a")
    keys.type("local-root")
    keys.press("Enter")
    keys.comes("typed")
    expect(tab.page.get_by_role("table").get_by_text("Running")).to_be_visible(timeout=30_000)
    keys.to("Delete")
    keys.press("Enter")
    keys.to("Delete")
    keys.press("Enter")
    keys.comes("Environments")
    keys.press("g")
    keys.press("l")
    keys.comes("Ledger")
    tab.page.get_by_role("grid").wait_for()
    keys.to("Entries of the ledger, the newest first")
    keys.press("j")
    keys.press("Enter")
    tab.page.get_by_role("region", name="Proof that it is there").wait_for()
    keys.to("Ledger")


FOCUSED_NAME = """(() => {
    const focused = document.activeElement;
    const labels = focused.labels ? [...focused.labels].map((each) => each.textContent).join(' ') : '';
    return (focused.getAttribute('aria-label') || labels || focused.textContent).trim();
})()"""
FOCUS_SEEN = """(() => {
    const focused = document.activeElement;
    const style = getComputedStyle(focused);
    return focused === document.body || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1);
})()"""


def test_a_call_that_waits_is_agreed_to_from_a_phone(browser: Browser, full: Full, tmp_path: Path) -> None:
    asking = {"image": "host", "memory_mib": 256, "manifest": ASKS, "task": "say it to all"}
    waiting = comes_to(full.town, begun(full.town, "python3", "-c", CALL, **asking), "waiting")
    tab = Tab(browser, full.town, width=360, phone=True).sign_in()
    needs = tab.main().get_by_role("region", name="Needs you")
    card = needs.get_by_role("article").filter(has_text="For the run say it to all in bubblewrap")
    expect(card).to_contain_text("asker wants to call echo")
    expect(card).to_contain_text('"said": "hello"')
    expect(card).to_contain_text("Rule: saying")
    expect(card).to_contain_text("If nobody decides: refused in")
    approve = card.get_by_role("button", name="Approve", exact=True)
    for button in (approve, card.get_by_role("button", name="Deny", exact=True)):
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 40, "wide enough for a finger"
    approve.scroll_into_view_if_needed()
    assert tab.overflow() <= 0
    tab.photograph("approval-on-a-phone", tmp_path)
    approve.tap()
    done = comes_to(full.town, waiting, "succeeded")
    assert "hello" in done["result"]["answer"]
    expect(card).to_have_count(0)
    entries = full.town.ok("GET", f"/v1/runs/{done['id']}/ledger")
    decided = [entry for entry in entries if entry["action"] == "HumanApproval"]
    assert [entry["kind"] for entry in decided] == ["intent", "outcome"]
    assert decided[-1]["outcome"] == "success"
    tab.page.goto(f"{full.town.url}/#/runs/{done['id']}")
    expect(tab.main().get_by_role("region", name="How it stands")).to_contain_text("Succeeded")
    expect(tab.main().get_by_role("region", name="Its slice of the ledger")).to_contain_text("Human approval")
    tab.photograph("approved-on-a-phone", tmp_path)
    tab.close()
