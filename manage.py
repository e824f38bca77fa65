#!/usr/bin/env python
"""Django's command line for this project."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings.development")
    if os.environ.get("NO_COLOR"):
        os.environ["DJANGO_COLORS"] = "nocolor"  # Django knows the wish by this name only
    if sys.argv[1:2] == ["logs"]:  # needs the log's files alone: neither Django nor settings that are complete
        from inspection.cli import main

        sys.exit(main(sys.argv[2:], "manage.py logs"))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
