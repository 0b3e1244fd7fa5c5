"""Claim, lease, finish and rescue, statement by statement, with several workers played in turn."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors

from tests.fix_pull import pull
from tests.fix_queue import FLOOR
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_queue import Queue


async def test_claim_takes_oldest_first_and_each_run_once(queue: Queue) -> None:
    """Two claims share a lane: oldest runs first, no run twice, each with the attempt counted."""
    ids = await queue.enqueue(5)
    first = await queue.claim(3, worker_id=1)
    second = await queue.claim(3, worker_id=2)

    assert [run["task_id"] for run in first] == ids[:3]
    assert [run["task_id"] for run in second] == ids[3:]
    assert {(run["claim_no"], run["attempt"]) for run in first + second} == {(1, 1)}


async def test_claim_passes_by_rows_that_another_claim_has_locked(queue: Queue) -> None:
    """A claim never waits for another one that has not committed yet."""
    ids = await queue.enqueue(4)
    other = await queue.connect()
    async with other.transaction():
        theirs = await queue.claim(2, conn=other)
        ours = await asyncio.wait_for(queue.claim(4), timeout=5)

        assert [run["task_id"] for run in theirs] == ids[:2]
        assert [run["task_id"] for run in ours] == ids[2:]


async def test_claim_never_takes_more_than_its_share(queue: Queue) -> None:
    """A claim locks exactly what it leases, also while statistics are empty and others claim."""
    await queue.enqueue(200)
    await queue.sql("ANALYZE howdah.runs")
    sessions = [await queue.connect() for _ in range(4)]
    claims = await asyncio.gather(*(queue.claim(7, conn=session) for session in sessions for _ in range(3)))
    [leased] = await queue.sql("SELECT count(*) AS n FROM howdah.runs WHERE lease_token IS NOT NULL")

    assert [len(claim) for claim in claims] == [7] * 12
    assert leased["n"] == 84


async def test_claim_leaves_what_lies_below_the_horizon(queue: Queue) -> None:
    """The horizon is the pair (run_at, task id): rows of one run_at on either side of it are told apart."""
    ids = await queue.enqueue(4)
    [row] = await queue.sql("SELECT run_at FROM howdah.runs WHERE task_id = %s", ids[2])
    claimed = await queue.claim(4, horizon=(row["run_at"], ids[2]))

    assert [run["task_id"] for run in claimed] == ids[2:]


async def test_claim_whose_answer_was_lost_is_found_by_its_token(queue: Queue) -> None:
    """Who lost the answer to a claim learns by its token which runs it holds."""
    await queue.enqueue(3)
    token = uuid.uuid4()
    await queue.claim(2, token=token)
    found = await queue.run("run.find_claimed", lease_token=token, worker_id=1)

    assert len(found) == 2


async def test_finish_of_the_holder_ends_the_task(queue: Queue) -> None:
    """A report with the current token deletes the run and leaves one final history row."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    done = await queue.complete(runs)
    [recorded] = await queue.history()

    assert [row["task_id"] for row in done] == [task]
    assert (recorded["outcome"], recorded["is_final"], recorded["result"]) == ("succeeded", True, 1)
    assert await queue.sql("SELECT 1 FROM howdah.runs") == []
    assert await queue.state(task) == "succeeded"


async def test_late_finish_is_refused_while_another_worker_holds_the_run(queue: Queue) -> None:
    """A zombie's report changes nothing once its run was claimed again, whatever it reports."""
    [task] = await queue.enqueue()
    zombie = await queue.claim(worker_id=1)
    await queue.expire(zombie)
    await queue.rescue()
    current = await queue.claim(worker_id=2)

    assert await queue.complete(zombie) == []
    assert await queue.fail(zombie) == []
    assert await queue.release(zombie) == []
    assert [beat["verdict"] for beat in await queue.heartbeat(zombie)] == ["lost"]
    assert [row["task_id"] for row in await queue.complete(current)] == [task]
    assert [row["outcome"] for row in await queue.history()] == ["lost", "succeeded"]


