"""The services behind the shop's pages, and how each is spoken to. Their addresses come from the environment."""

from __future__ import annotations

from collections.abc import Callable

from upstreams import Retry, Upstream


def shop(url: Callable[[str], str]) -> dict[str, Upstream]:
    """Return the table of upstreams; `url` gives the address for a service's name."""
    return {
        "users": Upstream(url("users"), timeout=0.8, forward_headers=("accept-language",)),
        "orders": Upstream(url("orders"), timeout=0.8, idempotency_header="Idempotency-Key"),
        "catalog": Upstream(url("catalog"), timeout=0.8, idempotency_header="Idempotency-Key"),
        "reviews": Upstream(url("reviews"), timeout=0.4, retry=Retry(attempts=2)),
        "recommendations": Upstream(url("recommendations"), timeout=0.4, retry=Retry(attempts=2)),
    }
