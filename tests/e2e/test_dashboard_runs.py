"""Runs, pools and hosts on the dashboard, in Debian's Chromium: real ones, in real machines of bubblewrap."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.e2e.conftest import RunningTown, run_tool, until
from tests.e2e.dashboard import Tab
from tests.e2e.fleet_programs import KEY, free_port, host_program, root_folder
from tests.e2e.test_borough_up_fleet import data, up
from tests.e2e.test_runs import CALL, begun, comes_to

WORK = "echo begun; until [ -e go ]; do sleep 0.1; done; echo changed > notes; echo done"
CALLS = CALL.replace("hello", "allowed") + CALL.replace('"echo"', '"fs.read"').replace('"said": "hello"', '"path": "x"')
MAY_ECHO = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: caller, version: 1.0.0, description: calls a tool that it has and one that it has not}
spec:
  trust_level: sandboxed
  capabilities: ["tool.invoke:echo"]
"""


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up(TT_API_KEY=KEY) as running:
        until(lambda: running.request("GET", "/api/status").status == 200)
        until(lambda: {image["name"] for image in data(running, "/api/images")} >= {"host", "local-root"})
        yield running


def at(tab: Tab, run: dict[str, Any]) -> Locator:
    """Open a run's page; return how it stands."""
    tab.go(f"runs/{run['id']}", "a task")
    return tab.main().get_by_role("region", name="How it stands")


def confirmed(tab: Tab, deed: str) -> None:
    tab.page.locator(".heading").get_by_role("button", name=deed, exact=True).click()
    tab.page.get_by_role("dialog").get_by_role("button", name=deed, exact=True).click()


def test_a_run_is_admitted_worked_before_one_s_eyes_and_proved(tab: Tab, tmp_path: Path) -> None:
    page = tab.go("runs", "Runs").page
    page.get_by_role("button", name="Start a run").first.click()
    form = page.get_by_role("dialog")
    form.get_by_label("What is to be done").fill("a task")
    form.get_by_label("Command").fill(WORK)
    form.get_by_text("More", exact=True).click()
    expect(form.get_by_label("Image")).to_have_value("host")
    form.get_by_label("Image").fill("local-root")
    form.get_by_label("Memory, MiB").fill("64")
    form.get_by_label("Budget, tool calls").fill("7")
    form.get_by_role("button", name="Would it be admitted?").click()
    decided = form.locator(".preview")
    expect(decided).to_contain_text("bubblewrap")
    expect(decided).to_contain_text("nothing outside")
    assert tab.town.ok("GET", "/v1/runs")["runs"] == [], "it was only asked"
    tab.photograph("run-admission", tmp_path)
    form.get_by_role("button", name="Copy as command").click()
    page.get_by_text("The command copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(
        "borough run 'a task' --image local-root --memory 64 --budget-calls 7 -- sh -c 'echo begun;"
    )
    form.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("heading", name="a task", level=1).wait_for()
    state = tab.main().get_by_role("region", name="How it stands")
    expect(state).to_contain_text("Working")
    log = tab.main().get_by_label("What the agent printed")
    expect(log).to_have_text("begun\n")
    expect(tab.main().get_by_role("region", name="Cost").get_by_role("meter")).to_have_attribute("aria-valuemax", "7")
    page.get_by_role("button", name="Open a terminal").click()
    screen = page.locator(".terminal .xterm-rows")
    screen.wait_for()
    until(lambda: screen.inner_text().strip())  # a prompt
    page.keyboard.type("ls /workspace; touch /workspace/go\n")
    expect(state).to_contain_text("Succeeded")
    expect(tab.main().get_by_label("the answer")).to_have_text("done")
    expect(log).to_have_text("begun\ndone\n")
    expect(tab.main().get_by_label("The patch")).to_contain_text("+changed")
    expect(tab.main().get_by_role("region", name="Its slice of the ledger")).to_contain_text("Run end")
    tab.photograph("run", tmp_path)
    with page.expect_download() as fetched:
        page.get_by_role("button", name="Evidence").click()
    kept = tmp_path / fetched.value.suggested_filename
    fetched.value.save_as(kept)
    told = run_tool("borough.cli.borough", "verify", str(kept), cwd=tmp_path)
    assert told.stdout.startswith("verified\tyes\n")
    tab.go("runs", "Runs")
    expect(page.get_by_role("row").filter(has_text="a task")).to_contain_text("Succeeded")


