"""The dashboard against a real ``borough up``, in Debian's Chromium: what is done there is done, and seen at once."""

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
import valkey.asyncio
from playwright.sync_api import Browser, expect

from borough.adapters.valkey import keys
from borough.adapters.valkey.town.asking import argument
from borough.adapters.valkey.town.tasks import task_arguments
from borough.core.ids import TaskId, new_id
from borough.town.names import SUPERVISOR_ID
from borough.town.tasks import NewTask
from tests.e2e.conftest import AGENT_CLI, RunningTown, until
from tests.e2e.dashboard import Tab, governed_town

HOSTILE = "<img src=x onerror=hacked()>\"'><script>hacked()</script>"
MANY = 10_000
MOST_ROWS = 80
"""That exist at once, however many there are."""
ASKING = {
    "apiVersion": "scarab/v1",
    "kind": "AgentManifest",
    "metadata": {"name": "asker", "version": "1.0.0"},
    "spec": {
        "trust_level": "trusted",
        "capabilities": ["tool.invoke:echo"],
        "policy": [{"id": "careful", "effect": "ask", "capability": "tool.invoke:echo"}],
    },
}
TALKING = {
    "apiVersion": "scarab/v1",
    "kind": "AgentManifest",
    "metadata": {"name": "talker", "version": "1.0.0"},
    "spec": {"trust_level": "trusted", "capabilities": ["tool.invoke:echo"]},
}


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with governed_town() as running:
        yield running


def test_an_address_signs_in_once_and_leaves_no_trace(browser: Browser, town: RunningTown) -> None:
    tab = Tab(browser, town)
    code = town.ok("POST", "/v1/sign-in-codes")["code"]
    tab.page.goto(f"{town.url}/#code={code}")
    tab.page.get_by_role("heading", name="Overview").wait_for()
    assert code not in tab.page.url
    assert tab.page.evaluate("Object.keys(localStorage)") == []
    secret = tab.page.evaluate("sessionStorage.getItem('borough.credential')")
    assert secret.startswith("bop_s_")
    assert code not in town.log.read_text()
    assert secret not in town.log.read_text()
    tab.go("settings", "Settings")
    tab.main().get_by_role("button", name="Sign out").click()
    tab.page.get_by_text("You have signed out.").wait_for()
    assert town.request("GET", "/v1/sessions/current", token=secret).status == 401
    again = town.request("POST", "/v1/sessions", {"code": code}, token=None)
    assert (again.status, again.json()["code"]) == (403, "invalid_code")
    tab.close()


def test_a_credential_can_be_typed_in_and_a_wrong_one_is_refused(browser: Browser, town: RunningTown) -> None:
    tab = Tab(browser, town)
    tab.expects("status of 401")
    tab.page.goto(town.url)
    field = tab.page.get_by_label("Or a credential")
    field.fill("nothing that anybody gave")
    tab.page.get_by_role("button", name="Sign in").click()
    tab.page.get_by_text("This credential opens nothing here.").wait_for()
    field.fill(town.token)
    tab.page.get_by_role("button", name="Sign in").click()
    expect(tab.page.get_by_role("heading", name="Overview")).to_be_visible()
    assert tab.page.evaluate("Object.keys(localStorage)") == [], "it is gone with the tab"
    tab.close()


