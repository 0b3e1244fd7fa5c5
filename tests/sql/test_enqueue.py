"""The public enqueue functions, as another application's SQL sees them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio
from psycopg import errors

from tests.fix_db import row_of, value_of
from tests.fix_wait import eventually_async
from tests.task_vectors import ACCEPTED, PAYLOADS, REFUSED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Connection = psycopg.AsyncConnection[tuple[object, ...]]


@pytest_asyncio.fixture
async def other(database: str) -> AsyncIterator[Connection]:
    """A second session."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def listener(database: str) -> AsyncIterator[Connection]:
    """A session that listens for wake-ups."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute("LISTEN howdah_wake")
        yield connection


async def test_enqueue_stores_what_the_task_says(conn: Connection) -> None:
    """Queue, handler, time, priority, timeout, retry and tags are stored under the task's id."""
    task_id = await value_of(
        conn,
        "SELECT howdah.enqueue('emails', 'welcome', '{\"to\": \"a\"}', howdah.now() + interval '1 hour', "
        '\'{"priority": "high", "timeout": "5m", "retry": {"max_attempts": 7}, "tags": {"a": "b"}}\')',
    )
    row = await row_of(
        conn,
        "SELECT t.id, q.name, g.handler, t.priority, t.timeout_s, t.retry, t.tags, t.payload, t.run_at - t.created_at "
        "FROM howdah.tasks AS t "
        "JOIN howdah.queues AS q ON q.id = queue_id JOIN howdah.targets AS g ON g.id = target_id",
    )
    run = await row_of(conn, "SELECT task_id, priority, attempt, run_at - queued_at FROM howdah.runs")

    assert row[:6] == (task_id, "emails", "welcome", 2, 300.0, {"max_attempts": 7})
    assert row[6:8] == ({"a": "b"}, {"to": "a"})
    assert run[:3] == (task_id, 2, 0)
    assert row[8] == run[3]


async def test_enqueue_of_a_past_time_is_ready_now(conn: Connection) -> None:
    """A run_at in the past leaves the run at now, above every horizon, and its due time as it was asked for."""
    await conn.execute("SELECT howdah.enqueue('q', 'h', run_at => howdah.now() - interval '1 hour')")

    assert await value_of(conn, "SELECT run_at = queued_at AND due_at < queued_at FROM howdah.runs")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
async def test_enqueue_takes_a_time_in_any_time_zone(conn: Connection, zone: str) -> None:
    """The session's time zone changes nothing, to the microsecond."""
    await conn.execute(f"SET timezone = '{zone}'".encode())
    await conn.execute(
        "SELECT howdah.enqueue('q', 'h', run_at => date_trunc('day', howdah.now()) + '1 day 1.234567 s')"
    )

    assert await value_of(conn, "SELECT run_at = date_trunc('day', howdah.now()) + '1 day 1.234567 s' FROM howdah.runs")


async def test_enqueue_that_is_rolled_back_leaves_nothing(conn: Connection, listener: Connection) -> None:
    """A task is part of the caller's transaction: without the commit there is no task, queue or wake-up."""
    async with conn.transaction(force_rollback=True):
        await conn.execute("SELECT howdah.enqueue('q', 'h')")
    await conn.execute("NOTIFY howdah_wake, 'end'")

    assert await _heard(listener, "end") == ["end"]
    assert await row_of(
        conn,
        "SELECT (SELECT count(*) FROM howdah.tasks), (SELECT count(*) FROM howdah.runs), "
        "(SELECT count(*) FROM howdah.queues), (SELECT count(*) FROM howdah.targets WHERE id <> 0)",
    ) == (0, 0, 0, 0)


