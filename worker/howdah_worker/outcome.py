"""What a handler did, as data: its result or exception becomes an `Ending`. Pure.

Everything that could not be stored is dealt with here: results that have no
JSON form or are too large, and (in `core.failures`) errors that are endless or hold
what PostgreSQL refuses (NUL, half of a surrogate pair).
"""

from __future__ import annotations

import traceback
from signal import Signals
from typing import TYPE_CHECKING, Final, NamedTuple

from howdah.core.decisions import Cancel, Decision, GiveUp, RetryAfter, Snooze
from howdah.core.errors import PayloadMismatch, ResultInvalid
from howdah.core.failures import error_text
from howdah.handlers import encode_result

if TYPE_CHECKING:
    from types import TracebackType

    from howdah_worker.callback_outcome import CallbackResult


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
        outcome: succeeded, cancelled, failed, timed_out or released; or awaiting: the receiver owes it.
        result: JSON text of what the handler returned; None for None.
        error: JSON text of type, message and traceback.
        retryable: Another attempt may help.
        retry_in_s: Delay asked for by the target; of released, the handler snoozed.
        response_status: Of a callback's answer.
        response_body: Of a callback's answer, cut.
        is_decided: `retryable` and `retry_in_s` hold, whatever the policy says of statuses, errors and delays.
    """

    outcome: str
    result: bytes | None = None
    error: bytes | None = None
    retryable: bool = True
    retry_in_s: float | None = None
    response_status: int | None = None
    response_body: str | None = None
    is_decided: bool = False


SUCCEEDED: Final = Ending("succeeded")
RELEASED: Final = Ending("released")
AWAITING: Final = Ending("awaiting")
UNREADABLE: Final = Ending(
    "failed", error=b'{"type": "error_unreadable", "message": "what was raised cannot be read"}', is_decided=True
)


def of_result(result: object) -> Ending:
    """Turn what a handler returned into an ending; a result that cannot be stored is a failure for good."""
    if result is None:
        return SUCCEEDED
    if isinstance(result, Decision):
        return of_decision(result)
    try:
        return Ending("succeeded", encode_result(result))
    except ResultInvalid as invalid:
        return result_invalid(str(invalid))


def of_error(error: BaseException) -> Ending:
    """Turn what a handler raised into an ending; never raises.

    The traceback begins at the handler; our own frames above it are left out.
    """
    try:
        return _of_error(error)
    except BaseException:
        # No memory, or an exception whose parts raise in turn: a run without an ending would keep its slot for ever.
        return UNREADABLE


def _of_error(error: BaseException) -> Ending:
    if isinstance(error, PayloadMismatch):
        return Ending("failed", error=error_text("payload_mismatch", str(error)), retryable=False, is_decided=True)
    if isinstance(error, Decision):
        return of_decision(error)
    trace = "".join(traceback.format_exception(type(error), error, _handler_trace(error)))
    return Ending("failed", error=error_text(type(error).__qualname__, _message(error), trace))


def of_decision(decision: Decision) -> Ending:
    """Turn what a handler decided about its task into an ending; an error that led to it is recorded too."""
    trace = None
    if decision.__cause__ is not None:
        trace = "".join(traceback.format_exception(decision.__cause__))
    match decision:
        case Snooze():
            error = error_text("snoozed", decision.reason, trace)
            return Ending("released", error=error, retry_in_s=decision.delay_s, is_decided=True)
        case Cancel():
            return Ending(
                "cancelled", error=error_text("cancelled", decision.reason or "the handler cancelled it", trace)
            )
        case RetryAfter():
            error = error_text("retry_after", decision.reason, trace)
            return Ending("failed", error=error, retry_in_s=decision.delay_s, is_decided=True)
        case GiveUp():
            return Ending(
                "failed", error=error_text("gave_up", decision.reason, trace), retryable=False, is_decided=True
            )
        case _:  # A class of the handler's own fails like any other exception.
            return Ending("failed", error=error_text(type(decision).__qualname__, decision.reason, trace))


def of_callback(result: CallbackResult) -> Ending:
    """Turn the result of a callback into an ending."""
    if result.outcome == "accepted":
        return AWAITING
    if result.outcome == "succeeded":
        return Ending("succeeded", response_status=result.status, response_body=result.response_text)
    return Ending(
        "timed_out" if result.error_type == "timeout" else "failed",
        error=error_text(result.error_type or "failed", result.error_message or ""),
        retryable=result.retryable,
        retry_in_s=result.retry_in_s,
        response_status=result.status,
        response_body=result.response_text,
        is_decided=result.is_decided,
    )


def timed_out(timeout_s: float) -> Ending:
    """Say that the attempt took longer than it may."""
    return Ending("timed_out", error=error_text("timed_out", f"no outcome within {timeout_s:g} s"))


def cancelled(reason: str) -> Ending:
    """Say that the run was ended by request."""
    return Ending("cancelled", error=error_text("cancelled", reason))


def result_invalid(reason: str) -> Ending:
    """Say that what the handler returned cannot be stored; its work is done, so another attempt must not repeat it."""
    return Ending("failed", error=error_text("result_invalid", reason), retryable=False, is_decided=True)


def task_unreadable(reason: str) -> Ending:
    """Say that the task asks for something that cannot be understood; no attempt can help."""
    return Ending("failed", error=error_text("task_unreadable", reason), retryable=False, is_decided=True)


def task_gone(retry_in_s: float) -> Ending:
    """Say that the task itself cannot be found: somebody deleted it, or a restore brought back its run alone."""
    error = error_text("task_gone", "the task's row cannot be found")
    return Ending("failed", error=error, retry_in_s=retry_in_s, is_decided=True)


def process_died(reason: str, exit_code: int | None) -> Ending:
    """Say that the process of an isolated handler ended before the handler did; another attempt may help.

    Args:
        reason: For people.
        exit_code: Negative for a signal; None if there was no process.
    """
    if exit_code is None:
        return Ending("failed", error=error_text("process_died", reason))
    how = {"signal": signal_name(-exit_code)} if exit_code < 0 else {"exit_code": exit_code}
    return Ending("failed", error=error_text("process_died", reason, **how))


def signal_name(number: int) -> str:
    """Return the name of a signal, or its number if it has none."""
    try:
        return Signals(number).name
    except ValueError:
        return str(number)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"(the message cannot be read: {type(failure).__name__})"


def _handler_trace(error: BaseException) -> TracebackType | None:
    """Skip the frames of this package at the top."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(("howdah_worker", "howdah.")):
        trace = trace.tb_next
    return trace or error.__traceback__
