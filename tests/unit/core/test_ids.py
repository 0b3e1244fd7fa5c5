"""Ids of tasks."""

import itertools
import threading
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.ids import IdMint, id_time, uuid7_floor

NOW_MS = 1_790_000_000_123
# Hypothesis takes its bounds without a zone and adds it.
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31, 23), timezones=st.just(UTC))  # noqa: DTZ001


def test_mint_makes_version_7_of_the_given_time() -> None:
    """An id says its version, its variant and the millisecond it was made in."""
    minted = IdMint(lambda: NOW_MS).mint()

    assert (minted.version, minted.variant) == (7, "specified in RFC 4122")
    assert id_time(minted) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=NOW_MS)


@given(st.lists(st.integers(min_value=0, max_value=2**47), min_size=1, max_size=50))
def test_mint_rises_whatever_the_clock_does(readings: list[int]) -> None:
    """Ids rise strictly although the clock stands still, leaps or goes back."""
    left = iter(readings)
    mint = IdMint(lambda: next(left))
    ids = [mint.mint() for _ in readings]

    assert all(earlier < later for earlier, later in itertools.pairwise(ids))


def test_mint_many_past_the_counter_borrows_the_next_millisecond() -> None:
    """More ids than the counter holds stay in order and end in a later millisecond."""
    ids = IdMint(lambda: NOW_MS).mint_many(4_097)

    assert ids == sorted(set(ids))
    assert id_time(ids[4_095]) == id_time(ids[0])
    assert id_time(ids[4_096]) == id_time(ids[0]) + timedelta(milliseconds=1)


def test_mint_in_two_processes_does_not_collide() -> None:
    """Two mints in the same millisecond differ by their random bits."""
    first, second = (set(IdMint(lambda: NOW_MS).mint_many(1_000)) for _ in range(2))

    assert not first & second


def test_mint_from_many_threads_gives_each_id_once() -> None:
    """Threads that share a mint never get the same id."""
    mint = IdMint(lambda: NOW_MS)
    ids: list[UUID] = []
    threads = [threading.Thread(target=lambda: ids.extend(mint.mint_many(500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({each.int >> 64 for each in ids}) == 4_000


@given(INSTANTS)
def test_uuid7_floor_reads_back_to_its_millisecond(instant: datetime) -> None:
    """The floor of an instant carries that instant, cut to milliseconds."""
    cut = instant.replace(microsecond=instant.microsecond // 1_000 * 1_000)

    assert id_time(uuid7_floor(instant)) == cut


@given(INSTANTS)
def test_uuid7_floor_parts_earlier_ids_from_later_ones(instant: datetime) -> None:
    """Ids of that millisecond lie at or above the floor, ids of the one before it below."""
    floor = uuid7_floor(instant)
    milliseconds = floor.int >> 80
    assert IdMint(lambda: milliseconds).mint() >= floor
    if milliseconds:
        assert max(IdMint(lambda: milliseconds - 1).mint_many(4_096)) < floor


def test_uuid7_floor_counts_the_time_zone() -> None:
    """The same instant in two zones has one floor."""
    east = timezone(timedelta(hours=5, minutes=30))

    assert uuid7_floor(datetime(2026, 1, 1, 5, 30, tzinfo=east)) == uuid7_floor(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("instant", [datetime(2026, 1, 1), datetime(1969, 12, 31, tzinfo=UTC)])  # noqa: DTZ001
def test_uuid7_floor_without_zone_or_before_1970_is_refused(instant: datetime) -> None:
    """There is no id for such an instant."""
    with pytest.raises(ValueError, match="time"):
        uuid7_floor(instant)


@pytest.mark.parametrize("task_id", [uuid4(), UUID(int=0), UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")])
def test_id_time_of_another_id_is_refused(task_id: UUID) -> None:
    """An id that is no UUIDv7, or lies past the year 9999, has no time."""
    with pytest.raises(ValueError, match=str(task_id)):
        id_time(task_id)