async def test_late_finish_is_refused_for_the_same_worker_too(queue: Queue) -> None:
    """The guard is the token, not the worker: an old claim of the same worker is refused as well."""
    await queue.enqueue()
    old = await queue.claim(worker_id=7)
    await queue.expire(old)
    await queue.rescue()
    current = await queue.claim(worker_id=7)

    assert await queue.complete(old) == []
    assert len(await queue.complete(current)) == 1


async def test_finish_of_an_expired_lease_that_nobody_rescued_counts(queue: Queue) -> None:
    """The lease's end alone takes nothing away: until rescue acts, the holder's report is accepted."""
    await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)

    assert len(await queue.complete(runs)) == 1
    assert await queue.rescue() == []


async def test_repeat_of_a_finish_is_told_from_a_late_one(queue: Queue) -> None:
    """History knows the outcome recorded for a lease, so a repeat is recognised and a zombie is not."""
    await queue.enqueue(2)
    done, zombie = await queue.claim(), await queue.claim()
    await queue.complete(done)
    await queue.expire(zombie)
    await queue.rescue()

    assert await queue.complete(done) == []
    assert [row["outcome"] for row in await queue.find_recorded(done)] == ["succeeded"]
    assert [row["outcome"] for row in await queue.find_recorded(zombie)] == ["lost"]
    assert len(await queue.history()) == 2


async def test_finish_waits_for_a_heartbeat_and_still_counts(queue: Queue) -> None:
    """A finish that meets its own uncommitted heartbeat waits for it and then finds the renewed row."""
    await queue.enqueue()
    runs = await queue.claim()
    keeper, finisher = await queue.connect(), await queue.connect()
    async with keeper.transaction():
        await queue.heartbeat(runs, conn=keeper)
        finish = asyncio.create_task(queue.complete(runs, conn=finisher))
        await _is_waiting(queue, finisher.info.backend_pid)

    assert len(await finish) == 1


async def test_heartbeat_reports_a_locked_run_as_busy(queue: Queue) -> None:
    """A heartbeat never waits for a finish of the same run, and does not call it lost."""
    await queue.enqueue(2)
    runs = await queue.claim(2)
    other = await queue.connect()
    async with other.transaction():
        await queue.complete(runs[:1], conn=other)
        verdicts = {beat["task_id"]: beat["verdict"] for beat in await asyncio.wait_for(queue.heartbeat(runs), 5)}

    assert verdicts == {runs[0]["task_id"]: "busy", runs[1]["task_id"]: "held"}


async def test_heartbeat_answers_for_each_token_of_a_task(queue: Queue) -> None:
    """A worker that holds a task again, while it still beats for the lease it lost, hears of both."""
    await queue.enqueue()
    old = await queue.claim()
    await queue.expire(old)
    await queue.rescue()
    new = await queue.claim()
    beats = await queue.heartbeat([*old, *new])

    assert {beat["lease_token"]: beat["verdict"] for beat in beats} == {
        old[0]["lease_token"]: "lost",
        new[0]["lease_token"]: "held",
    }


async def test_heartbeat_extends_the_lease_but_not_past_the_deadline(queue: Queue) -> None:
    """A lease is renewed to now + lease, at most to the deadline and its grace."""
    await queue.enqueue(timeout="10s")
    runs = await queue.claim(lease_s=3.0)
    await queue.heartbeat(runs, lease_s=3600.0)
    [row] = await queue.sql("SELECT lease_expires_at - deadline_at AS past FROM howdah.runs")

    assert row["past"] == timedelta(seconds=5)


async def test_rescue_and_finish_race_has_one_winner(queue: Queue) -> None:
    """While a rescue holds an expired run, its worker's finish waits, and then finds that it lost."""
    await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)
    rescuer, finisher = await queue.connect(), await queue.connect()
    async with rescuer.transaction():
        expired = await queue.run("run.lock_expired", rescuer, hold_until=None)
        finish = asyncio.create_task(queue.complete(runs, conn=finisher))
        await _is_waiting(queue, finisher.info.backend_pid)
        await queue.fail(expired, "lost", conn=rescuer)

    assert await finish == []
    assert [row["outcome"] for row in await queue.history()] == ["lost"]


