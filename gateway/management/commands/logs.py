"""`manage.py logs`: questions to the log, for a project whose manage.py is Django's own."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from inspection.cli import main


class Command(BaseCommand):
    """Hands its arguments to `inspection`, which needs nothing of Django."""

    help = "Ask the log: who failed, what was slow, what was tried (logs --help lists the questions)."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own form; a faulty page must not hide the log

    def run_from_argv(self, argv: list[str]) -> None:
        """Answer, and exit with 0 (found), 1 (nothing found) or 2 (cannot be asked so)."""
        sys.exit(main(argv[2:], "manage.py logs"))

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's form
        """Answer a question asked by `call_command`, with the arguments as on a command line."""
        if code := main(args, "logs"):
            sys.exit(code)

    def add_arguments(self, parser: Any) -> None:
        """Take what inspection takes."""
        parser.add_argument("args", nargs="*")
