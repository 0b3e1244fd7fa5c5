"""The database's time as a process knows it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.clock import SKEW_MAX_S, DatabaseClock
from howdah.core.errors import ClockSkewed, ClockUnset, DatabaseUnavailable

DATABASE_AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Local:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        """Read it."""
        return self.at


@pytest.fixture
def local() -> Local:
    """Give a local clock at 1000 s."""
    return Local()


def test_now_before_the_first_sample_is_refused(local: Local) -> None:
    """A clock that was never set says so as an unavailable database, rather than guess."""
    clock = DatabaseClock(local)

    assert not clock.is_set()
    with pytest.raises(ClockUnset):
        clock.now_ms()
    assert issubclass(ClockUnset, DatabaseUnavailable)


def test_now_goes_on_from_the_sample_by_the_local_clock(local: Local) -> None:
    """After a sample the time follows the local monotonic clock."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_000.0)
    local.at = 1_060.5

    assert clock.is_set()
    assert clock.now() == DATABASE_AT + timedelta(seconds=60.5)
    assert clock.now_ms() == round((DATABASE_AT + timedelta(seconds=60.5)).timestamp() * 1_000)


@given(
    sent_s=st.floats(min_value=0, max_value=10),
    returned_s=st.floats(min_value=0, max_value=10),
    offset_s=st.integers(min_value=-100_000, max_value=100_000),
)
def test_now_errs_by_at_most_its_uncertainty(sent_s: float, returned_s: float, offset_s: int) -> None:
    """However the round trip is split between there and back, the true time lies within the uncertainty."""
    local = Local()
    clock = DatabaseClock(local)
    true_offset = timedelta(seconds=offset_s)
    read_at = DATABASE_AT + true_offset + timedelta(seconds=sent_s)
    clock.add_sample(1_000.0, read_at, 1_000.0 + sent_s + returned_s)
    local.at = 1_000.0 + sent_s + returned_s
    true_now = DATABASE_AT + true_offset + timedelta(seconds=sent_s + returned_s)

    # A microsecond more for the resolution of datetime.
    assert abs((clock.now() - true_now).total_seconds()) <= clock.uncertainty_s() + 2e-6


def test_add_sample_keeps_the_surer_of_two_that_agree(local: Local) -> None:
    """A slow answer that agrees with a fast one does not replace it."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_000.002)
    clock.add_sample(1_001.0, DATABASE_AT + timedelta(seconds=1.9), 1_003.0)
    local.at = 1_003.0

    assert clock.uncertainty_s() < 0.01
    assert clock.now_s() == pytest.approx(DATABASE_AT.timestamp() + 2.999, abs=0.001)


def test_add_sample_replaces_an_aged_one(local: Local) -> None:
    """An old sample grows unsure by drift until an ordinary one beats it."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_000.001)
    clock.add_sample(1_010.0, DATABASE_AT + timedelta(seconds=10.008), 1_010.01)
    local.at = 1_010.01

    assert clock.uncertainty_s() == pytest.approx(0.005)
    assert clock.now_s() == pytest.approx(DATABASE_AT.timestamp() + 10.013, abs=1e-4)


def test_add_sample_after_a_step_of_the_database_is_believed(local: Local) -> None:
    """A sample that contradicts the old one replaces it, even a less sure one: the database decides."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_000.001)
    clock.add_sample(1_001.0, DATABASE_AT - timedelta(hours=1), 1_001.5)
    local.at = 1_001.5

    assert clock.now_s() == pytest.approx(DATABASE_AT.timestamp() - 3_600 + 0.25)


@pytest.mark.parametrize(("off_s", "word"), [(SKEW_MAX_S + 0.1, "behind"), (-SKEW_MAX_S - 0.1, "ahead of")])
def test_refuse_skew_beyond_the_limit_stops_the_start(local: Local, off_s: float, word: str) -> None:
    """A wall clock off by more than the limit is refused, and the message says which way."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_000.0)

    with pytest.raises(ClockSkewed, match=word) as caught:
        clock.refuse_skew(lambda: DATABASE_AT.timestamp() - off_s)
    assert caught.value.skew_s == pytest.approx(off_s)


@pytest.mark.parametrize("off_s", [0.0, SKEW_MAX_S - 0.1, -SKEW_MAX_S + 0.1])
def test_refuse_skew_within_the_limit_lets_start(local: Local, off_s: float) -> None:
    """A small distance between the clocks is no reason not to start."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_000.0)
    clock.refuse_skew(lambda: DATABASE_AT.timestamp() - off_s)

    assert clock.skew_s(lambda: DATABASE_AT.timestamp() - off_s) == pytest.approx(off_s)


def test_refuse_skew_counts_what_the_sample_cannot_know(local: Local) -> None:
    """An answer that took long is no proof of a wrong clock."""
    clock = DatabaseClock(local)
    clock.add_sample(1_000.0, DATABASE_AT, 1_004.0)
    local.at = 1_004.0
    clock.refuse_skew(lambda: DATABASE_AT.timestamp() + 2 - SKEW_MAX_S - 1)

    assert clock.uncertainty_s() == pytest.approx(2.0)
