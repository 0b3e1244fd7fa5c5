"""The chore that looks after queues: ends of pauses, and caps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from howdah.core.store.queue_watch import PAGE_QUEUES
from howdah_scheduler.cleanup import NAMED_MARGIN_S, Cleanup
from howdah_scheduler.queues import CAPS_S, INTERVAL_S, MARK_S, Queues
from howdah_scheduler.sweep import Sweep
from tests.fix_chores import heard, listen

if TYPE_CHECKING:
    from howdah_scheduler.chore import Round
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue, Row

RETENTION_S = 86_400.0


@pytest.fixture
def chore() -> Queues:
    """The chore."""
    return Queues("howdah")


async def _round(chores: Chores, chore: Queues) -> Round:
    await chores.make_due("queues")
    done = await chores.take(chore)
    assert done is not None
    return done


async def _cap(queue: Queue, **caps: object) -> None:
    await queue.sql("SELECT howdah.set_queue('q', %s)", json.dumps(caps))


async def _pressure(queue: Queue) -> str | None:
    [row] = await queue.sql("SELECT pressure FROM howdah.queue_states WHERE queue = 'q'")
    pressure: str | None = row["pressure"]
    return pressure


async def _errors(queue: Queue) -> list[str | None]:
    rows: list[Row] = await queue.sql(
        'SELECT error FROM howdah.enqueue_many(NULL, \'[{"queue": "q", "handler": "h"}]\')'
    )
    return [row["error"] for row in rows]


async def test_pause_that_is_over_is_taken_away_and_its_lanes_are_woken(
    chores: Chores, queue: Queue, chore: Queues, database: str
) -> None:
    """From their oldest runs on; one that goes on, and one without an end, stay."""
    await queue.enqueue(2)
    await queue.enqueue(priority="high")
    await queue.enqueue(queue="going")
    await queue.enqueue(queue="endless")
    for name in ("q", "going"):
        await queue.sql("SELECT howdah.pause(%s, until => howdah.now() + interval '1 hour')", name)
    await queue.sql("SELECT howdah.pause('endless')")
    await queue.sql("UPDATE howdah.queues SET paused_until = howdah.now() WHERE name = 'q'")
    oldest = await queue.sql(
        "SELECT howdah.lane_word(r.queue_id, r.priority, min(r.run_at)) AS word FROM howdah.runs AS r "
        "JOIN howdah.queues AS q ON q.id = r.queue_id WHERE q.name = 'q' GROUP BY r.queue_id, r.priority"
    )
    async with await listen(database) as listener:
        await _round(chores, chore)
        words = await heard(listener)
        await _round(chores, chore)
        again = await heard(listener)
    left = await queue.sql("SELECT name FROM howdah.queues WHERE paused_at IS NOT NULL ORDER BY name")

    assert sorted(words) == sorted(row["word"] for row in oldest)
    assert again == []
    assert [row["name"] for row in left] == ["endless", "going"]


async def test_queue_that_reaches_its_depth_is_shut_until_there_is_room(
    chores: Chores, queue: Queue, chore: Queues
) -> None:
    """All that waits counts, whatever for; what runs does not."""
    await queue.enqueue()
    await queue.enqueue(delay="1h")
    await _cap(queue, max_depth=2)
    await _round(chores, chore)
    full = await _pressure(queue), await _errors(queue)
    await queue.claim()
    await _round(chores, chore)
    free = await _pressure(queue), await _errors(queue)

    assert full[0] == "depth"
    assert full[1] != [None]
    assert free == (None, [None])


async def test_queue_whose_oldest_task_waits_too_long_is_shut(chores: Chores, queue: Queue, chore: Queues) -> None:
    """Of each lane the head decides; what is due later has not waited yet."""
    await _cap(queue, max_age="1h")
    await queue.enqueue(priority="high")
    await queue.enqueue(delay="2h")
    await _round(chores, chore)
    young = await _pressure(queue)
    await queue.enqueue()
    await queue.sql(
        "UPDATE howdah.runs SET due_at = due_at - interval '61 minutes', queued_at = queued_at - interval '61 minutes' "
        "WHERE priority = 1 AND run_at <= howdah.now()"
    )
    await _round(chores, chore)

    assert young is None
    assert await _pressure(queue) == "age"


async def test_mark_is_renewed_while_the_cap_is_reached_and_ends_with_it(
    chores: Chores, queue: Queue, chore: Queues
) -> None:
    """So nobody writes while nothing changes, and a queue is open again if no scheduler looks."""
    await queue.enqueue()
    await _cap(queue, max_depth=1)
    await _round(chores, chore)
    [first] = await queue.sql("SELECT pressure_until, xmin::text FROM howdah.queues")
    await _round(chores, chore)
    [second] = await queue.sql("SELECT pressure_until, xmin::text FROM howdah.queues")
    await queue.sql("UPDATE howdah.queues SET pressure_until = howdah.now() + interval '1 second'")
    await _round(chores, chore)
    [third] = await queue.sql(
        "SELECT extract(epoch FROM pressure_until - howdah.now())::float AS left_s FROM howdah.queues"
    )
    await _cap(queue, max_depth=None)
    await _round(chores, chore)
    [taken] = await queue.sql("SELECT pressure, pressure_until FROM howdah.queues")

    assert first == second
    assert MARK_S / 2 < third["left_s"] <= MARK_S
    assert (taken["pressure"], taken["pressure_until"]) == (None, None)


async def test_every_queue_that_has_caps_is_looked_at(chores: Chores, queue: Queue, chore: Queues) -> None:
    """Also where there are more than one statement measures; those without cost nothing but a slower pace."""
    names = [f"q{number}" for number in range(2 * PAGE_QUEUES + 1)]
    for name in names:
        await queue.sql("SELECT howdah.enqueue(%s, 'h')", name)
    idle = await _round(chores, chore)
    for name in names:
        await queue.sql("SELECT howdah.set_queue(%s, '{\"max_depth\": 1}')", name)
    busy = await _round(chores, chore)
    shut = await queue.sql("SELECT queue FROM howdah.queue_states WHERE pressure = 'depth'")

    assert (idle.next_in_s, busy.next_in_s) == (INTERVAL_S, CAPS_S)
    assert sorted(row["queue"] for row in shut) == sorted(names)


async def test_queue_that_somebody_has_locked_is_left_for_the_next_look(
    chores: Chores, queue: Queue, chore: Queues
) -> None:
    """Nobody waits for the chore, nor it for anybody."""
    await queue.enqueue()
    await _cap(queue, max_depth=1)
    other = await queue.connect()
    async with other.transaction():
        await other.execute("SELECT 1 FROM howdah.queues FOR UPDATE")
        await _round(chores, chore)
        during = await _pressure(queue)
    await _round(chores, chore)

    assert (during, await _pressure(queue)) == (None, "depth")


async def test_sweep_brings_back_a_queue_that_was_deleted_under_a_task(
    chores: Chores, queue: Queue, database: str
) -> None:
    """Workers read their catalogue again, and then hear of its lane."""
    await queue.enqueue()
    await queue.sql("UPDATE howdah.queues SET deleted_at = howdah.now()")
    async with await listen(database) as listener:
        await chores.take(Sweep("howdah"))
        words = await heard(listener)

    assert sorted(word[0] for word in words) == ["c", "q"]
    assert [row["name"] for row in await queue.run("queue.list")] == ["q"]


async def test_deleted_queue_leaves_with_the_history_that_names_it(chores: Chores, queue: Queue) -> None:
    """Not before, and not while it holds something."""
    for name in ("recent", "holding", "old"):
        await queue.sql("SELECT howdah.set_queue(%s)", name)
    await queue.sql("SELECT howdah.enqueue('holding', 'h')")
    await queue.sql(
        "UPDATE howdah.queues SET deleted_at = howdah.now() - make_interval(secs => %s) WHERE name <> 'recent'",
        RETENTION_S + NAMED_MARGIN_S + 60,
    )
    await queue.sql("SELECT howdah.delete_queue('recent')")
    await chores.take(Cleanup("howdah", RETENTION_S), "direct")

    assert await queue.sql("SELECT name FROM howdah.queues ORDER BY name") == [{"name": "holding"}, {"name": "recent"}]


async def test_leases_without_history_are_known_for_ten_minutes(chores: Chores, queue: Queue) -> None:
    """A repeat comes within seconds; after that they are forgotten."""
    await queue.sql(
        "INSERT INTO howdah.ended_leases SELECT 1, howdah.new_id(m), gen_random_uuid(), 'succeeded', "
        "howdah.now() - make_interval(mins => m) FROM unnest(ARRAY[1, 9, 11, 60]) AS m"
    )
    await chores.take(Cleanup("howdah", RETENTION_S), "direct")
    left = await queue.sql(
        "SELECT howdah.now() - ended_at < interval '10 minutes' AS is_young FROM howdah.ended_leases"
    )

    assert [row["is_young"] for row in left] == [True, True]
