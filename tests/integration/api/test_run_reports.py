"""Heartbeats, outcomes and hand-backs over HTTP: recorded once, each for itself, as a worker's are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.api import reporter as reporter_module
from howdah.core.wake import LaneReady, parse_message
from tests.fix_api import Api, assert_problem
from tests.fix_chores import heard, listen
from tests.fix_pull import Consumer, Run, lease_of, statuses
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Sequence

NOBODY = "01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7"


async def history(api: Api) -> list[tuple[Any, ...]]:
    """Outcome, whether it ended the task, and the error's type of every ended claim."""
    return await api.sql(
        "SELECT outcome, is_final, error ->> 'type' FROM howdah.finished_runs ORDER BY task_id, claim_no"
    )


async def one_run(api: Api, consumer: Consumer, **fields: Any) -> Run:
    """Make a task and claim it."""
    await api.create(**fields)
    [run] = await consumer.claim()
    return run


async def state_of(api: Api, run: Run) -> dict[str, Any]:
    """The run's task, as GET shows it."""
    task: dict[str, Any] = (await api.get(f"/v1/tasks/{run['task_id']}")).json()
    return task


@pytest.mark.parametrize(
    ("fields", "state", "recorded"),
    [
        ({"outcome": "succeeded", "result": {"a": [1.0, None]}}, "succeeded", ("succeeded", True, None)),
        ({"outcome": "succeeded"}, "succeeded", ("succeeded", True, None)),
        ({"outcome": "failed"}, "retrying", ("failed", False, "failed")),
        ({"outcome": "failed", "error": {"type": "E", "message": "m"}}, "retrying", ("failed", False, "E")),
        ({"outcome": "failed", "retry_in": "3h"}, "retrying", ("failed", False, "failed")),
        ({"outcome": "failed", "retryable": False}, "failed", ("failed", True, "failed")),
        ({"outcome": "timed_out"}, "retrying", ("timed_out", False, "timed_out")),
        ({"outcome": "cancelled"}, "cancelled", ("cancelled", True, "cancelled")),
        ({"outcome": "snoozed", "retry_in": "1h"}, "retrying", ("released", False, "snoozed")),
    ],
)
async def test_outcome_is_recorded_as_reported(
    api: Api, consumer: Consumer, fields: dict[str, Any], state: str, recorded: tuple[Any, ...]
) -> None:
    """The answer says where the task stands then, and history has what was said."""
    run = await one_run(api, consumer)
    [result] = await consumer.call("finish", [{**lease_of(run), **fields}])
    task = await state_of(api, run)

    assert (result["status"], result["state"]) == ("ok", state)
    assert await history(api) == [recorded]
    assert result.get("run_at") == (task["run_at"] if state == "retrying" else None)
    # A snoozed task has spent no attempt, so that it is scheduled like one that never ran.
    assert task["state"] == ("scheduled" if fields["outcome"] == "snoozed" else state)
    assert task.get("result") == fields.get("result")


async def test_retry_in_is_the_delay_of_the_next_attempt(api: Api, consumer: Consumer) -> None:
    """What the consumer asks for goes before the policy, its longest delay included."""
    run = await one_run(api, consumer)
    await consumer.finish(run, outcome="failed", retry_in="3h")
    [(delay_s,)] = await api.sql(
        "SELECT extract(epoch FROM r.run_at - f.finished_at)::float FROM howdah.runs r, howdah.finished_runs f"
    )

    assert delay_s == 3 * 3600


async def test_result_is_kept_byte_for_byte(api: Api, consumer: Consumer) -> None:
    """White space, order and numbers of a result stay as they came, also where a key is given twice."""
    run = await one_run(api, consumer)
    text = '{"b": 1.0,  "a": {"k": "x: y", "k": 2}}'
    lease = f'"task_id": "{run["task_id"]}", "lease_token": "{run["lease_token"]}"'
    body = f'{{"runs": [{{{lease}, "outcome": "succeeded", "result": {text}}}]}}'
    answer = await api.post("/v1/runs/finish", body.encode())

    assert statuses(answer.json()["results"]) == ["ok"]
    assert f'"result":{text}' in (await api.get(f"/v1/tasks/{run['task_id']}/result")).text