async def test_rescue_passes_by_a_run_that_is_being_finished(queue: Queue) -> None:
    """A rescue that meets an uncommitted finish skips the run, so it is not recorded as lost as well."""
    await queue.enqueue()
    runs = await queue.claim()
    await queue.expire(runs)
    finisher = await queue.connect()
    async with finisher.transaction():
        await queue.complete(runs, conn=finisher)
        rescued = await asyncio.wait_for(queue.rescue(), timeout=5)

    assert rescued == []
    assert [row["outcome"] for row in await queue.history()] == ["succeeded"]


async def test_peek_looks_no_further_ahead_than_asked(queue: Queue) -> None:
    """What is due later is left to another look, so that nobody walks over next week's runs of other targets."""
    await queue.enqueue(delay="1h")
    lane = {"queue_ids": [queue.queue_id], "priorities": [1]}
    horizon = {"horizon_run_ats": [FLOOR[0]], "horizon_task_ids": [FLOOR[1]]}
    found = [
        await queue.run("lane.peek", **lane, **horizon, target_ids=[queue.target_id], ahead_s=ahead_s)
        for ahead_s in (60.0, 3_700.0)
    ]

    assert [len(rows) for rows in found] == [0, 1]
    assert 3_500 < found[1][0]["wait_s"] <= 3_600


async def test_survey_returns_each_lane_once_from_its_horizon_on(queue: Queue) -> None:
    """Page by page, every lane with a waiting run comes once, with its first run that is not too old."""
    await queue.enqueue(2, priority="high")
    await queue.enqueue(2)
    await queue.enqueue(delay="1h", priority="low")
    [horizon] = await queue.sql("SELECT min(run_at) + interval '1 minute' AS run_at FROM howdah.runs")
    everything = {"horizon_run_at": FLOOR[0], "lane_count_max": 10}
    lanes = await queue.run("lane.survey", after_queue_id=-1, after_priority=-1, **everything)
    rest = await queue.run("lane.survey", after_queue_id=queue.queue_id, after_priority=0, **everything)
    page = await queue.run(
        "lane.survey", after_queue_id=-1, after_priority=-1, horizon_run_at=FLOOR[0], lane_count_max=2
    )
    young = await queue.run(
        "lane.survey", after_queue_id=-1, after_priority=-1, horizon_run_at=horizon["run_at"], lane_count_max=10
    )

    assert [row["priority"] for row in lanes] == [0, 1, 2]
    assert [row["priority"] for row in rest] == [1, 2]
    assert [row["priority"] for row in page] == [0, 1]
    assert [row["priority"] for row in young] == [0]


async def test_lost_lease_spends_an_attempt_and_the_first_is_rearmed_at_once(queue: Queue) -> None:
    """The first loss is claimable at once; the second waits for the retry delay; the third, alone, ends the task."""
    [task] = await queue.enqueue(retry={"max_attempts": 10, "initial": "100s", "jitter": 0})
    delays = []
    for _ in range(3):
        await queue.sql("UPDATE howdah.runs SET run_at = howdah.now()")
        runs = await queue.claim()
        if runs[0]["crashes"] == 2:
            await queue.begin_alone(runs[0])
        await queue.expire(runs)
        [verdict] = await queue.rescue()
        rows = await queue.sql(
            "SELECT round(extract(epoch FROM run_at - howdah.now()))::int AS s, attempt, crashes FROM howdah.runs"
        )
        delays.append((verdict["verdict"], *(tuple(row.values()) for row in rows)))

    assert delays == [("retry", (0, 1, 1)), ("retry", (200, 2, 2)), ("dead",)]
    assert [row["reason"] for row in await queue.sql("SELECT reason FROM howdah.dead_letters")] == ["crashes"]
    assert await queue.state(task) == "failed"


