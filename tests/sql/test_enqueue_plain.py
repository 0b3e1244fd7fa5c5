"""The short way of howdah.enqueue: it stores what the whole one would, or nothing."""

from __future__ import annotations

import psycopg
import pytest

from tests.task_vectors import PAYLOADS

Connection = psycopg.AsyncConnection[tuple[object, ...]]


@pytest.mark.parametrize("payload", PAYLOADS[:4])
async def test_short_way_of_enqueue_stores_the_same_as_the_whole_one(conn: Connection, payload: str) -> None:
    """A task of a known queue and handler leaves the same rows as one with options, which takes the other way."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    run_at = await _one(conn, "SELECT howdah.now() + interval '1 hour'")
    short = await _one(conn, "SELECT howdah.enqueue_plain(1, 'q', 'h', %s, %s)", payload, run_at)
    whole = await _one(conn, "SELECT howdah.enqueue('q', 'h', %s, %s, '{\"priority\": \"normal\"}')", payload, run_at)
    stored = (
        "SELECT to_jsonb(t) - '{id,payload,created_at}'::text[], to_jsonb(r) - '{task_id,queued_at}'::text[], "
        "t.payload::text, t.created_at = r.queued_at, t.created_at - howdah.id_time(t.id) < interval '1 s' "
        "FROM howdah.tasks AS t JOIN howdah.runs AS r ON r.task_id = t.id WHERE t.id = %s"
    )

    assert await _row(conn, stored, short) == await _row(conn, stored, whole)


@pytest.mark.parametrize(
    "arguments",
    [
        "'other', 'h', '1', NULL",
        "'q', 'other', '1', NULL",
        "'q', NULL, '1', NULL",
        "'q', 'h', 'null', NULL",
        "'q', 'h', '1e999', NULL",
        "'q', 'h', '1', 'infinity'",
        "'q', 'h', '1', howdah.now() + interval '367 days'",
    ],
)
async def test_short_way_of_enqueue_leaves_all_else_to_the_whole_one(conn: Connection, arguments: str) -> None:
    """What would have to be made, changed or refused is not stored the short way."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")

    assert await _one(conn, f"SELECT howdah.enqueue_plain(1, {arguments})") is None
    assert await _one(conn, "SELECT count(*) FROM howdah.tasks") == 1


async def _row(conn: Connection, statement: str, *params: object) -> tuple[object, ...]:
    row = await (await conn.execute(statement.encode(), params or None)).fetchone()
    assert row is not None
    return row


async def _one(conn: Connection, statement: str, *params: object) -> object:
    [value] = await _row(conn, statement, *params)
    return value
