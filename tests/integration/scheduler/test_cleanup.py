"""What has served its time is forgotten, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah_scheduler.cleanup import INTERVAL_S, Cleanup

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

RETENTION_S = 30 * 86_400.0


async def _count(queue: Queue, table: str) -> int:
    [row] = await queue.sql(f"SELECT count(*) AS n FROM howdah.{table}")
    count: int = row["n"]
    return count


async def _keep_key(queue: Queue, count: int, age: str) -> None:
    await queue.sql(
        "INSERT INTO howdah.idempotency_keys (tenant_id, key, request_hash, created_at) "
        "SELECT 1, %s || n, sha256('x'), howdah.now() - %s::interval FROM generate_series(1, %s) AS n",
        age.replace(" ", ""),
        age,
        count,
    )


async def test_idempotency_keys_live_for_a_day(chores: Chores, queue: Queue) -> None:
    """A stored answer is replayed for 24 hours, and then the key is free."""
    await _keep_key(queue, 3, "25 hours")
    await _keep_key(queue, 2, "23 hours")
    done = await chores.take(Cleanup("howdah", RETENTION_S), "direct")

    assert done is not None
    assert done.next_in_s == INTERVAL_S
    assert await _count(queue, "idempotency_keys") == 2


async def test_full_page_is_followed_by_the_next_at_once(chores: Chores, queue: Queue) -> None:
    """25,000 old keys are gone after three rounds without a pause."""
    await _keep_key(queue, 25_000, "2 days")
    rounds = [await chores.take(Cleanup("howdah", RETENTION_S), "direct") for _ in range(3)]

    assert [done.next_in_s if done else None for done in rounds] == [0, 0, INTERVAL_S]
    assert await _count(queue, "idempotency_keys") == 0


async def test_statistics_and_gone_workers_live_as_long_as_history(chores: Chores, queue: Queue) -> None:
    """Minute buckets and workers past the retention go; a worker that still beats stays, however old."""
    old, beating = await chores.register(), await chores.register()
    await queue.sql(
        "INSERT INTO howdah.queue_stats (bucket_at, queue_id, source) VALUES (howdah.now(), 1, gen_random_uuid())"
    )
    await chores.travel("31 days")
    await queue.sql("UPDATE howdah.workers SET heartbeat_at = howdah.now() WHERE id = %s", beating)
    await queue.sql(
        "INSERT INTO howdah.queue_stats (bucket_at, queue_id, source) VALUES (howdah.now(), 1, gen_random_uuid())"
    )
    await chores.take(Cleanup("howdah", RETENTION_S), "direct")
    workers = await queue.sql("SELECT id FROM howdah.workers")

    assert old != beating
    assert [row["id"] for row in workers] == [beating]
    assert await _count(queue, "queue_stats") == 1