async def test_failures_end_in_a_dead_letter_after_max_attempts(queue: Queue) -> None:
    """Each failure spends an attempt; the last one makes a dead letter with its error."""
    [task] = await queue.enqueue(retry={"max_attempts": 2, "initial": "0s"})
    verdicts = []
    for _ in range(2):
        [verdict] = await queue.fail(await queue.claim())
        verdicts.append(verdict["verdict"])
    [dead] = await queue.sql("SELECT reason, attempt, error ->> 'message' AS message FROM howdah.dead_letters")

    assert verdicts == ["retry", "dead"]
    assert dead == {"reason": "attempts", "attempt": 2, "message": "it failed"}
    assert [(row["outcome"], row["is_final"]) for row in await queue.history()] == [("failed", False), ("failed", True)]
    assert await queue.state(task) == "failed"


@pytest.mark.parametrize(
    ("retry", "report", "reason"),
    [
        ({"max_attempts": 9}, {"retryable": False}, "not_retryable"),
        ({"max_age": "1s", "initial": "10s"}, {}, "age"),
    ],
)
async def test_failure_that_may_not_be_retried_is_given_up(
    queue: Queue, retry: dict[str, object], report: dict[str, bool], reason: str
) -> None:
    """A failure marked final, or a next attempt beyond max_age, ends the task at once."""
    await queue.enqueue(retry=retry)
    [verdict] = await queue.fail(await queue.claim(), **report)
    [dead] = await queue.sql("SELECT reason FROM howdah.dead_letters")

    assert (verdict["verdict"], dead["reason"]) == ("dead", reason)


@pytest.mark.parametrize(
    ("retry", "report", "verdict"),
    [
        # By default the report's own judgement counts, which is that of the default statuses.
        ({}, {"response_status": 404, "retryable": False}, "dead"),
        ({"statuses": [404]}, {"response_status": 404, "retryable": False}, "retry"),
        ({"statuses": [404]}, {"response_status": 503}, "dead"),
        # Statuses say nothing of errors without an answer, and errors nothing of answers.
        ({"statuses": [404]}, {"error_type": "timeout"}, "retry"),
        ({"errors": ["timeout"]}, {"response_status": 503, "error_type": "http_status"}, "retry"),
        ({"errors": ["timeout"]}, {"error_type": "timeout"}, "retry"),
        ({"errors": ["timeout"]}, {"error_type": "timeout", "outcome": "timed_out"}, "retry"),
        ({"errors": ["timeout"]}, {"error_type": "ValueError"}, "dead"),
        # What the target or the kind of the failure has decided is not the policy's to change.
        ({"statuses": [503]}, {"response_status": 503, "retryable": False, "is_decided": True}, "dead"),
        ({"errors": ["timeout"]}, {"error_type": "retry_after", "is_decided": True}, "retry"),
        ({"errors": ["timeout"]}, {"error_type": "lease_lost", "outcome": "lost", "is_decided": True}, "retry"),
    ],
)
async def test_policy_names_what_is_tried_again(
    queue: Queue, retry: dict[str, Any], report: dict[str, Any], verdict: str
) -> None:
    """`statuses` and `errors` replace the default rules, but for what was decided elsewhere."""
    await queue.enqueue(retry=retry)
    [ended] = await queue.fail(await queue.claim(), **report)

    assert ended["verdict"] == verdict
    if verdict == "dead":
        [dead] = await queue.sql("SELECT reason FROM howdah.dead_letters")
        assert dead["reason"] == "not_retryable"


