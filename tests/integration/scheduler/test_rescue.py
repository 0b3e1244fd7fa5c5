"""Rescue: expired leases are taken back, counted right, and never twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from howdah_scheduler.rescue import DEFER_S, HOLD_S_MAX, Rescue
from tests.fix_chores import heard, listen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fix_chores import Chores
    from tests.fix_queue import Queue


@pytest.fixture
def rescue() -> Rescue:
    """The chore."""
    return Rescue("howdah")


async def _lose(chores: Chores, queue: Queue, rescue: Rescue, count: int = 1) -> Sequence[dict[str, Any]]:
    """Claim runs, let their leases end, and have them rescued."""
    await queue.sql("UPDATE howdah.runs SET run_at = howdah.now() WHERE lease_token IS NULL")
    runs = await queue.claim(count)
    assert len(runs) == count
    for run in runs:
        if run["crashes"] == 2:
            await queue.begin_alone(run)
    await queue.expire(runs)
    await chores.keep_well()
    assert await chores.take(rescue) is not None
    return runs


async def test_first_loss_is_claimable_at_once_and_told(
    chores: Chores, queue: Queue, rescue: Rescue, database: str
) -> None:
    """A run whose worker died is claimable right after the round, its attempt spent, its lane announced."""
    [task] = await queue.enqueue()
    async with await listen(database) as listener:
        await _lose(chores, queue, rescue)
        words = await heard(listener)
    [again] = await queue.claim(worker_id=2)
    [lost] = await queue.history()

    assert [word.rpartition(".")[0] for word in words] == [f"q{queue.queue_id}.1"]
    assert (again["task_id"], again["attempt"], again["claim_no"]) == (task, 2, 2)
    assert (lost["outcome"], lost["is_final"], lost["error"]["type"]) == ("lost", False, "worker_lost")


async def test_third_crash_ends_in_dead_letter(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A task that takes three workers down, the third alone, is given up, although attempts are left."""
    [task] = await queue.enqueue(retry={"max_attempts": 10})
    states = []
    for _ in range(3):
        await _lose(chores, queue, rescue)
        states.append(await queue.state(task))
    [dead] = await queue.sql("SELECT reason, crashes, attempt FROM howdah.dead_letters")

    assert states == ["retrying", "retrying", "failed"]
    assert dead == {"reason": "crashes", "crashes": 3, "attempt": 3}


