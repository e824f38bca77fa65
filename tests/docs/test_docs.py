"""What README.md and docs/pages.md show is code that runs, and does what they say."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import textwrap
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, get_commands
from django.urls import resolve
from django.utils.datastructures import MultiValueDict

import demo.urls
from demo.__main__ import SERVICES
from gateway import page_test
from tests.docs.examples import (
    AccountPage,
    AllReviewsPage,
    CartPage,
    ChangeCart,
    DropCart,
    LoginPage,
    SearchPage,
    ShippingPage,
    StockPage,
    WishesPage,
)
from tests.serving import project
from upstreams import DELETE, FOLLOW, GET, POST, PUT, Fault, Reply, Request, Upstream

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PAGES = (ROOT / "docs" / "pages.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), ROOT / "demo/data/README.md"]
#: Where what the documents show is run: by the tests here, or by those of the demo.
RUN = [ROOT / name for name in ("demo/pages.py", "demo/types.py", "tests/docs/examples.py", "tests/demo/test_pages.py")]

ADA = {"id": 7, "name": "Ada", "city": "London", "tier": "gold"}
STONE = {"sku": "D-1", "title": "1.00 ct Ideal", "price": 310.1, "stock": 3}
LINE = {"sku": "D-1", "quantity": 1, "amount": 310.1}
ORDER = {"id": 1, "placed": "2025-01-01", "status": "paid", "total": 310.1, "lines": [LINE]}


def code_in(text: str) -> list[str]:
    """The blocks of Python in a document."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "block", dict.fromkeys([code_in(README)[0], *code_in(PAGES)]), ids=lambda block: block.strip().partition("\n")[0]
)
def test_code_that_is_shown_is_code_that_a_test_runs(block: str) -> None:
    code = textwrap.dedent(block)

    assert any(textwrap.indent(code, " " * depth) in file.read_text() for file in RUN for depth in (0, 4))


@pytest.mark.parametrize(("given", "target"), re.findall(r"^\| `(.+)` \| `(/users/.+)` \|$", PAGES, re.MULTILINE))
def test_a_request_of_the_guide_s_table_becomes_what_it_says(given: str, target: str) -> None:
    params: dict[str, Any] = eval(f"dict({given})")

    assert GET("/users/{id}", **{"id": 7, **params}).target == target


def test_every_link_leads_somewhere() -> None:
    broken = [
        (document.name, link)
        for document in DOCUMENTS
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text())
        if not leads_somewhere(document, link)
    ]

    assert broken == []


def leads_somewhere(document: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = document.parent / name if name else document
    if not heading:
        return target.exists()
    return heading in {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall("^#+ (.*)$", target.read_text(), re.MULTILINE)
    }


def test_the_readme_shows_a_plan_as_the_command_prints_it() -> None:
    shown = README.partition("$ python manage.py plan OrdersPage\n")[2].partition("```")[0]
    printed = io.StringIO()
    upstreams = {name: Upstream("http://127.0.0.1:9") for name in SERVICES}

    with project(demo.urls.urlpatterns, upstreams):
        call_command("plan", "OrdersPage", stdout=printed, skip_checks=True)

    assert printed.getvalue().startswith(shown)


def test_the_readme_names_every_command_there_is() -> None:
    named = set(re.findall(r"^\| `(\w+).*` \|", README, re.MULTILINE))

    assert named - {"manage", "check"} == {name for name, app in get_commands().items() if app == "gateway"}


USE = """
import django
from django.core.management import call_command, get_commands
django.setup()
call_command("check")
call_command("plan", "HomePage")
print(get_commands()["runserver"])
"""


def test_a_project_of_django_s_own_making_becomes_a_gateway_by_what_the_readme_says(tmp_path: Path) -> None:
    settings, urls = code_in(README)[1:]
    call_command("startproject", "shop", tmp_path)
    for name, text in (("shop/settings.py", settings), ("shop/urls.py", urls)):
        with (tmp_path / name).open("a") as file:
            file.write(text)
    (tmp_path / "pages.py").write_text("from demo.pages import HomePage as HomePage")

    ran = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "shop.settings"},
        capture_output=True,
        check=True,
        text=True,
    )

    no_issues, plan, *_, runserver = ran.stdout.splitlines()
    assert no_issues.startswith("System check identified no issues")
    assert plan.startswith("HomePage  GET, HEAD /home/<int:user_id>")
    assert runserver == "gateway"