async def test_enqueue_names_each_lane_and_its_oldest_time_at_commit(conn: Connection, listener: Connection) -> None:
    """A batch sends one wake-up with one word a lane."""
    items = [{"queue": "q", "handler": "h", "delay": delay} for delay in ("9s", "3s", "6s")]
    items += [{"queue": "q", "handler": "h", "priority": "low"}]
    await _many(conn, items)
    words = await value_of(
        conn,
        "SELECT array_agg(word ORDER BY word) FROM (SELECT howdah.lane_word(queue_id, priority, min(run_at)) AS word "
        "FROM howdah.runs GROUP BY queue_id, priority) AS lane",
    )
    await conn.execute("NOTIFY howdah_wake, 'end'")
    _, message, end = await _heard(listener, "end")

    assert sorted(message.split()) == words
    assert end == "end"


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("lane_word", "howdah.lane_word(id, 1::smallint, created_at)"),
        ("id_floor", "howdah.id_floor(created_at)"),
        ("has_partition", "howdah.has_partition(created_at)"),
    ],
)
async def test_small_function_is_inlined(conn: Connection, name: str, call: str) -> None:
    """PostgreSQL puts its body in its place; a call that it had to make would be parsed and planned each time."""
    cursor = await conn.execute(f"EXPLAIN (VERBOSE) SELECT {call} FROM howdah.queues".encode())
    plan = str(await cursor.fetchall())

    assert "created_at" in plan
    assert name not in plan


async def test_enqueue_to_very_many_lanes_names_all_lanes(conn: Connection, listener: Connection) -> None:
    """A wake-up that would not fit into a notification says that every lane may have work."""
    await _many(conn, [{"queue": f"q{number}", "handler": "h"} for number in range(400)])

    assert (await _heard(listener, "*"))[-1] == "*"


