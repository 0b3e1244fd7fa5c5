"""A chore: periodic work that must be done once, by whichever scheduler comes first.

All schedulers are equal. Each looks at a chore every `tick_s`; who finds it due
locks its row of `maintenance` and does it, the others pass by. A chore works in
rounds. One round is one transaction, which locks the row, works, and records how
it went, so that a crash leaves all of a round or nothing. A round that cannot
run inside a transaction keeps the row by a lease instead, which is renewed for as
long as it works.

A failure is recorded in the row too, with the time of the next try. Wake-ups are
sent after the commit; one that is lost costs the latency of a poll.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from howdah.core import metrics
from howdah.core.backoff import pause
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.errors import DatabaseUnavailable
from howdah.core.store.lanes import Lanes
from howdah.core.store.maintenance import Maintenance
from howdah.core.store.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from howdah.core.db.connect import Connection, Purpose
    from howdah.core.settings import Settings
    from howdah.core.store.maintenance import Held
    from howdah.core.wake import Word

PROCESS: Final = "scheduler"
# A chore that falls due a hair after a tick would wait for the next one.
_EARLY_S: Final = 0.1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of a chore came to.

    Attributes:
        next_in_s: Seconds until the chore is due again; 0 if there is more to do now.
        state: Where to go on; None keeps what was recorded.
        words: Wake-ups to send after the commit.
    """

    next_in_s: float
    state: dict[str, Any] | None = None
    words: Sequence[Word] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a chore is looked at, and what limits it; all in seconds.

    Attributes:
        tick_s: How often a scheduler looks whether it is due.
        statement_s_max: How long one of its statements may take.
        lock_s_max: How long one of its statements may wait for a lock.
        retry_s_max: The longest pause after failures; it doubles from `tick_s` on.
        lease_s: For rounds outside of a transaction: how long others wait for
            a process that is not heard of; renewed at every third of it. 0 for all others.
    """

    tick_s: float
    statement_s_max: float
    lock_s_max: float
    retry_s_max: float
    lease_s: float = 0.0


class Chore(ABC):
    """One kind of periodic work."""

    name: ClassVar[str]
    """Its row in `maintenance`."""
    pace: ClassVar[Pace]

    async def is_urgent(self, conn: Connection) -> bool:
        """Tell whether it must be done now although it is not due."""
        return False

    @abstractmethod
    async def work(self, conn: Connection, held: Held) -> Round:
        """Do one round, inside the transaction that holds the row (or under its lease)."""


class Turns:
    """Takes chores that are due and records how they went."""

    def __init__(self, settings: Settings) -> None:
        """Work on the installation that the settings name."""
        self._settings = settings
        self._store = Maintenance(settings.schema)
        self._lanes = Lanes(settings.schema)
        self._server = Server(settings.schema)

    async def take(self, conn: Connection, chore: Chore) -> Round | None:
        """Do one round of a chore, if it is due and nobody else has it.

        Args:
            conn: An autocommit connection.
            chore: The chore.

        Returns:
            What the round came to; None if there was none, or it failed.

        Raises:
            DatabaseUnavailable: The connection was lost. Whether the round counts is unknown.
        """
        began = time.monotonic()
        try:
            with translated():
                if await chore.is_urgent(conn):
                    await self._store.hurry(conn, chore.name)
                done = await (self._leased_round if chore.pace.lease_s else self._round)(conn, chore, began)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            if conn.closed:
                raise DatabaseUnavailable(str(error)) from error
            await self._record_failure(conn, chore, error)
            return None
        if done is not None:
            metrics.CHORE_SECONDS.labels(chore.name).observe(time.monotonic() - began)
            await self._lanes.notify(conn, done.words)
        return done

    async def _round(self, conn: Connection, chore: Chore, began: float) -> Round | None:
        async with conn.transaction():
            held = await self._lock(conn, chore)
            if held is None:
                return None
            done = await chore.work(conn, held)
            await self._finish(conn, chore, done, began)
        return done

    async def _leased_round(self, conn: Connection, chore: Chore, began: float) -> Round | None:
        async with conn.transaction():
            held = await self._lock(conn, chore)
            if held is None:
                return None
            leased_until: datetime | None = await self._store.lease(conn, chore.name, chore.pace.lease_s)
        has_ended = asyncio.Event()
        keeping = asyncio.create_task(self._keep(chore, leased_until, has_ended))
        try:
            done = await chore.work(conn, held)
        finally:
            # Not cancelled: a renewal whose answer is lost would look like another's lease.
            has_ended.set()
            leased_until = await keeping
        async with conn.transaction():
            await self._limit(conn, chore)
            if (
                leased_until is None
                or await self._store.renew(conn, chore.name, leased_until, chore.pace.lease_s) is None
            ):
                _logger.warning("chore_lease_lost", extra={"fields": {"chore": chore.name}})
                return None
            await self._finish(conn, chore, done, began)
        return done

    async def _keep(self, chore: Chore, leased_until: datetime | None, has_ended: asyncio.Event) -> datetime | None:
        """Renew a lease until the round has ended, over a connection of its own: the round's may be busy for minutes.

        Returns:
            The end of the lease as it stands in the row; None if the chore is another's now.
        """
        lease_s = chore.pace.lease_s
        while leased_until is not None and not await pause(has_ended, lease_s / 3):
            try:
                async with await connect(self._settings, PROCESS, purpose="plain") as conn:
                    with translated():
                        leased_until = await self._store.renew(conn, chore.name, leased_until, lease_s)
            except DatabaseUnavailable as reason:
                _logger.warning(
                    "chore_lease_not_renewed", extra={"fields": {"chore": chore.name, "reason": str(reason)}}
                )
        return leased_until

    async def _lock(self, conn: Connection, chore: Chore) -> Held | None:
        await self._limit(conn, chore)
        return await self._store.lock(conn, chore.name)

    async def _limit(self, conn: Connection, chore: Chore) -> None:
        pace = chore.pace
        await self._server.limit(conn, statement_timeout_s=pace.statement_s_max, lock_timeout_s=pace.lock_s_max)

    async def _finish(self, conn: Connection, chore: Chore, done: Round, began: float) -> None:
        await self._store.finish(
            conn,
            chore.name,
            next_in_s=max(done.next_in_s - _EARLY_S, 0.0),
            cost_s=time.monotonic() - began,
            state=done.state,
        )

    async def _record_failure(self, conn: Connection, chore: Chore, error: Exception) -> None:
        metrics.CHORE_FAILURES.labels(chore.name).inc()
        _logger.error("chore_failed", exc_info=error, extra={"fields": {"chore": chore.name}})
        pace = chore.pace
        with translated():
            await self._store.fail(
                conn, chore.name, retry_s=pace.tick_s, retry_s_max=pace.retry_s_max, error=str(error)
            )


class ChoreLoop:
    """Looks after some chores on one connection, one after the other, until the process is to stop."""

    def __init__(self, settings: Settings, stop: asyncio.Event, purpose: Purpose, chores: Sequence[Chore]) -> None:
        """Connect for `purpose`; a chore that takes long keeps the others of its loop waiting."""
        self._settings = settings
        self._stop = stop
        self._purpose = purpose
        self._chores = chores
        self._turns = Turns(settings)

    async def run(self) -> None:
        """Work until the process is to stop.

        Raises:
            DatabaseUnavailable: The connection was lost; call it again.
        """
        look_at = dict.fromkeys(self._chores, 0.0)
        async with await connect(self._settings, PROCESS, purpose=self._purpose) as conn:
            while not self._stop.is_set():
                for chore in self._chores:
                    if look_at[chore] <= time.monotonic():
                        done = await self._turns.take(conn, chore)
                        has_more = done is not None and done.next_in_s == 0
                        look_at[chore] = time.monotonic() + (0 if has_more else chore.pace.tick_s)
                await pause(self._stop, max(min(look_at.values()) - time.monotonic(), 0))
