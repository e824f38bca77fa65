"""The shop's five upstream services, each an HTTP server of its own: `python -m demo.services users --port 9101`."""
