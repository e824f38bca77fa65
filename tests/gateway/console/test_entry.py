"""The door: nobody comes in without the token, guessing does not pay, and what is done inside is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from django.conf import settings
from django.core.signing import TimestampSigner, b62_encode
from django.http import HttpResponseBase
from django.test import AsyncClient, override_settings
from django.urls import include, path

from gateway.console.entry import Failures, failures
from tests.gateway.console.ops import CONSOLE, TOKEN, console, operator
from tests.logs import Log
from tests.serving import gateway, project

GUARDED = ("requests", "trace", "errors", "pages", "about", "about/doctor")
WRONG = "w" * 40


@pytest.fixture(autouse=True)
def nobody_stays_locked_out() -> Iterator[None]:
    """Whoever guessed in a test may come in again after it: the next one's operator has the same address."""
    yield
    failures.forget("127.0.0.1")


async def shown(client: AsyncClient, token: str, **extra: Any) -> HttpResponseBase:
    """Show a token at the door."""
    return await client.post("/ops/door", {"token": token, **extra})


# Without a token in the settings


@pytest.mark.parametrize("page", ["", "door", "leave", "static/ops.css", *GUARDED])
async def test_without_a_token_in_the_settings_there_is_no_console(page: str) -> None:
    with console(OPS_TOKEN="") as client:
        response = await client.get(f"/ops/{page}")
        elsewhere = await client.get("/nowhere")
    assert response.status_code == 404
    assert response["Content-Type"] == elsewhere["Content-Type"] == "application/problem+json"


# The token


@pytest.mark.parametrize("page", GUARDED)
async def test_who_has_not_shown_the_token_is_sent_to_the_door_and_from_there_back(page: str) -> None:
    with console() as client:
        response = await client.get(f"/ops/{page}?since=1h")
        assert response.status_code == 302
        assert response["Location"] == f"/ops/door?next=%2Fops%2F{page.replace('/', '%2F')}%3Fsince%3D1h"
        form = await client.get(response["Location"])
        back = await shown(client, TOKEN, next=form.content.decode().split('name="next" value="')[1].split('"')[0])
    assert back["Location"] == f"/ops/{page}?since=1h"


async def test_a_wrong_token_is_refused_with_a_sentence(log: Log) -> None:
    with console() as client:
        response = await shown(client, WRONG)
        assert response.status_code == 403
        assert b"That is not the token." in response.content  # type: ignore[attr-defined]
        assert not response.cookies.get("ops")
        assert (await client.get("/ops/requests")).status_code == 302
    (event,) = log.events("console.acted")
    assert event["action"] == "refused"
    assert event["level"] == "warning"
    assert event["client.address"] == "127.0.0.1"


async def test_the_right_token_opens_and_the_cookie_is_no_scripts_business(log: Log) -> None:
    with console() as client:
        response = await shown(client, TOKEN)
        cookie = response.cookies["ops"]
        assert (await client.get("/ops/about")).status_code == 200
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["path"] == "/ops/"
    assert not cookie["secure"]
    assert TOKEN not in cookie.value
    assert [event["action"] for event in log.events("console.acted")] == ["entered"]


async def test_over_https_the_cookie_is_for_https_only() -> None:
    with console() as client:
        csrf = (await client.get("/ops/door", secure=True)).cookies["csrftoken"].value
        data = {"token": TOKEN, "csrfmiddlewaretoken": csrf}
        response = await client.post("/ops/door", data, secure=True, headers={"Origin": "https://testserver"})
    assert response.cookies["ops"]["secure"]


async def test_a_link_may_bring_the_token() -> None:
    with console() as client:
        response = await client.get(f"/ops/door?token={TOKEN}&next=/ops/errors")
        assert response["Location"] == "/ops/errors"
        assert (await client.get("/ops/errors")).status_code == 200


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example/ops/", "javascript:alert(1)", "/\\evil"]
)
async def test_the_door_leads_nowhere_else(elsewhere: str) -> None:
    with console() as client:
        response = await shown(client, TOKEN, next=elsewhere)
    assert response["Location"] == "/ops/"