async def test_snooze_spends_no_attempt_and_comes_when_it_said(queue: Queue) -> None:
    """A snoozed run waits for its delay, which no policy cuts, with all its attempts; history shows a release."""
    [task] = await queue.enqueue(retry={"max_attempts": 1, "max": "1s"})
    [first] = await queue.claim()
    [verdict] = await queue.fail([first], "released", retry_in_s=3600.0, is_decided=True)
    [run] = await queue.sql(
        "SELECT attempt, claim_no, run_at = due_at AS is_due, "
        "round(extract(epoch FROM run_at - howdah.now()))::int AS s FROM howdah.runs"
    )

    assert verdict["verdict"] == "retry"
    assert run == {"attempt": 0, "claim_no": 1, "s": 3600, "is_due": True}
    assert [(row["outcome"], row["is_final"]) for row in await queue.history()] == [("released", False)]
    assert await queue.state(task) == "scheduled"


async def test_snooze_beyond_max_age_is_given_up(queue: Queue) -> None:
    """A handler that snoozes for ever does not keep its task for ever."""
    [task] = await queue.enqueue(retry={"max_age": "1h"})
    [verdict] = await queue.fail(await queue.claim(), "released", retry_in_s=3601.0, is_decided=True)
    [dead] = await queue.sql("SELECT reason FROM howdah.dead_letters")

    assert (verdict["verdict"], dead["reason"]) == ("dead", "age")
    assert [(row["outcome"], row["is_final"]) for row in await queue.history()] == [("failed", True)]
    assert await queue.state(task) == "failed"


async def test_cancel_ends_a_snooze(queue: Queue) -> None:
    """A cancel that was asked for while the run went on ends the task instead."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    await queue.sql("SELECT howdah.cancel(%s)", task)
    [verdict] = await queue.fail(runs, "released", retry_in_s=60.0, is_decided=True)

    assert verdict["verdict"] == "cancelled"
    assert await queue.state(task) == "cancelled"


async def test_retry_delay_of_a_handler_is_not_cut(queue: Queue) -> None:
    """What a handler decides is deliberate: the policy's max is for receivers that ask for too much."""
    await queue.enqueue(retry={"max": "60s"})
    await queue.fail(await queue.claim(), retry_in_s=3600.0, is_decided=True)
    [run] = await queue.sql(
        "SELECT attempt, round(extract(epoch FROM run_at - howdah.now()))::int AS s FROM howdah.runs"
    )

    assert run == {"attempt": 1, "s": 3600}


async def test_retry_delay_asked_for_by_the_target_is_honoured_up_to_max(queue: Queue) -> None:
    """Retry-After replaces the computed delay and is cut at the policy's max."""
    await queue.enqueue(2, retry={"max": "60s"})
    runs = await queue.claim(2)
    await queue.fail(runs[:1], retry_in_s=7.0)
    await queue.fail(runs[1:], retry_in_s=3600.0)
    rows = await queue.sql(
        "SELECT round(extract(epoch FROM run_at - howdah.now()))::int AS s FROM howdah.runs ORDER BY run_at"
    )

    assert [row["s"] for row in rows] == [7, 60]


async def test_release_gives_the_attempt_back_and_keeps_the_fence(queue: Queue) -> None:
    """A run handed back may be claimed again with the same attempt number and a higher claim number."""
    await queue.enqueue()
    first = await queue.claim()
    [released] = await queue.release(first)
    [second] = await queue.claim()

    assert released["verdict"] == "released"
    assert (first[0]["attempt"], first[0]["claim_no"]) == (1, 1)
    assert (second["attempt"], second["claim_no"]) == (1, 2)


async def test_release_puts_the_run_above_every_horizon(queue: Queue) -> None:
    """A re-armed run is given the present as run_at, so that no worker's horizon hides it."""
    await queue.enqueue(2)
    runs = await queue.claim(2)
    [before] = await queue.sql("SELECT howdah.now() AS now")
    await queue.release(runs[:1])
    await queue.fail(runs[1:], retry_in_s=0.0)
    rows = await queue.sql("SELECT run_at FROM howdah.runs")

    assert all(row["run_at"] > before["now"] for row in rows)


