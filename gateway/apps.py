"""The gateway as a Django app: no models, no I/O at start."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.core import signals


class GatewayConfig(AppConfig):
    """Registers the system checks, and lets go of receivers that have nothing to do here."""

    name = "gateway"

    def ready(self) -> None:
        """Run once in every process, for every command: opens nothing."""
        from gateway import checks  # noqa: F401, PLC0415 - checks register by being imported, after the apps
        from gateway.serving import handler, health  # noqa: F401, PLC0415 - the same

        _drop_idle_receivers()


def _drop_idle_receivers() -> None:
    """Disconnect the receivers that would look after databases and caches, where there are none that need it.

    They are synchronous, so each would cost every page a thread.
    """
    from django.core.cache import close_caches  # noqa: PLC0415 - settings must be there
    from django.db import close_old_connections, reset_queries  # noqa: PLC0415

    if all((base.get("ENGINE") or ".dummy").endswith(".dummy") for base in settings.DATABASES.values()):
        signals.request_started.disconnect(reset_queries)
        signals.request_started.disconnect(close_old_connections)
        signals.request_finished.disconnect(close_old_connections)
    if all(cache["BACKEND"].rpartition(".")[2] in {"LocMemCache", "DummyCache"} for cache in settings.CACHES.values()):
        signals.request_finished.disconnect(close_caches)
