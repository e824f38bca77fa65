"""A row of the live tail shows what the terminal shows, and nothing in a line becomes markup."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.console.rows import row
from tests.inspection.shop import attempt, line, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(["level", "event", "timestamp", "seq", "request_id", "service.instance.id", "url.path", "x"])


def test_a_row_leads_to_its_request_and_is_known_by_its_process_and_number() -> None:
    written = attempt(request_id="a b/c", seq=7, outcome="failed", **{"service.instance.id": "web-1"})
    found = row(text([written]), "/ops/trace")
    assert found.startswith('<li class="warning" data-key="web-1/7"><a href="/ops/trace?id=a%20b%2Fc">')
    assert '<span class="bad">failed' in found
    assert "catalog" in found


def test_what_is_no_json_is_shown_as_it_is() -> None:
    assert row(b"<b>half a li\x1bne", "/ops/trace") == "<li>&lt;b&gt;half a li\\x1bne</li>"


def test_nothing_in_a_line_is_taken_for_markup() -> None:
    evil = '"><script>alert(1)</script>\x01\x31\x02'
    written = line("log.recorded", message=evil, logger=evil, request_id=evil, seq=1, service__instance__id=evil)
    found = row(text([written]), "/ops/trace")
    assert "<script" not in found
    assert found.count("<li") == found.count("</li>") == 1
    assert "\x01" not in found


@given(st.dictionaries(FIELDS, JSON))
def test_a_line_of_any_fields_of_any_types_is_one_row(fields: dict[str, object]) -> None:
    found = row(text([fields]), "/ops/trace")
    assert found.count("<li") == found.count("</li>") == 1
    assert found.count("<span") == found.count("</span>")
