"""What is reported of handlers that were to stop."""

from __future__ import annotations

from typing import Any

import pytest

from howdah.handlers import Registry
from howdah_worker.catalogue import Catalogue
from howdah_worker.judgement import judge, judge_taskless
from howdah_worker.outcome import RELEASED, SUCCEEDED, Ending
from howdah_worker.run import Run, Stop

FAILED = Ending("failed")
DONE = Ending("succeeded", b"1")


def run_that(*, stop: Stop | None = None, has_seen: bool = False, is_fenced: bool = False, claim_no: int = 1) -> Run:
    """A run in its first attempt whose handler was told this."""
    row: tuple[Any, ...] = (1, bytes(16), 1, 1, 1, claim_no, 1, 0, 0, 60.0, 0, True, *[None] * 9, 0)
    run = Run(row, bytes(16), 0.0, Catalogue("howdah", ["*"], Registry(), serves_http=False))
    run.stop, run.has_seen, run.is_fenced = stop, has_seen, is_fenced
    return run


@pytest.mark.parametrize("ending", [SUCCEEDED, DONE, FAILED])
def test_handler_left_alone_decides_itself(ending: Ending) -> None:
    """Without a reason to stop, what the handler did is what is reported."""
    assert judge(run_that(), ending, False) is ending


@pytest.mark.parametrize(
    ("run", "ending", "is_interrupted", "outcome"),
    [
        (run_that(has_seen=True), DONE, False, "cancelled"),
        (run_that(has_seen=True), FAILED, False, "failed"),
        (run_that(has_seen=True, is_fenced=True), DONE, False, "released"),
        (run_that(is_fenced=True), DONE, False, "succeeded"),
        (run_that(stop=Stop.TIMEOUT), DONE, False, "timed_out"),
        (run_that(stop=Stop.TIMEOUT), FAILED, True, "timed_out"),
        (run_that(stop=Stop.CANCEL), DONE, False, "cancelled"),
        (run_that(stop=Stop.CANCEL), FAILED, True, "cancelled"),
        (run_that(stop=Stop.FENCE), FAILED, True, "released"),
        (run_that(stop=Stop.FENCE), DONE, False, "succeeded"),
        (run_that(stop=Stop.DRAIN), FAILED, True, "released"),
        (run_that(stop=Stop.DRAIN), FAILED, False, "failed"),
    ],
)
def test_reason_and_ending_decide_together(run: Run, ending: Ending, is_interrupted: bool, outcome: str) -> None:
    """Each reason to stop, and whether the handler got to its end, gives one outcome."""
    judged = judge(run, ending, is_interrupted)

    assert judged is not None
    assert judged.outcome == outcome


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_lost_lease_reports_nothing(is_interrupted: bool) -> None:
    """Whoever lost the lease has no say any more."""
    assert judge(run_that(stop=Stop.LOST), DONE, is_interrupted) is None


def test_released_run_carries_neither_result_nor_error() -> None:
    """A hand-back says nothing of what the handler did."""
    assert judge(run_that(stop=Stop.DRAIN), FAILED, True) is RELEASED


def test_run_without_task_is_handed_back_for_a_minute_and_then_fails() -> None:
    """Each claim keeps it for longer, within the lease of a short timeout; from the ninth on attempts are spent."""
    judged = [judge_taskless(run_that(claim_no=claim_no)) for claim_no in (1, 2, 3, 4, 5, 8, 9, 100)]

    assert [wait_s for wait_s, _ in judged] == [1, 2, 4, 8, 8, 8, 8, 8]
    assert [ending.outcome for _, ending in judged] == ["released"] * 6 + ["failed"] * 2
    assert [(ending.retryable, ending.retry_in_s) for _, ending in judged[6:]] == [(True, 60.0)] * 2
