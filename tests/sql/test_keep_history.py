"""Queues that keep less history: what they leave out, and that repeats and states are told all the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fix_queue import Queue


async def _keep(queue: Queue, kept: str) -> None:
    await queue.sql("SELECT howdah.set_queue('q', %s)", json.dumps({"keep_history": kept}))


@pytest.mark.parametrize(
    ("kept", "outcomes"),
    [
        ("all", ["failed", "released", "succeeded", "cancelled", "cancelled"]),
        ("failures", ["failed", "released", "cancelled", "cancelled"]),
        ("none", ["cancelled", "cancelled"]),
    ],
)
async def test_history_has_what_its_queue_keeps(queue: Queue, kept: str, outcomes: list[str]) -> None:
    """A row that says cancelled is kept in any: it is that task's state."""
    await _keep(queue, kept)
    tasks = await queue.enqueue(5, retry={"initial": "300s"})
    runs = await queue.claim(4)
    failed, released, succeeded, running = runs
    await queue.fail([failed])
    await queue.release([released])
    await queue.complete([succeeded])
    await queue.complete([running], "cancelled")
    await queue.sql("SELECT howdah.cancel(%s)", tasks[4])
    states = [await queue.state(task) for task in tasks]

    assert [row["outcome"] for row in await queue.history()] == outcomes
    assert states == ["retrying", "queued", "succeeded", "cancelled", "cancelled"]


@pytest.mark.parametrize("kept", ["failures", "none"])
async def test_repeat_of_a_report_without_history_is_known(queue: Queue, kept: str) -> None:
    """Its outcome is told for each lease that ended, and of one that never was held nothing is."""
    await _keep(queue, kept)
    await queue.enqueue(3, retry={"max_attempts": 1})
    succeeded, failed, released = runs = await queue.claim(3)
    recorded = [*await queue.complete([succeeded]), *await queue.fail([failed]), *await queue.release([released])]
    again = [*await queue.complete([succeeded]), *await queue.fail([failed]), *await queue.release([released])]
    found = {row["task_id"]: row["outcome"] for row in await queue.find_recorded(runs)}
    strangers = await queue.find_recorded([{**run, "lease_token": run["task_id"]} for run in runs])

    assert (len(recorded), again, strangers) == (3, [], [])
    assert [found[run["task_id"]] for run in runs] == ["succeeded", "failed", "released"]
    assert await queue.state(failed["task_id"]) == "failed"


async def test_queue_that_keeps_all_writes_no_second_record(queue: Queue) -> None:
    """Nothing is paid for what is not used."""
    await queue.enqueue(2)
    done, failed = await queue.claim(2)
    await queue.complete([done])
    await queue.fail([failed])

    assert await queue.sql("SELECT 1 FROM howdah.ended_leases") == []


async def test_one_report_of_queues_that_keep_differently_records_each_its_own_way(queue: Queue) -> None:
    """A batch goes by the queue of each run."""
    await _keep(queue, "none")
    [plain] = await queue.enqueue(queue="other")
    [quiet] = await queue.enqueue()
    [ids] = await queue.sql("SELECT array_agg(id ORDER BY id) AS ids FROM howdah.queues")
    runs = []
    for queue.queue_id in ids["ids"]:
        runs += await queue.claim()
    ended = await queue.complete(runs)

    assert {run["task_id"] for run in ended} == {plain, quiet}
    assert [row["task_id"] for row in await queue.history()] == [plain]
    assert [row["task_id"] for row in await queue.sql("SELECT task_id FROM howdah.ended_leases")] == [quiet]


async def test_snooze_beyond_its_age_is_a_failure_also_where_nothing_is_kept(queue: Queue) -> None:
    """What history would have said is what a repeat is compared with."""
    await _keep(queue, "none")
    await queue.enqueue(retry={"max_age": "1s"})
    runs = await queue.claim()
    [judged] = await queue.fail(runs, "released", retry_in_s=3600.0, is_decided=True)
    [found] = await queue.find_recorded(runs)

    assert (judged["verdict"], found["outcome"]) == ("dead", "failed")


async def test_explain_says_why_there_is_no_record(queue: Queue) -> None:
    """Its queue keeps none; or it does, and the record is missing all the same."""
    await _keep(queue, "none")
    [task] = await queue.enqueue()
    await queue.complete(await queue.claim())
    [unkept] = await queue.sql("SELECT code, message FROM howdah.explain(%s)", task)
    await _keep(queue, "all")
    [missing] = await queue.sql("SELECT code, message FROM howdah.explain(%s)", task)
    [other] = await queue.enqueue()
    await queue.complete(await queue.claim())
    [kept] = await queue.sql("SELECT code, message FROM howdah.explain(%s)", other)

    assert (unkept["code"], unkept["message"]) == (
        "ended",
        "it has ended: it is succeeded; of that, queue q keeps no record",
    )
    assert "there is no record of that" in missing["message"]
    assert kept["message"] == "it has ended: it is succeeded"