# The cookie


async def test_another_token_makes_every_cookie_worthless() -> None:
    async with operator() as client:
        assert (await client.get("/ops/about")).status_code == 200
        with override_settings(OPS_TOKEN="another-" + "y" * 32):
            assert (await client.get("/ops/about")).status_code == 302


async def test_another_secret_key_makes_every_cookie_worthless() -> None:
    async with operator() as client:
        with override_settings(SECRET_KEY="another"):
            assert (await client.get("/ops/about")).status_code == 302


@pytest.mark.parametrize(("hours", "status"), [(11, 200), (13, 302)])
async def test_a_cookie_opens_for_twelve_hours(hours: int, status: int) -> None:
    class Earlier(TimestampSigner):
        def timestamp(self) -> str:
            return b62_encode(int(time.time()) - hours * 3600)

    value = Earlier(key=f"{settings.SECRET_KEY}{TOKEN}", salt="gateway.console").sign("operator")
    with console() as client:
        client.cookies["ops"] = value
        response = await client.get("/ops/about")
    assert response.status_code == status


@pytest.mark.parametrize("value", ["operator", "operator:1:x", "", "operator:1tZZZZ:AAAA", "\u00e9"])
async def test_a_made_up_cookie_opens_nothing(value: str) -> None:
    with console() as client:
        client.cookies["ops"] = value
        response = await client.get("/ops/about")
    assert response.status_code == 302


async def test_leaving_takes_the_cookie_away(log: Log) -> None:
    async with operator() as client:
        response = await client.post("/ops/leave")
        assert response["Location"] == "/ops/door"
        assert (await client.get("/ops/about")).status_code == 302
        await client.post("/ops/leave")
    assert [event["action"] for event in log.events("console.acted")] == ["entered", "left"]


# Guessing


async def test_guessing_locks_an_address_out_and_says_for_how_long(log: Log) -> None:
    with console() as client:
        answers = [await shown(client, WRONG) for _ in range(7)]
        late = await shown(client, TOKEN)
    assert [answer.status_code for answer in answers] == [403] * 6 + [429]
    assert late.status_code == 429
    assert 1 <= int(late["Retry-After"]) <= 30
    assert [event["action"] for event in log.events("console.acted")] == ["refused"] * 6 + ["locked_out"] * 2


async def test_images_on_another_sites_page_guess_for_nobody(log: Log) -> None:
    with console() as client:
        for _ in range(7):
            await client.get(f"/ops/door?token={WRONG}", headers={"Sec-Fetch-Dest": "image"})
        assert (await client.get(f"/ops/door?token={TOKEN}", headers={"Sec-Fetch-Dest": "image"})).status_code == 200
        followed = await client.get(f"/ops/door?token={TOKEN}", headers={"Sec-Fetch-Dest": "document"})
    assert followed.status_code == 302
    assert [event["action"] for event in log.events("console.acted")] == ["entered"]


@pytest.mark.parametrize("path", ["door", "leave", "upstreams/shop/hold"])
async def test_nobody_sends_the_console_more_than_its_forms(path: str, client: aiohttp.ClientSession) -> None:
    async with gateway(CONSOLE, {}, OPS_TOKEN=TOKEN) as base:
        async with client.post(f"{base}/ops/{path}", data=b"a" * 65_537) as answer:
            assert (answer.status, answer.content_type) == (413, "application/problem+json")
        async with client.post(f"{base}/ops/{path}", data=b"a" * 65_536) as answer:
            assert answer.status == 403  # no token against forgery


async def test_who_is_in_stays_in_while_the_address_is_locked_out() -> None:
    async with operator() as client:
        for _ in range(6):
            await shown(AsyncClient(), WRONG)
        assert (await shown(AsyncClient(), TOKEN)).status_code == 429
        assert (await client.get("/ops/about")).status_code == 200


