"""The demo: the development settings, and a knob by which a page's visitor makes a service fail."""

from __future__ import annotations

from dataclasses import replace

from settings.development import *
from settings.development import UPSTREAMS as _PLAIN
from upstreams import Breaker

PAGE_MIDDLEWARE = ["demo.faults.FaultKnob", "gateway.middleware.Edge"]
MIDDLEWARE = ["demo.faults.FaultKnob", *MIDDLEWARE]
UPSTREAMS = {
    name: replace(
        upstream,
        forward_headers=(*upstream.forward_headers, "x-demo-fault"),
        breaker=Breaker(minimum_calls=100),  # a visitor may order a fault again and again, and then no fault
    )
    for name, upstream in _PLAIN.items()
}