async def test_enqueue_with_notify_off_sends_no_wake_up(conn: Connection, listener: Connection) -> None:
    """Whoever sets howdah.notify = off pays no notification; workers find the task by their own look."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    await conn.execute("SET howdah.notify = off")
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    await conn.execute("NOTIFY howdah_wake, 'end'")
    heard = await _heard(listener, "end")

    assert [word[0] for word in heard] == ["c", "q", "e"]


async def test_enqueue_tells_of_new_names_once(conn: Connection, listener: Connection) -> None:
    """Workers hear that the catalogue changed when a queue or target is made, and not again."""
    for _ in range(2):
        await conn.execute("SELECT howdah.enqueue('q', 'h')")
        await conn.execute('SELECT howdah.enqueue(\'q\', options => \'{"http": {"url": "http://example.com"}}\')')
    await conn.execute("NOTIFY howdah_wake, 'end'")

    assert (await _heard(listener, "end")).count("c") == 1


async def test_enqueue_takes_the_tenant_from_parameter_setting_or_default(conn: Connection) -> None:
    """The parameter wins over the setting howdah.tenant, which wins over the tenant default."""
    await conn.execute("INSERT INTO howdah.tenants (name) VALUES ('a'), ('b')")
    ids = [await value_of(conn, "SELECT howdah.enqueue('q', 'h')")]
    await conn.execute("SET howdah.tenant = 'a'")
    ids += [await value_of(conn, "SELECT howdah.enqueue('q', 'h')")]
    ids += [await value_of(conn, "SELECT howdah.enqueue('q', 'h', tenant => 'b')")]
    rows = await conn.execute(
        "SELECT t.id, n.name FROM howdah.tasks AS t JOIN howdah.tenants AS n ON n.id = tenant_id "
        "JOIN howdah.queues AS q ON (q.tenant_id, q.id) = (t.tenant_id, queue_id)"
    )

    assert dict(await rows.fetchall()) == dict(zip(ids, ["default", "a", "b"], strict=True))


async def test_enqueue_for_an_unknown_tenant_is_refused(conn: Connection) -> None:
    """A misspelt tenant is named in the error."""
    with pytest.raises(psycopg.Error, match='there is no tenant "nobody"') as caught:
        await conn.execute("SELECT howdah.enqueue('q', 'h', tenant => 'nobody')")

    assert caught.value.sqlstate == "JQ404"


async def test_enqueue_accepts_what_the_api_accepts(conn: Connection) -> None:
    """Each allowed task is stored, with its run."""
    answers = await _answers(conn, ACCEPTED)

    assert answers == dict.fromkeys(ACCEPTED, (True, None))
    assert await value_of(conn, "SELECT count(*) FROM howdah.tasks JOIN howdah.runs ON task_id = id") == len(ACCEPTED)


async def test_enqueue_refuses_what_the_api_refuses(conn: Connection) -> None:
    """Each task that is not allowed comes back with the code and the field, and no task is stored."""
    answers = await _answers(conn, [refused.text for refused in REFUSED])
    found = {text: (created, *str(error).split(" ")[:2]) for text, (created, error) in answers.items()}

    assert found == {refused.text: (False, refused.code, refused.pointer) for refused in REFUSED}
    assert await value_of(conn, "SELECT count(*) FROM howdah.tasks") == 0


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "message"),
    [
        ("'Q', 'h'", "JQ422", "/queue must match"),
        ("NULL, 'h'", "JQ422", "/queue must match"),
        ("'q'", "JQ422", "/handler exactly one of"),
        ("'q', 'h', run_at => 'infinity'", "JQ422", "/run_at must be"),
        ("'q', 'h', options => '{\"delay\": \"soon\"}'", "JQ422", "/delay must be a duration"),
        ("'q', 'h', options => '{\"nonsense\": 1}'", "JQ422", "/nonsense is not a field"),
        ("'q', 'h', options => '{\"payload\": 1}'", "JQ422", "are parameters, not options"),
        ("'q', 'h', options => '[]'", "JQ422", "options must be a JSON object"),
        ("'q', 'h', options => NULL", "JQ422", "options must be a JSON object"),
        ("'q', 'h', '\"a\\u0000\"'", "JQ422", "/payload must not contain"),
        ("'q', 'h', to_json(repeat('x', 262143))", "JQ413", "/payload must be at most 262144 bytes"),
    ],
)
async def test_enqueue_raises_an_error_that_names_the_field(
    conn: Connection, arguments: str, sqlstate: str, message: str
) -> None:
    """howdah.enqueue raises its own SQLSTATEs, with a message that begins with the field."""
    with pytest.raises(psycopg.Error) as caught:
        await conn.execute(f"SELECT howdah.enqueue({arguments})".encode())

    assert caught.value.sqlstate == sqlstate
    assert message in str(caught.value)


async def test_enqueue_many_answers_each_item_by_its_ordinal(conn: Connection) -> None:
    """Refused items, of whatever kind, do not keep the others from being stored, and each has its own answer."""
    items = (
        '[{"queue": "q", "handler": "h"}, 5, {"queue": "Q", "handler": "h"}, {"queue": "q", "handler": "h", "x": 1}, '
    )
    items += '{"queue": "q", "handler": "h", "payload": "\\u0000"}, {"queue": "q", "handler": "i", "payload": [6]}]'
    rows = await conn.execute("SELECT ordinal, created, error FROM howdah.enqueue_many(NULL, %s)", [items])
    answers = {
        ordinal: (created, error and str(error).split(" ")[1]) for ordinal, created, error in await rows.fetchall()
    }

    assert answers == {
        1: (True, None),
        2: (False, "/"),
        3: (False, "/queue"),
        4: (False, "/x"),
        5: (False, "/payload"),
        6: (True, None),
    }
    assert await value_of(conn, "SELECT json_agg(payload ORDER BY id) FROM howdah.tasks") == [None, [6]]


@pytest.mark.parametrize("items", ["{}", "5", "null", None])
async def test_enqueue_many_takes_only_an_array(conn: Connection, items: str | None) -> None:
    """Anything but an array is an error of the call, not of an item."""
    with pytest.raises(psycopg.Error, match="items must be a JSON array") as caught:
        await conn.execute("SELECT * FROM howdah.enqueue_many(NULL, %s)", [items])

    assert caught.value.sqlstate == "JQ422"


async def test_enqueue_many_of_nothing_stores_nothing(conn: Connection) -> None:
    """An empty array is allowed."""
    assert await _many(conn, []) == []


async def test_ids_of_a_batch_are_in_the_order_of_its_items(conn: Connection) -> None:
    """Tasks of one batch are claimed in their order, however large it is."""
    count = 10_000
    rows = await _many(conn, [{"queue": "q", "handler": "h", "payload": number} for number in range(count)])
    payloads = await (await conn.execute("SELECT payload::text::int FROM howdah.tasks ORDER BY id")).fetchall()

    assert [ordinal for ordinal, *_ in sorted(rows, key=lambda row: str(row[1]))] == list(range(1, count + 1))
    assert payloads == [(number,) for number in range(count)]


async def test_repeated_id_stores_nothing_twice(conn: Connection) -> None:
    """A repeat after a lost answer, and a repeat within a batch, find the task that is there."""
    task_id = str(await value_of(conn, "SELECT howdah.new_id()"))
    item = {"queue": "q", "handler": "h", "id": task_id}
    first = await _many(conn, [item, item])
    second = await _many(conn, [item])

    assert [(str(row[1]), row[2], row[3]) for row in first] == [(task_id, True, None), (task_id, False, None)]
    assert [(str(row[1]), row[2], row[3]) for row in second] == [(task_id, False, None)]
    assert await value_of(conn, "SELECT count(*) FROM howdah.runs") == 1


async def test_refused_item_that_repeats_an_id_is_not_created(conn: Connection) -> None:
    """Of two items with one id, the one that is refused says so, whichever comes first, and the other is stored."""
    task_ids = [str(await value_of(conn, "SELECT howdah.new_id()")) for _ in range(2)]
    good = [{"queue": "q", "handler": "h", "id": task_id} for task_id in task_ids]
    bad = [{**item, "priority": "urgent"} for item in good]
    rows = sorted(await _many(conn, [good[0], bad[0], bad[1], good[1]]), key=lambda row: row[0])

    assert [row[2] for row in rows] == [True, False, False, True]
    assert [row[3] is None for row in rows] == [True, False, False, True]


@pytest.mark.parametrize(
    "task_id",
    [
        "howdah.id_floor(howdah.now() - interval '61 minutes')",
        "howdah.id_floor(howdah.now() + interval '2 minutes')",
        "gen_random_uuid()",
        "'nonsense'",
    ],
)
async def test_id_of_another_kind_or_time_is_refused(conn: Connection, task_id: str) -> None:
    """A caller's id must be a UUIDv7 of the last hour, or it could lie outside the partitions."""
    with pytest.raises(psycopg.Error, match="/id must be a UUIDv7 of the last hour"):
        await conn.execute(f"SELECT howdah.enqueue('q', 'h', options => jsonb_build_object('id', {task_id}))".encode())