def test_what_cannot_be_admitted_says_why_in_the_form(tab: Tab) -> None:
    tab.expects("status of 422")
    page = tab.go("runs", "Runs").page
    page.get_by_role("button", name="Start a run").first.click()
    form = page.get_by_role("dialog")
    form.get_by_label("What is to be done").fill("too much")
    form.get_by_label("Engine").select_option("bubblewrap")
    form.get_by_label("Isolation, at least").select_option("vm")
    form.get_by_role("button", name="Start", exact=True).click()
    expect(form.get_by_role("alert")).to_contain_text("isolates less than vm")


def started_with(tab: Tab, archive: Path) -> None:
    """Start a run that prints one file of an archive."""
    page = tab.go("runs", "Runs").page
    page.get_by_role("button", name="Start a run").first.click()
    form = page.get_by_role("dialog")
    form.get_by_label("What is to be done").fill("read what was packed")
    form.get_by_label("Command").fill("cat packed/one")
    form.get_by_label("Or an archive").set_input_files(archive)
    form.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("heading", name="read what was packed", level=1).wait_for()


def test_a_run_begins_with_an_archive_that_was_picked(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("from the browser\n")
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "one", "packed/one")
    started_with(tab, tmp_path / "packed.tar.gz")
    expect(tab.main().get_by_label("the answer")).to_have_text("from the browser")


def test_a_run_whose_archive_is_none_is_over(tab: Tab, tmp_path: Path) -> None:
    tab.expects("status of 422")
    (tmp_path / "packed.tar").write_text("no archive")
    started_with(tab, tmp_path / "packed.tar")
    expect(tab.page.locator(".toast.bad")).to_contain_text("what was sent is no tar archive")
    expect(tab.main().get_by_role("region", name="How it stands")).to_contain_text("its source did not arrive")


def test_each_call_of_a_tool_is_shown_with_its_verdict(tab: Tab, tmp_path: Path) -> None:
    run = begun(tab.town, "python3", "-c", CALLS, image="host", memory_mib=256, manifest=MAY_ECHO)
    state = at(tab, run)
    expect(state).to_contain_text("Succeeded")
    calls = tab.main().get_by_role("region", name="Tool calls · 2")
    expect(calls.get_by_role("listitem").filter(has_text="success")).to_contain_text("echo")
    expect(calls.get_by_role("listitem").filter(has_text="denied")).to_contain_text("fs.read")
    tab.photograph("run-calls", tmp_path)


def test_a_run_that_failed_is_tried_again(tab: Tab) -> None:
    run = begun(tab.town, "sh", "-c", "echo attempt $BOROUGH_ATTEMPT; exit 3")
    state = at(tab, run)
    expect(state).to_contain_text("its command ended with exit code 3")
    tab.page.get_by_role("button", name="Retry", exact=True).click()
    expect(tab.main().get_by_role("region", name="Facts")).to_contain_text("2 of")
    expect(tab.main().get_by_label("What the agent printed")).to_have_text("attempt 2\n")
    comes_to(tab.town, run, "failed")


def test_a_run_is_cancelled(tab: Tab) -> None:
    run = begun(tab.town, "sleep", "1000")
    state = at(tab, run)
    expect(state).to_contain_text("Working")
    confirmed(tab, "Cancel")
    expect(state).to_contain_text("cancelled on the dashboard")
    comes_to(tab.town, run, "cancelled")


def test_a_run_is_killed(tab: Tab) -> None:
    run = begun(tab.town, "sleep", "1000")
    state = at(tab, run)
    expect(state).to_contain_text("Working")
    confirmed(tab, "Kill")
    expect(state).to_contain_text("from the dashboard")
    assert comes_to(tab.town, run, "killed")["quarantined"] is False


def test_a_run_is_quarantined_and_its_machine_can_be_looked_at(tab: Tab, tmp_path: Path) -> None:
    run = begun(tab.town, "sh", "-c", "echo kept > evidence; sleep 1000")
    state = at(tab, run)
    expect(state).to_contain_text("Working")
    confirmed(tab, "Quarantine")
    expect(state).to_contain_text("Quarantined")
    machine = comes_to(tab.town, run, "killed")["machine"]
    tab.photograph("run-quarantined", tmp_path)
    tab.main().get_by_role("link", name=machine["vm_id"]).click()
    tab.page.get_by_role("heading", name=machine["vm_id"], level=1).wait_for()
    expect(tab.main().get_by_role("region", name="Facts")).to_contain_text("Paused")
    tab.page.get_by_role("link", name=machine["env_id"]).first.click()
    tab.page.get_by_role("heading", name=machine["env_id"], level=1).wait_for()
    confirmed(tab, "Delete")
    tab.page.get_by_role("heading", name="Environments", level=1).wait_for()
    until(lambda: data(tab.town, "/api/envs") == [])


