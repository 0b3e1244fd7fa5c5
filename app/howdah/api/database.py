"""What the API knows of PostgreSQL: whether it is there, what time it has, and a pool.

One connection of its own looks once a second, and at once when a connection of
any part of the process fails. If the server is away, all parts answer 503 at once,
instead of waiting each for a timeout of its own, until a look has found it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from typing import TYPE_CHECKING, Final

from howdah.core import metrics
from howdah.core.clock import DatabaseClock
from howdah.core.db.connect import connect, open_pool
from howdah.core.db.errors import translated
from howdah.core.db.precheck import READ_ONLY_S_MAX, check_server
from howdah.core.db.schema_version import check_schema
from howdah.core.errors import DatabaseUnavailable, ServerRefused, StorageUnavailable
from howdah.core.ids import IdMint
from howdah.core.store.server import Server, within_limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from howdah.core.db.connect import Connection, ConnectionPool
    from howdah.core.health import Readiness
    from howdah.core.settings import Settings

# The server ends a statement that takes longer, so that its client hears within 10 s.
STATEMENT_S_MAX: Final = 3.0
# Another transaction's lock is no reason to keep others waiting.
LOCK_S_MAX: Final = 0.25
LOOK_EVERY_S: Final = 1.0
# A look is one statement without tables; a server that takes longer helps nobody.
LOOK_S_MAX: Final = 3.0
# Chosen: a server that is back is found within half a second, and refuses cheaply till then.
_PAUSE_S_MAX: Final = 0.5
# A migration is not announced to us; a breaking one shall not go unnoticed for long.
_SCHEMA_EVERY_S: Final = 30.0
_LOG_EVERY_S: Final = 10.0

LOSSY: Final = "synchronous_commit is off, as HOWDAH_ALLOW_LOSSY_COMMIT allows: a crash may lose acknowledged tasks"

_log: Final = logging.getLogger(__name__)


class Database:
    """PostgreSQL as the API's requests see it.

    Attributes:
        settings: Tell where it is.
        clock: Its time.
        mint: Makes task ids from that time.
    """

    def __init__(self, settings: Settings, readiness: Readiness, connection_count: int) -> None:
        """Describe it; `run` connects.

        Args:
            settings: Tell where it is.
            readiness: Is told when commits may be lost.
            connection_count: How many connections the process opens in all.
        """
        self.settings = settings
        self.clock = DatabaseClock()
        self.mint = IdMint(self.clock.now_ms)
        self._readiness = readiness
        self._connection_count = connection_count
        self._server = Server(settings.schema)
        self._pool: ConnectionPool | None = None
        self._fault: str | None = "PostgreSQL has not answered since the start"
        self._was_found = False
        self._found = asyncio.Event()
        self._doubted = asyncio.Event()
        self._looked = asyncio.Event()
        self._watched: set[Connection] = set()
        self._lost_at = time.monotonic()
        self._refuse_read_only_at = self._lost_at + READ_ONLY_S_MAX
        self._logged_at = 0.0

    @property
    def fault(self) -> str | None:
        """Why no request that needs PostgreSQL can be served; None if it is there."""
        return self._fault

    def refuse_if_away(self) -> None:
        """Return if PostgreSQL is there, as far as is known.

        Raises:
            DatabaseUnavailable: It is away.
        """
        if self._fault is not None:
            raise DatabaseUnavailable(self._fault)

    def doubt(self) -> None:
        """Have PostgreSQL looked at now, because a connection failed; one that was cut alone is no outage."""
        self._doubted.set()

    async def is_there(self) -> bool:
        """Look at PostgreSQL now, unless it is known to be away, and tell whether it answers."""
        if self._fault is not None:
            return False
        looked = self._looked
        self._doubted.set()
        await looked.wait()
        return self._fault is None

    async def wait_found(self, timeout_s: float) -> bool:
        """Wait until PostgreSQL is there; False if it was not within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._found.wait()
        except TimeoutError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend an autocommit connection of the pool.

        Raises:
            DatabaseUnavailable: PostgreSQL is away, or the connection was lost inside.
        """
        self.refuse_if_away()
        assert self._pool is not None, "the pool is opened before the first look"
        async with self.lent(self._pool) as conn:
            yield conn

    @contextlib.asynccontextmanager
    async def transaction(self, *, lock_s_max: float = LOCK_S_MAX) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction whose statements and waits for locks are bounded.

        Raises:
            DatabaseUnavailable: As `connection`.
            StorageUnavailable: A bound was reached; nothing was changed.
        """
        async with self.connection() as conn, conn.transaction():
            await self._server.limit(conn, statement_timeout_s=STATEMENT_S_MAX, lock_timeout_s=lock_s_max)
            with within_limits():
                yield conn

    @contextlib.asynccontextmanager
    async def lent(self, pool: ConnectionPool) -> AsyncIterator[Connection]:
        """Lend an autocommit connection of any pool; see `connection`."""
        self.refuse_if_away()
        try:
            with translated():
                async with pool.connection() as conn:
                    with self.watched(conn):
                        yield conn
        except StorageUnavailable:
            raise
        except DatabaseUnavailable:
            self.doubt()
            raise

    @contextlib.contextmanager
    def watched(self, conn: Connection) -> Iterator[None]:
        """Cut a connection, for as long as this lasts, when the server stops answering."""
        self._watched.add(conn)
        try:
            yield
        finally:
            self._watched.discard(conn)

    def _cut_all(self) -> None:
        """Make every statement under way fail now: the server is there and does not answer.

        Cancelling them would wait for the server once more. Both ends of the socket are shut
        instead, and libpq finds its connection closed.
        """
        for conn in list(self._watched):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(conn.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)

    async def run(self) -> None:
        """Keep looking until cancelled.

        Raises:
            StartRefused: This process must not go on: the first server, or a schema, does not fit.
        """
        self._pool = await open_pool(self.settings, "api", self.settings.api_pool)
        try:
            while True:
                await self._look_while_there()
                await asyncio.sleep(random.uniform(0, _PAUSE_S_MAX))
        finally:
            self._fault = "the process is to stop"
            await self._pool.close()

    async def _look_while_there(self) -> None:
        """Connect, check the server as at a start, then look at it until it goes away."""
        try:
            report = await check_server(
                self.settings,
                "api",
                self.clock,
                connection_count=self._connection_count,
                refuse_read_only_at=self._refuse_read_only_at,
            )
            if report.is_lossy:
                self._readiness.warn("durability", LOSSY)
            async with await connect(self.settings, "api", purpose="direct") as conn:
                with translated():
                    await check_schema(conn, self.settings.schema)
                checked_at = time.monotonic()
                while True:
                    self._doubted.clear()
                    await self._look(conn)
                    self._find()
                    if time.monotonic() - checked_at > _SCHEMA_EVERY_S:
                        with translated():
                            await check_schema(conn, self.settings.schema)
                        checked_at = time.monotonic()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await self._doubted.wait()
        except (DatabaseUnavailable, ServerRefused) as error:
            # Of a server that was good before, a refusal means a failover on its way: a standby answers.
            if isinstance(error, ServerRefused) and not self._was_found:
                raise
            metrics.DATABASE_RETRIES.labels("look").inc()
            self._lose(str(error))

    async def _look(self, conn: Connection) -> None:
        """Ask for the time, and for no longer than `LOOK_S_MAX`."""
        with self.watched(conn):
            hang = asyncio.get_running_loop().call_later(LOOK_S_MAX, self._cut_all)
            try:
                await self._server.sample_clock(conn, self.clock)
            finally:
                hang.cancel()
        metrics.CLOCK_SKEW_SECONDS.set(self.clock.skew_s())

    def _find(self) -> None:
        if self._fault is not None:
            self._fault = None
            self._was_found = True
            after_s = round(time.monotonic() - self._lost_at, 2)
            _log.info("database_found", extra={"fields": {"after_s": after_s}})
        self._found.set()
        self._end_look()

    def _lose(self, reason: str) -> None:
        now = time.monotonic()
        if self._fault is None:
            self._lost_at, self._logged_at = now, now
            self._found.clear()
            _log.warning("database_lost", extra={"fields": {"reason": reason}})
        elif now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            away_s = round(now - self._lost_at, 1)
            _log.warning("database_away", extra={"fields": {"reason": reason, "away_s": away_s}})
        # Readers of /readyz want to know why it is away now.
        self._fault = reason
        self._end_look()

    def _end_look(self) -> None:
        self._looked.set()
        self._looked = asyncio.Event()