async def test_payload_is_stored_byte_for_byte(conn: Connection) -> None:
    """Spaces, key order, duplicate keys, escapes and digits stay as they came, alone and in a batch."""
    for payload in PAYLOADS:
        await conn.execute("SELECT howdah.enqueue('q', 'h', %s)", [payload])
    await _answers(conn, [f'{{"queue": "q", "handler": "h", "payload": {payload}}}' for payload in PAYLOADS])
    rows = await (await conn.execute("SELECT payload::text FROM howdah.tasks")).fetchall()

    assert sorted(payload for (payload,) in rows) == sorted(PAYLOADS * 2)


async def test_payload_null_is_no_payload(conn: Connection) -> None:
    """JSON null, SQL NULL and nothing at all are stored alike."""
    await conn.execute("SELECT howdah.enqueue('q', 'h')")
    await conn.execute("SELECT howdah.enqueue('q', 'h', NULL)")
    await conn.execute("SELECT howdah.enqueue('q', 'h', 'null')")

    assert await value_of(conn, "SELECT count(*) FROM howdah.tasks WHERE payload IS NULL") == 3


@pytest.mark.parametrize("ends_well", [True, False])
async def test_new_queue_of_two_sessions_at_once_is_made_once(
    conn: Connection, other: Connection, database: str, ends_well: bool
) -> None:
    """Who uses a new queue while another transaction is making it waits for that one's end, and then has it."""
    enqueue = "SELECT howdah.enqueue('fresh', 'fresh')"
    async with await psycopg.AsyncConnection.connect(database) as first:
        await first.execute(enqueue)
        waiting = asyncio.create_task(other.execute(enqueue))
        await eventually_async(
            lambda: value_of(
                conn, "SELECT pg_blocking_pids(%s) = ARRAY[%s::int]", other.info.backend_pid, first.info.backend_pid
            ),
            10,
            "the second session waits for the first",
        )
        await (first.commit() if ends_well else first.rollback())
        await asyncio.wait_for(waiting, 10)
    counts = await row_of(
        conn,
        "SELECT (SELECT count(*) FROM howdah.queues), (SELECT count(*) FROM howdah.targets WHERE id <> 0), "
        "(SELECT count(*) FROM howdah.runs)",
    )

    assert counts == (1, 1, 2 if ends_well else 1)


