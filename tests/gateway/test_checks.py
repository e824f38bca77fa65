"""System checks: what takes several things to see, each told with an id, and a hint that names the mend."""

from __future__ import annotations

import datetime
import functools
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NewType

import msgspec
import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path, register_converter
from django.views.decorators.vary import vary_on_cookie

import upstreams
from gateway import AggregateView, Fan, by_method, call, fan_out, page_test, part
from tests.serving import project
from upstreams import GET, JSON, POST, Hedge, Request, Upstream

UserId = NewType("UserId", int)
TABLE: Mapping[str, Upstream] = {
    "users": Upstream("https://users.example", timeout=0.5),
    "slow": Upstream("https://slow.example", timeout=2.5),
}


class Paging(msgspec.Struct):
    limit: int = 20


class Basket(msgspec.Struct):
    lines: list[int]


class Day:
    """A converter of a project's own."""

    regex = r"\d{4}-\d\d-\d\d"

    def to_python(self, value: str) -> datetime.date:
        return datetime.date.fromisoformat(value)

    def to_url(self, value: datetime.date) -> str:
        return value.isoformat()


register_converter(Day, "day")


class UserPage(AggregateView):
    @call("users")
    def user(self, user_id: int, query: Paging, request: HttpRequest) -> Request[JSON]:
        return GET("/users/{id}", id=user_id, limit=query.limit)


class Plain(AggregateView):
    """Nothing that could be wrong."""


class AddToBasket(AggregateView):
    @call("users")
    def basket(self, body: Basket, user_id: int) -> Request[JSON]:
        return POST("/baskets/{owner}", json=body, owner=user_id, notify=True)


Told = list[tuple[str | None, str, str | None, object]]


def check(*urlpatterns: Any, table: Mapping[str, Upstream] = TABLE, deploy: bool = False) -> Told:
    """Return what the gateway's checks say of a project: id, sentence, hint, and the object it is about."""
    with project(urlpatterns, table):
        found = run_checks(tags=["gateway"], include_deployment_checks=deploy)
    return [(message.id, message.msg, message.hint, message.obj) for message in found]


def test_a_project_in_which_all_fits_has_nothing_to_be_told() -> None:
    assert check() == []
    assert (
        check(
            path("users/<int:user_id>", UserPage.as_view()),
            path("baskets/<int:user_id>", by_method(POST=AddToBasket, GET=Plain)),
            path("plain", Plain.as_view()),
            deploy=True,
        )
        == []
    )


def test_a_project_without_urls_has_nothing_to_be_told() -> None:
    with override_settings(ROOT_URLCONF=None, UPSTREAMS={}):
        assert run_checks(tags=["gateway"]) == []


def test_a_table_of_upstreams_that_cannot_be_used_is_told_and_nothing_else() -> None:
    (told,) = check(path("users/<name>", UserPage.as_view()), table={"users": Upstream("ftp://users")}, deploy=True)
    assert told == (
        "gateway.E001",
        "UPSTREAMS cannot be used:\n  users: url 'ftp://users' must start with http:// or https://",
        "Mend it in the settings.",
        None,
    )


class Strangers(AggregateView):
    @call("strangers")
    def stranger(self) -> Request[JSON]:
        return GET("/strangers")

    @call("users")
    def user(self) -> Request[JSON]:
        return GET("/users")


def test_a_page_that_names_an_unknown_upstream_is_told_once_with_those_there_are() -> None:
    told = check(path("a", Strangers.as_view()), path("b", Strangers.as_view()))
    assert told == [
        (
            "gateway.E002",
            "Strangers.stranger names the upstream 'strangers', which UPSTREAMS does not have.",
            "Known upstreams: slow, users.",
            Strangers,
        )
    ]


class Parts(AggregateView):
    @part
    async def feed(self, fan: Fan, user_id: int) -> list[int]:
        first = await fan.call("users", GET("/feed/{id}", id=user_id), list[int])
        return first + await fan.call("feeds", GET("/feed"), list[int])