def test_a_governed_agent_is_killed_from_its_own_page(tab: Tab) -> None:
    run = begun(tab.town, "sleep", "1000")
    comes_to(tab.town, run, "working")
    tab.go("agents?kind=governed", "Agents")
    tab.main().get_by_role("link", name=run["agent"]["name"], exact=True).click()
    tab.page.get_by_role("region", name="Tool calls").wait_for()
    confirmed(tab, "Kill")
    expect(tab.main().get_by_role("region", name="Facts")).to_contain_text("Killed")
    assert comes_to(tab.town, run, "killed")["reason"].endswith("from the dashboard")


@pytest.mark.parametrize("width", [360, 1440])
def test_the_pages_of_runs_fit_the_screen(browser: Browser, town: RunningTown, width: int, tmp_path: Path) -> None:
    run = begun(town, "sh", "-c", f"echo {'long' * 60}; echo {'x' * 300} > {'name' * 20}")
    done = comes_to(town, run, "succeeded")
    tab = Tab(browser, town, width=width).sign_in()
    for where, heading in {f"runs/{run['id']}": "a task", "runs": "Runs", f"tasks/{run['task_id']}": "a task"}.items():
        tab.go(where, heading)
        tab.page.locator(".loading").first.wait_for(state="detached")
        assert tab.overflow() <= 0, where
        tab.photograph(f"{where.partition('/')[0]}-full-{width}", tmp_path)
    tab.page.goto(f"{town.url}/#/agents/governed/{done['agent']['id']}")
    tab.page.get_by_role("region", name="Tool calls").wait_for()
    assert tab.overflow() <= 0
    tab.close()


def test_a_pool_is_made_works_tells_each_step_and_goes(tab: Tab, tmp_path: Path) -> None:
    page = tab.go("pools", "Pools").page
    expect(page.get_by_text("No pool yet")).to_be_visible()
    page.get_by_role("button", name="Make a pool").first.click()
    form = page.get_by_role("dialog")
    form.get_by_label("Role").fill("tester")
    form.get_by_label("Agent CLI").fill("cat")
    form.get_by_label("Workers, at most").fill("1")
    form.get_by_label("Seconds idle before one goes").fill("600")
    form.get_by_label("Disk of each, MiB").fill("256")
    form.get_by_role("button", name="Set", exact=True).click()
    pool = tab.main().get_by_role("region", name=re.compile("^tester"))
    expect(pool).to_contain_text("10 min")
    task = tab.town.ok("POST", "/v1/backlog", {"description": "to be tested", "role": "tester"})["task_id"]
    expect(pool.get_by_role("meter", name="Workers")).to_have_attribute("aria-valuenow", "1")
    until(lambda: tab.town.ok("GET", f"/v1/tasks/{task}")["state"] == "completed")
    expect(pool).to_contain_text("tester-1")
    pool.get_by_text("Every step, and why").click()
    expect(pool.get_by_role("listitem").filter(has_text="is started")).to_contain_text("1 waiting")
    tab.photograph("pool", tmp_path)
    pool.get_by_role("button", name="Change").click()
    expect(form.get_by_label("Seconds idle before one goes")).to_have_value("600")
    expect(form.get_by_label("Agent CLI")).to_have_value("cat")
    form.get_by_label("Seconds idle before one goes").fill("0")
    form.get_by_role("button", name="Set", exact=True).click()
    expect(pool.get_by_role("listitem").filter(has_text="from 1 to 0")).to_contain_text("nothing to do for 0 s")
    changed = tab.town.ok("GET", "/v1/pools/tester")
    assert (changed["disk_mib"], changed["max"]) == (256, 1), "what was not changed is as it was"
    pool.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("No pool yet")).to_be_visible(timeout=60_000)


def test_a_host_is_added_cordoned_and_removed(tab: Tab, tmp_path: Path) -> None:
    root_folder(tmp_path / "images" / "tiny")
    with host_program(free_port(), tmp_path, "second") as second:
        page = tab.go("hosts", "Hosts").page
        page.get_by_role("button", name="Add a host").first.click()
        form = page.get_by_role("dialog")
        form.get_by_label("Address").fill(second.address)
        form.get_by_role("button", name="Add", exact=True).click()
        host = tab.main().get_by_role("region", name=re.compile(re.escape(second.address)))
        expect(host).to_contain_text("Online")
        expect(host).to_contain_text("bubblewrap")
        expect(tab.main().get_by_role("region", name="Images")).to_contain_text("tiny")
        tab.photograph("hosts-two", tmp_path)
        host.get_by_role("button", name="Cordon", exact=True).click()
        expect(host).to_contain_text("Cordoned")
        host.get_by_role("button", name="Remove", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
        expect(host).to_have_count(0)
        assert len(data(tab.town, "/api/hosts")) == 1
