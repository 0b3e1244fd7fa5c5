"""Counts per queue and minute: each is written once, whatever happens on the way."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from howdah.core.clock import DatabaseClock
from howdah.core.errors import DatabaseUnavailable
from howdah.core.model import Rearmed
from howdah.core.store.stats import Tally
from howdah.handlers import Registry
from howdah_worker.catalogue import Catalogue
from howdah_worker.outcome import SUCCEEDED, Ending
from howdah_worker.run import Run
from howdah_worker.tally import TallySheet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID


class Recorder:
    """Takes what is written, and may refuse it."""

    def __init__(self) -> None:
        self.tried: list[tuple[datetime, UUID, dict[int, Tally]]] = []
        self.written: list[tuple[datetime, dict[int, Tally]]] = []
        self.is_away = False

    async def insert(self, conn: object, bucket_at: datetime, source: UUID, tallies: Mapping[int, Tally]) -> None:
        """Store like `Stats.insert`."""
        self.tried.append((bucket_at, source, dict(tallies)))
        if self.is_away:
            raise DatabaseUnavailable("away")
        self.written.append((bucket_at, dict(tallies)))


@pytest.fixture
def recorder() -> Recorder:
    """Where the sheet is written to."""
    return Recorder()


@pytest.fixture
def sheet(recorder: Recorder) -> TallySheet:
    """A sheet of a process whose database shows 12:00:30."""
    clock = DatabaseClock(lambda: 0.0)
    clock.add_sample(0.0, datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC), 0.0)
    return TallySheet(recorder, clock)  # type: ignore[arg-type]


def run_of(queue_id: int, ending: Ending, duration_s: float | None = 0.5) -> Run:
    """A run whose report is decided."""
    row: tuple[Any, ...] = (1, bytes(16), queue_id, 1, 1, 1, 1, 0, 0, 60.0, 0, True, *[None] * 9, 0)
    run = Run(row, bytes(16), 0.0, Catalogue("howdah", ["*"], Registry(), serves_http=False))
    run.report = run.report_of(ending, duration_s)
    return run


async def test_outcomes_are_counted_per_queue(sheet: TallySheet, recorder: Recorder) -> None:
    """Successes, retries, dead letters and time add up, in the minute by the database's clock."""
    retried, dead = run_of(7, Ending("failed")), run_of(8, Ending("failed"))
    sheet.count([run_of(7, SUCCEEDED), run_of(7, SUCCEEDED)], {})
    sheet.count([retried], {retried.key: Rearmed(retried.key, "retry", 7, 1, 5)})
    sheet.count([dead], {dead.key: Rearmed(dead.key, "dead", 8, 1, None)})
    await sheet.write(None)  # type: ignore[arg-type]

    assert recorder.written == [
        (datetime(2026, 1, 1, 12, 0, tzinfo=UTC), {7: Tally(0, 2, 0, 1, 1.5), 8: Tally(0, 0, 1, 0, 0.5)})
    ]


async def test_nothing_counted_writes_nothing(sheet: TallySheet, recorder: Recorder) -> None:
    """An idle process writes no rows and asks for no wake-up."""
    await sheet.write(None)  # type: ignore[arg-type]

    assert recorder.written == []
    assert sheet.due_at == math.inf


async def test_minute_that_could_not_be_written_is_repeated_as_it_was(sheet: TallySheet, recorder: Recorder) -> None:
    """After a lost answer the very same row is sent again; what was counted meanwhile goes into one of its own."""
    sheet.count([run_of(7, SUCCEEDED)], {})
    recorder.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await sheet.write(None)  # type: ignore[arg-type]
    sheet.count([run_of(7, SUCCEEDED), run_of(7, SUCCEEDED)], {})
    recorder.is_away = False
    await sheet.write(None)  # type: ignore[arg-type]
    await sheet.write(None)  # type: ignore[arg-type]
    first, repeat, second = recorder.tried

    assert first == repeat
    assert second[1] != first[1]
    assert [tallies[7].succeeded for _, tallies in recorder.written] == [1, 2]
