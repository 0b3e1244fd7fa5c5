"""What PostgreSQL's own errors mean, each provoked on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from howdah.core.db.connect import connect, open_pool
from howdah.core.db.errors import ATTEMPTS, is_disconnect, is_retryable, is_storage_full, retrying, translated
from howdah.core.errors import DatabaseUnavailable, Refused, StorageUnavailable
from howdah.core.settings import Settings
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from howdah.core.db.embedded import EmbeddedPostgres


async def failure(work: Awaitable[object]) -> psycopg.Error:
    """The error that the work ends in."""
    with pytest.raises(psycopg.Error) as caught:
        await work
    return caught.value


async def test_connection_that_an_administrator_ended_is_lost(database: str, conn: psycopg.AsyncConnection) -> None:
    """Whether the statement hears of it, or is sent after it: the connection must be replaced."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as victim:
        await conn.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
        first = await failure(victim.execute("SELECT pg_sleep(60)"))
        second = await failure(victim.execute("SELECT 1"))

    assert is_disconnect(first)
    assert is_disconnect(second)
    assert not is_retryable(first)


async def test_crash_of_the_server_is_a_lost_connection(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """A killed server and one that is recovering are away, which is no fault of the statement."""
    server = make_server()
    async with await psycopg.AsyncConnection.connect(server.dsn("postgres"), autocommit=True) as victim:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        error = await failure(victim.execute("SELECT pg_sleep(60)"))

    assert is_disconnect(error)
    with pytest.raises(DatabaseUnavailable):
        await connect(Settings(database_url=server.dsn("postgres")), "test", purpose="plain")


async def test_standby_and_read_only_sessions_count_as_lost(conn: psycopg.AsyncConnection) -> None:
    """After a failover an old connection may lead to a server that cannot write any more."""
    await conn.execute("SET default_transaction_read_only = on")

    assert is_disconnect(await failure(conn.execute("DELETE FROM howdah.runs")))


async def test_prepared_statement_over_a_changed_column_needs_another_connection(
    database: str, conn: psycopg.AsyncConnection
) -> None:
    """Such a statement fails for as long as its connection lives; other unsupported things are faults."""
    await conn.execute("CREATE TABLE howdah.things (id integer)")
    async with await connect(Settings(database_url=database), "test", purpose="hot") as hot:
        await hot.execute("SELECT t.id FROM howdah.things AS t")
        await conn.execute("ALTER TABLE howdah.things ALTER COLUMN id TYPE bigint")
        seen = [await failure(hot.execute("SELECT t.id FROM howdah.things AS t")) for _ in range(2)]
    unsupported = await failure(conn.execute("ALTER TABLE howdah.queues ALTER COLUMN name TYPE varchar(128)"))

    assert all(map(is_disconnect, seen))
    assert isinstance(unsupported, psycopg.errors.FeatureNotSupported)
    assert not is_disconnect(unsupported)


async def test_pool_that_is_exhausted_is_unavailable(database: str) -> None:
    """Whoever waits too long for a connection hears what a lost server would say: later."""
    pool = await open_pool(Settings(database_url=database), "test", 1)
    async with pool, pool.connection():
        with pytest.raises(DatabaseUnavailable), translated():
            await pool.getconn(timeout=0.05)


async def test_lock_that_was_not_granted_is_retryable(database: str, conn: psycopg.AsyncConnection) -> None:
    """Nothing is wrong with a transaction that only came at a bad moment."""
    async with await psycopg.AsyncConnection.connect(database) as other:
        await other.execute("LOCK TABLE howdah.runs")
        await conn.execute("SET lock_timeout = '10ms'")
        error = await failure(conn.execute("DELETE FROM howdah.runs"))

    assert is_retryable(error)
    assert not is_disconnect(error)


async def test_full_disk_is_storage_unavailable(conn: psycopg.AsyncConnection) -> None:
    """SQLSTATE 53100 is for an operator to mend; clients hear 503."""
    error = await failure(conn.execute("DO $$ BEGIN RAISE 'no space left' USING ERRCODE = '53100'; END $$"))

    assert is_storage_full(error)
    assert not is_disconnect(error)
    with pytest.raises(StorageUnavailable, match="no space left"), translated():
        raise error


async def test_missing_partition_is_storage_unavailable(conn: psycopg.AsyncConnection) -> None:
    """A task of a day without partition cannot be stored, and a CHECK that refuses a value is something else."""
    row = "INSERT INTO howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final,"
    row += " queued_at, finished_at) VALUES (1, %s, 1, 1, 1, %s, true, now(), now())"
    with pytest.raises(StorageUnavailable, match="finished_runs"), translated():
        await conn.execute(row.encode(), [uuid.UUID(int=0), "lost"])
    with pytest.raises(psycopg.errors.CheckViolation), translated():
        await conn.execute(row.encode() + b" ON CONFLICT DO NOTHING", [await _id(conn), "nonsense"])


@pytest.mark.parametrize(
    ("statement", "code", "pointer", "detail"),
    [
        ("SELECT howdah.cancel('00000000-0000-7000-8000-000000000000')", "not_found", "", "there is no task"),
        ("SELECT howdah.enqueue('q', 'h', tenant => 'nobody')", "not_found", "", 'there is no tenant "nobody"'),
        ("SELECT howdah.enqueue('Q!', 'h')", "validation", "/queue", "must match"),
        (
            "SELECT howdah.enqueue('q', 'h', to_json(repeat('x', 300000)))",
            "payload_too_large",
            "/payload",
            "must be at",
        ),
    ],
)
async def test_refusal_of_a_function_says_what_is_wrong_where(
    conn: psycopg.AsyncConnection, statement: str, code: str, pointer: str, detail: str
) -> None:
    """What our functions refuse arrives as code, pointer and sentence."""
    with pytest.raises(Refused) as refusal, translated():
        await conn.execute(statement.encode())

    assert (refusal.value.code, refusal.value.pointer) == (code, pointer)
    assert refusal.value.detail.startswith(detail)


async def test_faults_of_ours_are_not_dressed_up(conn: psycopg.AsyncConnection) -> None:
    """A statement that cannot work is an error to be seen, never something to wait for."""
    for statement in ("SELECT nonsense", "SELECT 1 / 0"):
        with pytest.raises(psycopg.Error) as caught, translated():
            await conn.execute(statement.encode())

        assert not isinstance(caught.value, psycopg.OperationalError)
    assert not is_disconnect(await failure(conn.execute("SELECT %(missing)s", {})))


async def test_retrying_survives_a_deadlock(database: str) -> None:
    """Two transactions that take two locks in opposite order both commit in the end."""
    await _deadlock_table(database)
    both_have_one = asyncio.Barrier(2)

    async def transfer(first: int, second: int) -> int:
        attempts = 0
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as own:
            await own.execute("SET deadlock_timeout = '50ms'")

            async def attempt() -> None:
                nonlocal attempts
                attempts += 1
                async with own.transaction():
                    await own.execute("UPDATE howdah.forks SET n = n + 1 WHERE id = %s", [first])
                    if attempts == 1:
                        await both_have_one.wait()
                    await own.execute("UPDATE howdah.forks SET n = n + 1 WHERE id = %s", [second])

            await retrying(attempt)
        return attempts

    attempts = await asyncio.gather(transfer(1, 2), transfer(2, 1))
    async with await psycopg.AsyncConnection.connect(database) as reader:
        rows = await (await reader.execute("SELECT n FROM howdah.forks")).fetchall()

    assert max(attempts) > 1
    assert rows == [(2,), (2,)]


async def test_retrying_gives_up_and_repeats_nothing_else() -> None:
    """A conflict that stays is reported after a few attempts; any other error at once."""
    calls = 0

    async def conflict() -> None:
        nonlocal calls
        calls += 1
        raise psycopg.errors.SerializationFailure

    with pytest.raises(psycopg.errors.SerializationFailure):
        await retrying(conflict)
    assert calls == ATTEMPTS

    calls = 0

    async def fault() -> None:
        nonlocal calls
        calls += 1
        raise psycopg.errors.UniqueViolation

    with pytest.raises(psycopg.errors.UniqueViolation):
        await retrying(fault)
    assert calls == 1


async def test_server_without_free_slots_is_unavailable(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """Too many clients is a state that passes."""
    server = make_server(options={"max_connections": "5", "superuser_reserved_connections": "0"})
    settings = Settings(database_url=server.dsn("postgres"))
    taken = [await connect(settings, "test", purpose="plain") for _ in range(5)]
    with pytest.raises(DatabaseUnavailable):
        await connect(settings, "test", purpose="plain")
    for each in taken:
        await each.close()

    async def is_free() -> bool:
        try:
            await (await connect(settings, "test", purpose="plain")).close()
        except DatabaseUnavailable:
            return False
        return True

    await eventually_async(is_free, 5, "a slot is free again")


async def _id(conn: psycopg.AsyncConnection) -> uuid.UUID:
    row = await (await conn.execute("SELECT howdah.new_id(0)")).fetchone()
    assert row is not None
    return row[0]


async def _deadlock_table(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("CREATE TABLE howdah.forks AS SELECT id, 0 AS n FROM generate_series(1, 2) AS id")
