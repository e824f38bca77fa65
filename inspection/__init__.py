"""Looking back: what a gateway's log files say about its requests, upstreams and errors.

Needs the files alone: no Django, no settings, no running gateway. DuckDB reads the NDJSON where it lies.
"""