def test_an_environment_is_created_stopped_started_and_deleted(tab: Tab, tmp_path: Path) -> None:
    tab.go("environments", "Environments")
    tab.page.get_by_role("button", name="Create an environment").first.click()
    form = tab.page.get_by_role("dialog")
    form.get_by_label("Name").fill("first")
    form.get_by_label("Machines").fill("2")
    form.get_by_label("Image").fill("local-root")
    expect(form.get_by_label("Engine")).to_have_value("bubblewrap")
    form.get_by_role("button", name="Copy as command").click()
    tab.page.get_by_text("The command copied").wait_for()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("tt env create first --image local-root --engine bubblewrap")
    form.get_by_role("button", name="Create", exact=True).click()
    tab.page.get_by_role("heading", name="first", level=1).wait_for()
    machines = tab.page.get_by_role("table")
    expect(machines.get_by_text("Running")).to_have_count(2)
    tab.photograph("environment", tmp_path)
    heading = tab.page.locator(".heading")
    heading.get_by_role("button", name="Stop", exact=True).click()
    expect(machines.get_by_text("Stopped")).to_have_count(2)
    heading.get_by_role("button", name="Start", exact=True).click()
    expect(machines.get_by_text("Running")).to_have_count(2)
    heading.get_by_role("button", name="Delete", exact=True).click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    tab.page.get_by_role("heading", name="Environments", level=1).wait_for()
    expect(tab.page.get_by_text("No environment yet")).to_be_visible()
    assert tab.town.ok("GET", "/api/envs")["data"] == []


def test_a_terminal_echoes_what_is_typed(tab: Tab, tmp_path: Path) -> None:
    spec = {"image": "local-root", "engine": "bubblewrap", "cpu": 1, "mem": 128, "disk": 64}
    made = tab.town.ok("POST", "/api/envs", {"id": "shell", "owner": "web", "ssh_keys": [], "vms": [spec]})
    vm = made["data"]["vms"][0]["id"]
    tab.go(f"machines/{vm}", vm)
    tab.page.get_by_role("button", name="Open a terminal").click()
    screen = tab.page.locator(".terminal .xterm-rows")
    screen.wait_for()
    until(lambda: screen.inner_text().strip())  # a prompt
    tab.page.keyboard.type("printf '\\033[38;2;200;90;10mr%s\\033[0m\\n' eady\n")
    expect(screen.get_by_text("ready", exact=True)).to_have_css("color", "rgb(200, 90, 10)")
    tab.photograph("terminal", tmp_path)
    tab.page.keyboard.type("exit\n")
    expect(tab.page.get_by_text("ended with exit code 0")).to_be_visible()
    tab.town.ok("DELETE", "/api/envs/shell")


def test_a_task_is_assigned_and_seen_to_its_end(tab: Tab, tmp_path: Path) -> None:
    tab.go("agents", "Agents")
    tab.main().get_by_role("button", name="Spawn a worker").first.click()
    form = tab.page.get_by_role("dialog")
    form.get_by_label("Name", exact=False).first.fill("ada")
    form.get_by_label("Agent CLI").fill(AGENT_CLI)
    form.get_by_role("button", name="Spawn", exact=True).click()
    tab.page.get_by_role("heading", name="ada", level=1).wait_for()
    tab.main().get_by_role("button", name="Assign a task").click()
    form = tab.page.get_by_role("dialog")
    form.get_by_label("What is to be done").fill("count to three")
    expect(form.get_by_label("Who")).to_have_value("ada")
    form.get_by_role("button", name="Assign", exact=True).click()
    tab.page.get_by_role("heading", name="count to three", level=1).wait_for()
    expect(tab.main().get_by_text("Completed", exact=True).first).to_be_visible()
    expect(tab.main().get_by_label("the result")).to_contain_text("You are the agent ada")
    tab.photograph("task", tmp_path)
    tab.town.ok("POST", "/v1/backlog", {"description": "somebody else's wish"})
    tab.go("tasks", "Tasks")
    expect(tab.page.get_by_role("row").filter(has_text="somebody else's wish")).to_contain_text("Completed")
    tab.go("agents", "Agents")
    tab.main().get_by_role("link", name="ada").click()
    tab.page.get_by_role("heading", name="ada", level=1).wait_for()
    tab.page.locator(".heading").get_by_role("button", name="Kill", exact=True).click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Kill", exact=True).click()
    expect(tab.main().get_by_role("region", name="Facts")).to_contain_text("Stopped")


