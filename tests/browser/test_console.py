"""The console in a browser: every page, on a desk and on a phone, without a word of complaint from the browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Browser, Page, expect

from tests.browser.shop import CHROMIUM, TOKEN, chromium, shop, visit, visits

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PAGES: Final = ("Live", "Requests", "Upstreams", "Errors", "Latency", "Pages", "About")
PATIENCE: Final = 30_000
DESK: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 375, "height": 812}
OVERFLOW: Final = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a shop in which a few customers have been, one of them with an id that is known."""
    with shop(tmp_path_factory.mktemp("logs")) as url:
        visits(url, rounds=1)
        visit(url, "home/9?fault=reviews:503", "browsed-1")
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the browser complains of: scripts that fail, what the policy refuses, files that are not there."""
    heard: list[str] = []
    yield heard
    assert heard == []


@pytest.fixture
def door(browser: Browser, base: str, complaints: list[str]) -> Iterator[Page]:
    """A browser before the door."""
    context = browser.new_context(viewport=DESK, base_url=base)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/ops/")
    yield page
    context.close()


@pytest.fixture
def page(door: Page) -> Page:
    """An operator's browser, at the first page."""
    door.get_by_label("Token").fill(TOKEN)
    door.get_by_role("button", name="Come in").click()
    expect(door.get_by_role("heading", name="Live")).to_be_visible()
    return door


def go(page: Page, title: str) -> None:
    """Choose a page of the console from its navigation."""
    page.get_by_role("navigation", name="Console").get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()


def test_the_token_opens_the_console_and_another_does_not(door: Page, complaints: list[str]) -> None:
    door.get_by_label("Token").fill("w" * 40)
    door.get_by_role("button", name="Come in").click()
    expect(door.get_by_role("alert")).to_contain_text("not the token")
    complaints.clear()  # of the 403
    door.get_by_label("Token").fill(TOKEN)
    door.get_by_role("button", name="Come in").click()
    expect(door.get_by_role("heading", name="Live")).to_be_visible()
    door.get_by_role("button", name="Leave").click()
    expect(door.get_by_label("Token")).to_be_visible()


@pytest.mark.parametrize("title", PAGES)
def test_a_page_fits_a_desk_and_a_phone(page: Page, title: str) -> None:
    go(page, title)
    expect(page.get_by_role("navigation", name="Console").locator("[aria-current=page]")).to_have_text(title)
    for size in (DESK, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate(OVERFLOW) <= 0, f"{title} is wider than {size['width']} px"
    expect(page.get_by_role("alert").locator("visible=true")).to_have_count(0)


def test_the_keyboard_reaches_the_navigation_and_the_filter(page: Page) -> None:
    go(page, "Requests")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if reached[-1] == "f":
            break
    assert [name for name in reached if name in PAGES] == list(PAGES)
    assert reached[0] == "Skip to the content"
    assert reached[-1] == "f"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_request_is_found_by_its_id_and_its_attempts_open(page: Page) -> None:
    page.get_by_role("searchbox", name="Request id or trace id").fill("browsed-1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="/demo/home/9")).to_be_visible()
    attempt = page.locator("details.step", has_text="503").first
    expect(attempt.get_by_text("error.type")).to_be_hidden()
    attempt.locator("summary").click()
    expect(attempt.locator("dl")).to_be_visible()
    expect(attempt.locator("dl")).to_contain_text("http_response_status")


def test_a_facet_narrows_the_requests_and_its_chip_widens_them_again(page: Page) -> None:
    go(page, "Requests")
    everything = page.get_by_label("The requests").locator("tbody tr")
    expect(everything.first).to_be_visible()
    count = everything.count()
    page.get_by_title("Only outcome=partial").click()
    expect(page.get_by_label("Filters")).to_contain_text("outcome=partial")
    expect(everything.locator(".tag.ok")).to_have_count(0)
    assert 0 < everything.count() < count
    page.get_by_role("link", name="Remove the filter outcome=partial").click()
    expect(everything.locator(".tag.ok").first).to_be_visible()
    page.get_by_role("link", name="Without outcome ok").click()
    expect(everything.locator(".tag.ok")).to_have_count(0)


def test_the_tail_shows_lines_as_they_come_holds_them_back_and_goes_on(page: Page, base: str) -> None:
    lines = page.locator("#lines li")
    expect(lines.first).to_be_visible()
    assert visit(base, "home/21") == 200
    expect(lines.filter(has_text="GET /demo/home/21").first).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    assert visit(base, "home/22") == 200
    expect(page.locator("#tail-note")).to_contain_text(re.compile(r"[1-9][0-9]* lines? held back"))
    expect(lines.filter(has_text="GET /demo/home/22")).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(lines.filter(has_text="GET /demo/home/22").first).to_be_visible()
    expect(page.locator("#tail-note")).to_be_hidden()
    lines.filter(has_text="GET /demo/home/22").first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="/demo/home/22")).to_be_visible()


