"""How many runs are claimed ahead of free slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from howdah_worker.prefetch import AHEAD_MAX, BATCH_MAX, Prefetch


def test_first_claim_takes_free_slots_only() -> None:
    """Before anything is known about the runs, no more are claimed than can start at once."""
    assert Prefetch(100).want(free=100, waiting=0) == 100


def test_long_runs_are_claimed_for_free_slots_only() -> None:
    """With runs that take longer than 100 ms nothing waits in the worker."""
    plan = Prefetch(100)
    plan.observe(50, 50 * 2.0)

    assert plan.want(free=0, waiting=0) == 0
    assert plan.want(free=3, waiting=0) == 3


def test_short_runs_are_claimed_a_tenth_of_a_second_ahead() -> None:
    """With 100 slots and runs of 20 ms, 500 runs are 100 ms of work."""
    plan = Prefetch(100)
    plan.observe(1000, 1000 * 0.02)

    assert plan.ahead() == 500
    assert plan.want(free=0, waiting=0) == 500


def test_claims_ahead_are_large() -> None:
    """While runs wait, nothing is claimed until half of what may wait is used up."""
    plan = Prefetch(100)
    plan.observe(1000, 1000 * 0.02)

    assert plan.want(free=0, waiting=300) == 0
    assert plan.want(free=0, waiting=250) == 250


def test_forget_goes_back_to_free_slots() -> None:
    """When runs waited too long the estimate is dropped, until new runs have ended."""
    plan = Prefetch(100)
    plan.observe(1000, 0.001)
    plan.forget()

    assert plan.ahead() == 0


def test_change_from_short_to_long_is_noticed_within_a_batch() -> None:
    """A queue whose runs turn slow is not prefetched from for long."""
    plan = Prefetch(100)
    plan.observe(100_000, 100_000 * 0.0001)
    plan.observe(100, 100 * 1.0)

    assert plan.ahead() == 0


@given(
    slots=st.integers(1, 10_000),
    seen=st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1e6)), max_size=10),
    free=st.integers(0, 10_000),
    waiting=st.integers(0, 10_000),
)
def test_want_stays_within_its_bounds(slots: int, seen: list[tuple[int, float]], free: int, waiting: int) -> None:
    """Whatever runs were seen, a claim takes 0 to 1,000 runs and never more than there is room for."""
    plan = Prefetch(slots)
    for count, total_s in seen:
        plan.observe(count, total_s)
    want = plan.want(free, waiting)

    assert 0 <= want <= BATCH_MAX
    assert want <= max(0, free + AHEAD_MAX - waiting)
