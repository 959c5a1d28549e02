"""What is pressed on the dashboard is what was meant, whatever arrives between the press and the release."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import FloatRect, Locator, Page, Route, expect

from tests.e2e.conftest import RunningTown, until
from tests.e2e.dashboard import Tab, governed_town
from tests.e2e.test_dashboard import ASKING

TWO_FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with governed_town() as running:
        yield running


def box_of(what: Locator) -> FloatRect:
    box = what.bounding_box()
    assert box is not None
    return box


def press(page: Page, what: Locator) -> None:
    """Move the mouse onto something and hold its button down."""
    box = box_of(what)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()


def settings(tab: Tab) -> tuple[Locator, Route]:
    """Open the settings; return what they tell of who is signed in, and the answer that this waits for."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "GET":
            held.append(route)
        else:
            route.continue_()

    tab.page.route("**/v1/sessions/current", hold)
    you = tab.go("settings", "Settings").main().get_by_role("region", name="You")
    until(lambda: you.is_visible() and held)
    return you, held[0]


def test_signing_out_does_not_wait_for_who_is_signed_in(tab: Tab) -> None:
    you, answer = settings(tab)
    press(tab.page, you.get_by_role("button", name="Sign out"))
    with tab.page.expect_response("**/v1/sessions/current") as came:
        answer.continue_()
    came.value.finished()
    tab.page.evaluate(TWO_FRAMES)
    tab.page.mouse.up()
    tab.page.get_by_text("You have signed out.").wait_for()


def test_who_is_signed_in_has_its_room_before_it_is_known(tab: Tab) -> None:
    you, answer = settings(tab)
    assert "key" not in you.inner_text(), "nobody knows that yet"
    assert you.locator(".skeleton").count() == 2
    before = box_of(you)
    answer.continue_()
    expect(you).to_contain_text("the operator")
    expect(you).to_contain_text(re.compile(r"Until\s*in 1"))
    assert box_of(you) == before


def test_a_page_is_shown_though_an_answer_never_comes(tab: Tab) -> None:
    tab.page.clock.install()
    tab.page.route("**/v1/attention", lambda _: None)
    with tab.page.expect_request("**/v1/attention"):
        tab.page.reload()
    heading = tab.page.get_by_role("heading", name="Overview", level=1)
    needs = tab.page.get_by_role("heading", name="Needs you")
    expect(heading).to_be_visible()
    expect(needs).to_be_hidden()
    tab.page.clock.fast_forward(10_000)
    expect(needs).to_be_visible()


def test_what_arrives_above_is_not_pressed_in_its_place(tab: Tab) -> None:
    tab.town.ok("POST", "/v1/backlog", {"description": "what is meant"})
    tab.go("tasks", "Tasks")
    meant = tab.main().get_by_role("link", name="what is meant")
    expect(meant).to_be_visible()
    expect(tab.page.get_by_text("Live", exact=True)).to_be_visible()
    press(tab.page, meant)
    with tab.page.expect_response(re.compile(r"/v1/tasks/[\da-f-]{36}$")) as answer:
        tab.town.ok("POST", "/v1/backlog", {"description": "what arrives"})
    answer.value.finished()
    tab.page.evaluate(TWO_FRAMES)
    tab.page.mouse.up()
    tab.page.get_by_role("heading", name="what is meant", level=1).wait_for()
    tab.go("tasks", "Tasks")
    expect(tab.main().get_by_role("link", name="what arrives")).to_be_visible()


def test_the_second_press_of_a_double_click_agrees_to_nothing_else(tab: Tab) -> None:
    agent = tab.town.ok("POST", "/agents", {"manifest_yaml": json.dumps(ASKING)})["id"]
    calls = f"/agents/{agent}/tools/echo"
    with ThreadPoolExecutor(2) as background:
        first = background.submit(tab.town.request, "POST", calls, {"message": "first"})
        until(lambda: len(tab.town.ok("GET", "/approvals")) == 1)
        second = background.submit(tab.town.request, "POST", calls, {"message": "second"})
        until(lambda: len(tab.town.ok("GET", "/approvals")) == 2)
        tab.go("approvals", "Approvals")
        cards = tab.main().get_by_role("article")
        expect(cards).to_have_count(2)
        expect(cards.first).to_contain_text("first")
        approve = cards.first.get_by_role("button", name="Approve", exact=True)
        box = box_of(approve)
        press(tab.page, approve)
        tab.page.mouse.up()
        assert first.result().status == 200
        expect(cards).to_have_count(1)
        expect(cards).to_contain_text("second")
        assert box_of(approve) == box, "another is where it was"
        tab.page.mouse.down(click_count=2)
        tab.page.mouse.up(click_count=2)
        tab.page.evaluate(TWO_FRAMES)
        assert len([url for url in tab.asked if url.endswith("/approve")]) == 1
        approve.click()
        assert second.result().status == 200
    expect(tab.page.get_by_text("No call waits for you")).to_be_visible()
