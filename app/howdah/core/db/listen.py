"""The listener: one connection a process that hears wake-ups, and knows whether it does.

Nothing depends on a wake-up arriving, but whoever hears none is slow without
knowing why. So the listener notifies itself, at the start and every 10 s, and
starts over when that does not come back. Through a transaction pooler LISTEN
seems to work and hears nothing, which is refused at the start.

It also watches the schema: when a migration is announced, and after each
reconnect, it asks whether this release still fits.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from psycopg import sql

from howdah.core import metrics
from howdah.core.backoff import delays
from howdah.core.db.connect import POOLER_REFUSAL, connect
from howdah.core.db.errors import translated
from howdah.core.db.schema_version import check_schema
from howdah.core.errors import DatabaseUnavailable, ServerRefused
from howdah.core.wake import SchemaChanged, SelfCheck, Word, parse_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from howdah.core.db.connect import Connection
    from howdah.core.settings import Settings

CHECK_EVERY_S: Final = 10.0
# A notification takes well under a millisecond; two seconds are a server that hangs.
CHECK_S: Final = 2.0

_received: Final = metrics.WAKEUPS.labels("received")

_log: Final = logging.getLogger(__name__)


class Listener:
    """Hears the wake-ups of one schema and hands them on."""

    def __init__(
        self,
        settings: Settings,
        process: str,
        *,
        on_words: Callable[[list[Word]], None],
        on_reset: Callable[[], None],
    ) -> None:
        """Describe the listener; it connects in `start` or `run`.

        Args:
            settings: Tell where to listen, and for which schema.
            process: `api`, `worker`, …; DBAs see it as `howdah-<process>`.
            on_words: Called on the event loop with the words of each message.
            on_reset: Called after each reconnect: wake-ups may have been missed,
                and another server, with other clocks and rows, may answer now.
        """
        self._settings = settings
        self._process = process
        self._on_words = on_words
        self._on_reset = on_reset
        self._channel = f"{settings.schema}_wake"
        self._conn: Connection | None = None
        self._is_schema_news = False
        self._awaited: SelfCheck | None = None
        # What `_hear` waits for.
        self._attention: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Connect, and make sure that notifications arrive; at most about 2 s once connected.

        Raises:
            DatabaseUnavailable: There is no connection, or the server hangs.
            ServerRefused: A transaction pooler is between, and swallows LISTEN.
            SchemaRefused: The schema does not fit this release.
        """
        conn = await connect(self._settings, self._process, purpose="direct")
        # What comes while a statement is under way; psycopg would keep it for its own `notifies()`.
        conn.add_notify_handler(lambda notification: self._take(notification.payload))
        try:
            with translated():
                await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                await self._refuse_pooler(conn)
                await check_schema(conn, self._settings.schema)
        except BaseException:
            await conn.close()
            raise
        self._conn = conn

    async def run(self, stop: asyncio.Event) -> None:
        """Hand on what is heard until `stop` is set, reconnecting for as long as it takes.

        Raises:
            SchemaRefused: A newer, breaking schema was announced: this process must end.
            ServerRefused: A transaction pooler has come between.
        """
        receiving = asyncio.create_task(self._receive_forever())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
        finally:
            receiving.cancel()
            stopping.cancel()
            try:
                await asyncio.gather(receiving, stopping, return_exceptions=True)
            finally:
                # Also if this is cancelled while it stops.
                await self._disconnect()

    async def _receive_forever(self) -> None:
        waits = delays()
        is_first = self._conn is None
        while True:
            try:
                if self._conn is None:
                    await self.start()
                    if not is_first:
                        metrics.LISTENER_RECONNECTS.inc()
                        _log.info("listener_reconnected")
                        self._on_reset()
                is_first = False
                waits = delays()
                with translated():
                    await self._receive()
            except DatabaseUnavailable as reason:
                _log.warning("listener_disconnected", extra={"fields": {"reason": str(reason)}})
                await self._disconnect()
                await asyncio.sleep(next(waits))

    async def _receive(self) -> None:
        conn = self._conn
        assert conn is not None
        check_at = time.monotonic() + CHECK_EVERY_S
        while True:
            if self._is_schema_news:
                self._is_schema_news = False
                await check_schema(conn, self._settings.schema)
            elif time.monotonic() < check_at:
                await self._hear(conn, check_at)
            elif await self._hears_itself(conn, via=conn):
                check_at = time.monotonic() + CHECK_EVERY_S
            else:
                raise DatabaseUnavailable(f"the listener's own notification did not arrive within {CHECK_S:g} s")

    async def _refuse_pooler(self, conn: Connection) -> None:
        """Notify over another connection: a pooler forwards what a session says to itself."""
        async with await connect(self._settings, self._process, purpose="direct") as other:
            if await self._hears_itself(conn, via=other):
                return
        cursor = await conn.execute("SELECT pg_backend_pid()")
        row = await cursor.fetchone()
        # Poolers make up the process number that a client is told on connecting.
        if row is not None and row[0] != conn.info.backend_pid:
            raise ServerRefused(f"LISTEN hears nothing: {POOLER_REFUSAL}")
        raise DatabaseUnavailable(f"PostgreSQL delivered no notification within {CHECK_S:g} s")

    async def _hears_itself(self, conn: Connection, *, via: Connection) -> bool:
        self._awaited = check = SelfCheck(secrets.token_hex(8))
        await via.execute("SELECT pg_notify(%s, %s)", [self._channel, str(check)])
        deadline = time.monotonic() + CHECK_S
        while self._awaited is check and time.monotonic() < deadline:
            await self._hear(conn, deadline)
        return self._awaited is not check

    async def _hear(self, conn: Connection, deadline: float) -> None:
        """Hand on what comes until `deadline`, or less if there is something to be done about it here.

        Straight from the socket: by psycopg's `notifies()` an idle worker hears it a few turns of the
        event loop later (0.15 ms).
        """
        loop = asyncio.get_running_loop()
        self._attention = attention = loop.create_future()
        number = conn.fileno()
        loop.add_reader(number, self._read, conn, number, attention)
        try:
            # What came behind the answer to a statement may have been received already.
            self._read(conn, number, attention)
            await asyncio.wait({attention}, timeout=max(0.0, deadline - time.monotonic()))
            if attention.done():
                attention.result()
        finally:
            if not conn.closed:
                loop.remove_reader(number)
            self._attention = None

    def _read(self, conn: Connection, number: int, attention: asyncio.Future[None]) -> None:
        try:
            conn.pgconn.consume_input()
            while (notification := conn.pgconn.notifies()) is not None:
                self._take(notification.extra.decode(errors="replace"))
        except Exception as error:
            if conn.closed:
                # libpq has closed the socket. A turn later its number may be another's, whose reader this would be.
                asyncio.get_running_loop().remove_reader(number)
            if not attention.done():
                attention.set_exception(error)

    def _take(self, payload: str) -> None:
        news: list[Word] = []
        for word in parse_message(payload):
            if isinstance(word, SelfCheck):
                if word == self._awaited:
                    self._awaited = None
                    self._attend()
            else:
                news.append(word)
                if isinstance(word, SchemaChanged):
                    self._is_schema_news = True
                    self._attend()
        if news:
            self._on_words(news)
            _received.inc()

    def _attend(self) -> None:
        if self._attention is not None and not self._attention.done():
            self._attention.set_result(None)

    async def _disconnect(self) -> None:
        if self._conn is not None:
            await self._conn.close()
            self._conn = None