async def compare(request: HttpRequest) -> HttpResponse:
    async with fan_out(request) as fan:
        return fan.answer([await fan.call("peers", GET("/peers/{id}", name=1))])


@functools.wraps(compare)
async def wrapped(request: HttpRequest) -> HttpResponse:
    return await compare(request)


def test_an_unknown_upstream_that_a_part_or_a_function_view_calls_is_told() -> None:
    told = check(path("feed/<int:user_id>", Parts.as_view()), path("compare", wrapped), path("again", compare))
    assert told == [
        (
            "gateway.E002",
            "Parts.feed names the upstream 'feeds', which UPSTREAMS does not have.",
            "Known upstreams: slow, users.",
            Parts,
        ),
        (
            "gateway.E002",
            "compare names the upstream 'peers', which UPSTREAMS does not have.",
            "Known upstreams: slow, users.",
            None,
        ),
        (
            "gateway.E005",
            "compare: the path '/peers/{id}' names 'id', which is not given.",
            'Write GET("/users/{id}", id=user_id): values go in as keyword arguments.',
            None,
        ),
    ]


def missing(route: str, hint: str) -> Told:
    sentence = f"UserPage has a parameter 'user_id', neither a call nor in the URL {route!r}."
    return [("gateway.E003", sentence, hint, UserPage)]


def mistyped(page: type[AggregateView], route: str, wanted: str, given: str) -> Told:
    sentence = f"{page.__qualname__} takes 'user_id' as {wanted}, but the URL {route!r} gives {given}."
    return [("gateway.E004", sentence, "Change the annotation or the path converter.", page)]


view = UserPage.as_view()
ROUTES: dict[str, tuple[Any, Told]] = {
    "the kwarg by another name": (
        path("users/<int:id>", view),
        missing("users/<int:id>", "Known calls: user; in the URL: id."),
    ),
    "no kwarg at all": (path("users", view), missing("users", "Known calls: user; in the URL: nothing.")),
    "a group without a name": (
        re_path(r"^users/(\d+)$", view),
        missing(r"^users/(\d+)$", "Known calls: user; in the URL: nothing."),
    ),
    "int": (path("users/<int:user_id>", view), []),
    "str": (path("users/<user_id>", view), mistyped(UserPage, "users/<user_id>", "int", "str")),
    "slug": (path("users/<slug:user_id>", view), mistyped(UserPage, "users/<slug:user_id>", "int", "str")),
    "path": (path("users/<path:user_id>", view), mistyped(UserPage, "users/<path:user_id>", "int", "str")),
    "uuid": (path("users/<uuid:user_id>", view), mistyped(UserPage, "users/<uuid:user_id>", "int", "UUID")),
    "a converter of the project's own may give anything": (path("users/<day:user_id>", view), []),
    "a named group": (
        re_path(r"^users/(?P<user_id>\d+)$", view),
        mistyped(UserPage, r"^users/(?P<user_id>\d+)$", "int", "str"),
    ),
    "a default": (path("me", view, {"user_id": 1}), []),
    "a default of another type": (path("me", view, {"user_id": "1"}), mistyped(UserPage, "me", "int", "str")),
    "a default of an include": (path("", include(([path("me", view)], "app")), {"user_id": 1}), []),
    "a kwarg of an include": (path("<int:user_id>/", include([path("orders", view)])), []),
    "a kwarg of an include of another type": (
        path("<user_id>/", include([path("orders", include([path("all", view)]))])),
        mistyped(UserPage, "<user_id>/ordersall", "int", "str"),
    ),
    "a kwarg more than the page takes": (path("<int:user_id>/<day>", view), []),
    "a view that is decorated": (
        path("users", vary_on_cookie(view)),
        missing("users", "Known calls: user; in the URL: nothing."),
    ),
    "settings given to as_view": (path("users/<int:user_id>", UserPage.as_view(deadline=9.0)), []),
    "one of several pages of a URL": (
        path("users", by_method(GET=UserPage, POST=AddToBasket)),
        [
            *missing("users", "Known calls: user; in the URL: nothing."),
            (
                "gateway.E003",
                "AddToBasket has a parameter 'user_id', neither a call nor in the URL 'users'.",
                "Known calls: basket; in the URL: nothing.",
                AddToBasket,
            ),
        ],
    ),
}


