"""Servers nobody here wrote (Datasette, json-server, nginx, httpbin), started for the tests alone."""