def test_what_happens_elsewhere_appears_without_loading_again(tab: Tab) -> None:
    tab.go("tasks", "Tasks")
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
    asked = len([url for url in tab.asked if url.endswith("/")])
    tab.town.ok("POST", "/v1/backlog", {"description": "out of the blue"})
    tab.page.get_by_role("row").filter(has_text="out of the blue").wait_for()
    tab.go("events", "Live events")
    tab.page.get_by_role("row").filter(has_text="out of the blue").first.wait_for()
    assert len([url for url in tab.asked if url.endswith("/")]) == asked


def test_the_charts_begin_where_the_server_did(tab: Tab) -> None:
    taken = until(lambda: tab.town.ok("GET", "/v1/figures")["figures"])
    queue = tab.main().get_by_role("figure", name="Tasks that wait and tasks under way")
    for _ in range(2):
        tab.page.reload()
        expect(queue.get_by_text(re.compile(r"under way \d"))).to_be_visible()
    assert tab.town.ok("GET", "/v1/figures")["figures"][: len(taken)] == taken
    later = tab.town.ok("GET", f"/v1/figures?since={taken[0]['at']}")["figures"]
    assert all(one["at"] > taken[0]["at"] for one in later)
    assert tab.town.request("GET", "/v1/figures?since=yesterday").status == 400
    open_to_all = tab.town.request("GET", "/v1/figures", token=None).json()["figures"]
    assert {one["cpu"] for one in open_to_all} == {None}, "machines are shown to the operator alone"


def test_a_waiting_call_is_approved_and_goes_ahead(tab: Tab, tmp_path: Path) -> None:
    agent = tab.town.ok("POST", "/agents", {"manifest_yaml": json.dumps(ASKING)})["id"]
    with ThreadPoolExecutor(1) as background:
        call = background.submit(tab.town.request, "POST", f"/agents/{agent}/tools/echo", {"message": HOSTILE})
        tab.go("approvals", "Approvals")
        card = tab.page.get_by_role("article", name="asker wants to call echo")
        expect(card).to_contain_text(HOSTILE[:20])
        tab.photograph("approvals", tmp_path)
        card.get_by_role("button", name="Approve", exact=True).click()
        assert call.result().status == 200
    expect(tab.page.get_by_text("No call waits for you")).to_be_visible()
    tab.go(f"agents/governed/{agent}", "asker")
    expect(tab.main().get_by_role("region", name="Tool calls")).to_contain_text("success")
    tab.photograph("agent", tmp_path)


def test_hostile_names_are_text(tab: Tab) -> None:
    town = tab.town
    task = town.ok("POST", "/v1/backlog", {"description": HOSTILE, "tags": ["x"]})["task_id"]
    tab.go("tasks", "Tasks")
    expect(tab.page.get_by_role("row").filter(has_text=HOSTILE)).to_be_visible()
    tab.page.goto(f"{town.url}/#/tasks/{task}")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    tab.expects("status of 4")
    tab.page.goto(f"{town.url}/#/environments/{HOSTILE.replace('/', '%2F')}")
    tab.page.get_by_role("alert").first.wait_for()
    assert tab.page.evaluate("window.violations") == []


