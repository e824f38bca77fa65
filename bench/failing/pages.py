"""The pages that are asked for while their upstreams fail, and a view that counts tasks."""

from __future__ import annotations

import asyncio
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path

from gateway import AggregateView, call
from upstreams import GET, JSON, Request


class Three(AggregateView):
    """Three calls, none of which the page needs."""

    @call("one", optional=True)
    def one(self) -> Request[JSON]:
        """Ask."""
        return GET("/")

    @call("two", optional=True)
    def two(self) -> Request[JSON]:
        """Ask."""
        return GET("/")

    @call("three", optional=True)
    def three(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Once(AggregateView):
    """The same three without retries."""

    @call("one-once", optional=True)
    def one(self) -> Request[JSON]:
        """Ask."""
        return GET("/")

    @call("two-once", optional=True)
    def two(self) -> Request[JSON]:
        """Ask."""
        return GET("/")

    @call("three-once", optional=True)
    def three(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Four(Three):
    """One call more."""

    @call("four", optional=True)
    def four(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Five(Four):
    """And one more, to the upstream that goes down."""

    @call("five", optional=True)
    def five(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Unhedged(AggregateView):
    """One call."""

    @call("one")
    def row(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Hedged(AggregateView):
    """One call to an upstream that is hedged."""

    @call("two-hedged")
    def row(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Shared(AggregateView):
    """Two calls that those who ask at the same time share."""

    @call("one", coalesce=True)
    def one(self) -> Request[JSON]:
        """Ask."""
        return GET("/")

    @call("two", coalesce=True)
    def two(self) -> Request[JSON]:
        """Ask."""
        return GET("/")


class Large(AggregateView):
    """Two large bodies, one of them taken apart."""

    @call("three")
    def three(self) -> Request[JSON]:
        """Ask."""
        return GET("/large")

    @call("four")
    def four(self) -> Request[dict[str, Any]]:
        """Ask."""
        return GET("/large")


async def tasks(_: HttpRequest) -> HttpResponse:
    """Answer how many tasks this worker has."""
    return HttpResponse(str(len(asyncio.all_tasks())))


urlpatterns = [
    path("three", Three.as_view()),
    path("once", Once.as_view()),
    path("four", Four.as_view()),
    path("five", Five.as_view()),
    path("unhedged", Unhedged.as_view()),
    path("hedged", Hedged.as_view()),
    path("shared", Shared.as_view()),
    path("large", Large.as_view()),
    path("tasks", tasks),
]
