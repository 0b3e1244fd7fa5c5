"""Limits under kills: never exceeded, and nothing waits for ever."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from tests.fix_fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(400)]

TASKS = 100_000
KEYS = 1_000
KILLS = 8
MAX_RUNNING = 300

# A place is taken from a claim to the end that is recorded for it, also where the worker was killed in between.
MOST_AT_ONCE = """
WITH claim AS (
    SELECT {group} AS name, f.claimed_at, f.finished_at
    FROM howdah.finished_runs AS f
    JOIN howdah.tasks AS t ON t.tenant_id = f.tenant_id AND t.id = f.task_id
    JOIN howdah.queues AS q ON q.id = f.queue_id
    WHERE f.claimed_at IS NOT NULL
),
event AS (
    SELECT c.name, c.claimed_at AS at, 1 AS change FROM claim AS c
    UNION ALL
    SELECT c.name, c.finished_at, -1 FROM claim AS c
)
SELECT count.name, max(count.running)
FROM (
    SELECT e.name, sum(e.change) OVER (PARTITION BY e.name ORDER BY e.at, e.change) AS running FROM event AS e
) AS count
GROUP BY count.name
"""


def test_limits_hold_while_workers_are_killed(fleet: Fleet) -> None:
    """4 workers, 8 kills, 100,000 runs over 1,000 keys: no key and no queue ever has more than it may."""
    fleet.add_scheduler()
    fleet.query("SELECT howdah.set_queue('keys')")
    fleet.query("SELECT howdah.set_queue('queue', %s)", json.dumps({"max_running": MAX_RUNNING}))
    limits = {f"k{number}": 1 + number % 3 for number in range(KEYS)}
    for start in range(0, TASKS, 1_000):
        items = [
            {
                "queue": "keys" if number % 10 else "queue",
                "handler": "chaos.noop",
                "flow": {"key": f"k{number % KEYS}", "concurrency": limits[f"k{number % KEYS}"]},
            }
            for number in range(start, start + 1_000)
        ]
        fleet.query("SELECT count(*) FROM howdah.enqueue_many(NULL, %s::json)", json.dumps(items))
    workers = [fleet.add_worker(f"worker{number}", HOWDAH_CONCURRENCY="200") for number in range(4)]
    choose = random.Random(4)

    def done() -> int:
        return int(fleet.query("SELECT count(*) FROM howdah.finished_runs WHERE is_final")[0][0])

    for kill in range(KILLS):
        eventually(lambda mark=(kill + 1) * 3_000: done() >= mark, 60, f"{(kill + 1) * 3_000} tasks have ended")
        victim = choose.choice(workers)
        victim.kill()
        victim.start()
    eventually(fleet.drained, 240, "all tasks end")
    most = dict(fleet.query(MOST_AT_ONCE.format(group="t.flow ->> 'key'")))
    most_of_queue = dict(fleet.query(MOST_AT_ONCE.format(group="q.name")))

    assert fleet.query("SELECT outcome, count(*) FROM howdah.finished_runs WHERE is_final GROUP BY outcome") == [
        ("succeeded", TASKS)
    ]
    assert fleet.outcomes().get("lost", 0) > 0, "the kills met nothing"
    assert {key: count for key, count in most.items() if count > limits[key]} == {}
    assert most_of_queue["queue"] <= MAX_RUNNING
