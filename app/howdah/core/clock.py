"""The database's time, known to a process without asking for it each time.

PostgreSQL decides what time it is. A process samples that time on a connection
it uses anyway and keeps the distance to its own *monotonic* clock, so that a
step of the machine's wall clock moves nothing. The sampling query lives in the
store; this module is arithmetic only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from howdah.core.errors import ClockSkewed, ClockUnset

if TYPE_CHECKING:
    from collections.abc import Callable

# A larger distance means a machine without time synchronisation, whose
# signatures and log times would mislead everyone who reads them.
SKEW_MAX_S: Final = 5.0

# Linux slews a clock by at most 500 ppm, and both clocks may be slewed.
_DRIFT: Final = 1e-3

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Where the database's clock stood against ours, and how sure that was at `taken`."""

    offset_s: float
    uncertainty_s: float
    taken: float

    def uncertainty_at(self, local: float) -> float:
        return self.uncertainty_s + _DRIFT * (local - self.taken)


class DatabaseClock:
    """Tells the database's time; may be shared between threads.

    The best sample counts: a new one replaces it when it is at least as sure as
    the old one has become by ageing, or when both cannot be true (the database's
    clock stepped, the machine slept, or another server answers now).
    """

    def __init__(self, local: Callable[[], float] = time.monotonic) -> None:
        """Measure against `local`, seconds of a clock that never steps."""
        self._local = local
        self._sample: _Sample | None = None

    def local(self) -> float:
        """Read the local clock, for the `before` and `after` of `add_sample`."""
        return self._local()

    def add_sample(self, before: float, database_at: datetime, after: float) -> None:
        """Learn that the database's clock showed `database_at` between two local instants.

        Args:
            before: The local clock just before the query was sent.
            database_at: What the database answered, with a time zone.
            after: The local clock just after the answer came; not before `before`.
        """
        middle = (before + after) / 2
        new = _Sample((database_at - _EPOCH).total_seconds() - middle, (after - before) / 2, after)
        old = self._sample
        if old is not None:
            old_uncertainty_s = old.uncertainty_at(after)
            agrees = abs(new.offset_s - old.offset_s) <= new.uncertainty_s + old_uncertainty_s
            if agrees and new.uncertainty_s > old_uncertainty_s:
                return
        self._sample = new

    def is_set(self) -> bool:
        """Tell whether there has been a sample."""
        return self._sample is not None

    def now_s(self) -> float:
        """Return the database's time in seconds since 1970.

        Raises:
            ClockUnset: There has been no sample.
        """
        return self._local() + self._known().offset_s

    def now_ms(self) -> int:
        """Return the database's time in whole milliseconds since 1970.

        Raises:
            ClockUnset: There has been no sample.
        """
        return int(self.now_s() * 1_000)

    def now(self) -> datetime:
        """Return the database's time in UTC.

        Raises:
            ClockUnset: There has been no sample.
        """
        return _EPOCH + timedelta(seconds=self.now_s())

    def uncertainty_s(self) -> float:
        """Return by how many seconds `now` may be wrong either way.

        Raises:
            ClockUnset: There has been no sample.
        """
        return self._known().uncertainty_at(self._local())

    def skew_s(self, wall: Callable[[], float] = time.time) -> float:
        """Return the database's time minus this machine's wall clock, in seconds.

        Raises:
            ClockUnset: There has been no sample.
        """
        return self.now_s() - wall()

    def refuse_skew(self, wall: Callable[[], float] = time.time) -> None:
        """Refuse to start on a machine whose wall clock is surely off by more than `SKEW_MAX_S`.

        Raises:
            ClockSkewed: It is.
            ClockUnset: There has been no sample.
        """
        skew_s = self.skew_s(wall)
        if abs(skew_s) - self.uncertainty_s() > SKEW_MAX_S:
            raise ClockSkewed(skew_s, SKEW_MAX_S)

    def _known(self) -> _Sample:
        if self._sample is None:
            raise ClockUnset
        return self._sample
