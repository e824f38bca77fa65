"""The shop's addresses."""

from __future__ import annotations

from django.urls import include, path

from demo.pages import CheckoutPage, HomePage, OrdersPage, ProductPage, compare
from gateway.urls import handler400, handler403, handler404, handler500

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

urlpatterns = [
    path("demo/home/<int:user_id>", HomePage.as_view(), name="home"),
    path("demo/orders/<int:user_id>", OrdersPage.as_view(), name="orders"),
    path("demo/product/<str:sku>", ProductPage.as_view(), name="product"),
    path("demo/checkout", CheckoutPage.as_view(), name="checkout"),
    path("demo/compare", compare, name="compare"),
    path("ops/", include("gateway.console.urls")),
]
