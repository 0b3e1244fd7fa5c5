"""Identifiers of tasks: UUIDv7 (RFC 9562) minted from the database's clock.

An id is 48 bits of milliseconds, 12 bits of counter, 62 random bits. Ids of one
mint never fall, also when the clock steps back, so a task that was accepted
later never sorts before one accepted earlier by the same process. The tables of
tasks are partitioned by it, a day each.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_COUNTER_MAX: Final = 0xFFF
_MS_MAX: Final = (1 << 48) - 1
_VERSION_AND_VARIANT: Final = (0x7 << 76) | (0b10 << 62)
_RANDOM_MASK: Final = (1 << 62) - 1


class IdMint:
    """Makes UUIDv7 that rise strictly within this process; safe to share between threads.

    When more than 4,096 ids fall into one millisecond, or the clock steps back,
    the mint goes on from the last id it gave rather than from the clock.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """Take time from `now_ms`, milliseconds since 1970 by the database's clock."""
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._last_ms = -1
        self._counter = 0

    def mint(self) -> UUID:
        """Make one id, greater than all before it.

        Raises:
            ClockUnset: The database's time is not known yet.
        """
        return self.mint_many(1)[0]

    def mint_many(self, count: int) -> list[UUID]:
        """Make `count` ids in rising order with one reading of the clock.

        Raises:
            ClockUnset: The database's time is not known yet.
        """
        entropy = os.urandom(8 * count)
        now_ms = self._now_ms()
        ids: list[UUID] = []
        with self._lock:
            for at in range(0, 8 * count, 8):
                high = self._advance(now_ms)
                low = int.from_bytes(entropy[at : at + 8], "big") & _RANDOM_MASK
                ids.append(UUID(int=high | _VERSION_AND_VARIANT | low))
        return ids

    def _advance(self, now_ms: int) -> int:
        """Step to the next (millisecond, counter) and return it in its place in the id."""
        if now_ms > self._last_ms:
            self._last_ms, self._counter = now_ms, 0
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:
            self._last_ms, self._counter = self._last_ms + 1, 0
        return self._last_ms << 80 | self._counter << 64


def uuid7_floor(instant: datetime) -> UUID:
    """Return the smallest UUIDv7 of the millisecond that holds `instant`.

    Every id minted from then on is greater or equal, every earlier one smaller.

    Raises:
        ValueError: `instant` has no time zone or lies before 1970.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    milliseconds = (instant - _EPOCH) // _MILLISECOND
    if not 0 <= milliseconds <= _MS_MAX:
        raise ValueError(f"no UUIDv7 has the time {instant.isoformat()}")
    return UUID(int=milliseconds << 80 | _VERSION_AND_VARIANT)


def id_time(task_id: UUID) -> datetime:
    """Return the instant that a UUIDv7 was minted for, in UTC, to the millisecond.

    Raises:
        ValueError: The id is no UUIDv7, or its time is past the year 9999.
    """
    if task_id.version != 7:
        raise ValueError(f"{task_id} is not a UUIDv7")
    try:
        return _EPOCH + timedelta(milliseconds=task_id.int >> 80)
    except OverflowError:
        raise ValueError(f"the time of {task_id} is past the year 9999") from None