class TestAccount:
    answers = (("user", ADA), ("latest", ORDER), ("similar", [{"sku": "D-2", "title": "", "price": 1}]))

    def account(self, **answers: Any) -> Any:
        return page_test(AccountPage, user_id=7, answers={**dict(self.answers), **answers})

    def test_asks_for_a_stone_like_the_latest(self) -> None:
        page = self.account()

        assert page.requests["similar"] == [GET("/like/{sku}", sku="D-1", limit=1)]
        assert (page.data["latest"]["id"], page.complete) == (1, True)

    def test_of_a_customer_without_orders_is_complete_and_asks_for_none(self) -> None:
        page = self.account(latest=HTTPStatus.NOT_FOUND)

        assert (page.status, page.complete, page.data["latest"], page.data["similar"]) == (200, True, None, None)
        assert "similar" not in page.requests

    def test_without_the_orders_fails(self) -> None:
        assert self.account(latest=Fault.CONNECTION_REFUSED).status == 502

    def test_of_nobody_is_a_404(self) -> None:
        assert self.account(user=HTTPStatus.NOT_FOUND).status == 404


def test_the_search_page_posts_what_it_only_reads() -> None:
    query = MultiValueDict({"q": ["oval"], "color": ["D", "E"]})

    page = page_test(SearchPage, query=query, answers={"found": [STONE]})

    assert page.requests["found"] == [
        POST("/search", json={"text": "oval", "colors": ["D", "E"], "most": None}, safe=True)
    ]
    assert page.data == {"found": [STONE]}


def test_the_stock_page_decodes_csv_and_reads_a_header() -> None:
    featured = Reply([STONE], 200, {"Last-Modified": "Fri, 02 Jan 2026 10:00:00 GMT"})

    page = page_test(StockPage, answers={"shelves": b"sku,stock\nD-1,3\n", "featured": featured})

    assert page.data == {"shelves": 2, "featured": [STONE], "as_of": "Fri, 02 Jan 2026 10:00:00 GMT"}


def test_the_shipping_page_answers_under_the_name_it_gives() -> None:
    assert page_test(ShippingPage, answers={"options": ["post", "courier"]}).data == {"options": ["post", "courier"]}


def test_the_wishes_page_joins_products_in_bulk_and_friends_one_by_one() -> None:
    wishes = [{"sku": "D-1", "friend": 8}, {"sku": "D-0", "friend": 9}, {"sku": "D-1", "friend": 9}]

    def friend(request: Request[Any]) -> Any:
        return {**ADA, "id": 8} if request == GET("/users/{id}", id=8) else HTTPStatus.NOT_FOUND

    page = page_test(
        WishesPage, user_id=7, answers={"wishes": wishes, "products": {"items": [STONE]}, "friends": friend}
    )

    assert page.requests["products"] == [POST("/products/lookup", json={"skus": ["D-1", "D-0"]}, safe=True)]
    assert page.requests["friends"] == [GET("/users/{id}", id=8), GET("/users/{id}", id=9)]
    assert page.data == [{"product": STONE, "from": "Ada"}, {"product": STONE, "from": None}]


def test_the_reviews_page_follows_links_to_the_last() -> None:
    review = {"product": "D-1", "rating": 5, "text": "Fine."}

    page = page_test(
        AllReviewsPage,
        sku="D-1",
        answers={
            "reviews.reviews": {"items": [review], "next": "/reviews?product=D-1&page=2"},
            "reviews.reviews-2": {"items": [review], "next": None},
        },
    )

    assert page.requests == {
        "reviews.reviews": [GET("/reviews", product="D-1", limit=50)],
        "reviews.reviews-2": [FOLLOW("/reviews?product=D-1&page=2")],
    }
    assert page.data == {"reviews": [review, review]}


def test_three_pages_share_the_url_of_a_cart() -> None:
    view: Any = resolve("/carts/c1", urlconf="tests.docs.examples").func
    read = page_test(CartPage, cart_id="c1", answers={"cart": {"lines": []}})
    changed = page_test(ChangeCart, cart_id="c1", body={"quantity": 2}, answers={"cart": {"lines": [2]}})
    dropped = page_test(DropCart, cart_id="c1", answers={"dropped": HTTPStatus.NO_CONTENT})

    assert view.pages == {"GET": CartPage, "HEAD": CartPage, "PUT": ChangeCart, "DELETE": DropCart}
    assert read.data == {"cart": {"lines": []}}
    assert changed.requests["cart"] == [PUT("/carts/{id}", id="c1", json={"quantity": 2})]
    assert dropped.requests["dropped"] == [DELETE("/carts/{id}", id="c1")]
    assert dropped.data == {"dropped": None}


class TestLogin:
    login = (("name", "ada"), ("password", "open sesame"))

    def test_answers_bare_with_a_cookie(self) -> None:
        page = page_test(LoginPage, body=dict(self.login), answers={"session": {"token": "t-1", "user": ADA}})

        assert (page.status, page.body, page.cookies) == (201, ADA, {"session": "t-1"})
        assert page.headers["Cache-Control"] == "no-store"

    def test_refuses_a_wrong_password(self) -> None:
        page = page_test(LoginPage, body=dict(self.login), answers={"session": HTTPStatus.UNAUTHORIZED})

        assert (page.status, page.body["detail"]) == (401, "wrong name or password")
