"""The console's addresses: `path("ops/", include("gateway.console.urls"))`."""

from __future__ import annotations

from django.urls import path

from gateway.console.entry import door, leave
from gateway.console.views.about import about, doctor
from gateway.console.views.errors import errors
from gateway.console.views.files import static
from gateway.console.views.latency import latency, points
from gateway.console.views.live import live, tail
from gateway.console.views.pages import pages
from gateway.console.views.requests import requests
from gateway.console.views.trace import trace
from gateway.console.views.upstreams import held, upstreams

app_name = "ops"

urlpatterns = [
    path("", live, name="live"),
    path("tail", tail, name="tail"),
    path("upstreams", upstreams, name="upstreams"),
    path("upstreams/<str:name>/hold", held, name="held"),
    path("latency", latency, name="latency"),
    path("latency/points", points, name="latency-points"),
    path("door", door, name="door"),
    path("leave", leave, name="leave"),
    path("requests", requests, name="requests"),
    path("trace", trace, name="trace"),
    path("errors", errors, name="errors"),
    path("pages", pages, name="pages"),
    path("about", about, name="about"),
    path("about/doctor", doctor, name="doctor"),
    path("static/<str:name>", static, name="static"),
]
