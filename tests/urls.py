"""The suite's URLconf: nothing routed but what a test routes itself (see tests.serving)."""

from gateway.urls import handler400, handler403, handler404, handler500, urlpatterns

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]
