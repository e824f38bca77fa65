"""One closed vocabulary of failures: the same words everywhere, RFC 9209's where it has one."""

from __future__ import annotations

import pytest

from upstreams import Fault, Outcome

#: https://www.rfc-editor.org/rfc/rfc9209#section-2.3, as far as a gateway without caches and filters has a use for it.
RFC_9209 = {
    "dns_error", "dns_timeout", "destination_unavailable", "destination_ip_prohibited", "connection_refused",
    "connection_timeout", "connection_terminated",
    "connection_limit_reached", "tls_protocol_error", "tls_certificate_error", "http_request_denied",
    "http_response_incomplete", "http_response_header_size", "http_response_body_size", "http_response_content_coding",
    "http_response_timeout", "http_protocol_error", "proxy_internal_error",
}  # fmt: skip
OURS = {"http_response_status", "body_malformed", "body_mismatch", "deadline_exceeded", "skipped"}


def test_the_words_are_these() -> None:
    assert {fault.word for fault in Fault} == RFC_9209 | OURS


@pytest.mark.parametrize("fault", Fault)
def test_a_page_answers_a_fault_with_a_server_s_status(fault: Fault) -> None:
    assert fault.status in {500, 502, 503, 504}
    assert (fault.status == 500) == (fault is Fault.PROXY_INTERNAL_ERROR)
    assert (fault.status == 504) == (fault.word.endswith("timeout") or fault is Fault.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("fault", Fault)
def test_only_what_the_upstream_did_is_blamed_on_it(fault: Fault) -> None:
    ours = {
        "connection_limit_reached", "destination_unavailable", "destination_ip_prohibited", "http_request_denied",
        "deadline_exceeded", "skipped", "proxy_internal_error",
    }  # fmt: skip
    of_one_call = {"http_response_body_size", "body_malformed", "body_mismatch"}
    assert fault.blames is (fault.word not in ours | of_one_call)


@pytest.mark.parametrize("fault", Fault)
def test_only_what_the_upstream_did_is_tried_again(fault: Fault) -> None:
    assert fault.blames or not fault.retryable


class TestOutcome:
    def test_without_a_fault_it_is_ok_and_not_to_be_retried(self) -> None:
        assert Outcome(upstream="users", value=1).ok
        assert Outcome(upstream="users", absent=True).ok
        assert not Outcome(upstream="users").retryable

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 408, 409, 425, 429, 500, 501, 502, 503, 504, 505])
    def test_a_status_says_whether_asking_again_later_may_help(self, status: int) -> None:
        outcome = Outcome(upstream="users", fault=Fault.HTTP_RESPONSE_STATUS, status=status)

        assert not outcome.ok
        assert outcome.retryable is (status in {408, 429, 500, 502, 503, 504})

    @pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HTTP_RESPONSE_STATUS])
    def test_any_other_fault_when_it_may_pass_or_was_for_want_of_time_or_room(self, fault: Fault) -> None:
        outcome = Outcome(upstream="users", fault=fault)

        assert outcome.retryable is (fault.retryable or fault.status in {503, 504})