@pytest.mark.parametrize("case", ROUTES)
def test_what_a_page_takes_is_compared_with_what_its_url_gives(case: str) -> None:
    route, told = ROUTES[case]
    assert check(route) == told


class Paged(AggregateView):
    @call("users")
    def users(self, number: str | None) -> Request[JSON]:
        return GET("/users", page=number)


class Numbered(AggregateView):
    @call("users")
    def users(self, number: str) -> Request[JSON]:
        return GET("/users", page=number)


def test_a_group_that_may_match_nothing_gives_none() -> None:
    optional, either = r"^users(?:/(?P<number>\d+))?$", r"^users/(?P<number>\d+)$"
    assert check(re_path(optional, Paged.as_view()), re_path(either, Numbered.as_view())) == []
    (told,) = check(re_path(optional, Numbered.as_view()))
    assert told[:2] == ("gateway.E004", f"Numbered takes 'number' as str, but the URL {optional!r} gives str | None.")


def test_an_expression_that_django_cannot_reverse_is_left_alone() -> None:
    assert check(re_path(r"(?i:users)/(?P<number>\d+)$", Numbered.as_view())) == []


def test_what_is_wrong_with_a_page_is_told_once_wherever_it_is_routed() -> None:
    views = [Numbered.as_view(), Numbered.as_view(deadline=5.0), Numbered.as_view(deadline=6.0)]
    told = check(*(path(f"{nth}/<number>", view) for nth, view in enumerate(views)), table={})
    assert [message[0] for message in told] == ["gateway.E002"]


def test_a_page_is_checked_against_each_of_its_urls() -> None:
    told = check(path("a/<int:user_id>", view), path("b/<user_id>", view), path("c", view))
    assert [(id_, sentence.rpartition("URL ")[2]) for id_, sentence, _, _ in told] == [
        ("gateway.E004", "'b/<user_id>' gives str."),
        ("gateway.E003", "'c'."),
    ]


class ByUuid(AggregateView):
    def merge(self, user_id: uuid.UUID) -> str:
        return str(user_id)


class ByName(AggregateView):
    def merge(self, user_id: UserId | None) -> int:
        return user_id or 0


class ByNewType(AggregateView):
    def merge(self, user_id: UserId) -> int:
        return user_id


class ByNumber(AggregateView):
    def merge(self, user_id: float) -> float:
        return user_id


class ByDate(AggregateView):
    def merge(self, user_id: datetime.date) -> str:
        return user_id.isoformat()


@pytest.mark.parametrize(
    ("route", "page"),
    [("<uuid:user_id>", ByUuid), ("<int:user_id>", ByNewType), ("<int:user_id>", ByNumber), ("<day:user_id>", ByDate)],
)
def test_what_merge_takes_may_be_of_any_type_that_the_url_gives(route: str, page: type[AggregateView]) -> None:
    assert check(path(route, page.as_view())) == []


def test_what_merge_takes_is_compared_with_what_its_url_gives() -> None:
    assert check(path("<int:user_id>", ByUuid.as_view())) == mistyped(ByUuid, "<int:user_id>", "UUID", "int")


ITEMS = "/items/{id}"


def values(id_: int) -> dict[str, Any]:
    return {"id": id_, "and": id_}


