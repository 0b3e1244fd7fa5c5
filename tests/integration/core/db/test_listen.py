"""The listener: what it hears, and that it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock

import psycopg
import pytest

from howdah.core.db import listen
from howdah.core.db.listen import Listener
from howdah.core.db.migrate import migrate
from howdah.core.errors import DatabaseUnavailable, SchemaRefused
from howdah.core.settings import Settings
from howdah.core.wake import AllLanes, BeatNow, CatalogueChanged, SchemaChanged, Word
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from howdah.core.db.embedded import EmbeddedPostgres


@dataclass
class Heard:
    """What a listener told."""

    words: list[Word] = field(default_factory=list)
    reset_count: int = 0

    def listener(self, url: str) -> Listener:
        """A listener that tells this object."""
        return Listener(Settings(database_url=url), "test", on_words=self.words.extend, on_reset=self._reset)

    def _reset(self) -> None:
        self.reset_count += 1


@contextlib.asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[asyncio.Task[None]]:
    """Start a listener, let it run, and stop it the way a process does."""
    await listener.start()
    stop = asyncio.Event()
    task = asyncio.create_task(listener.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)


async def notify(conn: psycopg.AsyncConnection, payload: str) -> None:
    """Say something on the channel."""
    await conn.execute("SELECT pg_notify('howdah_wake', %s)", [payload])


async def test_listener_hands_on_words_in_order_and_drops_garbage(database: str, conn: psycopg.AsyncConnection) -> None:
    """Every word arrives once and in order, also those of one packet; strangers' words and self-checks do not."""
    heard = Heard()
    async with running(heard.listener(database)):
        async with conn.transaction():
            for number in range(100):
                await notify(conn, f"b{number}")
        await notify(conn, "zebra")
        await notify(conn, "p00")
        await notify(conn, "* c")
        await eventually_async(lambda: CatalogueChanged() in heard.words, 5, "the last word is heard")

    assert heard.words == [*map(BeatNow, range(100)), AllLanes(), CatalogueChanged()]
    assert heard.reset_count == 0


async def test_listener_reconnects_and_tells_so(database: str, conn: psycopg.AsyncConnection) -> None:
    """A lost connection costs no more than 5 s, and whoever may have missed something is told."""
    heard = Heard()
    async with running(heard.listener(database)):
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'howdah-test'"
            " AND datname = current_database()"
        )
        await eventually_async(lambda: heard.reset_count == 1, 5, "the listener has reconnected")
        await notify(conn, "c")
        await eventually_async(lambda: heard.words == [CatalogueChanged()], 5, "it hears again")


async def test_listener_leaves_nothing_on_the_number_of_its_lost_socket(
    database: str, conn: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL is away, the socket that gets the number of the lost one is heard as any other."""
    loop = asyncio.get_running_loop()
    heard = Heard()
    listener = heard.listener(database)
    with contextlib.ExitStack() as opened:
        async with running(listener):
            assert listener._conn is not None
            number = listener._conn.fileno()
            monkeypatch.setattr(listen, "connect", AsyncMock(side_effect=DatabaseUnavailable("away")))
            await conn.execute("SELECT pg_terminate_backend(%s)", [listener._conn.info.backend_pid])
            await eventually_async(lambda: listener._conn is None, 5, "the listener has noticed")
            pairs = [[opened.enter_context(each) for each in socket.socketpair()] for _ in range(5)]
            [(here, there)] = [
                (pair[place], pair[1 - place]) for pair in pairs for place in (0, 1) if pair[place].fileno() == number
            ]
            here.setblocking(False)
            receiving = asyncio.create_task(loop.sock_recv(here, 5))
            await asyncio.sleep(0)  # It waits now, and a reader of its own is on the number.
            there.send(b"hello")
            received = await asyncio.wait_for(receiving, 5)

            assert received == b"hello"


@pytest.mark.slow
async def test_listener_survives_a_restart_of_the_server(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """It goes on by itself once the server is back, however often it tried in between."""
    server = make_server()
    url = server.dsn("postgres")
    migrate(url)
    heard = Heard()
    async with running(heard.listener(url)):
        server.stop()
        with pytest.raises(DatabaseUnavailable):
            await Heard().listener(url).start()
        server.start()
        await eventually_async(lambda: heard.reset_count == 1, 8, "the listener has reconnected")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            await notify(conn, "*")
        await eventually_async(lambda: heard.words == [AllLanes()], 5, "it hears again")


async def test_listener_that_does_not_hear_itself_starts_over(
    database: str, conn: psycopg.AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is alive but deaf is found by the periodic check."""
    monkeypatch.setattr(listen, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(listen, "CHECK_S", 0.2)
    heard = Heard()
    listener = heard.listener(database)
    async with running(listener):
        assert listener._conn is not None
        deaf = listener._conn.info.backend_pid
        listener._channel = "somewhere_else"
        await eventually_async(lambda: listener._conn is None or listener._conn.info.backend_pid != deaf, 5, "noticed")
        listener._channel = "howdah_wake"
        await eventually_async(lambda: heard.reset_count >= 1, 5, "the listener has reconnected")
        await eventually_async(lambda: _hears(conn, heard), 5, "it hears again")


async def test_listener_ends_the_process_when_a_breaking_schema_comes(
    database: str, conn: psycopg.AsyncConnection
) -> None:
    """A release that must not run on a new schema learns so at once, while it runs."""
    heard = Heard()
    async with running(heard.listener(database)) as task:
        await conn.execute(
            "INSERT INTO howdah.migrations (file, checksum, is_breaking, duration_s)"
            " VALUES ('9000_post_new_world.sql', sha256(''), true, 0)"
        )
        await notify(conn, "m")
        with pytest.raises(SchemaRefused, match="9000_post_new_world"):
            await asyncio.wait_for(asyncio.shield(task), 5)

    assert heard.words == [SchemaChanged()]


async def test_listener_refuses_a_database_without_the_schema(blank_database: str) -> None:
    """Nothing is served from a database that nobody has migrated."""
    with pytest.raises(SchemaRefused, match="howdah migrate"):
        await Heard().listener(blank_database).start()


async def test_listener_stops_at_once_while_it_waits(database: str) -> None:
    """A stop does not wait for the next message, and the connection is closed."""
    listener = Heard().listener(database)
    async with running(listener) as task:
        pass

    assert task.done()
    assert listener._conn is None


async def _hears(conn: psycopg.AsyncConnection, heard: Heard) -> bool:
    await notify(conn, "c")
    return CatalogueChanged() in heard.words
