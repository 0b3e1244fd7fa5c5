"""When a run that two workers were lost with may begin, and how long it waits for that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from howdah.core.model import ClaimedRun
from howdah.handlers import Registry
from howdah_worker.catalogue import Catalogue
from howdah_worker.place import LOOP, PROCESSES, THREADS
from howdah_worker.run import Run, Stage
from howdah_worker.suspects import PUT_OFF_S_MAX, WAIT_S, WAIT_S_MAX, Suspects, is_suspect, put_off, wait_s_max
from tests.unit.worker.test_run import ROW


def run_of(number: int = 0, claimed_at: float = 0.0, **changes: Any) -> Run:
    """A run that was claimed for the third time, with two crashes."""
    row = ClaimedRun._make(ROW)._replace(**{"crashes": 2, "claim_no": 3, "attempt": 3} | changes)
    names = Catalogue("howdah", ["*"], Registry(), serves_http=False)
    return Run(row, bytes([number]) * 16, claimed_at, names)


def test_only_what_may_kill_its_worker_is_a_suspect() -> None:
    """Handlers in threads and on the event loop, from the second crash on; no callback, no child process."""
    assert is_suspect(run_of(), LOOP)
    assert is_suspect(run_of(crashes=7), THREADS)
    assert not is_suspect(run_of(), PROCESSES)
    assert not is_suspect(run_of(http=b"{}"), LOOP)
    assert not is_suspect(run_of(crashes=1), LOOP)


@pytest.mark.parametrize(
    ("released", "wait_s"), [(0, WAIT_S), (1, 2 * WAIT_S), (5, 32 * WAIT_S), (9, WAIT_S_MAX), (4_000, WAIT_S_MAX)]
)
def test_wait_doubles_with_each_claim_that_was_handed_back(released: int, wait_s: float) -> None:
    """Short at first, and long enough in the end for any neighbour."""
    assert wait_s_max(run_of(claim_no=3 + released)) == wait_s


def test_put_off_spends_no_attempt_and_comes_back() -> None:
    """It is a release with a delay, whatever the retry policy says."""
    ending = put_off(run_of(claim_no=4_000))

    assert (ending.outcome, ending.is_decided) == ("released", True)
    assert PUT_OFF_S_MAX / 2 <= (ending.retry_in_s or 0) <= PUT_OFF_S_MAX * 1.5
    assert json.loads(ending.error or b"")["type"] == "not_alone"


def test_first_begins_once_no_other_lease_is_held_and_the_next_after_its_end() -> None:
    """The leases of other suspects do not count, and only one is under way."""
    suspects = Suspects()
    first, second = run_of(1), run_of(2)
    suspects.add(first, THREADS)
    suspects.add(second, LOOP)
    beside_others = suspects.next(3)
    chosen = suspects.next(2)
    place = suspects.begin(first)
    first.stage = Stage.RUNNING
    meanwhile = suspects.next(2)
    first.stage = Stage.REPORTED
    while_reported = suspects.next(2)

    assert (beside_others, chosen, place) == (None, first, THREADS)
    assert (meanwhile, while_reported) == (None, None)
    assert suspects.next(1) is second
    assert suspects.are_left()


def test_one_that_was_handed_back_or_lost_neither_begins_nor_keeps_anybody() -> None:
    """What became of it while it waited, or while its start was noted, holds."""
    suspects = Suspects()
    run = run_of()
    suspects.add(run, LOOP)
    chosen = suspects.next(1)
    run.stage = Stage.REPORTED

    assert chosen is run
    assert suspects.begin(run) is None
    assert suspects.fresh() == []
    assert not suspects.are_left()


def test_those_that_have_waited_too_long_are_taken_out() -> None:
    """The others go on waiting."""
    suspects = Suspects()
    late, patient = run_of(1, 100.0), run_of(2, 100.0, claim_no=4)
    suspects.add(late, LOOP)
    suspects.add(patient, LOOP)

    assert suspects.pop_late(100.0 + WAIT_S - 0.1) == []
    assert suspects.pop_late(100.0 + WAIT_S) == [late]
    assert suspects.pop_all() == [patient]
    assert not suspects.are_left()


def test_each_is_told_to_the_database_once() -> None:
    """With its timeout and how long it may wait; one that comes meanwhile is told by the next statement."""
    suspects = Suspects()
    suspects.add(run_of(1, timeout_s=7.0), LOOP)
    told = suspects.fresh()
    suspects.add(run_of(2), LOOP)
    suspects.set_aside(told)

    assert [(each.key.token[0], each.timeout_s, each.wait_s) for each in told] == [(1, 7.0, WAIT_S)]
    assert [each.key.token[0] for each in suspects.fresh()] == [2]
