"""Who may come in: whoever knows OPS_TOKEN, until its cookie is twelve hours old. Guessing locks an address out."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import wraps
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.conf import settings
from django.core.signing import BadSignature, TimestampSigner
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.csrf import csrf_protect

from gateway.conf import conf
from gateway.console.rendering import rendered, secured
from gateway.log import events

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]

COOKIE: Final = "ops"
_LIFETIME: Final = 12 * 3600
_FREE_FAILURES: Final = 5
_FIRST_LOCK: Final = 30.0
_LONGEST_LOCK: Final = 3600.0
_MOST_ADDRESSES: Final = 10_000


class Failures:
    """Live, of this worker: how often each address has guessed wrong, and until when it is locked out.

    The sixth failure locks an address out for 30 seconds, and each one more for twice as long, an hour at most. An
    address that has been quiet for twice the longest lock is forgotten. Times are on `clock`, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __repr__(self) -> str:
        """Show how many addresses have failed."""
        return f"<Failures addresses={len(self._counts)}>"

    def locked(self, address: str) -> float:
        """Return how many seconds an address is locked out yet; 0 when it is not."""
        count, latest = self._counts.get(address, (0, 0.0))
        if count <= _FREE_FAILURES:
            return 0.0
        lock = min(_FIRST_LOCK * 2.0 ** (count - _FREE_FAILURES - 1), _LONGEST_LOCK)
        return max(0.0, latest + lock - self._clock())

    def add(self, address: str) -> None:
        """Count a failure."""
        count, latest = self._counts.pop(address, (0, 0.0))
        if self._clock() - latest > 2 * _LONGEST_LOCK:
            count = 0
        self._counts[address] = (min(count + 1, 64), self._clock())
        while len(self._counts) > _MOST_ADDRESSES:
            self._counts.popitem(last=False)

    def forget(self, address: str) -> None:
        """Start anew with an address that has shown the token."""
        self._counts.pop(address, None)


failures: Final = Failures()


def guarded(view: View) -> View:
    """Let only operators see a view; others are sent to the door. Without a token there is no console at all."""

    @wraps(view)
    async def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        token = _token()
        request.get_host()  # raises for a host that is not ALLOWED_HOSTS', whatever middleware there is
        if not _is_operator(request, token):
            return _sent_to_the_door(request)
        return secured(await view(request, *args, **kwargs))

    return csrf_protect(answered)


def _brought(request: HttpRequest) -> str | None:
    """Return the token of a link that somebody has followed: an image of another site's page guesses for nobody."""
    followed = request.headers.get("Sec-Fetch-Dest", "document") == "document"
    return request.GET.get("token") if followed else None


@csrf_protect
async def door(request: HttpRequest) -> HttpResponseBase:
    """Ask for the token, and let in whoever has it. A link may bring it: `?token=...`."""
    token = _token()
    request.get_host()
    given = request.POST.get("token") if request.method == "POST" else _brought(request)
    if not given:
        return rendered(request, "door.html", {"next": _wanted(request)})
    address = client_address(request)
    if (left := failures.locked(address)) > 0:
        events.console_acted(level="warning", action="locked_out", address=address)
        return _refused(request, f"Too many wrong tokens. Try again in {math.ceil(left)} seconds.", 429, left)
    if not hmac.compare_digest(_digest(given), _digest(token)):
        failures.add(address)
        events.console_acted(level="warning", action="refused", address=address)
        return _refused(request, "That is not the token.", 403, 0.0)
    failures.forget(address)
    events.console_acted(level="info", action="entered", address=address)
    return _let_in(request, token)


@csrf_protect
async def leave(request: HttpRequest) -> HttpResponseBase:
    """Forget who it was; only a form can ask for that."""
    token = _token()
    request.get_host()
    if request.method != "POST":
        return secured(HttpResponseRedirect(reverse("ops:live")))
    if _is_operator(request, token):
        events.console_acted(level="info", action="left", address=client_address(request))
    response = HttpResponseRedirect(reverse("ops:door"))
    response.delete_cookie(COOKIE, path=reverse("ops:live"), samesite="Lax")
    return secured(response)


def client_address(request: HttpRequest) -> str:
    """Return the address that a request came from, as far as this server knows."""
    return str(request.META.get("REMOTE_ADDR", ""))


def _token() -> str:
    token = conf().ops_token
    if token is None:
        raise Http404
    return token


def _signer(token: str) -> TimestampSigner:
    """Return what signs cookies: another token makes them all worthless."""
    return TimestampSigner(key=f"{settings.SECRET_KEY}{token}", salt="gateway.console")


def _is_operator(request: HttpRequest, token: str) -> bool:
    try:
        return _signer(token).unsign(request.COOKIES.get(COOKIE, ""), max_age=_LIFETIME) == "operator"
    except BadSignature:
        return False


def _digest(token: str) -> bytes:
    """Return what tokens are compared by: of one length, so that the time taken says nothing of the token's."""
    return sha256(token.strip().encode()).digest()


def _sent_to_the_door(request: HttpRequest) -> HttpResponse:
    """Send a person to the door; what a script asked for is refused, and told where the door is."""
    script = "HX-Request" in request.headers or request.headers.get("Accept") == "text/event-stream"
    here = _path_of(request.headers.get("HX-Current-URL", "")) if script else request.get_full_path()
    door = reverse("ops:door")
    if here and (script or request.method == "GET"):
        door = f"{door}?{urlencode({'next': here})}"
    if script:
        return secured(HttpResponse(status=401, headers={"HX-Redirect": door}))
    return secured(HttpResponseRedirect(door))


def _path_of(url: str) -> str:
    """Return a URL without its scheme and host; where it leads is looked at by `_let_in`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit(("", "", parts.path, parts.query, ""))


def _wanted(request: HttpRequest) -> str:
    """Return where somebody was going who came to the door."""
    return request.POST.get("next") or request.GET.get("next") or ""


def _let_in(request: HttpRequest, token: str) -> HttpResponse:
    wanted = _wanted(request)
    own = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    response = HttpResponseRedirect(wanted if own else reverse("ops:live"))
    response.set_cookie(
        COOKIE,
        _signer(token).sign("operator"),
        max_age=_LIFETIME,
        path=reverse("ops:live"),
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",  # a link in a chat or an alert opens; what acts is a form, and has a CSRF token
    )
    return secured(response)


def _refused(request: HttpRequest, why: str, status: int, retry_after: float) -> HttpResponse:
    response = rendered(request, "door.html", {"why": why, "next": _wanted(request)}, status=status)
    if retry_after:
        response["Retry-After"] = str(math.ceil(retry_after))
    return response