async def test_repeat_is_told_from_a_report_that_comes_too_late(api: Api, consumer: Consumer) -> None:
    """Twice the same is already_finished; another outcome, or the token of an earlier claim, has lost its lease."""
    first = await one_run(api, consumer)
    await consumer.finish(first, outcome="failed", retry_in="0s")
    [second] = await consumer.claim(wait="5s")
    late = await consumer.finish(first)
    again = await consumer.finish(first, outcome="failed")
    done = [await consumer.finish(second), await consumer.finish(second), await consumer.release(second)]

    assert second["lease_token"] != first["lease_token"]
    assert statuses(late) == ["lease_lost"]
    assert statuses(again) == ["already_finished"]
    assert [statuses(each) for each in done] == [["ok"], ["already_finished"], ["lease_lost"]]
    assert [outcome for outcome, _, _ in await history(api)] == ["failed", "succeeded"]


async def test_lease_that_ran_out_and_was_taken_by_another_is_lost(api: Api, consumer: Consumer) -> None:
    """A consumer that slept through its lease can neither renew nor end what somebody else runs now."""
    run = await one_run(api, consumer)
    await api.sql(
        "UPDATE howdah.runs SET lease_token = NULL, lease_expires_at = NULL, deadline_at = NULL, worker_id = NULL, "
        "claimed_at = NULL, run_at = howdah.now()"
    )
    [other] = await Consumer(api).claim(consumer="another", wait="5s")

    assert statuses(await consumer.heartbeat(run)) == ["lost"]
    assert statuses(await consumer.finish(run)) == ["lease_lost"]
    assert statuses(await consumer.release(run)) == ["lease_lost"]
    assert statuses(await Consumer(api).finish(other)) == ["ok"]


async def test_cancel_is_told_by_the_heartbeat_and_decides_the_end(api: Api, consumer: Consumer) -> None:
    """A cancelled run is told to stop; whatever else it reports then, its task is cancelled."""
    for report in ("failed", "release", "cancelled"):
        run = await one_run(api, consumer)
        await api.request("DELETE", f"/v1/tasks/{run['task_id']}")
        [beat] = await consumer.heartbeat(run)
        [end] = await (consumer.release(run) if report == "release" else consumer.finish(run, outcome=report))

        assert (beat["status"], beat["cancel"]) == ("ok", "soft")
        assert (end["status"], end["state"]) == ("ok", "cancelled")
        assert (await state_of(api, run))["state"] == "cancelled"


async def test_heartbeat_moves_the_end_of_the_lease(api: Api, consumer: Consumer) -> None:
    """The answer says until when; a shorter lease takes nothing away."""
    run = await one_run(api, consumer, timeout="1h")
    [longer] = await consumer.heartbeat(run, lease="10m")
    [shorter] = await consumer.heartbeat(run, lease="3s")
    [(expires_at,)] = await api.sql("SELECT lease_expires_at FROM howdah.runs")

    assert run["lease_expires_at"] < longer["lease_expires_at"] == shorter["lease_expires_at"]
    assert longer["lease_expires_at"].rstrip("Z") in expires_at.isoformat()


async def test_release_gives_the_run_to_the_next_at_once(api: Api, consumer: Consumer) -> None:
    """It spends no attempt, and who waits is woken for it."""
    run = await one_run(api, consumer)
    claim = asyncio.create_task(consumer.claim(wait="20s"))
    await eventually_async(lambda: api.backend.gate.wait_count == 1, 10, "somebody waits")
    [result] = await consumer.release(run)
    [again] = await claim

    assert (result["status"], result["state"]) == ("ok", "queued")
    assert (again["attempt"], again["claim_no"]) == (1, 2)


async def test_workers_are_told_of_a_run_that_comes_again(api: Api, consumer: Consumer) -> None:
    """A retry is announced with its lane, as a worker's own are."""
    run = await one_run(api, consumer, priority="high")
    words: list[str] = []
    async with await listen(api.url) as listener:
        await consumer.finish(run, outcome="failed", retry_in="0s")

        async def has_heard() -> bool:
            words.extend(await heard(listener))
            return any(isinstance(word, LaneReady) and word.priority == 2 for word in parse_message(" ".join(words)))

        assert await eventually_async(has_heard, 5, "the lane was named")