class Templates(AggregateView):
    """Requests as they may and may not be written. The mistakes are those that a type checker lets pass."""

    @call("users")
    def f_string(self, id_: int) -> Request[JSON]:
        return GET(f"/items/{id_}")

    @call("users")
    def percent(self, id_: int) -> Request[JSON]:
        return GET("/items/%d" % id_)  # noqa: UP031 - what is being told

    @call("users")
    def variable(self, id_: int) -> Request[JSON]:
        return GET(ITEMS, id=id_)

    @call("users")
    def sum_of_strings(self, id_: int) -> Request[JSON]:
        return POST("/items" + "/all", id=id_, safe=True)

    @call("users")
    def missing(self, id_: int) -> Request[JSON]:
        return GET("/items/{id}/{part}", id=id_)

    @call("users")
    def own_keyword(self, id_: int) -> Request[JSON]:
        return POST("/items/{json}", json=id_)

    @call("users")
    def relative(self) -> Request[JSON]:
        return GET("items")

    @call("users")
    def with_query(self) -> Request[JSON]:
        return GET("/items?all=true")

    @call("users")
    def upwards(self) -> Request[JSON]:
        return GET("/items/../secrets")

    @call("users")
    def unclosed(self) -> Request[JSON]:
        return GET("/items/{id")

    @call("users")
    def in_a_module(self, id_: int) -> Request[JSON]:
        return upstreams.GET(f"/items/{id_}")

    @call("users")
    def one_of_two(self, id_: int) -> Request[JSON]:
        return GET("/items/{id}", id=id_) if id_ else GET("/none/{what}")

    @part
    async def in_a_part(self, fan: Fan, id_: int) -> JSON:
        return await fan.call("users", GET(f"/items/{id_}"))

    @staticmethod
    def _other(text: str) -> str:
        return text

    @call("users")
    def right(self, id_: int, request: HttpRequest) -> Request[JSON] | None:
        if request.GET.get("x"):
            return None
        self._other(f"not a path {id_}")
        return GET("/items/{id}", id=id_, n=1)

    @call("users")
    def right_in_pieces(self, id_: int) -> Request[JSON]:
        return GET("/items/{id}/a/very/long/path/that/goes/on/and/on/and/on/and/on/and/on/and/on/and/on/{and}"
                   "/on", **values(id_))  # fmt: skip

    @call("users")
    def right_without_values(self) -> Request[JSON]:
        return POST("/items", json={}, safe=True)


WRITTEN = [
    ("f_string", "the path f'/items/{id_}' is not a plain string"),
    ("percent", "the path '/items/%d' % id_ is not a plain string"),
    ("variable", "the path ITEMS is not a plain string"),
    ("sum_of_strings", "the path '/items' + '/all' is not a plain string"),
    ("missing", "the path '/items/{id}/{part}' names 'part', which is not given"),
    ("own_keyword", "the path '/items/{json}' names 'json', which is not given"),
    ("relative", "the path 'items' must start with /"),
    ("with_query", "the path '/items?all=true' must hold no query or fragment: give those as keyword arguments"),
    ("upwards", "the path '/items/../secrets' must hold no empty, . or .. segment"),
    (
        "unclosed",
        "the path '/items/{id' has a character that must be percent-encoded, or a brace without its pair",
    ),
    ("in_a_module", "the path f'/items/{id_}' is not a plain string"),
    ("one_of_two", "the path '/none/{what}' names 'what', which is not given"),
    ("in_a_part", "the path f'/items/{id_}' is not a plain string"),
]


def test_requests_that_are_not_written_as_templates_are_told_in_the_order_of_the_page() -> None:
    told = check(path("<int:id_>", Templates.as_view()))
    assert told == [
        (
            "gateway.E005",
            f"Templates.{attribute}: {fault}.",
            'Write GET("/users/{id}", id=user_id): values go in as keyword arguments.',
            Templates,
        )
        for attribute, fault in WRITTEN
    ]


