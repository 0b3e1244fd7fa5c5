"""Why a task is not running: the reason that howdah.explain gives is the one that holds it."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_pull import pull

if TYPE_CHECKING:
    from tests.fix_queue import Queue, Row


async def _worker(queue: Queue, *, queues: str = "{*}", handlers: str = "{h}", concurrency: int = 10) -> None:
    """Register a worker that is live."""
    await queue.sql(
        "INSERT INTO howdah.workers (name, host, pid, version, queues, handlers, serves_http, concurrency, lease_s, "
        "started_at, heartbeat_at) VALUES (%s, 'host', 1, '0', %s, %s, false, %s, 15, howdah.now(), howdah.now())",
        f"worker {uuid.uuid4()}",
        queues,
        handlers,
        concurrency,
    )


async def _explain(queue: Queue, task: uuid.UUID) -> list[Row]:
    return await queue.sql("SELECT code, message, until, run_count FROM howdah.explain(%s)", task)


async def _codes(queue: Queue, task: uuid.UUID) -> list[str]:
    return [row["code"] for row in await _explain(queue, task)]


async def test_task_ahead_of_its_time_is_not_due(queue: Queue) -> None:
    """It says when it will be; that a worker is missing too is said as well, while there is time to start one."""
    [task] = await queue.enqueue(delay="1h")
    alone = await _codes(queue, task)
    await _worker(queue)
    [reason] = await _explain(queue, task)
    [run] = await queue.sql("SELECT due_at FROM howdah.runs")

    assert alone == ["not_due", "no_worker"]
    assert (reason["code"], reason["until"]) == ("not_due", run["due_at"])


async def test_task_between_two_attempts_waits_for_the_next(queue: Queue) -> None:
    """What went wrong is told with it."""
    await _worker(queue)
    [task] = await queue.enqueue(retry={"initial": "5m"})
    await queue.fail(await queue.claim())
    [reason] = await _explain(queue, task)

    assert reason["code"] == "retry_wait"
    assert reason["until"] is not None
    assert "attempt 1 did not succeed (test: it failed)" in reason["message"]


@pytest.mark.parametrize("is_parked", [False, True])
async def test_task_without_a_worker_says_so(queue: Queue, is_parked: bool) -> None:
    """Parked or not yet; a worker with other handlers is none, nor is one that is silent, or stops."""
    await _worker(queue, handlers="{other}")
    for change in ("heartbeat_at = heartbeat_at - interval '1 minute'", "stopping_at = howdah.now()"):
        await _worker(queue)
        await queue.sql(f"UPDATE howdah.workers SET {change} WHERE id = (SELECT max(id) FROM howdah.workers)")
    [task] = await queue.enqueue()
    if is_parked:
        await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    [reason] = await _explain(queue, task)

    assert (reason["code"], reason["message"]) == ("no_worker", "no live worker serves handler h")


async def test_consumer_over_http_serves_its_tenant_for_a_minute(queue: Queue) -> None:
    """Who claims the handler from the queue counts as a worker, whatever its lease; another tenant's does not."""
    [task] = await queue.enqueue()
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    found = []
    for tenant_id in (2, 1):
        await queue.run("worker.register_pull", **pull(tenant_id))
        found.append(await _codes(queue, task))
    for age in ("50 seconds", "61 seconds"):
        await queue.sql("UPDATE howdah.workers SET heartbeat_at = howdah.now() - %s::interval", age)
        found.append(await _codes(queue, task))

    assert found == [["no_worker"], ["next"], ["next"], ["no_worker"]]


async def test_task_in_a_queue_that_its_workers_leave_out_is_unserved(queue: Queue) -> None:
    """Their patterns of queues decide."""
    await _worker(queue, queues="{other,x*}")
    [task] = await queue.enqueue()
    [reason] = await _explain(queue, task)

    assert reason["code"] == "unserved"
    assert reason["message"] == "1 live workers serve handler h, and none of them claims from queue q"


async def test_parked_task_whose_worker_has_come_is_about_to_be_released(queue: Queue) -> None:
    """A chore does that; until then it is still parked."""
    await _worker(queue)
    [task] = await queue.enqueue()
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    [reason] = await _explain(queue, task)

    assert reason["code"] == "no_worker"
    assert "a scheduler releases it" in reason["message"]


async def test_due_task_knows_how_many_come_before_it(queue: Queue) -> None:
    """Those of its lane that are due earlier, and how full the workers are; others do not count."""
    await _worker(queue, concurrency=7)
    ids = await queue.enqueue(5)
    await queue.enqueue(3, priority="high")
    await queue.claim(1)
    first, last = await _explain(queue, ids[1]), await _explain(queue, ids[4])

    assert [(row["code"], row["run_count"]) for row in first + last] == [("next", 0), ("behind", 3)]
    assert last[0]["message"] == (
        "3 due runs of its queue and priority come before it; 1 workers claim it, and hold 1 runs at 7 slots"
    )


