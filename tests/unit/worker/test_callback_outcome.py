"""What an answer means for the task is decided by its status alone, the same way each time."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from howdah_worker.callback_outcome import (
    LOCATION_LENGTH_MAX,
    Answer,
    CallbackResult,
    ErrorType,
    Fault,
    decode_body,
    judge_answer,
    judge_fault,
    parse_retry_after,
)

NOW_S = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()


def judge(status: int, *success_statuses: int, **headers: str | None) -> CallbackResult:
    """Judge an answer that has nothing but a status, or the headers given."""
    answer = Answer(status, headers.get("retry_after"), headers.get("location"), "text", headers.get("retry"))
    return judge_answer(answer, frozenset(success_statuses), NOW_S, 0.25)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
def test_judge_answer_2xx_succeeds(status: int) -> None:
    """Every 2xx ends the task well and keeps what was answered."""
    result = judge(status)

    assert result == CallbackResult("succeeded", False, None, status, "text", None, None, 0.25)


@pytest.mark.parametrize("status", [408, 409, 423, 425, 429, 500, 501, 502, 503, 504, 520, 599])
def test_judge_answer_passing_trouble_is_retryable(status: int) -> None:
    """A receiver that is overloaded, locked or broken is asked again."""
    result = judge(status)

    assert (result.outcome, result.retryable, result.error_type) == ("failed", True, "http_status")
    assert result.error_message == f"answered {status}"


@pytest.mark.parametrize("retry", ["no", "No", " NO\t"])
@pytest.mark.parametrize("status", [429, 500, 503, 404, 302])
def test_judge_answer_that_asks_for_no_retry_is_final(status: int, retry: str) -> None:
    """`Howdah-Retry: no` ends every failure, whatever its status, a Retry-After or the policy say."""
    result = judge(status, retry=retry, retry_after="5")

    assert (result.outcome, result.retryable, result.is_decided, result.retry_in_s) == ("failed", False, True, None)
    assert result.error_message is not None
    assert "asked for no retry" in result.error_message


@pytest.mark.parametrize("retry", ["yes", "", "no, thanks", "none", "0"])
def test_judge_answer_passes_over_other_values_of_howdah_retry(retry: str) -> None:
    """Only `no` says so; what else stands there changes nothing."""
    assert judge(503, retry=retry) == judge(503)


def test_judge_answer_success_asks_for_nothing() -> None:
    """`Howdah-Retry` is about failures."""
    assert judge(200, retry="no") == judge(200)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 411, 413, 415, 418, 421, 422, 451, 499])
def test_judge_answer_refusal_is_final(status: int) -> None:
    """A receiver that says no is not asked the same thing again."""
    result = judge(status)

    assert (result.outcome, result.retryable, result.error_type) == ("failed", False, "http_status")


@pytest.mark.parametrize("status", [100, 101, 199, 600, 999])
def test_judge_answer_status_without_meaning_is_final(status: int) -> None:
    """An answer that no HTTP server gives is not asked for again."""
    result = judge(status)

    assert (result.outcome, result.retryable, result.error_type) == ("failed", False, "http_status")


def test_judge_answer_410_is_gone() -> None:
    """410 has a name of its own, since it concerns all callbacks to that receiver."""
    result = judge(410)

    assert (result.outcome, result.retryable, result.error_type) == ("failed", False, "gone")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308, 399])
def test_judge_answer_redirect_is_final(status: int) -> None:
    """A redirect is reported and not followed."""
    result = judge(status, location="https://example.com/new")

    assert (result.outcome, result.retryable, result.error_type) == ("failed", False, "redirect")
    assert result.error_message == (
        f"answered {status}: redirects are not followed; it points to https://example.com/new"
    )


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/login?next=/hook&token=s3cret", "/login"),
        ("https://user:s3cret@example.com/x#s3cret", "https://example.com/x"),
        ("//s3cret@example.com", "//example.com"),
        ("a\x00b\r\nc\ud800é d", "a?b??c???d"),
        ("x" * 300, "x" * LOCATION_LENGTH_MAX),
        ("https://" + "s3cret" * 50 + "@h/", "https://" + ("s3cret" * 50)[: LOCATION_LENGTH_MAX - 8]),
    ],
)
def test_judge_answer_location_is_shown_without_secrets(location: str, shown: str) -> None:
    """A Location is cut at 256 characters, stripped of query and user, and printable."""
    result = judge(302, location=location)

    assert result.error_message == f"answered 302: redirects are not followed; it points to {shown}"


def test_judge_answer_configured_status_succeeds() -> None:
    """A client can count any status as a success, also one that would be final otherwise."""
    assert judge(409, 200, 409).outcome == "succeeded"
    assert judge(404, 404).outcome == "succeeded"
    assert judge(410, 410).outcome == "succeeded"
    assert judge(303, 303).outcome == "succeeded"


def test_judge_answer_2xx_outside_configured_is_retryable() -> None:
    """Where only 200 counts, a 202 says "not yet": the task has not succeeded, and is tried again."""
    result = judge(202, 200)

    assert (result.outcome, result.retryable, result.error_type) == ("failed", True, "http_status")


def test_judge_answer_retry_after_counts_for_failures() -> None:
    """A receiver can ask for a pause; whether there is another attempt is for the policy to say."""
    assert judge(503, retry_after="120").retry_in_s == 120
    assert judge(429, retry_after="120").retry_in_s == 120
    assert judge(404, retry_after="120").retry_in_s == 120
    assert judge(200, retry_after="120").retry_in_s is None


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("86400", 86_400),
        ("86401", 86_400),
        ("99999999999", 86_400),
        ("9" * 64, 86_400),
        ("Wed, 04 Mar 2026 05:08:07 GMT", 120),
        ("Wednesday, 04-Mar-26 05:08:07 GMT", 120),
        ("Wed Mar  4 05:08:07 2026", 120),
        ("Wed, 04 Mar 2026 06:08:07 +0100", 120),
        ("Wed, 04 Mar 2026 05:08:07 -0000", 120),
        ("Wed, 04 Mar 2026 05:06:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
    ],
)
def test_parse_retry_after_value_is_clamped_to_a_day(value: str, wait_s: float) -> None:
    """Seconds and dates of all three forms are read against the given time, never before now or after a day."""
    assert parse_retry_after(value, NOW_S) == wait_s


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "-1", "+1", "1.5", "1e99", "nan", "inf", "soon", "1 s", "0x10", "\u0661", "1,2", "9" * 65, "\x00"),
        *("Wed, 99 Mar 2026 05:08:07 GMT", "Wed, 04 Mar 99999999999 05:08:07 GMT", "0 Jan 0000", "\ud800"),
        *("Wed, 04 Mar 2026 25:61:61 GMT", "Wed, 04 Mar 2026 05:08:07 +9999999999", ",,,,", "Mar", "a" * 10_000),
    ],
)
def test_parse_retry_after_junk_is_ignored(value: str) -> None:
    """What cannot be read leaves the delay to the task's own policy."""
    assert parse_retry_after(value, NOW_S) is None