async def test_bulk_reports_of_overlapping_runs_in_opposite_order_do_not_deadlock(queue: Queue) -> None:
    """Finish, failure and release lock in id order, so reports given in any order never deadlock."""
    sessions = [await queue.connect() for _ in range(4)]
    for _ in range(20):
        await queue.enqueue(40, retry={"initial": "0s", "max_attempts": 1000})
        runs = await queue.claim(100)
        try:
            await asyncio.gather(
                queue.complete(runs[::2], conn=sessions[0]),
                queue.fail(runs[::-1], retry_in_s=0.0, conn=sessions[1]),
                queue.release(runs, conn=sessions[2]),
                queue.heartbeat(runs[::-1], conn=sessions[3]),
            )
        except errors.DeadlockDetected:
            pytest.fail("a bulk statement deadlocked")
        counts = await queue.sql(
            "SELECT lease_token, count(DISTINCT outcome) AS n FROM howdah.finished_runs "
            "GROUP BY lease_token, task_id HAVING count(*) > 1"
        )

        assert counts == []


async def test_soft_cancel_reaches_the_worker_and_ends_the_task_instead_of_a_retry(queue: Queue) -> None:
    """A cancel of a running task is told by the heartbeat; a failure after it is final."""
    [task] = await queue.enqueue()
    runs = await queue.claim()
    [answer] = await queue.sql("SELECT howdah.cancel(%s) AS state", task)
    [beat] = await queue.heartbeat(runs)
    [verdict] = await queue.fail(runs)

    assert answer["state"] == "running"
    assert (beat["verdict"], beat["cancel_mode"]) == ("held", "soft")
    assert verdict["verdict"] == "cancelled"
    assert await queue.state(task) == "cancelled"


async def test_no_statement_changes_history(queue: Queue) -> None:
    """Recorded outcomes are only ever inserted: every path to an end leaves earlier rows as they were."""
    await queue.enqueue(retry={"initial": "0s"})
    await queue.fail(await queue.claim(), retry_in_s=0.0)
    [first] = await queue.history()
    await queue.release(await queue.claim())
    await queue.complete(await queue.claim())

    assert (await queue.history())[0] == first
    assert [row["claim_no"] for row in await queue.history()] == [1, 2, 3]


async def _is_waiting(queue: Queue, pid: int) -> None:
    async def blocked() -> bool:
        [row] = await queue.sql("SELECT cardinality(pg_blocking_pids(%s)) AS n", pid)
        return row["n"] > 0

    await eventually_async(blocked, 5, f"session {pid} waits for a lock")


async def test_lease_of_a_consumer_over_http_is_bounded_by_the_deadline(queue: Queue) -> None:
    """With a grace, a lease ends so long past the timeout; without, as workers claim, it is what was asked for."""
    for grace_s, expected_s in ((10.0, 12), (1e9, 3600)):
        await queue.enqueue(timeout="2s")
        await queue.claim(lease_s=3600.0, grace_s=grace_s)
        [row] = await queue.sql(
            "SELECT extract(epoch FROM lease_expires_at - claimed_at)::integer AS s FROM howdah.runs"
            " ORDER BY task_id DESC LIMIT 1"
        )

        assert row["s"] == expected_s


async def test_consumer_keeps_its_identity(queue: Queue) -> None:
    """Its row is found by its digest, within its tenant, and no number is used up by finding it."""
    first, other = pull(), {**pull(), "tenant_id": 2}
    other["pull_key"] = first["pull_key"]
    ids = [(await queue.run("worker.register_pull", **each))[0]["id"] for each in (first, first, other, first)]
    [row] = await queue.sql("SELECT max(id) - min(id) AS gap, count(*) AS n FROM howdah.workers")

    assert ids[0] == ids[1] == ids[3] != ids[2]
    assert row == {"gap": 1, "n": 2}


async def test_long_lease_of_a_consumer_does_not_hold_up_rescue(queue: Queue) -> None:
    """After an outage rescue waits for one lease; for a consumer that asked for an hour no longer than for a worker."""
    await queue.run("worker.register_pull", **pull(lease_s=3600.0))
    [row] = await queue.run("worker.lease_max")

    assert row == {"lease_s": 15}
