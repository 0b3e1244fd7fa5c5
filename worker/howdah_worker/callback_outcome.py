"""What the answer to a callback means for the task: pure rules, no network.

2xx succeeds. 408, 409, 423, 425, 429, 5xx and everything that is not an answer
is tried again, unless the retry policy names other statuses or errors. Other
answers say that a repeat cannot help, and so does `Howdah-Retry: no` with any
failure, whatever the policy. To a callback of the mode async, 202 is no outcome: the
receiver will report it. Once the status line and headers are in, they alone
decide: a body that is cut off, endless or slow changes nothing.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

ErrorType: TypeAlias = Literal[
    "http_status",  # an answer that is not a success
    "gone",  # 410: the receiver wants no more of these
    "redirect",  # 3xx: not followed
    "timeout",  # no answer within the attempt's timeout
    "connect_failed",  # refused, unreachable, or not connected in time
    "dns_failed",  # the name has no address
    "tls_failed",  # no trusted certificate, or no common protocol
    "connection_lost",  # closed or reset before an answer
    "response_invalid",  # what came was not HTTP, or had too large a head
    "blocked_address",  # the host must not be reached
    "request_invalid",  # the task asks for something that must not be sent
    "signing_failed",  # the tenant's secret cannot be used
]
FINAL_TYPES: Final[frozenset[ErrorType]] = frozenset({"gone", "redirect", "blocked_address", "request_invalid"})
RETRYABLE_STATUSES: Final = frozenset({408, 409, 423, 425, 429})
# Nobody means to be asked again after more than a day; a typing error may say so.
RETRY_AFTER_S_MAX: Final = 86_400.0
LOCATION_LENGTH_MAX: Final = 256

_SECONDS: Final = re.compile(r"[0-9]+", re.ASCII)
# The longest date that RFC 9110 knows has 33 characters; no number of seconds needs more.
_RETRY_AFTER_LENGTH_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class CallbackResult:
    """How one attempt ended.

    Attributes:
        outcome: Whether the receiver took the callback; accepted if it will report the outcome later.
        retryable: Whether another attempt may help; only of failed.
        retry_in_s: When the receiver asked to be tried again, 0 to 86,400 s from now; None if it did not.
        status: The answer's status, if there was an answer.
        response_text: The beginning of the answer's body, without NUL, if there was an answer.
        error_type: Stable name of the failure; None if it did not fail.
        error_message: One printable line for people, without path, query, header or body of the request.
        duration_s: From the start of the attempt to this result.
        is_decided: `retryable` holds, whatever the task's retry policy says.
    """

    outcome: Literal["succeeded", "failed", "accepted"]
    retryable: bool
    retry_in_s: float | None
    status: int | None
    response_text: str | None
    error_type: ErrorType | None
    error_message: str | None
    duration_s: float
    is_decided: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What is looked at of an HTTP answer.

    Attributes:
        status: As received, 100 to 999.
        retry_after: The header of that name, as received.
        location: The header of that name, as received.
        text: The beginning of the body, ready to be stored.
        retry: The header `Howdah-Retry`, as received.
    """

    status: int
    retry_after: str | None
    location: str | None
    text: str
    retry: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there was no answer.

    Attributes:
        type: Its stable name.
        message: One printable line for people, without secrets.
    """

    type: ErrorType
    message: str


def judge_fault(fault: Fault, duration_s: float) -> CallbackResult:
    """Turn the lack of an answer into a result: another attempt may help, unless the request itself is at fault."""
    is_final = fault.type in FINAL_TYPES
    return CallbackResult(
        outcome="failed",
        retryable=not is_final,
        retry_in_s=None,
        status=None,
        response_text=None,
        error_type=fault.type,
        error_message=fault.message,
        duration_s=duration_s,
        # A secret that is missing here says nothing of the task, which no policy should give up for it.
        is_decided=is_final or fault.type == "signing_failed",
    )


def judge_answer(
    answer: Answer, success_statuses: Collection[int], now_s: float, duration_s: float, *, is_async: bool = False
) -> CallbackResult:
    """Turn an answer into a result.

    Args:
        answer: What the receiver said.
        success_statuses: The statuses that count as a success; empty means 200 to 299.
        now_s: The database's time, to read a date in Retry-After.
        duration_s: How long the attempt took.
        is_async: 202 says that the outcome will be reported, also if it is one of `success_statuses`.
    """
    status = answer.status
    if is_async and status == HTTPStatus.ACCEPTED:
        return CallbackResult("accepted", False, None, status, answer.text, None, None, duration_s)
    if status in success_statuses or (not success_statuses and 200 <= status <= 299):
        return CallbackResult("succeeded", False, None, status, answer.text, None, None, duration_s)
    # A 2xx that the client does not count as a success says "not yet" rather than "never".
    retryable = status in RETRYABLE_STATUSES or 500 <= status <= 599 or 200 <= status <= 299
    error_type: ErrorType = "http_status"
    message = f"answered {status}"
    if 300 <= status <= 399:
        error_type = "redirect"
        message += ": redirects are not followed"
        if answer.location:
            message += f"; it points to {_shown(answer.location)}"
    elif status == 410:
        error_type = "gone"
    is_last = answer.retry is not None and answer.retry.strip().lower() == "no"
    if is_last:
        retryable = False
        message += " and asked for no retry"
    return CallbackResult(
        outcome="failed",
        retryable=retryable,
        retry_in_s=None if is_last else parse_retry_after(answer.retry_after, now_s),
        status=status,
        response_text=answer.text,
        error_type=error_type,
        error_message=message,
        duration_s=duration_s,
        is_decided=is_last,
    )


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date, clamped to 0 to 86,400 s from now; None for junk."""
    if value is None or len(value) > _RETRY_AFTER_LENGTH_MAX:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), RETRY_AFTER_S_MAX)
    try:
        at = parsedate_to_datetime(value)
        # Dates without a zone are UTC by RFC 9110; `timestamp` would take the machine's zone.
        wait_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def decode_body(body: bytes | bytearray, bytes_max: int) -> str:
    """Return the beginning of a body as text that PostgreSQL stores.

    Bytes that are not UTF-8 become U+FFFD and NUL is left out.

    Args:
        body: At least the first `bytes_max` bytes of the body, if it has as many.
        bytes_max: The result has at most so many bytes in UTF-8, and no character is cut in two.
    """
    # Not final, if there is more: a character that the limit cuts in two is left out, not replaced.
    text, _ = codecs.utf_8_decode(body[:bytes_max], "replace", len(body) <= bytes_max)
    text = text.replace("\x00", "")
    # One bad byte became the three of U+FFFD, so the text may have outgrown the limit.
    return text if text.isascii() else text.encode()[:bytes_max].decode("utf-8", "ignore")


def _shown(location: str) -> str:
    """Return a Location for an error message: without what often holds a secret, in printable ASCII."""
    location = re.sub(r"[?#].*", "", location[:LOCATION_LENGTH_MAX], flags=re.DOTALL)
    location = re.sub(r"//[^/]*@", "//", location)
    return "".join(each if " " < each <= "~" else "?" for each in location)
