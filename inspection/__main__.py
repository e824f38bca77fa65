"""`python -m inspection`: the log's questions where there is nothing but the files."""

from __future__ import annotations

import sys

from inspection.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "inspection"))
