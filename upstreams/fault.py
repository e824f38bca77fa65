"""Every way a call can fail, in one table: may it be retried, is the upstream to blame, which status does it make.

The words are the error types of RFC 9209 (Proxy-Status) where it has one, and ours where it has none. The same word
stands in the answer, the log and the documentation.
"""

from __future__ import annotations

import enum
from typing import Self


class Fault(enum.Enum):
    """One row a way to fail: `word`, `retryable` (for requests that may be), `blames`, `status` (a page's).

    `blames` says that the service as a whole is in trouble, which its breaker counts; a body that is not what one call
    asked for is that call's trouble alone.
    """

    #                                                       retryable  blames  status
    DNS_ERROR = ("dns_error",                                False,     True,   502)  # fmt: skip
    DNS_TIMEOUT = ("dns_timeout",                            True,      True,   504)  # fmt: skip
    DESTINATION_IP_PROHIBITED = ("destination_ip_prohibited", False,    False,  502)  # fmt: skip
    DESTINATION_UNAVAILABLE = ("destination_unavailable",    False,     False,  503)  # fmt: skip
    CONNECTION_REFUSED = ("connection_refused",              True,      True,   502)  # fmt: skip
    CONNECTION_TIMEOUT = ("connection_timeout",              True,      True,   504)  # fmt: skip
    CONNECTION_TERMINATED = ("connection_terminated",        True,      True,   502)  # fmt: skip
    CONNECTION_LIMIT_REACHED = ("connection_limit_reached",  False,     False,  503)  # fmt: skip
    TLS_PROTOCOL_ERROR = ("tls_protocol_error",              False,     True,   502)  # fmt: skip
    TLS_CERTIFICATE_ERROR = ("tls_certificate_error",        False,     True,   502)  # fmt: skip
    HTTP_REQUEST_DENIED = ("http_request_denied",            False,     False,  502)  # fmt: skip
    HTTP_RESPONSE_TIMEOUT = ("http_response_timeout",        True,      True,   504)  # fmt: skip
    HTTP_RESPONSE_INCOMPLETE = ("http_response_incomplete",  True,      True,   502)  # fmt: skip
    HTTP_RESPONSE_HEADER_SIZE = ("http_response_header_size", False,    True,   502)  # fmt: skip
    HTTP_RESPONSE_BODY_SIZE = ("http_response_body_size",    False,     False,  502)  # fmt: skip
    HTTP_RESPONSE_CONTENT_CODING = ("http_response_content_coding", False, True, 502)  # fmt: skip
    HTTP_PROTOCOL_ERROR = ("http_protocol_error",            False,     True,   502)  # fmt: skip
    HTTP_RESPONSE_STATUS = ("http_response_status",          True,      True,   502)  # fmt: skip
    BODY_MALFORMED = ("body_malformed",                      False,     False,  502)  # fmt: skip
    BODY_MISMATCH = ("body_mismatch",                        False,     False,  502)  # fmt: skip
    DEADLINE_EXCEEDED = ("deadline_exceeded",                False,     False,  504)  # fmt: skip
    SKIPPED = ("skipped",                                    False,     False,  502)  # fmt: skip
    PROXY_INTERNAL_ERROR = ("proxy_internal_error",          False,     False,  500)  # fmt: skip

    retryable: bool
    blames: bool
    status: int

    def __new__(cls, word: str, retryable: bool, blames: bool, status: int) -> Self:  # noqa: FBT001 - a table's columns
        """Make the word the member's value, and the other columns its attributes."""
        member = object.__new__(cls)
        member._value_ = word
        member.retryable = retryable
        member.blames = blames
        member.status = status
        return member

    @property
    def word(self) -> str:
        """The name that goes into answers, logs and documentation."""
        return str(self.value)
