"""Recording batches of reports: what one of them is at fault for, the others do not pay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from howdah.core.db.arrays import read_raw
from howdah.core.db.connect import connect
from howdah.core.model import LeaseKey, Report
from howdah.core.store.reports import record
from howdah.core.store.runs import Runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from howdah.core.db.connect import Connection
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue, Row


@pytest.fixture
async def finishing(chores: Chores) -> AsyncIterator[Connection]:
    """A connection as the finisher has one."""
    async with await connect(chores.settings, "worker", purpose="hot") as conn:
        read_raw(conn)
        yield conn


def report(run: Row, outcome: str) -> Report:
    """Say that a claimed run ended so."""
    error = None if outcome in ("succeeded", "released") else b'{"type": "test", "message": "it failed"}'
    key = LeaseKey(run["tenant_id"], run["task_id"].bytes, run["lease_token"].bytes)
    return Report(*key, outcome, None, error, None, None, 0.1, True, None, False, False)


@pytest.mark.parametrize("outcomes", [["succeeded"], ["failed"], ["released"], ["succeeded", "failed", "released"]])
async def test_report_without_a_partition_is_left_out_alone(
    chores: Chores, queue: Queue, finishing: Connection, outcomes: list[str]
) -> None:
    """A day whose history has no partition used to keep all other outcomes of the batch from being recorded."""
    count = len(outcomes)
    await chores.travel("-1 day")
    old = await queue.enqueue(count)
    await chores.travel("0")
    new = await queue.enqueue(count)
    runs = {run["task_id"]: run for run in await queue.claim(2 * count)}
    [partition] = await queue.sql(
        "SELECT 'howdah.finished_runs_' || to_char(howdah.id_time(%s) AT TIME ZONE 'UTC', 'YYYYMMDD') AS name", old[0]
    )
    await queue.sql(f"DROP TABLE {partition['name']}")
    reports = {
        task: report(runs[task], outcome) for tasks in (old, new) for task, outcome in zip(tasks, outcomes, strict=True)
    }
    recorded = await record(finishing, Runs("howdah"), list(reports.values()))
    leased = await queue.sql("SELECT task_id FROM howdah.runs WHERE lease_token IS NOT NULL")

    assert set(recorded.dayless) == {reports[task].key for task in old}
    assert recorded.unrecorded == recorded.replaced == []
    assert {row["task_id"] for row in leased} == set(old)
    assert {row["task_id"] for row in await queue.history()} == set(new)


async def test_repeat_of_a_snooze_that_age_has_ended_is_recognised(queue: Queue, finishing: Connection) -> None:
    """History has a failure then; the worker that asks again after a lost answer is not told that it came late."""
    await queue.enqueue(retry={"max_age": "1h"})
    [run] = await queue.claim()
    snooze = report(run, "released")._replace(retry_in_s=7_200.0, is_decided=True)
    first = await record(finishing, Runs("howdah"), [snooze])
    again = await record(finishing, Runs("howdah"), [snooze])

    assert [each.verdict for each in first.rearmed] == ["dead"]
    assert (again.already, again.refused) == ([(snooze.key, "failed")], [])
