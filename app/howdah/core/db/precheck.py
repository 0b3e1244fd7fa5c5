"""Whether this PostgreSQL can keep our promises; asked at start, and by `howdah doctor`.

| finding | what it breaks | then |
|---|---|---|
| `version` | nothing older than 15 was tested | refused |
| `fsync`, `full_page_writes` | a crash of the machine destroys acknowledged tasks | refused |
| `read_only` | a standby, or a session that may not write | refused after a minute |
| `encoding` | payloads are UTF-8 and are kept byte for byte | refused |
| `lossy_commit` | a crash may lose the last acknowledged tasks | refused unless `HOWDAH_ALLOW_LOSSY_COMMIT` |
| `clock` | our clock is too far from the server's | refused |
| `autovacuum` | tables grow without bound | warned |
| `connections` | too few slots are left for this process | warned |
| `partitions` | tasks cannot be stored today or tomorrow | warned: a chore makes them |
| `timeout` | the role's timeouts end our statements or idle sessions | warned |
| `isolation` | handlers' transactions, and behind a pooler ours, fail to serialise | warned |
| `time_zone` | behind a pooler, timestamps come with another offset than UTC | warned |
| `superuser` | over the network, whoever takes this process over owns the server | warned |

What is judged is the session that the role's owner configured, without our own
session settings, because behind a transaction pooler there are none.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import class_row

from howdah.core import metrics
from howdah.core.clock import SKEW_MAX_S, DatabaseClock
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.errors import ClockSkewed, DatabaseUnavailable, ServerRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg import AsyncConnection

    from howdah.core.settings import Settings

VERSION_MIN: Final = 15
# Our longest ordinary statements are chores of up to a minute.
STATEMENT_TIMEOUT_S_MIN: Final = 60.0
# How long a start waits for a read-only server: a process that is started during a failover may
# meet a standby that is about to be promoted, and supervisors do not start again who refused.
READ_ONLY_S_MAX: Final = 60.0

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server says about itself; the columns of `server.examine`."""

    version: str
    version_number: int
    has_fsync: bool
    has_full_page_writes: bool
    synchronous_commit: str
    is_in_recovery: bool
    is_read_only: bool
    encoding: str
    time_zone: str
    isolation: str
    has_autovacuum: bool
    statement_timeout_s: float
    idle_session_timeout_s: float
    is_remote_superuser: bool
    connections_free: int
    has_partitions: bool | None
    server_at: datetime


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        name: Stable, for metrics and scripts; see the module's table.
        is_refusal: The process must not start.
        text: One sentence for an operator: what is wrong, and what to do.
    """

    name: str
    is_refusal: bool
    text: str


@dataclass(frozen=True, slots=True)
class ServerReport:
    """The result of an examination.

    Attributes:
        version: The server's version, for example `18.6`.
        skew_s: The database's time minus this machine's wall clock, in seconds.
        is_lossy: A crash of the server may lose acknowledged tasks, because the operator allowed it.
        findings: Refusals first; empty if all is well.
    """

    version: str
    skew_s: float
    is_lossy: bool
    findings: tuple[Finding, ...]

    def refuse(self) -> None:
        """Refuse to start on a server that would break a promise.

        Raises:
            ClockSkewed: Only the clock is at fault.
            ServerRefused: For all other refusals, each named in the message.
        """
        refusals = [finding for finding in self.findings if finding.is_refusal]
        if [finding.name for finding in refusals] == ["clock"]:
            raise ClockSkewed(self.skew_s, SKEW_MAX_S)
        if refusals:
            raise ServerRefused("; ".join(finding.text for finding in refusals))


async def check_server(
    settings: Settings,
    process: str,
    clock: DatabaseClock,
    *,
    connection_count: int,
    refuse_read_only_at: float = -math.inf,
) -> ServerReport:
    """Examine the server at the start of a process: log what is odd, refuse what breaks a promise.

    Opens a connection for it and closes it again.

    Args:
        settings: Tell where the server is, and what the operator allowed.
        process: `api`, `worker`, …
        clock: Gets a first sample of the database's time.
        connection_count: How many connections this process will open.
        refuse_read_only_at: Monotonic instant; until then a read-only server counts as away.

    Raises:
        DatabaseUnavailable: There was no connection, or only to a server that is read-only as yet.
        ServerRefused: The server would break a promise.
        ClockSkewed: This machine's clock is too far off.
    """
    async with await connect(settings, process, purpose="handler") as conn:
        report = await examine(conn, settings, clock, connection_count=connection_count)
    metrics.CLOCK_SKEW_SECONDS.set(report.skew_s)
    metrics.DURABILITY_DEGRADED.set(report.is_lossy)
    for finding in report.findings:
        if not finding.is_refusal:
            _log.warning("server_suspect", extra={"fields": {"finding": finding.name, "reason": finding.text}})
    refusals = [finding.name for finding in report.findings if finding.is_refusal]
    if refusals == ["read_only"] and time.monotonic() < refuse_read_only_at:
        raise DatabaseUnavailable(_READ_ONLY)
    report.refuse()
    return report


async def examine(
    conn: AsyncConnection[Any], settings: Settings, clock: DatabaseClock, *, connection_count: int = 0
) -> ServerReport:
    """Examine the server without judging what to do about it; one statement.

    Args:
        conn: An autocommit connection; one for `handler` shows the session that its owner configured.
        settings: Tell the schema, and what the operator allowed.
        clock: Gets a sample of the database's time.
        connection_count: How many more connections will be needed.

    Raises:
        DatabaseUnavailable: The connection was lost.
    """
    with translated():
        async with conn.cursor(row_factory=class_row(ServerFacts)) as cursor:
            before = clock.local()
            await cursor.execute(load("server.examine", settings.schema))
            facts = await cursor.fetchone()
            after = clock.local()
    assert facts is not None
    clock.add_sample(before, facts.server_at, after)
    wall_s = time.time()
    skew_s, uncertainty_s = clock.skew_s(lambda: wall_s), clock.uncertainty_s()
    findings = [
        *judge(facts, settings, connection_count=connection_count),
        *_judge_clock(skew_s, uncertainty_s),
    ]
    return ServerReport(
        version=facts.version,
        skew_s=skew_s,
        is_lossy=facts.synchronous_commit == "off",
        findings=tuple(sorted(findings, key=lambda finding: not finding.is_refusal)),
    )


def judge(facts: ServerFacts, settings: Settings, *, connection_count: int) -> Iterator[Finding]:
    """Yield what is not as it should be, apart from the clock."""
    is_lossy = facts.synchronous_commit == "off"
    for name, is_wrong, text in (
        ("version", facts.version_number < VERSION_MIN * 10_000, _VERSION.format(facts.version)),
        ("fsync", not facts.has_fsync, _FSYNC),
        ("full_page_writes", not facts.has_full_page_writes, _FULL_PAGE_WRITES),
        ("read_only", facts.is_in_recovery or facts.is_read_only, _READ_ONLY),
        ("encoding", facts.encoding != "UTF8", _ENCODING.format(facts.encoding)),
        ("lossy_commit", is_lossy and not settings.allow_lossy_commit, _LOSSY),
    ):
        if is_wrong:
            yield Finding(name, True, text)
    is_pooled = settings.direct_url is not None
    too_few = _CONNECTIONS.format(facts.connections_free, connection_count)
    has_short_timeout = facts.idle_session_timeout_s > 0 or 0 < facts.statement_timeout_s < STATEMENT_TIMEOUT_S_MIN
    for name, is_odd, text in (
        ("lossy_commit", is_lossy and settings.allow_lossy_commit, _LOSSY_ALLOWED),
        ("autovacuum", not facts.has_autovacuum, _AUTOVACUUM),
        ("connections", facts.connections_free < connection_count, too_few),
        ("partitions", facts.has_partitions is False, _PARTITIONS),
        ("timeout", has_short_timeout, _TIMEOUT),
        ("isolation", facts.isolation != "read committed", _ISOLATION.format(facts.isolation)),
        ("time_zone", is_pooled and facts.time_zone not in _UTC, _TIME_ZONE.format(facts.time_zone)),
        ("superuser", facts.is_remote_superuser, _SUPERUSER),
    ):
        if is_odd:
            yield Finding(name, False, text)


def _judge_clock(skew_s: float, uncertainty_s: float) -> Iterator[Finding]:
    if abs(skew_s) - uncertainty_s > SKEW_MAX_S:
        yield Finding("clock", True, str(ClockSkewed(skew_s, SKEW_MAX_S)))


_UTC: Final = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal"})

_VERSION: Final = f"PostgreSQL {{}} is too old: {VERSION_MIN} or newer is needed"
_FSYNC: Final = "fsync is off: a crash destroys acknowledged tasks; turn it on"
_FULL_PAGE_WRITES: Final = "full_page_writes is off: a crash may damage tables; turn it on"
_READ_ONLY: Final = "the server or the session is read-only: connect to the primary, as a role that may write"
_ENCODING: Final = "the database's encoding is {}: make a database with ENCODING 'UTF8'"
_LOSSY: Final = (
    "synchronous_commit is off: a crash of PostgreSQL may lose acknowledged tasks; turn it on for this role, "
    "or accept the loss with HOWDAH_ALLOW_LOSSY_COMMIT=1"
)
_LOSSY_ALLOWED: Final = (
    "synchronous_commit is off, as HOWDAH_ALLOW_LOSSY_COMMIT allows: a crash of PostgreSQL may lose acknowledged tasks"
)
_AUTOVACUUM: Final = "autovacuum or track_counts is off: tables and indexes grow without bound; turn them on"
_CONNECTIONS: Final = "{} connections are left and this process opens up to {}: raise max_connections"
_PARTITIONS: Final = "a partition of today or tomorrow is missing: start a scheduler, or run howdah migrate"
_TIMEOUT: Final = (
    "this role's statement_timeout or idle_session_timeout would end chores or idle connections: set them to 0"
)
_ISOLATION: Final = (
    "this role's default_transaction_isolation is {}: a ctx.transaction() that outlasts a heartbeat always fails "
    "to commit (40001), and behind a pooler our statements may; set it to read committed"
)
_TIME_ZONE: Final = "this role's TimeZone is {}: set it to UTC"
_SUPERUSER: Final = "this role is a superuser and connects over the network: make it a plain owner of the schema"