def test_parse_retry_after_without_header_is_none() -> None:
    """No header, no wish."""
    assert parse_retry_after(None, NOW_S) is None


@given(st.text(max_size=70), st.floats(0, 1e11))
@example("Mon, 1 Jan 0001 00:00:00 +2359", 0.0)
@example("Fri, 31 Dec 9999 23:59:59 -2359", 0.0)
def test_parse_retry_after_any_text_gives_a_bounded_wait(value: str, now_s: float) -> None:
    """No header makes the reader fail, and none delays for more than a day."""
    wait_s = parse_retry_after(value, now_s)

    assert wait_s is None or 0 <= wait_s <= 86_400


@given(st.datetimes(datetime(1971, 1, 2), datetime(9000, 1, 1)), st.integers(-86_400, 86_400))  # noqa: DTZ001
def test_parse_retry_after_date_gives_its_distance(at: datetime, distance_s: int) -> None:
    """A date is as far away as it says."""
    at = at.replace(tzinfo=UTC, microsecond=0)

    wait_s = parse_retry_after(format_datetime(at, usegmt=True), at.timestamp() - distance_s)

    assert wait_s == max(distance_s, 0)


@pytest.mark.parametrize(
    ("type_", "retryable"),
    [
        ("timeout", True),
        ("connect_failed", True),
        ("dns_failed", True),
        ("tls_failed", True),
        ("connection_lost", True),
        ("response_invalid", True),
        ("signing_failed", True),
        ("blocked_address", False),
        ("request_invalid", False),
    ],
)
def test_judge_fault_network_is_retryable_and_request_is_not(type_: ErrorType, retryable: bool) -> None:
    """Trouble on the way is tried again; what must not be sent now must not be sent later."""
    result = judge_fault(Fault(type_, "why"), 1.5)

    is_decided = not retryable or type_ == "signing_failed"
    assert result == CallbackResult("failed", retryable, None, None, None, type_, "why", 1.5, is_decided)


@pytest.mark.parametrize(
    ("body", "bytes_max", "text"),
    [
        (b"", 10, ""),
        (b"ok", 10, "ok"),
        (b"ok", 2, "ok"),
        (b"okay", 2, "ok"),
        (b"anything", 0, ""),
        ("ä€😀".encode(), 9, "ä€😀"),
        ("ä€😀".encode(), 8, "ä€"),
        ("ä€😀".encode(), 4, "ä"),
        ("ä€😀".encode(), 1, ""),
        (b"a\xffb", 10, "a\ufffdb"),
        (b"\xff\xff\xff", 8, "\ufffd\ufffd"),
        (b"a\x00b\x00", 10, "ab"),
        (b"a\xe2\x82", 10, "a\ufffd"),
        (b"\xed\xa0\x80", 10, "\ufffd\ufffd\ufffd"),
    ],
)
def test_decode_body_is_text_within_the_limit(body: bytes, bytes_max: int, text: str) -> None:
    """Bad bytes are replaced, NUL is dropped, and no character is cut in two."""
    assert decode_body(body, bytes_max) == text


@given(st.binary(max_size=300), st.integers(0, 300))
def test_decode_body_any_bytes_can_be_stored(body: bytes, bytes_max: int) -> None:
    """Whatever is answered, PostgreSQL can store what is kept of it, and it is no longer than allowed."""
    text = decode_body(bytearray(body), bytes_max)

    assert len(text.encode()) <= bytes_max
    assert "\x00" not in text


@given(st.text(), st.integers(0, 50))
def test_decode_body_good_text_is_kept_from_its_beginning(text: str, bytes_max: int) -> None:
    """Of valid UTF-8 as many whole characters are kept as fit."""
    kept = decode_body(text.encode(), bytes_max)

    whole = text.encode()[:bytes_max].decode("utf-8", "ignore")
    assert kept == whole.replace("\x00", "")
