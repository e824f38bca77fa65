"""The two pages."""

from __future__ import annotations

from django.urls import path

from bench.peers.stock import views

urlpatterns = [
    path("merged/<str:size>", views.merged),
    path("wide/<int:width>/<str:size>", views.wide),
]