async def test_enqueue_without_a_partition_for_the_day_stores_nothing(conn: Connection) -> None:
    """There is no default partition: when the day has none, SQL callers hear so by a SQLSTATE of ours."""
    await conn.execute("SET howdah.clock_offset = '40 days'")
    for statement in ("SELECT howdah.enqueue('q', 'h')", "SELECT * FROM howdah.enqueue_many(NULL, '[]')"):
        with pytest.raises(psycopg.Error, match="no partition for today") as caught:
            await conn.execute(statement.encode())
        assert caught.value.sqlstate == "JQ503"
        assert "howdah migrate" in (caught.value.diag.message_hint or "")


@pytest.mark.parametrize(
    "flaw", ['"delay": "soon"', '"payload": "\\u0000 \\ud800"', '"retry": {"factor": 0}', '"id": "x"', '"more": 1']
)
async def test_refused_item_makes_no_names(conn: Connection, flaw: str) -> None:
    """What is refused leaves nothing behind, neither its queue nor its handler; others of the batch make theirs."""
    texts = [
        f'{{"queue": "bad", "handler": "bad", {flaw}}}',
        f'{{"queue": "good", "handler": "worse", {flaw}}}',
        '{"queue": "bad.too", "handler": "Not Allowed"}',
        '{"queue": "Not Allowed", "handler": "bad.too"}',
        '{"queue": "good", "handler": "fine"}',
        '{"queue": "better", "http": {"url": "https://example.com"}}',
    ]
    answers = await _answers(conn, texts)
    names = await conn.execute(
        "SELECT name FROM howdah.queues UNION ALL SELECT handler FROM howdah.targets WHERE id <> 0 ORDER BY 1"
    )

    assert [answers[text][0] for text in texts] == [False] * 4 + [True] * 2
    assert [name for (name,) in await names.fetchall()] == ["better", "fine", "good"]


async def test_producer_role_enqueues_and_cancels_and_reads_nothing(conn: Connection) -> None:
    """Who is granted howdah_producer has the functions, and no table behind them."""
    await conn.execute("SET ROLE howdah_producer")
    task_id = await value_of(conn, "SELECT howdah.enqueue('q', 'h')")
    state = await value_of(conn, "SELECT howdah.cancel(%s)", task_id)

    assert state == "cancelled"
    for relation in ("tasks", "runs", "tenants", "queue_depth"):
        with pytest.raises(errors.InsufficientPrivilege):
            await conn.execute(f"SELECT 1 FROM howdah.{relation}".encode())


async def test_functions_that_run_as_their_owner_pin_the_search_path(conn: Connection) -> None:
    """No caller can put a function of its own in the way of one that has the owner's rights."""
    rows = await conn.execute(
        "SELECT p.proname, p.proconfig FROM pg_proc AS p "
        "WHERE p.pronamespace = 'howdah'::regnamespace AND p.prosecdef ORDER BY 1"
    )
    functions = await rows.fetchall()

    assert {"cancel", "enqueue", "enqueue_many"} <= {name for name, _ in functions}
    assert [name for name, config in functions if "search_path=pg_catalog, pg_temp" not in (config or [])] == []


async def _many(conn: Connection, items: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """Enqueue items; ordinal, id, created and error of each come back."""
    rows = await conn.execute("SELECT * FROM howdah.enqueue_many(NULL, %s)", [json.dumps(items)])
    return await rows.fetchall()


async def _answers(conn: Connection, texts: list[str]) -> dict[str, tuple[object, object]]:
    """Enqueue tasks given as text, in one batch; whether each was created, and its error, by the text."""
    rows = await conn.execute("SELECT * FROM howdah.enqueue_many(NULL, %s)", [f"[{','.join(texts)}]"])
    return {texts[ordinal - 1]: (created, error) for ordinal, _, created, error in await rows.fetchall()}


async def _heard(listener: Connection, last: str) -> list[str]:
    """Messages on the channel of wake-ups up to the one that is awaited."""
    heard = []
    async for notify in listener.notifies(timeout=10):
        heard.append(notify.payload)
        if notify.payload == last:
            return heard
    raise AssertionError(f"{last!r} was not heard, only {heard}")