async def test_running_task_is_with_its_worker(queue: Queue) -> None:
    """Who runs it until when, that it was asked to stop, and that its worker is silent."""
    await _worker(queue)
    [task] = await queue.enqueue()
    runs = await queue.claim()
    running = await _codes(queue, task)
    await queue.sql("SELECT howdah.cancel(%s)", task)
    await queue.expire(runs)

    assert running == ["running"]
    assert await _codes(queue, task) == ["running", "cancel_requested", "lease_expired"]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
async def test_ended_task_says_how(queue: Queue, state: str) -> None:
    """There is no reason to wait any more."""
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    if state == "cancelled":
        await queue.sql("SELECT howdah.cancel(%s)", task)
    elif state == "failed":
        await queue.fail(await queue.claim())
    else:
        await queue.complete(await queue.claim())
    [reason] = await _explain(queue, task)

    assert reason["code"] == "ended"
    assert reason["message"] == f"it has ended: it is {state}" + (", because of attempts" if state == "failed" else "")


async def test_unknown_task_is_not_found(queue: Queue) -> None:
    """Nor is another tenant's."""
    [task] = await queue.enqueue()
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    for statement, asked in (("SELECT howdah.explain(%s)", uuid.uuid4()), ("SELECT howdah.explain(%s, 'other')", task)):
        with pytest.raises(psycopg.Error, match="there is no task") as caught:
            await queue.sql(statement, asked)

        assert caught.value.sqlstate == "JQ404"


async def test_explain_looks_at_a_bounded_number_of_runs(queue: Queue) -> None:
    """Of the last of many it says `at least`, and reads no more than ten thousand entries."""
    await _worker(queue)
    await queue.enqueue(10_200)
    [last] = await queue.sql("SELECT task_id FROM howdah.runs ORDER BY run_at DESC, task_id DESC LIMIT 1")
    [reason] = await _explain(queue, last["task_id"])

    assert reason["run_count"] == 10_000
    assert reason["message"].startswith("at least 10000 due runs")


async def test_explain_of_a_callback_names_it(queue: Queue) -> None:
    """Targets without a handler are HTTP callbacks."""
    item: dict[str, Any] = {"queue": "q", "http": {"url": "https://example.com"}}
    [row] = await queue.sql("SELECT id FROM howdah.enqueue_many('default', %s::json)", json.dumps([item]))
    [reason] = await _explain(queue, row["id"])

    assert reason["message"] == "no live worker serves HTTP callbacks"


async def test_task_behind_a_full_flow_key_names_who_holds_its_places(queue: Queue) -> None:
    """It is blocked, and the task that holds the place is named."""
    await _worker(queue)
    holder, task = await queue.enqueue(2, flow={"key": "customer-42", "concurrency": 1})
    await queue.claim_limited(9)
    [reason] = await _explain(queue, task)

    assert reason["code"] == "flow_key_full"
    assert reason["message"].endswith(f"customer-42 lets 1 of its tasks go on at once; places are held by {holder}")


async def test_task_that_a_rate_put_off_says_until_when(queue: Queue) -> None:
    """The rate of its flow key is the reason, not its time."""
    await _worker(queue)
    _, task = await queue.enqueue(2, flow={"key": "k", "rate": {"limit": 1, "period": "1m"}})
    await queue.claim_limited(9)
    [reason] = await _explain(queue, task)
    [run] = await queue.sql("SELECT due_at FROM howdah.runs WHERE task_id = %s", task)

    assert (reason["code"], reason["until"]) == ("flow_rate", run["due_at"])


async def test_task_of_a_full_queue_names_what_runs(queue: Queue) -> None:
    """The limit of the queue is said first, then its place in the line."""
    await _worker(queue)
    first, second = await queue.enqueue(2)
    await queue.sql("SELECT howdah.set_queue('q', '{\"max_running\": 1}')")
    await queue.claim_limited(9)
    full, place = await _explain(queue, second)

    assert (full["code"], place["code"]) == ("queue_full", "next")
    assert full["message"].endswith(f"these do: {first}")


async def test_task_of_a_queue_over_its_rate_says_when_it_may_start(queue: Queue) -> None:
    """The gate opens when the next start is paid for."""
    await _worker(queue)
    _, second = await queue.enqueue(2)
    await queue.sql("""SELECT howdah.set_queue('q', '{"rate": {"limit": 1, "period": "1m"}}')""")
    await queue.claim_limited(9)
    gate, place = await _explain(queue, second)
    [row] = await queue.sql("SELECT extract(epoch FROM %s - howdah.now())::float8 AS s", gate["until"])

    assert (gate["code"], place["code"]) == ("queue_rate", "next")
    assert 50 < row["s"] <= 60
