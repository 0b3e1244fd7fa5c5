"""Runs as consumers over HTTP are shown them, and their reports as the database takes them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import msgspec

from howdah.api import run_shapes, shapes
from howdah.api.bounds import seconds_of
from howdah.api.problems import invalid
from howdah.api.task_view import duration
from howdah.core.db.arrays import instant_at
from howdah.core.decisions import RETRY_S_MAX, SNOOZE_S_MAX
from howdah.core.errors import ResultInvalid
from howdah.core.failures import error_text
from howdah.core.model import SUSPECT_CRASHES, ClaimedRun, Report, jsonb_text
from howdah.core.store.runs import GRACE_S
from howdah.handlers import check_result

if TYPE_CHECKING:
    from howdah.api.call import Call
    from howdah.api.pull_line import Row
    from howdah.api.reporter import Verdict
    from howdah.core.model import LeaseKey

_decode_http: Final = msgspec.json.Decoder(shapes.HttpTarget).decode
_decode_tags: Final = msgspec.json.Decoder(dict[str, str]).decode


def claimed_run(row: Row, token: bytes, lease_s: float, handler: str | None) -> run_shapes.PulledRun:
    """Show a row of run/claim.

    Args:
        row: With `ClaimedRun`'s fields, and a task.
        token: Of the claim.
        lease_s: That it asked for.
        handler: None for a callback.
    """
    run = ClaimedRun._make(row)
    # As run/claim sets it; a heartbeat since then may have moved it on.
    held_s = min(lease_s, run.timeout_s + GRACE_S) - run.timeout_s
    return run_shapes.PulledRun(
        task_id=UUID(bytes=run.task_id),
        lease_token=UUID(bytes=token),
        lease_expires_at=instant_at(run.deadline_at + round(held_s * 1e6)),
        deadline_at=instant_at(run.deadline_at),
        timeout=duration(run.timeout_s),
        attempt=run.attempt,
        claim_no=run.claim_no,
        queued_at=instant_at(run.queued_at),
        handler=msgspec.UNSET if handler is None else handler,
        http=msgspec.UNSET if run.http is None else _decode_http(jsonb_text(run.http)),
        payload=msgspec.UNSET if run.payload is None else msgspec.Raw(run.payload),
        tags=msgspec.UNSET if run.tags is None else _decode_tags(jsonb_text(run.tags)),
        traceparent=msgspec.UNSET if run.traceparent is None else run.traceparent,
        parent_id=_uuid(run.parent_id),
        batch=_uuid(run.batch_id),
        completes_batch=_uuid(run.completes_batch_id),
        alone=True if run.crashes >= SUSPECT_CRASHES else msgspec.UNSET,
    )


def _uuid(raw: bytes | None) -> UUID | msgspec.UnsetType:
    return msgspec.UNSET if raw is None else UUID(bytes=raw)


def report_of(key: LeaseKey, end: run_shapes.RunEnd, pointer: str) -> Report:
    """Turn what a consumer says of a run into what is recorded.

    Args:
        key: Its lease.
        end: How it ended.
        pointer: Where it stands in the body.

    Raises:
        Problem: Its fields do not go together, or its result cannot be stored.
    """
    outcome = end.outcome
    if outcome != "succeeded" and end.result is not msgspec.UNSET:
        raise invalid(f"{pointer}/result", "is for succeeded only")
    if outcome == "succeeded" and end.error is not msgspec.UNSET:
        raise invalid(f"{pointer}/error", "is not for succeeded")
    is_failure = outcome in ("failed", "timed_out")
    if end.retryable is not msgspec.UNSET and not is_failure:
        raise invalid(f"{pointer}/retryable", "is for failed and timed_out only")
    retry_in_s = _retry_in_s(end, f"{pointer}/retry_in")
    if end.retryable is False and retry_in_s is not None:
        raise invalid(f"{pointer}/retry_in", "is not for a task that is given up")
    result = _result(end.result, f"{pointer}/result")
    error = None if outcome == "succeeded" else _error(outcome, end.error)
    return Report(
        *key,
        "released" if outcome == "snoozed" else outcome,
        result,
        error,
        None,
        None,
        None,
        end.retryable is not False,
        retry_in_s,
        False,
        outcome == "snoozed" or end.retryable is not msgspec.UNSET or retry_in_s is not None,
    )


def verdict_of(call: Call, task_id: UUID, verdict: Verdict, pointer: str) -> run_shapes.RunVerdict:
    """Show what became of a report."""
    problem = None
    if verdict.detail is not None:
        problem = invalid(pointer, verdict.detail).document(call.request_id)
    return run_shapes.RunVerdict(task_id, verdict.status, cast("Any", verdict.state), verdict.run_at, problem)


def _retry_in_s(end: run_shapes.RunEnd, pointer: str) -> float | None:
    if end.retry_in is msgspec.UNSET:
        if end.outcome == "snoozed":
            raise invalid(pointer, "is required for snoozed")
        return None
    if end.outcome not in ("failed", "timed_out", "snoozed"):
        raise invalid(pointer, "is for failed, timed_out and snoozed only")
    s_max = SNOOZE_S_MAX if end.outcome == "snoozed" else RETRY_S_MAX
    return seconds_of(end.retry_in, pointer, 0, s_max, f"of at most {duration(s_max)}")


def _result(raw: msgspec.Raw | msgspec.UnsetType, pointer: str) -> bytes | None:
    if raw is msgspec.UNSET:
        return None
    text = bytes(raw)
    try:
        check_result(text)
    except ResultInvalid as error:
        raise invalid(pointer, str(error)) from None
    return None if text == b"null" else text


def _error(outcome: str, error: run_shapes.RunError | msgspec.UnsetType) -> bytes:
    if error is msgspec.UNSET:
        return _bare_error(outcome)
    return error_text(error.type, error.message, None if error.traceback is msgspec.UNSET else error.traceback)


@lru_cache(maxsize=8)
def _bare_error(outcome: str) -> bytes:
    return error_text(outcome, "the consumer gave no reason")
