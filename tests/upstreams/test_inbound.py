"""The ids that name a request and its spans are W3C Trace Context's."""

from __future__ import annotations

import re

from upstreams.inbound import new_span_id, new_trace_id


def test_ids_are_of_the_right_length_and_each_is_new() -> None:
    traces = {new_trace_id() for _ in range(1000)}
    spans = {new_span_id() for _ in range(1000)}

    assert len(traces) == len(spans) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)
    assert all(re.fullmatch("[0-9a-f]{16}", span) for span in spans)
    assert "0" * 32 not in traces