async def test_item_that_is_wrong_fails_alone(api: Api, consumer: Consumer) -> None:
    """Each of these is refused with a problem that points at it; what stands beside it is recorded."""
    for _ in range(2):
        await api.create()
    first, second = await consumer.claim()
    good = {"outcome": "succeeded"}
    lease = lease_of(first)
    wrong: Sequence[tuple[object, str]] = [
        ({**lease, "lease_token": "no uuid", **good}, "/lease_token"),
        ({**lease, "task_id": 7, **good}, "/task_id"),
        ({"task_id": lease["task_id"], **good}, "/lease_token"),
        ({**lease, "outcome": "done"}, "/outcome"),
        (lease, "/outcome"),
        ({**lease, **good, "colour": "red"}, "/colour"),
        ({**lease, **good, "error": {"type": "E"}}, "/error"),
        ({**lease, **good, "retryable": True}, "/retryable"),
        ({**lease, **good, "retry_in": "1s"}, "/retry_in"),
        ({**lease, "outcome": "failed", "result": 1}, "/result"),
        ({**lease, "outcome": "failed", "retry_in": "soon"}, "/retry_in"),
        ({**lease, "outcome": "failed", "retry_in": "367d"}, "/retry_in"),
        ({**lease, "outcome": "failed", "retryable": False, "retry_in": "1s"}, "/retry_in"),
        ({**lease, "outcome": "failed", "error": "E"}, "/error"),
        ({**lease, "outcome": "failed", "error": {"type": "E\u0000"}}, "/error/type"),
        ({**lease, "outcome": "snoozed"}, "/retry_in"),
        ({**lease, **good, "result": "x" * 65_536}, "/result"),
        ({**lease, **good, "result": {"a": "\u0000"}}, "/result"),
        ("lease", ""),
    ]
    results = await consumer.call("finish", [*(item for item, _ in wrong), {**lease_of(second), **good}])

    assert statuses(results) == ["invalid"] * len(wrong) + ["ok"]
    for place, ((_, pointer), result) in enumerate(zip(wrong, results, strict=False)):
        assert result["problem"]["errors"][0]["pointer"] == f"/runs/{place}{pointer}", result
    assert statuses(await consumer.finish(first)) == ["ok"]


@pytest.mark.parametrize("verb", ["heartbeat", "release"])
async def test_lease_that_is_none_fails_alone(api: Api, consumer: Consumer, verb: str) -> None:
    """A token that is no UUID is invalid; one that nobody has is lost."""
    run = await one_run(api, consumer)
    stranger = {"task_id": NOBODY, "lease_token": run["lease_token"]}
    results = await consumer.call(verb, [{"task_id": run["task_id"], "lease_token": "x"}, stranger, lease_of(run)])

    assert statuses(results) == ["invalid", "lost" if verb == "heartbeat" else "lease_lost", "ok"]


async def test_key_that_is_given_twice_in_an_item_is_refused(api: Api, consumer: Consumer) -> None:
    """Which of the two counts would depend on who reads it."""
    run = await one_run(api, consumer)
    lease = f'"task_id": "{run["task_id"]}", "lease_token": "{run["lease_token"]}"'
    body = f'{{"runs": [{{{lease}, "outcome": "failed", "outcome": "succeeded"}}]}}'
    [result] = (await api.post("/v1/runs/finish", body.encode())).json()["results"]

    assert result["problem"]["code"] == "duplicate_key"


async def test_run_that_is_reported_twice_in_one_batch_is_recorded_once(api: Api, consumer: Consumer) -> None:
    """The first report counts; the second is a repeat, or comes too late."""
    for _ in range(2):
        await api.create()
    first, second = await consumer.claim()
    good, bad = {"outcome": "succeeded"}, {"outcome": "failed"}
    items = [(first, bad), (second, good), (first, bad), (second, good), (second, bad)]
    results = await consumer.call("finish", [{**lease_of(run), **end} for run, end in items])
    beats = await consumer.heartbeat(first, first)

    assert statuses(results) == ["ok", "ok", "already_finished", "already_finished", "lease_lost"]
    assert len(await history(api)) == 2
    assert statuses(beats) == ["lost", "lost"]


@pytest.mark.one_server
@pytest.mark.parametrize("verb", ["heartbeat", "finish", "release"])
async def test_batch_has_a_size(api: Api, verb: str) -> None:
    """A thousand are taken, one more is not, and none is nothing to do."""
    item = {"task_id": NOBODY, "lease_token": NOBODY} | ({"outcome": "succeeded"} if verb == "finish" else {})
    most = await api.post(f"/v1/runs/{verb}", {"runs": [item] * 1000})

    assert most.status_code == 200
    assert len(most.json()["results"]) == 1000
    for runs in ([item] * 1001, []):
        assert_problem(await api.post(f"/v1/runs/{verb}", {"runs": runs}), 422, "validation", ["/runs"])
    assert_problem(await api.post(f"/v1/runs/{verb}", {"runs": [item], "x": 1}), 422, "validation", ["/x"])