async def test_second_loss_waits_for_its_back_off(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """After the first loss, which may have been a restart, the retry policy's pauses count."""
    await queue.enqueue(retry={"max_attempts": 10, "initial": "1h", "max": "1h"})
    await _lose(chores, queue, rescue)
    await _lose(chores, queue, rescue)
    [run] = await queue.sql("SELECT run_at > howdah.now() + interval '40 minutes' AS waits FROM howdah.runs")

    assert run["waits"]


async def test_loss_of_the_last_attempt_ends_in_dead_letter(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A lost lease spends its attempt: with none left the task is given up for its attempts."""
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    await _lose(chores, queue, rescue)
    [dead] = await queue.sql("SELECT reason, crashes FROM howdah.dead_letters")

    assert await queue.state(task) == "failed"
    assert dead == {"reason": "attempts", "crashes": 1}


async def test_lost_run_with_a_cancel_under_way_is_cancelled(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """Who cancelled a running task gets it cancelled also when its worker dies."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    await queue.sql("SELECT howdah.cancel(%s)", task)
    await queue.expire(runs)
    await chores.keep_well()
    await chores.take(rescue)

    assert await queue.state(task) == "cancelled"
    assert [row["outcome"] for row in await queue.history()] == ["cancelled"]


async def test_late_report_after_rescue_is_refused(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """What a worker reports that was taken for dead changes nothing."""
    await queue.enqueue()
    zombies = await _lose(chores, queue, rescue)

    assert await queue.complete(zombies) == []
    assert [row["outcome"] for row in await queue.history()] == ["lost"]


async def test_gap_in_rescue_waits_one_lease_and_counts_no_crash(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """Leases that ran out while no scheduler worked wait for one lease more, and are then no crashes."""
    await chores.register(lease_s=20.0)
    await queue.enqueue()
    runs = await queue.claim(lease_s=20.0)
    await queue.expire(runs)
    await queue.sql("UPDATE howdah.maintenance SET last_good_at = howdah.now() - interval '4 s' WHERE chore = 'rescue'")
    first = await chores.take(rescue)
    during = await chores.take(rescue)
    [held] = await queue.sql("SELECT lease_token IS NOT NULL AS is_held FROM howdah.runs")
    await chores.travel("20 s")
    after = await chores.take(rescue)
    [run] = await queue.sql("SELECT lease_token, crashes, attempt FROM howdah.runs")

    assert first is not None
    assert first.next_in_s == 20.0
    assert during is None
    assert held["is_held"]
    assert after is not None
    assert run == {"lease_token": None, "crashes": 0, "attempt": 1}


async def test_renewal_during_the_hold_keeps_the_run(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A worker that lived through the outage renews during the hold and loses nothing."""
    await chores.register(lease_s=20.0)
    await queue.enqueue()
    runs = await queue.claim(lease_s=20.0)
    await queue.expire(runs)
    await chores.take(rescue)
    await chores.travel("10 s")
    beats = await queue.heartbeat(runs, lease_s=20.0)
    await chores.travel("21 s")
    await chores.take(rescue)

    assert [beat["verdict"] for beat in beats] == ["held"]
    assert len(await queue.complete(runs)) == 1


async def test_lease_that_ends_after_the_hold_counts_a_crash(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """The pardon ends with the hold: whoever lets a lease run out later has crashed."""
    await chores.register(lease_s=20.0)
    await queue.enqueue()
    await chores.take(rescue)
    await chores.travel("20 s")
    await chores.take(rescue)
    await queue.claim(lease_s=1.0)
    await chores.travel("22 s")
    await chores.take(rescue)
    [run] = await queue.sql("SELECT crashes FROM howdah.runs")

    assert run["crashes"] == 1


async def test_dead_worker_with_a_long_lease_makes_others_wait_a_minute_at_most(
    chores: Chores, queue: Queue, rescue: Rescue
) -> None:
    """Live workers renew every 10 s, however long their leases are; rescue used to hold for the longest of all."""
    await chores.register(lease_s=3600.0)
    await queue.sql("UPDATE howdah.maintenance SET last_good_at = howdah.now() - interval '4 s' WHERE chore = 'rescue'")
    done = await chores.take(rescue)

    assert done is not None
    assert done.next_in_s == HOLD_S_MAX == 60.0


async def test_server_that_just_started_makes_rescue_wait(
    chores: Chores, queue: Queue, rescue: Rescue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after a start of PostgreSQL, workers had no time to renew, however fresh the last good rescue is."""
    # The server of the tests may be older than a hold ever lasts.
    monkeypatch.setattr("howdah_scheduler.rescue.HOLD_S_MAX", 3600.0)
    [server] = await queue.sql(
        "SELECT extract(epoch FROM statement_timestamp() - pg_postmaster_start_time())::float8 AS age_s"
    )
    await chores.keep_well()
    await chores.register(lease_s=min(server["age_s"] + 60, 3600))
    done = await chores.take(rescue)

    assert done is not None
    assert done.next_in_s > 60
    assert (await chores.row("rescue"))["hold_until"] is not None


async def test_worker_that_died_long_ago_makes_nobody_wait(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A hold lasts as long as the leases of workers that lived when rescue last worked, not of older ones."""
    await chores.register(lease_s=3600.0)
    await chores.travel("2 hours")
    await chores.register(lease_s=7.0)
    await queue.sql("UPDATE howdah.maintenance SET last_good_at = howdah.now() - interval '4 s' WHERE chore = 'rescue'")
    after_gap = await chores.take(rescue)
    await chores.travel("8 hours")
    after_outage = await chores.take(rescue)

    assert after_gap is not None
    assert after_gap.next_in_s == 7.0
    assert after_outage is not None
    assert after_outage.next_in_s == 7.0


async def test_full_page_asks_for_another_round_at_once(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A dead worker's 1,100 runs are back after three rounds without a pause between."""
    await queue.enqueue(1100)
    runs = await queue.claim(1100)
    await queue.expire(runs)
    await chores.keep_well()
    rounds = [await chores.take(rescue) for _ in range(3)]
    [left] = await queue.sql("SELECT count(*) AS n FROM howdah.runs WHERE lease_token IS NOT NULL")

    assert [done.next_in_s if done else None for done in rounds] == [0, 0, 1.0]
    assert left["n"] == 0


async def test_two_schedulers_at_once_rescue_each_run_once(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """Rounds that several schedulers start at the same moment end each lease exactly once."""
    await queue.enqueue(300)
    runs = await queue.claim(300)
    await queue.expire(runs)
    await chores.keep_well()
    done = await asyncio.gather(*(chores.take(Rescue("howdah")) for _ in range(6)))

    assert len([each for each in done if each is not None]) == 1
    assert [row["outcome"] for row in await queue.history()] == ["lost"] * 300


async def test_run_that_cannot_be_ended_starves_no_other(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A run whose history cannot be written is put off; the others of its page are rescued in the same round."""
    ids = await queue.enqueue(20)
    runs = await queue.claim(20)
    await queue.expire(runs)
    poison = ids[7]
    await queue.sql(
        "INSERT INTO howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, "
        "queued_at, finished_at) VALUES (1, %s, 1, 1, %s, 'failed', false, howdah.now(), howdah.now())",
        poison,
        queue.queue_id,
    )
    await chores.keep_well()
    done = await chores.take(rescue)
    left = await queue.sql(
        "SELECT task_id, extract(epoch FROM lease_expires_at - howdah.now())::float8 AS in_s "
        "FROM howdah.runs WHERE lease_token IS NOT NULL"
    )

    assert done is not None
    assert [run["task_id"] for run in left] == [poison]
    assert DEFER_S - 10 < left[0]["in_s"] <= DEFER_S


async def test_run_of_a_queue_that_is_gone_is_put_off(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A run that no policy can judge is not looked at again and again."""
    await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)
    await queue.sql("DELETE FROM howdah.queues")
    await chores.keep_well()
    await chores.take(rescue)
    [run] = await queue.sql("SELECT lease_expires_at > howdah.now() AS is_put_off FROM howdah.runs")

    assert run["is_put_off"]


async def test_failed_round_is_recorded_with_a_growing_pause(chores: Chores, queue: Queue, rescue: Rescue) -> None:
    """A chore that fails leaves its error and the time of its next try, at most its longest pause away."""
    await queue.sql("ALTER TABLE howdah.workers RENAME TO workers_gone")
    pauses = []
    for _ in range(4):
        await chores.make_due("rescue")
        assert await chores.take(rescue) is None
        [row] = await queue.sql(
            "SELECT extract(epoch FROM next_at - howdah.now())::float8 AS pause_s FROM howdah.maintenance "
            "WHERE chore = 'rescue'"
        )
        pauses.append(round(row["pause_s"]))
    row = await chores.row("rescue")

    assert pauses == [1, 2, 4, 5]
    assert row["failures"] == 4
    assert "howdah.workers" in str(row["last_error"])