def test_everything_is_found_from_the_keyboard(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    tab.town.ok("POST", "/v1/backlog", {"description": "to be found from the keyboard"})
    page.keyboard.press("Control+k")
    expect(page.get_by_role("combobox")).to_be_focused()
    page.keyboard.type("ledg")
    tab.photograph("palette", tmp_path)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Ledger", level=1).wait_for()
    expect(page.locator(".verified")).to_contain_text("whole")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Find anything")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.get_by_role("heading", name="Tasks", level=1).wait_for()
    page.keyboard.press("n")
    expect(page.get_by_label("What is to be done")).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("grid").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.get_by_text("Why it stands where it stands").wait_for()


def test_the_ledger_is_read_back_to_its_first_entry(tab: Tab) -> None:
    agent = tab.town.ok("POST", "/agents", {"manifest_yaml": json.dumps(TALKING)})["id"]
    for number in range(150):
        tab.town.ok("POST", f"/agents/{agent}/tools/echo", {"said": f"number {number}"})
    tab.go("ledger", "Ledger")
    grid = tab.page.get_by_role("grid")
    newest = int(grid.locator(".list-row").first.get_by_role("gridcell").first.inner_text())
    assert newest >= 300

    def oldest() -> int:
        grid.evaluate("list => { list.scrollTop = list.scrollHeight; }")
        rows = grid.locator(".list-row")
        assert rows.count() <= MOST_ROWS
        return int(rows.last.get_by_role("gridcell").first.inner_text())

    until(lambda: oldest() == 0)
    expect(tab.page.get_by_text("all that fit")).to_be_visible()
    grid.get_by_role("link", name="0", exact=True).click()
    tab.page.get_by_role("region", name="Proof that it is there").get_by_text("0 of").wait_for()
    expect(tab.main().get_by_label("the entry")).to_contain_text('"seq": 0')


PAGES = {
    "": "Overview",
    "runs": "Runs",
    "tasks": "Tasks",
    "agents": "Agents",
    "environments": "Environments",
    "hosts": "Hosts",
    "pools": "Pools",
    "approvals": "Approvals",
    "ledger": "Ledger",
    "events": "Live events",
    "settings": "Settings",
}


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")])
def test_every_page_fits_the_screen(
    browser: Browser, town: RunningTown, width: int, scheme: str, tmp_path: Path
) -> None:
    assert scheme in {"light", "dark"}
    tab = Tab(browser, town, width=width, scheme="dark" if scheme == "dark" else "light").sign_in()
    for where, heading in PAGES.items():
        tab.go(where, heading)
        tab.page.locator(".loading").first.wait_for(state="detached")
        assert tab.overflow() <= 0, (heading, width)
        tab.photograph(f"{heading.lower().replace(' ', '-')}-{width}-{scheme}", tmp_path)
    tab.close()


def test_ten_thousand_tasks_stay_smooth(browser: Browser, town: RunningTown) -> None:
    with ThreadPoolExecutor(1) as beside:  # the browser's own loop runs in this thread
        beside.submit(asyncio.run, _fill(town)).result()
    tab = Tab(browser, town).sign_in().go("tasks", "Tasks")
    grid = tab.page.get_by_role("grid")
    grid.get_by_role("row").nth(5).wait_for()

    def scrolled() -> int:
        grid.evaluate("list => { list.scrollTop = list.scrollHeight; }")
        rows = grid.locator(".list-row")
        assert rows.count() <= MOST_ROWS
        return int(rows.last.get_attribute("aria-rowindex") or 0)

    until(lambda: scrolled() > 1500)  # it reads on as one scrolls
    frames = tab.page.evaluate(
        """async () => {
            const list = document.querySelector('.list');
            const frames = [];
            for (let step = 0; step < 60; step += 1) {
                const begun = performance.now();
                list.scrollTop = (list.scrollHeight * step) / 60;
                await new Promise(requestAnimationFrame);
                frames.push(performance.now() - begun);
            }
            return frames;
        }"""
    )
    assert median(frames) < 250, frames
    assert max(frames) < 500, "a frame took too long"
    tab.close()


async def _fill(town: RunningTown) -> None:
    """Write the tasks as the server does, but past it: over HTTP it would take half a minute."""
    client = valkey.asyncio.Valkey(unix_socket_path=str(town.root / ".tt" / "redis.sock"))
    prefix = keys.prefix(town.ok("GET", "/v1/town")["name"])
    try:
        for begin in range(0, MANY, 500):
            pipe = client.pipeline(transaction=False)
            for number in range(begin, begin + 500):
                new = NewTask(id=TaskId(new_id()), description=f"task {number}", sender=SUPERVISOR_ID, role="nobody")
                pipe.fcall("town_add_to_backlog", 1, prefix, *map(argument, task_arguments(new)))
            await pipe.execute()
    finally:
        await client.aclose()
