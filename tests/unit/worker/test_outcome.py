"""What becomes of results and exceptions: always something that PostgreSQL stores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core import failures
from howdah.core.decisions import Cancel, Decision, GiveUp, RetryAfter, Snooze
from howdah.core.errors import PayloadMismatch
from howdah_worker import outcome
from howdah_worker.callback_outcome import CallbackResult


def error_of(ending: outcome.Ending) -> dict[str, Any]:
    """The recorded error."""
    assert ending.error is not None
    found: dict[str, Any] = json.loads(ending.error)
    return found


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_nothing_returned_is_a_success_without_result() -> None:
    """A handler that returns None succeeds and stores no result."""
    assert outcome.of_result(None) is outcome.SUCCEEDED


def test_result_is_stored_as_json() -> None:
    """What a handler returns is stored as JSON."""
    ending = outcome.of_result({"sent": 3, "to": ["ä"]})

    assert ending.outcome == "succeeded"
    assert ending.result == '{"sent":3,"to":["ä"]}'.encode()


@pytest.mark.parametrize(
    "result",
    [object(), "x" * 70_000, {"name": "a\x00b"}, {1, "a", object()}, "\ud800"],
    ids=["no-json", "too-large", "nul", "set-of-anything", "lone-surrogate"],
)
def test_result_that_cannot_be_stored_fails_for_good(result: object) -> None:
    """The work is done, so it must not be repeated; the failure is recorded as `result_invalid`."""
    ending = outcome.of_result(result)

    assert (ending.outcome, ending.retryable, ending.result) == ("failed", False, None)
    assert error_of(ending)["type"] == "result_invalid"


def test_exception_is_recorded_with_type_message_and_traceback() -> None:
    """Who looks at a failed run sees what was raised, and where."""
    ending = outcome.of_error(raised(ValueError("no such address")))
    error = error_of(ending)

    assert (ending.outcome, ending.retryable) == ("failed", True)
    assert (error["type"], error["message"]) == ("ValueError", "no such address")
    assert "test_outcome.py" in error["traceback"]


def test_payload_that_does_not_fit_is_not_retried() -> None:
    """Another attempt would read the same payload."""
    ending = outcome.of_error(raised(PayloadMismatch("/to", "expected str, got int")))

    assert ending.retryable is False
    assert error_of(ending)["type"] == "payload_mismatch"


def test_exception_whose_message_raises_is_recorded_all_the_same() -> None:
    """A broken `__str__` must not keep the outcome from being recorded."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("inside")

    assert "RuntimeError" in error_of(outcome.of_error(raised(Broken())))["message"]


def test_exception_that_cannot_be_looked_at_is_a_failure_all_the_same() -> None:
    """A run without an ending would keep its slot for ever."""

    class Hostile(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    assert outcome.of_error(raised(Hostile())) is outcome.UNREADABLE
    assert error_of(outcome.UNREADABLE)["type"] == "error_unreadable"


@given(st.text(max_size=20_000))
def test_any_message_becomes_text_that_postgresql_stores(message: str) -> None:
    """Whatever a message holds, the stored error is valid UTF-8 JSON of bounded size without NUL."""
    ending = outcome.of_error(raised(ValueError(message)))

    assert ending.error is not None
    assert len(ending.error) < 200_000
    assert b"\\u0000" not in ending.error
    json.loads(ending.error.decode())


def test_endless_traceback_is_cut_at_its_start() -> None:
    """The end says where it was raised and what; a recursion of thousands of frames stays small."""

    def deeper(depth: int) -> None:
        if depth == 0:
            raise ValueError("x" * 30_000)
        deeper(depth - 1)

    with pytest.raises(ValueError, match="x") as caught:
        deeper(500)
    error = error_of(outcome.of_error(caught.value))

    assert len(error["traceback"]) <= failures.TRACEBACK_CHARS_MAX + 50
    assert error["traceback"].endswith("x\n")
    assert len(error["message"]) <= failures.MESSAGE_CHARS_MAX + 50


def test_callback_that_timed_out_is_recorded_as_such() -> None:
    """The outcome of a callback tells a timeout from other failures, and keeps when to try again."""
    failed = CallbackResult("failed", True, 7.0, 503, "busy", "http_status", "answered 503", 0.1)
    late = CallbackResult("failed", True, None, None, None, "timeout", "no answer", 5.0)
    good = CallbackResult("succeeded", False, None, 200, "ok", None, None, 0.1)

    assert outcome.of_callback(late).outcome == "timed_out"
    assert outcome.of_callback(failed)[3:] == (True, 7.0, 503, "busy", False)
    assert outcome.of_callback(good) == outcome.Ending("succeeded", response_status=200, response_body="ok")


@pytest.mark.parametrize(
    ("decision", "ending"),
    [
        (RetryAfter(7), ("failed", True, 7.0, True)),
        (Snooze("5m"), ("released", True, 300.0, True)),
        (GiveUp("no such customer"), ("failed", False, None, True)),
        (Cancel("withdrawn"), ("cancelled", True, None, False)),
    ],
)
def test_decision_is_the_same_raised_and_returned(
    decision: Decision, ending: tuple[str, bool, float | None, bool]
) -> None:
    """What a handler decides about its task is not a matter of how it says so."""
    returned, thrown = outcome.of_result(decision), outcome.of_error(raised(decision))

    assert returned == thrown
    assert (returned.outcome, returned.retryable, returned.retry_in_s, returned.is_decided) == ending


def test_decision_records_its_reason_and_what_led_to_it() -> None:
    """People see why, and the error that the handler caught."""
    try:
        try:
            raise OSError("connection reset")
        except OSError as cause:
            raise RetryAfter("1m", "the supplier is away") from cause
    except RetryAfter as decision:
        error = error_of(outcome.of_error(decision))

    assert (error["type"], error["message"]) == ("retry_after", "the supplier is away")
    assert "OSError: connection reset" in error["traceback"]


def test_decision_of_another_class_is_an_ordinary_failure() -> None:
    """A class that a handler derives from the root has no meaning of ours."""

    class Mine(Decision):
        pass

    ending = outcome.of_error(raised(Mine("hm")))

    assert (ending.outcome, ending.retryable, ending.is_decided) == ("failed", True, False)
    assert error_of(ending)["type"].endswith("Mine")


def test_snooze_says_why_too() -> None:
    """If its age ends the task, that is what the dead letter tells."""
    ending = outcome.of_error(raised(Snooze(60, "the supplier is closed")))

    assert error_of(ending) == {"type": "snoozed", "message": "the supplier is closed"}


def test_faults_that_are_not_the_tasks_own_are_beyond_its_policy() -> None:
    """A policy that names errors must not give a task up for a row that is away, or an error that cannot be read."""
    assert [each.is_decided and each.retryable for each in (outcome.task_gone(60.0), outcome.UNREADABLE)] == [
        True,
        True,
    ]
