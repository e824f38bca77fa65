"""The services behind the shop's pages, and how each is spoken to. Their addresses come from the environment."""

from __future__ import annotations

from collections.abc import Callable

from upstreams import Retry, Upstream


def shop(urls: Callable[[str], list[str]]) -> dict[str, Upstream]:
    """Return the table of upstreams; `urls` gives the addresses of a service's hosts for its name."""
    return {
        "users": Upstream(urls("users"), timeout=0.8, forward_headers=("accept-language",)),
        "orders": Upstream(urls("orders"), timeout=0.8, idempotency_header="Idempotency-Key"),
        "catalog": Upstream(urls("catalog"), timeout=0.8, idempotency_header="Idempotency-Key"),
        "reviews": Upstream(urls("reviews"), timeout=0.4, retry=Retry(attempts=2)),
        "recommendations": Upstream(urls("recommendations"), timeout=0.4, retry=Retry(attempts=2)),
    }
