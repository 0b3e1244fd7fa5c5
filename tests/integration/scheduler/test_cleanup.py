"""Cleanup: what has served its time is forgotten, page by page, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from howdah_scheduler.cleanup import INTERVAL_S, NAMED_MARGIN_S, Cleanup

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

RETENTION_S = 30 * 86_400.0


@pytest.fixture
def cleanup() -> Cleanup:
    """The chore."""
    return Cleanup("howdah", RETENTION_S)


async def test_idempotency_keys_are_kept_for_a_day(chores: Chores, queue: Queue, cleanup: Cleanup) -> None:
    """A key may be repeated for 24 hours; after that it is free."""
    await queue.sql(
        "INSERT INTO howdah.idempotency_keys (tenant_id, key, request_hash, status, answer, created_at) "
        "SELECT 1, 'k' || age, decode(repeat('00', 32), 'hex'), 201, '{}', howdah.now() - make_interval(hours => age) "
        "FROM unnest(ARRAY[1, 23, 25, 1000]) AS age"
    )
    await chores.take(cleanup, "direct")

    assert await queue.sql("SELECT key FROM howdah.idempotency_keys ORDER BY key") == [{"key": "k1"}, {"key": "k23"}]


async def test_statistics_are_kept_for_the_retention(chores: Chores, queue: Queue, cleanup: Cleanup) -> None:
    """Minute buckets go when the history of their time does, in every queue."""
    await queue.enqueue()
    await queue.enqueue(queue="other")
    await queue.sql(
        "INSERT INTO howdah.queue_stats (bucket_at, queue_id, source, enqueued) "
        "SELECT date_trunc('minute', howdah.now()) - make_interval(days => age), q.id, gen_random_uuid(), age "
        "FROM unnest(ARRAY[1, 29, 31, 400]) AS age, howdah.queues AS q"
    )
    await chores.take(cleanup, "direct")
    left = await queue.sql("SELECT enqueued, count(*) AS n FROM howdah.queue_stats GROUP BY 1 ORDER BY 1")

    assert left == [{"enqueued": 1, "n": 2}, {"enqueued": 29, "n": 2}]


async def test_more_than_a_page_is_deleted_without_a_pause(chores: Chores, queue: Queue, cleanup: Cleanup) -> None:
    """A full page asks for the next round at once, and a short one for a pause."""
    await queue.enqueue()
    await queue.sql(
        "INSERT INTO howdah.queue_stats (bucket_at, queue_id, source) SELECT howdah.now() - interval '60 days' "
        "- make_interval(mins => m), %s, gen_random_uuid() FROM generate_series(1, 10001) AS m",
        queue.queue_id,
    )
    first = await chores.take(cleanup, "direct")
    second = await chores.take(cleanup, "direct")
    [left] = await queue.sql("SELECT count(*) AS n FROM howdah.queue_stats")

    assert first is not None
    assert second is not None
    assert (first.next_in_s, second.next_in_s) == (0, INTERVAL_S)
    assert left["n"] == 0


async def test_workers_are_kept_as_long_as_history_may_name_them(
    chores: Chores, queue: Queue, cleanup: Cleanup
) -> None:
    """A worker's row outlasts the last day's history that it may have made; one that is live always stays."""
    live, recent, gone = [await chores.register() for _ in range(3)]
    for worker_id, age_s in ((recent, RETENTION_S + NAMED_MARGIN_S - 60), (gone, RETENTION_S + NAMED_MARGIN_S + 60)):
        await queue.sql(
            "UPDATE howdah.workers SET heartbeat_at = howdah.now() - make_interval(secs => %s) WHERE id = %s",
            age_s,
            worker_id,
        )
    await chores.take(cleanup, "direct")

    assert await queue.sql("SELECT id FROM howdah.workers ORDER BY id") == [{"id": live}, {"id": recent}]
