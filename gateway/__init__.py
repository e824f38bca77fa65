"""Tributary: an async aggregation gateway on Django. What is listed here is what pages are written with."""

from gateway.answering.answer import Answer, CallFailed, Problem
from gateway.declaring.declare import batch, call, each, part
from gateway.declaring.plan import DeclarationError
from gateway.page import AggregateView, by_method
from gateway.running.fan import Fan
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