def test_a_page_whose_source_is_not_there_is_left_alone() -> None:
    names = dict(globals())
    source = """
    class Page(AggregateView):
        @call("users")
        def user(self, id_: int) -> Request[JSON]:
            return GET(f"/{id_}")
    """
    exec(textwrap.dedent(source), names)
    assert check(path("<int:id_>", names["Page"].as_view())) == []


class Hasty(AggregateView):
    deadline = 1.0

    @call("slow")
    def slow(self) -> Request[JSON]:
        return GET("/slow")

    @call("users")
    def user(self) -> Request[JSON]:
        return GET("/user")


class Hedged(AggregateView):
    @call("users", hedge=Hedge(after=0.1))
    def read(self, user_id: int) -> Request[JSON]:
        return GET("/users/{id}", id=user_id)

    @call("users", hedge=Hedge())
    def search(self) -> Request[JSON]:
        return POST("/search", json={}, safe=True)

    @call("users", hedge=False)
    def write(self) -> Request[JSON]:
        return POST("/users", json={})


class HedgedWrite(AggregateView):
    @call("users", hedge=Hedge())
    def write(self) -> Request[JSON]:
        return POST("/users", json={})


class LateHedge(AggregateView):
    @call("users", hedge=Hedge(after=0.5))
    def read(self) -> Request[JSON]:
        return GET("/users")


class NoHedge(AggregateView):
    @call("users", hedge=0.5)  # type: ignore[arg-type]
    def read(self) -> Request[JSON]:
        return GET("/users")


class Unhashable(list[int]):
    """What may stand in a call method like any other global that can be called."""

    def __call__(self, given: int) -> int:
        return given


same = Unhashable()


class HedgedWithHelp(AggregateView):
    @call("users", hedge=Hedge())
    def read(self, user_id: int) -> Request[JSON]:
        return GET("/users/{id}", id=same(user_id))


class HedgedWithoutSelf(AggregateView):
    @call("users", hedge=Hedge(0.1))  # type: ignore[arg-type]
    @staticmethod
    def first() -> Request[JSON]:
        return GET("/first")

    @call("users", hedge=Hedge(0.1))
    @classmethod
    def second(cls) -> Request[JSON]:
        return POST("/second", json=1)


def test_a_hedged_call_may_be_a_static_or_a_class_method() -> None:
    (told,) = check(path("page", HedgedWithoutSelf.as_view()))
    assert told[:2] == (
        "gateway.E007",
        "HedgedWithoutSelf.second: a POST is not hedged, for it would be sent twice.",
    )


def test_whatever_a_hedged_call_calls_is_looked_at_without_harm() -> None:
    assert check(path("<int:user_id>", HedgedWithHelp.as_view())) == []


def test_hedges_that_can_be_meant_are_fine() -> None:
    assert check(path("<int:user_id>", Hedged.as_view())) == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (HedgedWrite, "HedgedWrite.write: a POST is not hedged, for it would be sent twice."),
        (LateHedge, "LateHedge.read: hedge.after must be below timeout (0.5 s), not 0.5."),
        (NoHedge, "NoHedge.read: hedge must be Hedge(...) or None, not 0.5."),
    ],
)
def test_a_hedge_that_cannot_be_meant_is_told(page: type[AggregateView], said: str) -> None:
    assert [(id_, sentence) for id_, sentence, _, _ in check(path("page", page.as_view()))] == [("gateway.E007", said)]


def test_a_hedge_at_an_upstream_without_a_budget_is_told() -> None:
    table = {**TABLE, "users": Upstream("https://users.example", timeout=0.5, budget=None)}
    told = check(path("<int:user_id>", Hedged.as_view()), table=table)
    assert {sentence.partition(": ")[2] for _, sentence, _, _ in told} == {
        "hedge is paid from the budget, which is None."
    }