def test_the_tail_can_be_filtered_and_a_filter_that_is_none_is_explained(page: Page, base: str) -> None:
    page.get_by_label("Filter", exact=True).fill("url.path=/demo/home/23")
    page.keyboard.press("Enter")
    expect(page.get_by_text("following the log of all workers")).to_be_visible()
    assert visit(base, "home/24") == visit(base, "home/23") == 200
    expect(page.locator("#lines li").filter(has_text="GET /demo/home/23").first).to_be_visible()
    expect(page.locator("#lines li").filter(has_text="GET /demo/home/24")).to_have_count(0)
    page.get_by_label("Filter", exact=True).fill("upstraem=reviews")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("upstraem")


def test_a_breaker_that_is_held_open_turns_calls_away_until_it_is_let_go(page: Page, base: str) -> None:
    go(page, "Upstreams")
    card = page.get_by_role("article", name="users")
    card.get_by_text("Hold its breaker").click()
    card.get_by_role("button", name="Hold open").click()
    expect(page.get_by_role("status").filter(has_text="users")).to_contain_text("held open by console")
    expect(card).to_contain_text("held open until")
    expect(card.locator(".tag").first).to_have_text("open (forced)")
    assert visit(base, "home/7") == 503
    card.get_by_text("Hold its breaker").click()
    card.get_by_role("button", name="Let it decide").click()
    expect(page.get_by_role("status").filter(has_text="users")).to_contain_text("decides by itself")
    expect(card.locator(".tag").first).to_have_text("closed")
    assert visit(base, "home/7") == 200


def test_cards_bring_themselves_up_to_date_without_taking_what_is_under_the_hand(page: Page, base: str) -> None:
    go(page, "Upstreams")
    card = page.get_by_role("article", name="reviews")
    card.get_by_text("Hold its breaker").click()
    length = card.get_by_role("combobox")
    length.select_option("2h")
    length.focus()
    before = page.locator("#refreshed").inner_text()
    expect(page.locator("#refreshed")).not_to_have_text(before)
    expect(length).to_be_focused()
    expect(length).to_have_value("2h")


def test_what_went_wrong_is_grouped_and_leads_to_a_request(page: Page) -> None:
    go(page, "Errors")
    group = page.locator("tbody tr", has_text="reviews").first
    expect(group).to_contain_text("http_response_status")
    group.get_by_role("link", name="latest").click()
    expect(page.get_by_label("Waterfall")).to_be_visible()


def test_latency_is_drawn_and_stands_in_a_table_too(page: Page) -> None:
    go(page, "Latency")
    expect(page.locator("#latency-chart canvas")).to_be_visible()
    expect(page.locator("#count-chart canvas")).to_be_visible()
    page.get_by_text("The chart as a table").click()
    expect(page.locator("#chart-table tbody tr").first).to_be_visible()
    page.get_by_role("link", name="users").click()
    expect(page.get_by_text("of the attempts at")).to_be_visible()
    expect(page.locator("#latency-chart canvas")).to_be_visible()


def test_pages_are_drawn_and_the_log_is_looked_through(page: Page) -> None:
    go(page, "Pages")
    expect(page.get_by_role("img", name="longest chain").first).to_be_visible()
    go(page, "About")
    expect(page.get_by_text("Looking whether it is whole")).to_be_hidden()
    assert TOKEN not in page.content()
