"""The short ways of enqueue, for one task and for many: they store what the whole one would, or nothing."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import psycopg
import pytest

from tests.fix_db import row_of, value_of
from tests.task_vectors import ACCEPTED, PAYLOADS, REFUSED

Connection = psycopg.AsyncConnection[tuple[object, ...]]

_STORED: Final = """
SELECT
    to_jsonb(t) - '{id,payload,created_at,run_at}'::text[],
    to_jsonb(r) - '{task_id,queued_at,run_at,due_at}'::text[],
    t.payload::text, t.created_at = r.queued_at, t.run_at = r.due_at, r.run_at = r.due_at,
    t.created_at - howdah.id_time(t.id) < interval '1 s'
FROM howdah.tasks AS t
JOIN howdah.runs AS r ON r.task_id = t.id
WHERE t.id = ANY (%s)
ORDER BY t.id
"""


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


async def test_plain_batch_stores_the_same_as_a_batch_with_options(conn: Connection) -> None:
    """Tasks of known queues and handlers leave the same rows, in the same order, as with options, the other way."""
    payloads = [payload for payload in PAYLOADS if re.search(r"\\u(0000|d8)", payload) is None]
    names = [("q", "h"), ("q", "i"), ("p", "h")]
    for queue, handler in names:
        await conn.execute("SELECT howdah.enqueue(%s, %s)", (queue, handler))
    items = [
        f'{{"queue": "{names[number % 3][0]}", "payload": {payload}, "handler":"{names[number % 3][1]}"}}'
        for number, payload in enumerate(payloads)
    ]
    items += ['{"handler":"h","queue":"q"}', '{"queue":"q","handler":"h","payload":null}']
    plain = await _many(conn, items)
    whole = await _many(conn, [f'{item[:-1]}, "priority": "normal"}}' for item in items])
    rows = [await (await conn.execute(_STORED, [[row[1] for row in rows]])).fetchall() for rows in (plain, whole)]

    assert await value_of(conn, "SELECT count(*) FROM howdah.read_plain(%s)", f"[{','.join(items)}]") == 1
    assert [(row[0], *row[2:]) for row in plain] == [(n, True, None) for n in range(1, len(items) + 1)]
    assert len(rows[0]) == len(items)
    assert rows[0] == rows[1]


async def test_refused_item_is_refused_beside_plain_ones(conn: Connection) -> None:
    """Whatever is wrong with one item of an otherwise plain batch, it alone is refused, and told the same as alone."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    good = '{"queue": "q", "handler": "h"}'
    answers = {
        refused.text: (
            [row[1:] for row in sorted(await _many(conn, [good, refused.text, good]), key=lambda row: row[0])],
            await _many(conn, [refused.text]),
        )
        for refused in REFUSED
    }

    for refused in REFUSED:
        (first, bad, last), [alone] = answers[refused.text]
        assert [row[1:] for row in (first, last)] == [(True, None)] * 2, refused.text[:100]
        assert (bad[1], *str(bad[2]).split(" ")[:2]) == (False, refused.code, refused.pointer)
        assert alone[2:] == bad[1:]
    assert await value_of(conn, "SELECT count(*) FROM howdah.tasks") == 1 + 2 * len(REFUSED)


@pytest.mark.parametrize(
    "items",
    [
        [],
        ["5"],
        ['{"queue": "q", "handler": "h"}', "[]"],
        ['{"queue": "q", "handler": "h"}', '"queue"'],
        ['{"queue": "q", "handler": "h", "": 1}'],
        ['{"handler": null, "queue": "q", "handler": "h"}'],
        ['{"queue": "q", "handler": "h", "payload": "\\u0000"}'],
        ['{"queue": "q", "handler": "h", "\\udc00": 1}'],
        *([item] for item in ACCEPTED[3:]),
    ],
)
async def test_items_that_are_not_plain_are_left_to_the_whole_way(conn: Connection, items: list[str]) -> None:
    """An item with any field beside queue, handler and payload, or that is none, makes its batch no plain one."""
    assert await value_of(conn, "SELECT count(*) FROM howdah.read_plain(%s)", f"[{','.join(items)}]") == 0


_BAD_PAYLOADS: Final = [
    refused.text.partition('"payload": ')[2][:-1] for refused in REFUSED if refused.pointer == "/payload"
]
_PLAIN: Final[dict[str, Any]] = {
    "queues": ["q"],
    "handlers": ["h"],
    "priorities": [1],
    "traceparents": [None],
    "kinds": [1],
    "payloads": ["1"],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"queues": ["other"]},
        {"handlers": ["other"]},
        {"queues": [None]},
        {"handlers": [None]},
        {"queues": ["q", "other"], "handlers": ["h", "h"]},
        *({"payloads": [payload]} for payload in _BAD_PAYLOADS),
    ],
)
async def test_plain_tasks_are_stored_all_or_none(conn: Connection, changes: dict[str, Any]) -> None:
    """Where a name is unknown or a payload has a flaw, nothing at all is stored; without that, everything is."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    statement = """
        SELECT count(*) FROM howdah.store_plain(
            1, %(queues)s, %(handlers)s, %(priorities)s::smallint[], %(traceparents)s::text[],
            %(kinds)s || 1, ARRAY[howdah.new_id(1), howdah.new_id(2)], (%(payloads)s::text[])::json[] || '1'::json
        )
    """
    refused = await (await conn.execute(statement, {**_PLAIN, **changes})).fetchone()
    refused_count = await value_of(conn, "SELECT count(*) FROM howdah.tasks")
    stored = await (await conn.execute(statement, _PLAIN)).fetchone()

    assert (refused, refused_count) == ((0,), 1)
    assert stored == (1,)
    assert await value_of(conn, "SELECT count(*) FROM howdah.runs") == 3


async def _many(conn: Connection, items: list[str]) -> list[Any]:
    """Enqueue items given as text; ordinal, id, created and error of each come back."""
    rows = await conn.execute("SELECT * FROM howdah.enqueue_many(NULL, %s)", [f"[{','.join(items)}]"])
    return await rows.fetchall()


async def test_batch_over_very_many_queues_costs_each_of_them_once(conn: Connection) -> None:
    """Names are gathered beside the items, not with each: 2,000 queues took 60 MB of temporary files."""
    items = json.dumps([{"queue": f"q{number}", "handler": "h"} for number in range(2_000)])
    plan: Any = await value_of(
        conn, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT FROM howdah.read_plain(%s::json)", items
    )

    assert plan[0]["Plan"]["Temp Written Blocks"] == 0
