"""The log: a closed catalogue of events, written as NDJSON by a thread of its own, so that no request waits for it."""

from gateway.log.setup import configure

__all__ = ["configure"]
