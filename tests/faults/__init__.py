"""Every fault of the fault plan, by its number, through a real gateway: `python -m tests.faults` prints the table."""
