"""Connections: their settings, and how they come back after the server was away."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg_pool.base
import pytest
from psycopg import sql

from howdah.core.db.connect import connect, connect_sync, open_pool
from howdah.core.db.errors import translated
from howdah.core.errors import DatabaseUnavailable
from howdah.core.settings import Settings
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from howdah.core.db.connect import Connection, Purpose
    from howdah.core.db.embedded import EmbeddedPostgres

PINNED = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_memoize": "off",
}


async def settings_of(conn: Connection, *names: str) -> dict[str, str]:
    """What the session has for each setting; empty for one that it does not know."""
    values = {}
    for name in names:
        row = await (await conn.execute("SELECT current_setting(%s, true)", [name])).fetchone()
        values[name] = (row and row[0]) or ""
    return values


async def test_hot_connection_pins_plans_and_prepares_at_once(blank_database: str) -> None:
    """The claim's plan cannot flip, our enqueues do not notify by themselves, and clients see UTC."""
    async with await connect(Settings(database_url=blank_database, schema="cell_b"), "worker", purpose="hot") as conn:
        assert await settings_of(conn, *PINNED) == PINNED
        assert await settings_of(conn, "cell_b.notify", "TimeZone", "application_name") == {
            "cell_b.notify": "off",
            "TimeZone": "UTC",
            "application_name": "howdah-worker",
        }
        await conn.execute("SELECT %s::int", [1])
        prepared = await conn.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1%%'")
        assert await prepared.fetchone() == (1,)
        assert conn.autocommit


@pytest.mark.parametrize("purpose", ["plain", "direct"])
async def test_defaults_of_a_database_do_not_reach_our_connections(blank_database: str, purpose: Purpose) -> None:
    """What would break our statements is set right; handlers get what the database's owner chose."""
    settings = Settings(database_url=blank_database)
    async with await connect(settings, "test", purpose="handler") as conn:
        for assignment in (
            "default_transaction_isolation = 'serializable'",
            "TimeZone = 'Asia/Tokyo'",
            "search_path = theirs, public",
        ):
            name = sql.Identifier(conn.info.dbname)
            await conn.execute(sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(assignment)))
    names = ["default_transaction_isolation", "TimeZone", "search_path", "enable_seqscan"]
    async with await connect(settings, "test", purpose=purpose) as conn:
        ours = await settings_of(conn, *names)
    async with await connect(settings, "test", purpose="handler") as conn:
        handlers = await settings_of(conn, *names)

    assert list(ours.values()) == ["read committed", "UTC", "pg_catalog,pg_temp", "on"]
    assert list(handlers.values()) == ["serializable", "Asia/Tokyo", "theirs, public", "on"]


@pytest.mark.parametrize("purpose", ["hot", "plain", "direct"])
async def test_transaction_of_ours_that_falls_silent_is_ended(blank_database: str, purpose: Purpose) -> None:
    """A stopped process, or a machine that is gone, keeps no lock for long; handlers may."""
    settings = Settings(database_url=blank_database)
    async with await connect(settings, "test", purpose=purpose) as conn:
        ours = await settings_of(conn, "idle_in_transaction_session_timeout")
    async with await connect(settings, "test", purpose="handler") as conn:
        handlers = await settings_of(conn, "idle_in_transaction_session_timeout")

    assert list(ours.values()) == ["10s"]
    assert list(handlers.values()) == ["0"]


def test_connect_sync_sets_what_connect_sets(blank_database: str) -> None:
    """The lease keeper's thread has the same kind of connection."""
    with connect_sync(Settings(database_url=blank_database), "worker", purpose="hot") as conn:
        row = conn.execute("SELECT current_setting('plan_cache_mode'), current_setting('howdah.notify')").fetchone()

        assert row == ("force_generic_plan", "off")
        assert conn.autocommit


async def test_connect_without_a_server_is_unavailable(tmp_path: Path) -> None:
    """A server that is not there is a condition to wait for, in our own words."""
    settings = Settings(database_url=f"postgresql://howdah@/jobs?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable):
        await connect(settings, "worker", purpose="hot")
    with pytest.raises(DatabaseUnavailable):
        connect_sync(settings, "worker", purpose="hot")


@pytest.mark.slow
async def test_pool_fails_fast_and_recovers_by_itself(
    make_server: Callable[..., EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away, a query is refused within 2 s; within 5 s of its return all connections serve again."""
    # The pauses of psycopg_pool as they are after minutes, without the minutes.
    monkeypatch.setattr(psycopg_pool.base.AttemptWithBackoff, "DELAY_BACKOFF", 100.0)
    server = make_server()
    pool = await open_pool(Settings(database_url=server.dsn("postgres")), "api", 3)

    async def ask() -> bool:
        with translated():
            async with pool.connection() as conn:
                await conn.execute("SELECT 1")
        return True

    async with pool:
        await asyncio.gather(*(ask() for _ in range(3)))
        server.stop()
        refusals_s = []
        # Longer than the pool's own pauses, so that all of its attempts have failed.
        while len(refusals_s) < 4:
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                await ask()
            refusals_s.append(time.monotonic() - started)
        server.start()
        returned = time.monotonic()
        await eventually_async(lambda: _succeeds(ask), 5, "a query is answered")
        await asyncio.gather(*(ask() for _ in range(20)))

        assert max(refusals_s) < 2
        assert time.monotonic() - returned < 5


async def test_pool_gives_out_no_connection_that_the_server_has_closed(database: str) -> None:
    """After a restart that nobody noticed, not one query is lost to a dead connection."""
    pool = await open_pool(Settings(database_url=database), "api", 2)
    async with pool, await connect(Settings(database_url=database), "test", purpose="plain") as other:
        async with pool.connection() as conn:
            pid = conn.info.backend_pid
        await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        await eventually_async(lambda: _is_gone(other, pid), 5, "the connection is closed")
        async with pool.connection() as conn:
            answer = await (await conn.execute("SELECT pg_backend_pid()")).fetchone()

        assert answer is not None
        assert answer[0] != pid


async def _succeeds(ask: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await ask()
    except DatabaseUnavailable:
        return False


async def _is_gone(conn: Connection, pid: int) -> bool:
    return (await conn.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])).rowcount == 0
