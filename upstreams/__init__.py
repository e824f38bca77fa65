"""What Tributary knows about asking: upstreams, requests to them, and what comes of those. Knows no Django."""

from upstreams.call import Call
from upstreams.client import Client
from upstreams.deadline import Deadline
from upstreams.fault import Fault
from upstreams.fleet import Fleet, Sender, open_fleet
from upstreams.inbound import Inbound
from upstreams.journal import Journal
from upstreams.outcome import Attempt, Outcome
from upstreams.policy import Breaker, Budget, Ejection, Hedge, Retry
from upstreams.request import DELETE, FOLLOW, GET, HEAD, PATCH, POST, PUT, InvalidParameter, Request
from upstreams.upstream import Upstream, UpstreamTableError, check_table
from upstreams.values import JSON, Decoder, Reply

__all__ = [
    "DELETE",
    "FOLLOW",
    "GET",
    "HEAD",
    "JSON",
    "PATCH",
    "POST",
    "PUT",
    "Attempt",
    "Breaker",
    "Budget",
    "Call",
    "Client",
    "Deadline",
    "Decoder",
    "Ejection",
    "Fault",
    "Fleet",
    "Hedge",
    "Inbound",
    "InvalidParameter",
    "Journal",
    "Outcome",
    "Reply",
    "Request",
    "Retry",
    "Sender",
    "Upstream",
    "UpstreamTableError",
    "check_table",
    "open_fleet",
]
