"""The short way of howdah.enqueue: it stores what the whole one would, or nothing."""

from __future__ import annotations

import psycopg
import pytest

from tests.fix_db import row_of, value_of
from tests.task_vectors import PAYLOADS

Connection = psycopg.AsyncConnection[tuple[object, ...]]


@pytest.mark.parametrize("payload", PAYLOADS[:4])
async def test_short_way_of_enqueue_stores_the_same_as_the_whole_one(conn: Connection, payload: str) -> None:
    """A task of a known queue and handler leaves the same rows as one with options, which takes the other way."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    run_at = await value_of(conn, "SELECT howdah.now() + interval '1 hour'")
    short = await value_of(conn, "SELECT howdah.enqueue_plain(1, 'q', 'h', %s, %s)", payload, run_at)
    whole = await value_of(
        conn, "SELECT howdah.enqueue('q', 'h', %s, %s, '{\"priority\": \"normal\"}')", payload, run_at
    )
    stored = (
        "SELECT to_jsonb(t) - '{id,payload,created_at}'::text[], to_jsonb(r) - '{task_id,queued_at}'::text[], "
        "t.payload::text, t.created_at = r.queued_at, t.created_at - howdah.id_time(t.id) < interval '1 s' "
        "FROM howdah.tasks AS t JOIN howdah.runs AS r ON r.task_id = t.id WHERE t.id = %s"
    )

    assert await row_of(conn, stored, short) == await row_of(conn, stored, whole)


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

    assert await value_of(conn, f"SELECT howdah.enqueue_plain(1, {arguments})") is None
    assert await value_of(conn, "SELECT count(*) FROM howdah.tasks") == 1