@pytest.mark.parametrize("lease", ["0s", "-1s", "2s", "2h", "forever"])
async def test_heartbeat_for_a_wrong_time_is_refused(api: Api, consumer: Consumer, lease: str) -> None:
    """As the lease of a claim: 3 seconds to an hour."""
    run = await one_run(api, consumer)
    answer = await api.post("/v1/runs/heartbeat", {"runs": [lease_of(run)], "lease": lease})

    assert_problem(answer, 422, "validation", ["/lease"])


async def test_a_thousand_runs_are_finished_with_one_request(api: Api, consumer: Consumer) -> None:
    """More than one transaction takes, and every one of them is told of."""
    await api.sql(
        'SELECT count(*) FROM howdah.enqueue_many(NULL, (SELECT json_agg(\'{"queue": "q", "handler": "h"}\'::json)'
        " FROM generate_series(1, 1000)))"
    )
    runs = await consumer.claim(max=1000)
    results = await consumer.finish(*runs)

    assert len(runs) == 1000
    assert statuses(results) == ["ok"] * 1000
    assert [result["task_id"] for result in results] == [run["task_id"] for run in runs]
    assert await api.sql("SELECT count(*) FROM howdah.runs") == [(0,)]


async def test_reports_that_come_together_share_a_commit(
    api: Api, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty consumers that finish a run each at once need a few transactions, and get an answer each."""
    for _ in range(40):
        await api.create()
    runs = await consumer.claim(max=40)
    sizes: list[int] = []
    original = reporter_module.record

    async def record(conn: Any, store: Any, reports: Any) -> Any:
        sizes.append(len(reports))
        return await original(conn, store, reports)

    monkeypatch.setattr(reporter_module, "record", record)
    results = await asyncio.gather(*(consumer.finish(run) for run in runs))

    assert [statuses(result) for result in results] == [["ok"]] * 40
    assert sum(sizes) == 40
    assert len(sizes) < 40


async def test_run_whose_row_is_locked_is_busy_and_holds_up_nobody(api: Api, consumer: Consumer) -> None:
    """Somebody's forgotten transaction: nothing is recorded of that run, the others are, and a repeat works later."""
    for _ in range(2):
        await api.create()
    first, second = await consumer.claim()
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute("SELECT 1 FROM howdah.runs WHERE task_id = %s FOR UPDATE", [first["task_id"]])
        beats, ends = await consumer.heartbeat(first, second), await consumer.finish(first, second)

    assert statuses(beats) == ["busy", "ok"]
    assert statuses(ends) == ["busy", "ok"]
    assert statuses(await consumer.finish(first)) == ["ok"]


async def test_what_consumers_did_is_counted_per_queue(api: Api, consumer: Consumer) -> None:
    """As workers' runs: succeeded, failed, retried, and how long they took."""
    for _ in range(3):
        await api.create()
    first, second, third = await consumer.claim()
    await consumer.finish(first)
    await consumer.finish(second, outcome="failed")
    await consumer.finish(third, outcome="failed", retryable=False)
    await consumer.finish(first)
    await api.backend.tallies.flush()
    # Only minutes that are over count.
    await api.sql("UPDATE howdah.queue_stats SET bucket_at = bucket_at - interval '2 minutes'")
    hour = (await api.get("/v1/queues/q/stats")).json()["last_hour"]
    durations = await api.sql("SELECT duration_s > 0 FROM howdah.finished_runs")

    assert (hour["enqueued"], hour["succeeded"], hour["failed"], hour["retried"]) == (3, 1, 1, 1)
    assert 0 < hour["duration_s"] < 60
    assert durations == [(True,)] * 3


async def test_reports_over_a_connection_that_was_cut_are_sent_again(api: Api, consumer: Consumer) -> None:
    """The client does not hear of it: a lease is recorded once, whether the first try was or not."""
    runs = []
    for _ in range(3):
        runs.append(await one_run(api, consumer))
        await api.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE '%%run.find_leased%%' AND pid <> pg_backend_pid()"
        )
        assert statuses(await consumer.finish(runs[-1])) == ["ok"]

    assert [outcome for outcome, _, _ in await history(api)] == ["succeeded"] * 3
