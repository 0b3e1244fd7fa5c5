"""A run as what others are told of it."""

from __future__ import annotations

from typing import Any

from howdah.core.model import ClaimedRun, Report
from howdah.handlers import Registry
from howdah_worker.catalogue import Catalogue
from howdah_worker.outcome import Ending
from howdah_worker.run import Run

ROW: tuple[Any, ...] = tuple(
    ClaimedRun(
        tenant_id=3,
        task_id=b"t" * 16,
        queue_id=5,
        target_id=7,
        priority=1,
        claim_no=4,
        attempt=2,
        run_at=0,
        queued_at=0,
        timeout_s=60.0,
        deadline_at=0,
        has_task=True,
        payload=None,
        http=None,
        tags=None,
        traceparent=None,
        parent_id=None,
        completes_batch_id=None,
        flow_key_id=None,
        batch_id=None,
        has_follow_ups=None,
        crashes=0,
    )
)


def test_report_says_whose_and_what_ending_it_is() -> None:
    """Each field of a report is where the statements look for it."""
    run = Run(ROW, b"l" * 16, 0.0, Catalogue("howdah", ["*"], Registry(), serves_http=False))
    report = run.report_of(Ending("failed", b"1", b"2", False, 1.5, 503, "busy", True), 0.25)

    assert len(report) == len(Report._fields)
    assert report._asdict() == {
        "tenant_id": 3,
        "task_id": b"t" * 16,
        "token": b"l" * 16,
        "outcome": "failed",
        "result": b"1",
        "error": b"2",
        "response_status": 503,
        "response_body": "busy",
        "duration_s": 0.25,
        "retryable": False,
        "retry_in_s": 1.5,
        "counts_crash": False,
        "is_decided": True,
        "sequel": None,
    }


def test_log_fields_name_run_and_tenant() -> None:
    """A tenant that is not known yet is named by its number."""
    run = Run(ROW, b"l" * 16, 0.0, Catalogue("howdah", ["*"], Registry(), serves_http=False))

    assert run.log_fields() == {
        "task_id": "74747474-7474-7474-7474-747474747474",
        "run": 4,
        "attempt": 2,
        "tenant": "3",
    }
