"""`manage.py runserver`: Django's development server, speaking ASGI, so that pages run as they do in production."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from django.core.management.commands.runserver import Command as DjangosCommand

from gateway.lifespan import refuse_faults


class Command(DjangosCommand):
    """Starts uvicorn where Django would start its WSGI server; reloading is Django's own."""

    addr: str
    port: str
    help = "Serve the gateway on this machine for development, and start again when code changes."

    def inner_run(self, *_: Any, **options: Any) -> None:
        """Check, then serve in this process until the code changes or Ctrl-C."""
        if not options["skip_checks"]:
            self.check(display_num_errors=True)
        refuse_faults()
        config = uvicorn.Config(
            "gateway.asgi:application",
            host=self.addr.strip("[]"),
            port=int(self.port),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            reset_contextvars=True,
            timeout_graceful_shutdown=1,
        )
        self.stdout.write(f"Serving on http://{self.addr}:{self.port}/ - quit with Ctrl-C.")
        server = uvicorn.Server(config)
        server.run()
        if not server.started:
            sys.exit(1)
