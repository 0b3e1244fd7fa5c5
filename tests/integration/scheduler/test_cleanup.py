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


async def test_dedup_keys_that_nobody_holds_are_forgotten(chores: Chores, queue: Queue, cleanup: Cleanup) -> None:
    """Kept are those of tasks that live, have not started, or hold them for a time; the rest goes."""
    for key, until in [("ended", "finished"), ("begun", "started"), ("over", "1h"), ("held", "2h")]:
        await queue.enqueue(dedup={"key": key, "until": until})
    await queue.complete([run for run in await queue.claim(4) if run["claim_no"] == 1])
    for key, until in [("lives", "finished"), ("runs", "finished"), ("waits", "started")]:
        await queue.enqueue(dedup={"key": key, "until": until})
    await chores.travel("90 minutes")
    await chores.take(cleanup, "direct")

    assert await queue.sql("SELECT key FROM howdah.dedup_keys ORDER BY key") == [
        {"key": key} for key in ("held", "lives", "runs", "waits")
    ]


async def test_dedup_keys_are_gone_through_page_by_page(chores: Chores, queue: Queue, cleanup: Cleanup) -> None:
    """Where a page ended the next round goes on, at once, and after the last one the pass begins anew later."""
    await queue.enqueue()
    await queue.sql(
        "INSERT INTO howdah.dedup_keys (tenant_id, queue_id, claim_no, task_id, taken_at, until, key, expires_at) "
        "SELECT 1, %s, 0, gen_random_uuid(), howdah.now(), 'expiry', 'k' || n, "
        "howdah.now() + make_interval(hours => CASE WHEN n %% 2 = 0 THEN 1 ELSE -1 END) "
        "FROM generate_series(1, 15000) AS n",
        queue.queue_id,
    )
    first = await chores.take(cleanup, "direct")
    [half] = await queue.sql("SELECT count(*) AS n FROM howdah.dedup_keys")
    second = await chores.take(cleanup, "direct")
    [left] = await queue.sql("SELECT count(*) AS n FROM howdah.dedup_keys")

    assert first is not None
    assert second is not None
    assert (first.next_in_s, second.next_in_s, second.state) == (0, INTERVAL_S, {})
    assert 7_500 < half["n"] < 15_000
    assert left["n"] == 7_500


async def test_dedup_key_that_somebody_is_taking_is_left(chores: Chores, queue: Queue, cleanup: Cleanup) -> None:
    """The chore waits for nobody: a row that is locked stays for the next pass."""
    await queue.enqueue(dedup={"key": "k"})
    await queue.complete(await queue.claim())
    other = await queue.connect()
    async with other.transaction():
        await other.execute(b"SELECT howdah.enqueue('q', 'h', options => '{\"dedup\": {\"key\": \"k\"}}')")
        done = await chores.take(cleanup, "direct")

    assert done is not None
    assert await queue.sql("SELECT k.key FROM howdah.dedup_keys AS k JOIN howdah.runs AS r USING (task_id)") == [
        {"key": "k"}
    ]