def test_an_attempt_longer_than_the_deadline_is_a_warning() -> None:
    assert check(path("", Hasty.as_view())) == [
        (
            "gateway.W001",
            "Hasty.slow: one attempt at 'slow' may take 2.5 s, but the page's deadline is 1.0 s.",
            "Shorten the upstream's timeout or give the page more time; no retry fits as it is.",
            Hasty,
        )
    ]


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost", "http://localhost:8001", "http://LOCALHOST:8001/base", "http://api.localhost"),
        *(
            "http://127.0.0.1",
            "http://127.0.0.1:8001",
            "http://127.8.9.1:80/base",
            "http://[::1]",
            "http://[::1]:8001/",
        ),
        *("https://users.example", "https://10.0.0.1:8443", "https://[2001:db8::1]"),
    ],
)
def test_plain_http_to_this_machine_and_https_to_any_are_fine(url: str) -> None:
    assert check(table={"users": Upstream(url)}, deploy=True) == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://users.example", "http://users.example:8080/base", "http://10.0.0.1", "http://10.0.0.1:80"),
        *("http://[2001:db8::1]", "http://[2001:db8::1]:8080", "http://localhost.example", "http://0.0.0.0:80"),
        "http://127.0.0.1.example",
    ],
)
def test_plain_http_to_another_machine_is_a_warning_in_production(url: str) -> None:
    told = (
        "gateway.W002",
        f"users: {url} is plain http to another machine; what is sent can be read on the way.",
        "Use https, or silence gateway.W002 where the network itself is encrypted.",
        None,
    )
    assert check(table={"users": Upstream(url)}, deploy=True) == [told]
    assert check(table={"users": Upstream(url)}) == []


def test_every_address_of_an_upstream_is_looked_at() -> None:
    several = Upstream(("http://127.0.0.1:1", "http://a.example", "https://b.example", "http://c.example"))
    told = check(table={"users": several}, deploy=True)
    assert [sentence.partition(" is ")[0] for _, sentence, _, _ in told] == [
        "users: http://a.example",
        "users: http://c.example",
    ]


def test_a_warning_can_be_silenced() -> None:
    with override_settings(SILENCED_SYSTEM_CHECKS=["gateway.W001"]), project([path("", Hasty.as_view())], TABLE):
        call_command("check")


def test_manage_py_check_fails_on_an_error_and_says_it() -> None:
    with (
        project([path("users", view)], TABLE),
        pytest.raises(SystemCheckError, match=r"gateway\.E003.*UserPage has a parameter 'user_id'"),
    ):
        call_command("check")


def run_check(tmp_path: Path, table: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py check` in a project of one page, as its author would."""
    (tmp_path / "project.py").write_text(
        textwrap.dedent(f"""
        from settings.test import *
        from upstreams import Upstream

        ROOT_URLCONF = "project_urls"
        UPSTREAMS = {table}
        """)
    )
    (tmp_path / "project_urls.py").write_text(
        textwrap.dedent("""
        from django.urls import path
        from demo.pages import HomePage

        urlpatterns = [path("home/<int:user_id>", HomePage.as_view())]
        """)
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "manage.py", "check", *options],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_manage_py_check_tells_by_its_exit_code_whether_a_project_fits_together(tmp_path: Path) -> None:
    names = ("users", "reviews", "recommendations")
    fits = ", ".join(f"{name!r}: Upstream('https://{name}.example')" for name in names)

    good, bad = run_check(tmp_path, f"{{{fits}}}"), run_check(tmp_path, "{}")

    assert (good.returncode, good.stdout) == (0, "System check identified no issues (0 silenced).\n")
    assert bad.returncode == 1
    assert bad.stderr.count("gateway.E002") == 3
    assert "HomePage.user names the upstream 'users', which UPSTREAMS does not have." in bad.stderr
    assert "HINT: Known upstreams: none." in bad.stderr


def test_what_the_checks_let_pass_runs() -> None:
    assert page_test(UserPage, user_id=7, answers={"user": {}}).requests["user"] == [GET("/users/{id}", id=7, limit=20)]
