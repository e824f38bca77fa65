"""`manage.py runserver`: Django's development server, speaking ASGI, so that pages run as they do in production."""

from __future__ import annotations

import os
import sys
from typing import Any

import uvicorn
from django.core.management.commands.runserver import Command as DjangosCommand
from django.utils import autoreload

from gateway.management.commands.serve import UVICORN, bound


class Command(DjangosCommand):
    """Starts uvicorn where Django would start its WSGI server; reloading is Django's own."""

    addr: str
    port: str
    help = "Serve the gateway on this machine for development, and start again when code changes."

    def run(self, **options: Any) -> None:
        """Serve, in a process that is started again when code changes unless told otherwise."""
        if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":  # in the first process, before it starts others
            for listener in bound(self.addr, int(self.port)):
                listener.close()
        super().run(**options)

    def inner_run(self, *_: Any, **options: Any) -> None:
        """Check, then serve in this process until the code changes or Ctrl-C."""
        autoreload.raise_last_exception()
        if not options["skip_checks"]:
            self.check(display_num_errors=True)
        config = uvicorn.Config(
            "gateway.asgi:application",
            host=self.addr,
            port=int(self.port),
            **UVICORN,
            timeout_graceful_shutdown=1,
        )
        address = f"[{self.addr}]" if ":" in self.addr else self.addr
        self.stdout.write(f"Serving on http://{address}:{self.port}/ - quit with Ctrl-C.")
        server = uvicorn.Server(config)
        server.run()
        if not server.started:
            sys.exit(1)
