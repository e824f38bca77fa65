"""Tributary: an async aggregation gateway on Django. What is listed here is what pages are written with."""

from gateway.answer import Answer, CallFailed, Problem
from gateway.declare import batch, call, each, part
from gateway.fan import Fan
from gateway.page import AggregateView, by_method
from gateway.plan import DeclarationError
from gateway.testing import page_test
from gateway.views import fan_out

__version__ = "0.1.0"

__all__ = [
    "AggregateView",
    "Answer",
    "CallFailed",
    "DeclarationError",
    "Fan",
    "Problem",
    "batch",
    "by_method",
    "call",
    "each",
    "fan_out",
    "page_test",
    "part",
]
