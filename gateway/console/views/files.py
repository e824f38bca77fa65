"""Scripts and styles: a few files that come with the console."""

from __future__ import annotations

import mimetypes
from typing import Final

from django.http import Http404, HttpRequest, HttpResponse

from gateway import __version__
from gateway.conf import conf
from gateway.console.rendering import STATIC, secured

#: Read when a worker starts: nothing but what is in the folder has a name here.
_CONTENTS: Final = {path.name: path.read_bytes() for path in STATIC.iterdir()}


async def static(request: HttpRequest, name: str) -> HttpResponse:
    """Return one of them; with this version in the query it may be kept for ever."""
    content = _CONTENTS.get(name) if conf().ops_token is not None else None
    if content is None:
        raise Http404
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    response = HttpResponse(content, content_type=f"{kind}; charset=utf-8")
    if request.GET.get("v") == __version__:
        response["Cache-Control"] = "public, max-age=31536000, immutable"
    return secured(response)