def test_each_failure_beyond_the_fifth_locks_out_for_twice_as_long_up_to_an_hour() -> None:
    now = 0.0
    counted = Failures(lambda: now)
    locks = []
    for _ in range(16):
        counted.add("a")
        locks.append(counted.locked("a"))
        now += counted.locked("a")
    assert locks[:9] == [0.0] * 5 + [30.0, 60.0, 120.0, 240.0]
    assert locks[-1] == 3600.0
    assert counted.locked("b") == 0.0


def test_a_quiet_address_is_forgotten_and_so_is_one_that_has_shown_the_token() -> None:
    now = 0.0
    counted = Failures(lambda: now)
    for _ in range(6):
        counted.add("a")
        counted.add("b")
    counted.forget("b")
    assert counted.locked("b") == 0.0
    now = 7201.0
    counted.add("a")
    assert counted.locked("a") == 0.0


def test_the_memory_of_failures_is_bounded() -> None:
    counted = Failures(lambda: 0.0)
    for number in range(10_500):
        counted.add(str(number))
    assert repr(counted) == "<Failures addresses=10000>"


# What is no person


async def test_a_script_of_the_page_is_told_where_the_door_is_and_comes_back_to_its_page() -> None:
    with console() as client:
        response = await client.get(
            "/ops/about/doctor", headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/ops/about?a=1"}
        )
        tail = await client.get("/ops/about", headers={"Accept": "text/event-stream"})
    assert response.status_code == 401
    assert response["HX-Redirect"] == "/ops/door?next=%2Fops%2Fabout%3Fa%3D1"
    assert tail.status_code == 401


async def test_a_host_that_is_not_allowed_is_refused_everywhere() -> None:
    async with operator(ALLOWED_HOSTS=["testserver"]) as client:
        for page in ("door", "about", "leave"):
            response = await client.get(f"/ops/{page}", headers={"Host": "evil.example"})
            assert response.status_code == 400


async def test_a_form_of_somebody_elses_does_nothing(log: Log) -> None:
    async with operator() as client:
        strict = AsyncClient(enforce_csrf_checks=True)
        strict.cookies = client.cookies
        assert (await strict.get("/ops/about")).status_code == 200
        assert (await strict.post("/ops/leave")).status_code == 403
        assert (await strict.post("/ops/door", {"token": WRONG})).status_code == 403
        assert (await client.get("/ops/about")).status_code == 200
    assert [event["action"] for event in log.events("console.acted")] == ["entered"]


# The log


async def test_looking_leaves_no_lines_in_the_log_and_acting_does(log: Log, tmp_path: Path) -> None:
    async with operator(tmp_path) as client:
        await client.get("/ops/about")
        await client.get("/ops/nowhere")
        await client.post("/ops/leave")
        assert not log.events("request.started")
        assert not log.events("request.finished")
        await client.get("/elsewhere")
    assert [event["action"] for event in log.events("console.acted")] == ["entered", "left"]
    assert len(log.events("request.finished")) == 1


async def test_a_real_server_lets_in_who_has_the_token_and_nobody_else(client: aiohttp.ClientSession) -> None:
    async with gateway(CONSOLE, {}, OPS_TOKEN=TOKEN) as url, aiohttp.ClientSession() as browser:
        async with client.get(f"{url}/ops/about", allow_redirects=False) as refused:
            assert refused.status == 302
        # Cookies of an address need a jar that takes them.
        async with browser.get(f"{url}/ops/door?token={TOKEN}", allow_redirects=False) as entered:
            assert entered.status == 302
            cookie = entered.cookies["ops"].value
        async with client.get(f"{url}/ops/about", headers={"Cookie": f"ops={cookie}"}) as inside:
            assert inside.status == 200
            assert "About" in await inside.text()


async def test_a_console_on_top_of_a_site_silences_nothing_but_itself(log: Log) -> None:
    with project([path("", include("gateway.console.urls"))], {}, OPS_TOKEN=TOKEN):
        await AsyncClient().get("/nowhere")
    assert len(log.events("request.finished")) == 1
