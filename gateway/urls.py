"""A URLconf to begin with: nothing routed, and every error of Django's own as problem+json."""

from django.urls import URLPattern, URLResolver

handler400 = "gateway.answering.problems.bad_request"
handler403 = "gateway.answering.problems.permission_denied"
handler404 = "gateway.answering.problems.not_found"
handler500 = "gateway.answering.problems.server_error"

urlpatterns: list[URLPattern | URLResolver] = []
