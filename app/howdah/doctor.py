"""What `howdah doctor` looks at: everything that decides whether tasks get done, in one report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from howdah.core.clock import DatabaseClock
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.db.precheck import examine
from howdah.core.db.schema_version import check_schema
from howdah.core.errors import SchemaRefused
from howdah.core.service import ExitCode
from howdah.core.store.lanes import Lanes
from howdah.core.store.maintenance import Maintenance
from howdah.core.store.partitions import Partitions
from howdah.core.store.workers import Workers
from howdah.core.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from howdah.core.db.connect import Connection
    from howdah.core.settings import Settings
    from howdah.core.store.lanes import Unserved
    from howdah.core.store.maintenance import ChoreStatus

# The most frequent chore is due every second and the longest pause after a failure
# is minutes: what is a minute late has nobody who does it.
OVERDUE_S_MAX: Final = 60.0
# A worker that is missing may leave thousands of queues unserved; the first lines say what to do.
UNSERVED_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Observation:
    """One line of the report.

    Attributes:
        mark: `ok`; `attend`: somebody should look at it; `refused`: processes do not start.
        subject: What was looked at.
        text: What was found, and what to do.
    """

    mark: Literal["ok", "attend", "refused"]
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The whole report."""

    observations: list[Observation]

    @property
    def exit_code(self) -> ExitCode:
        """What `howdah doctor` ends with: the worst of what was found."""
        marks = {each.mark for each in self.observations}
        if "refused" in marks:
            return ExitCode.SCHEMA_REFUSED
        return ExitCode.FAILED if "attend" in marks else ExitCode.DRAINED


async def diagnose(settings: Settings) -> Diagnosis:
    """Examine server, schema, partitions, chores, workers, and work that none of them takes.

    Raises:
        DatabaseUnavailable: There is no connection.
    """
    async with await connect(settings, "doctor", purpose="handler") as conn:
        found = [*await _server(conn, settings)]
        try:
            with translated():
                await check_schema(conn, settings.schema)
        except SchemaRefused as refusal:
            return Diagnosis([*found, Observation("refused", "schema", str(refusal))])
        found.append(Observation("ok", "schema", f"{settings.schema} fits this release"))
        with translated():
            found.append(_partitions(await Partitions(settings.schema).ahead(conn), settings.partition_days_ahead))
            found += _chores(await Maintenance(settings.schema).list(conn))
            found.append(_workers(*await Workers(settings.schema).count(conn)))
            found += _unserved(await Lanes(settings.schema).unserved(conn, UNSERVED_MAX + 1))
    return Diagnosis(found)


async def _server(conn: Connection, settings: Settings) -> list[Observation]:
    report = await examine(conn, settings, DatabaseClock())
    found = [Observation("refused" if each.is_refusal else "attend", "server", each.text) for each in report.findings]
    about = f"PostgreSQL {report.version}, its clock {report.skew_s:+.3f} s from this machine's"
    return [Observation("ok", "server", about), *found]


def _partitions(day_count: int, days_ahead: int) -> Observation:
    # Today counts too, and the last day is made at some hour of the day.
    if day_count >= days_ahead:
        return Observation("ok", "partitions", f"there for {day_count} days, today included")
    advice = "start a scheduler, or run howdah migrate"
    if day_count == 0:
        return Observation("attend", "partitions", f"today's are missing: tasks cannot be stored; {advice}")
    return Observation("attend", "partitions", f"there for {day_count} of {days_ahead} days only; {advice}")


def _chores(chores: list[ChoreStatus]) -> Iterator[Observation]:
    for chore in chores:
        subject = f"chore {chore.chore}"
        if chore.failures:
            yield Observation("attend", subject, f"failed {chore.failures} times in a row: {chore.last_error}")
        elif chore.overdue_s > OVERDUE_S_MAX:
            late = format_duration(float(round(chore.overdue_s)))
            yield Observation("attend", subject, f"overdue by {late}: is a scheduler running?")
        else:
            done = "never yet" if chore.last_good_at is None else f"last at {chore.last_good_at:%Y-%m-%d %H:%M:%SZ}"
            yield Observation("ok", subject, f"done {done}")


def _workers(live: int, stopping: int, silent: int) -> Observation:
    text = f"{live} live, {stopping} stopping, {silent} not heard of within the last hour"
    return Observation("ok" if live else "attend", "workers", text if live else f"{text}: nothing is run")


def _unserved(found: list[Unserved]) -> Iterator[Observation]:
    if not found:
        yield Observation("ok", "tasks", "none is due for a minute in a queue where no live worker takes it")
    for each in found[:UNSERVED_MAX]:
        what = "delivers callbacks" if each.target == "http" else f"has the handler {each.target}"
        variables = "HOWDAH_CALLBACKS" if each.target == "http" else "HOWDAH_HANDLERS"
        if not each.is_parked:
            what, variables = f"that {what} claims from it", f"{variables}, HOWDAH_QUEUES"
        since = format_duration(60.0 * max(1, round(each.since_s / 60)))
        text = f"queue {each.queue} of tenant {each.tenant}: due for {since}, and no live worker {what} ({variables})"
        yield Observation("attend", "tasks", text)
    if len(found) > UNSERVED_MAX:
        yield Observation("attend", "tasks", "and more: see the views stuck and tasks_blocked")
