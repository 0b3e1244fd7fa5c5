"""The views for DBAs: each shows a seeded situation right, and none of them shows what it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import errors, sql

if TYPE_CHECKING:
    from tests.fix_queue import Queue

STATE_VIEWS = {
    "scheduled": "tasks_scheduled",
    "queued": "tasks_queued",
    "blocked": "tasks_blocked",
    "retrying": "tasks_retrying",
    "running": "tasks_running",
    "failed": "tasks_dead",
    "succeeded": "tasks_finished",
    "cancelled": "tasks_finished",
}

# Names of columns that hold what clients sent or got, or what nobody may read.
UNSHOWN = {
    "payload",
    "result",
    "response_body",
    "http",
    "tags",
    "callback_secret",
    "secret_hash",
    "lease_token",
    "answer",
}


async def test_queue_depth_counts_each_state_of_a_lane(queue: Queue) -> None:
    """A lane's row counts its runs by the state that clients see."""
    await _one_in_each_live_state(queue)
    [depth] = await queue.sql("SELECT * FROM howdah.queue_depth")

    assert (depth["tenant"], depth["queue"], depth["priority"]) == ("default", "q", "normal")
    assert [depth[state] for state in ("queued", "scheduled", "retrying", "blocked", "running")] == [1] * 5


async def test_queue_depth_has_a_row_for_each_priority(queue: Queue) -> None:
    """Priorities are lanes of their own."""
    await queue.enqueue(2, priority="high")
    await queue.enqueue(1, priority="low")
    depths = await queue.sql("SELECT priority, queued FROM howdah.queue_depth ORDER BY queued")

    assert depths == [{"priority": "low", "queued": 1}, {"priority": "high", "queued": 2}]


async def test_queue_depth_measures_age_from_when_a_run_became_claimable(queue: Queue) -> None:
    """A delay that the client asked for is no age; time in which nobody came is."""
    await queue.enqueue(delay="1h")
    await queue.sql("SET howdah.clock_offset = '1 hour 10 seconds'")
    [depth] = await queue.sql("SELECT oldest_age_s::float8 AS age_s FROM howdah.queue_depth")

    assert depth["age_s"] == pytest.approx(10, abs=5)


async def test_oldest_waiting_shows_the_head_of_each_lane(queue: Queue) -> None:
    """Of each lane there is one row: the run that is claimed next."""
    first, *_ = await queue.enqueue(3)
    [scheduled] = await queue.enqueue(1, priority="high", delay="1m")
    heads = await queue.sql("SELECT * FROM howdah.oldest_waiting ORDER BY priority DESC")

    assert [(head["priority"], head["task_id"], head["state"]) for head in heads] == [
        ("normal", first, "queued"),
        ("high", scheduled, "scheduled"),
    ]
    assert heads[0]["target"] == "h"
    assert -60 <= heads[1]["age_s"] < 0


async def test_running_shows_who_holds_a_run_and_for_how_long(queue: Queue) -> None:
    """Worker, attempt, and what is left of lease and deadline stand beside the task."""
    worker_id = await _register(queue, "w1")
    [task] = await queue.enqueue(timeout="40s")
    await queue.claim(worker_id=worker_id, lease_s=15)
    [run] = await queue.sql("SELECT * FROM howdah.running")

    assert (run["task_id"], run["worker"], run["attempt"], run["claim_no"]) == (task, "w1", 1, 1)
    assert 10 < run["lease_left_s"] <= 15
    assert 35 < run["deadline_left_s"] <= 40


async def test_stuck_is_empty_while_all_is_well(queue: Queue) -> None:
    """Runs that wait, run, retry, or are parked for a reason are not stuck."""
    await _one_in_each_live_state(queue)
    await queue.sql("UPDATE howdah.targets SET is_parked = true WHERE handler = 'unserved'")

    assert await queue.sql("SELECT * FROM howdah.stuck") == []


async def test_stuck_shows_a_lease_that_nobody_rescued(queue: Queue) -> None:
    """A run whose lease ran out is shown with the time since then and its last worker."""
    worker_id = await _register(queue, "w1")
    [task] = await queue.enqueue()
    await queue.expire(await queue.claim(worker_id=worker_id))
    [stuck] = await queue.sql("SELECT * FROM howdah.stuck")

    assert (stuck["problem"], stuck["task_id"], stuck["worker"]) == ("lease_expired", task, "w1")
    assert 1 <= stuck["since_s"] < 30


async def test_stuck_shows_a_run_past_its_deadline(queue: Queue) -> None:
    """A run that goes on after its timeout, with a lease that is still renewed, is shown once."""
    [task] = await queue.enqueue(timeout="10s")
    await queue.claim(lease_s=60)
    await queue.sql("SET howdah.clock_offset = '20 seconds'")
    stuck = await queue.sql("SELECT problem, task_id FROM howdah.stuck")

    assert stuck == [{"problem": "past_deadline", "task_id": task}]


@pytest.mark.parametrize(("blocked_by", "is_parked"), [(8, False), (1, True), (64, True)])
async def test_stuck_shows_a_run_that_is_blocked_without_a_reason(
    queue: Queue, blocked_by: int, is_parked: bool
) -> None:
    """A run parked for a target that is served, or blocked by a bit that nothing clears, never moves again."""
    [task] = await queue.enqueue()
    await queue.sql("UPDATE howdah.runs SET blocked_by = %s, run_at = 'infinity'", blocked_by)
    await queue.sql("UPDATE howdah.targets SET is_parked = %s WHERE handler = 'h'", is_parked)
    stuck = await queue.sql("SELECT problem, task_id FROM howdah.stuck")

    assert stuck == [{"problem": "blocked_without_reason", "task_id": task}]


@pytest.mark.parametrize(
    ("queues", "handlers", "problem"),
    [
        (["*"], ["h"], "not_claimed"),
        (["x", "q"], ["h"], "not_claimed"),
        (["?"], ["h"], "not_claimed"),
        (["*"], ["other"], "unserved"),
        (["q_"], ["h"], "unserved"),
        (["q.*", "x"], ["h"], "unserved"),
    ],
)
async def test_stuck_shows_the_head_of_a_lane_and_whether_anybody_could_claim_it(
    queue: Queue, queues: list[str], handlers: list[str], problem: str
) -> None:
    """A run that is due for long has workers that are full, or none that claims its target from its queue."""
    task, _ = await queue.enqueue(2)
    await queue.sql("SET howdah.clock_offset = '6 minutes'")
    # Of another queue, or of another target: neither helps.
    await _register(queue, "elsewhere", queues=["elsewhere"], handlers=["h"])
    await _register(queue, "callbacks", queues=["*"], handlers=[], serves_http=True)
    await _register(queue, "w1", queues=queues, handlers=handlers)
    stuck = await queue.sql("SELECT problem, task_id FROM howdah.stuck")

    assert stuck == [{"problem": problem, "task_id": task}]


async def test_stuck_gives_workers_time_to_come_back(queue: Queue) -> None:
    """An unserved queue is shown after a minute, and one whose workers are full after five."""
    await queue.enqueue()
    shown = {}
    for name, handlers in (("served", ["h"]), ("unserved", ["other"])):
        worker_id = await _register(queue, name, handlers=handlers, lease_s=3600.0)
        for offset in ("50 seconds", "70 seconds", "4 minutes", "6 minutes"):
            await queue.sql(f"SET howdah.clock_offset = '{offset}'")
            shown[name, offset] = [row["problem"] for row in await queue.sql("SELECT problem FROM howdah.stuck")]
        await queue.run("worker.stop", worker_id=worker_id)

    assert [shown["served", each] for each in ("50 seconds", "70 seconds", "4 minutes", "6 minutes")] == [
        [],
        [],
        [],
        ["not_claimed"],
    ]
    assert [shown["unserved", each] for each in ("50 seconds", "70 seconds", "4 minutes")] == [
        [],
        ["unserved"],
        ["unserved"],
    ]


async def test_stuck_leaves_parked_targets_to_tasks_blocked(queue: Queue) -> None:
    """Where no worker at all has the handler, runs that are about to be parked are no second problem."""
    await queue.enqueue()
    await queue.sql("UPDATE howdah.targets SET is_parked = true WHERE handler = 'h'")
    await queue.sql("SET howdah.clock_offset = '6 minutes'")

    assert await queue.sql("SELECT * FROM howdah.stuck") == []


async def test_stuck_shows_callbacks_of_a_queue_that_nobody_delivers(queue: Queue) -> None:
    """Callbacks are a target like handlers: who claims from the queue must deliver them."""
    await queue.enqueue()
    await queue.sql('SELECT howdah.enqueue(\'hooks\', options => \'{"http": {"url": "https://example.com"}}\')')
    await queue.sql("SET howdah.clock_offset = '6 minutes'")
    await _register(queue, "handlers", queues=["*"], handlers=["h"])
    await _register(queue, "callbacks", queues=["q"], handlers=[], serves_http=True)
    stuck = await queue.sql("SELECT problem, queue, target FROM howdah.stuck ORDER BY queue")

    assert [tuple(row.values()) for row in stuck] == [("unserved", "hooks", "http"), ("not_claimed", "q", "h")]


async def test_recent_failures_show_type_and_message_of_the_last_day(queue: Queue) -> None:
    """A failed attempt is listed with its error for 24 hours; successes never are."""
    await queue.enqueue(2)
    failed, succeeded = await queue.claim(2)
    await queue.fail([failed])
    await queue.complete([succeeded])
    [failure] = await queue.sql("SELECT * FROM howdah.recent_failures")
    await queue.sql("SET howdah.clock_offset = '25 hours'")

    assert (failure["task_id"], failure["outcome"], failure["is_final"]) == (failed["task_id"], "failed", False)
    assert (failure["error_type"], failure["error_message"]) == ("test", "it failed")
    assert await queue.sql("SELECT * FROM howdah.recent_failures") == []


async def test_every_task_is_in_the_view_of_its_state_and_in_no_other(queue: Queue) -> None:
    """The views for the states divide all tasks among them as howdah.task_state does."""
    await _one_in_each_live_state(queue)
    await _one_in_each_final_state(queue)
    shown = [
        (row["task_id"], view)
        for view in set(STATE_VIEWS.values())
        for row in await queue.sql(f"SELECT * FROM howdah.{view}")
        # A dead letter has a final history row too, which says so.
        if (view, row.get("state")) != ("tasks_finished", "failed")
    ]
    states = await queue.sql("SELECT id, howdah.task_state(tenant_id, id) AS state FROM howdah.tasks")

    assert sorted(row["state"] for row in states) == sorted(STATE_VIEWS)
    assert sorted(shown) == sorted((row["id"], STATE_VIEWS[row["state"]]) for row in states)


async def test_tasks_blocked_names_every_reason(queue: Queue) -> None:
    """Each bit of blocked_by becomes words; a missing worker names the handler that it would need."""
    await queue.enqueue()
    await queue.sql("UPDATE howdah.runs SET blocked_by = 15, run_at = 'infinity', flow_key_id = 1, flow_state = 1")
    [blocked] = await queue.sql("SELECT reason, blocked_by FROM howdah.tasks_blocked")

    assert blocked["blocked_by"] == 15
    assert blocked["reason"].split(", ") == [
        "waits for earlier steps of its workflow",
        "waits for an approval",
        "waits for room under the limit of its flow key",
        "no live worker serves the handler h",
    ]


async def test_tasks_dead_tells_why_a_task_was_given_up(queue: Queue) -> None:
    """A dead letter has its reason, its attempts and the last error."""
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    await queue.fail(await queue.claim())
    [dead] = await queue.sql("SELECT * FROM howdah.tasks_dead")

    assert (dead["task_id"], dead["reason"], dead["attempt"]) == (task, "attempts", 1)
    assert (dead["error_type"], dead["error_message"]) == ("test", "it failed")


async def test_workers_live_shows_processes_that_still_beat(queue: Queue) -> None:
    """A worker is live, or stopping, until its heartbeat is three leases old or it has stopped."""
    live = await _register(queue, "live")
    stopping = await _register(queue, "stopping")
    stopped = await _register(queue, "stopped")
    await _register(queue, "silent")
    await queue.run("worker.stop", worker_id=stopped)
    await queue.sql("SET howdah.clock_offset = '1 minute'")
    await queue.run("worker.heartbeat", worker_id=live, name="live", is_stopping=False)
    await queue.run("worker.heartbeat", worker_id=stopping, name="stopping", is_stopping=True)
    await queue.enqueue(2)
    await queue.claim(2, worker_id=live)
    workers = await queue.sql("SELECT worker, state, running FROM howdah.workers_live ORDER BY worker")

    assert workers == [
        {"worker": "live", "state": "live", "running": 2},
        {"worker": "stopping", "state": "stopping", "running": 0},
    ]


async def test_chores_show_what_is_overdue_and_why(queue: Queue) -> None:
    """A chore that fails is overdue from its planned time on and shows its last error."""
    await queue.run("maintenance.fail", chore="sweep", retry_s=5.0, retry_s_max=5.0, error="out of luck")
    await queue.run("maintenance.finish", chore="rescue", next_in_s=60.0, cost_s=0.1, state=None)
    await queue.sql("SET howdah.clock_offset = '15 seconds'")
    chores = {row["chore"]: row for row in await queue.sql("SELECT * FROM howdah.chores")}

    assert chores["rescue"]["overdue_s"] == 0
    assert chores["rescue"]["last_good_age_s"] >= 15
    assert 9 <= chores["sweep"]["overdue_s"] < 30
    assert (chores["sweep"]["failures"], chores["sweep"]["last_error"]) == (1, "out of luck")


async def test_no_view_shows_what_clients_sent_or_what_is_secret(queue: Queue) -> None:
    """Views hold no payload, result, answer, URL, tag, token or secret."""
    columns = await queue.sql(
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.views "
        "USING (table_schema, table_name) WHERE table_schema = 'howdah'"
    )

    assert len({row["table_name"] for row in columns}) >= len(STATE_VIEWS)
    assert [row for row in columns if row["column_name"] in UNSHOWN] == []


async def test_views_never_hold_a_payload_whatever_a_task_carries(queue: Queue) -> None:
    """A canary in payload, tags, URL, result and answer of tasks in every state is in no view."""
    await _one_in_each_live_state(queue)
    await _one_in_each_final_state(queue)
    await queue.sql(
        "UPDATE howdah.tasks SET payload = '\"canary\"', tags = '{\"a\": \"canary\"}', traceparent = 'canary', "
        'http = CASE WHEN target_id = 0 THEN \'{"url": "https://canary"}\'::jsonb END'
    )
    await queue.sql("UPDATE howdah.finished_runs SET result = '\"canary\"', response_body = 'canary'")
    leaks = [
        view
        for view in await _names(queue, "v")
        if await queue.sql(f"SELECT 1 FROM howdah.{view} AS v WHERE v::text LIKE '%canary%'")
    ]

    assert leaks == []


async def test_readonly_role_reads_every_view(queue: Queue) -> None:
    """Who is granted howdah_readonly can read each view, with all its columns."""
    await _one_in_each_live_state(queue)
    views = await _names(queue, "v")
    await queue.sql("SET ROLE howdah_readonly")
    read = {view: await queue.sql(f"SELECT * FROM howdah.{view}") for view in views}

    assert len(read["running"]) == 1


async def test_readonly_role_reads_no_table_and_changes_nothing(queue: Queue) -> None:
    """Who is granted howdah_readonly gets at no table, no partition and no function that writes."""
    [task] = await queue.enqueue()
    tables = await _names(queue, "rp")
    session = await queue.connect()
    await session.execute("SET ROLE howdah_readonly")
    refused = [
        *(sql.SQL("SELECT 1 FROM howdah.{}").format(sql.Identifier(table)) for table in tables),
        sql.SQL("SELECT howdah.enqueue('q', 'h')"),
        sql.SQL("SELECT * FROM howdah.enqueue_many(NULL, '[]')"),
        sql.SQL("SELECT howdah.cancel({})").format(sql.Literal(str(task))),
        sql.SQL("SELECT howdah.make_partitions(1)"),
        sql.SQL("UPDATE howdah.chores SET failures = 0"),
        sql.SQL("DELETE FROM howdah.chores"),
    ]
    for statement in refused:
        with pytest.raises(errors.InsufficientPrivilege):
            await session.execute(statement)

    assert len(tables) > 12


async def test_every_object_of_the_schema_has_a_comment(queue: Queue) -> None:
    """A DBA learns from psql what each table, view, column and function is for."""
    bare = await queue.sql(
        """
        SELECT c.relname || coalesce('.' || a.attname, '') AS name
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'howdah'::regnamespace
            AND c.relkind IN ('r', 'p', 'v')
            AND NOT c.relispartition
            AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)
        UNION ALL
        SELECT p.oid::regprocedure::text
        FROM pg_proc AS p
        WHERE p.pronamespace = 'howdah'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        """
    )

    assert [row["name"] for row in bare] == []


async def _one_in_each_live_state(queue: Queue) -> None:
    """Store five tasks and bring each into another state of those that have a run."""
    [retrying] = await queue.enqueue()
    await queue.fail(await queue.claim(), retry_in_s=100)
    [running] = await queue.enqueue()
    await queue.claim(lease_s=15)
    await queue.enqueue(delay="1h")
    [blocked] = await queue.enqueue(handler="unserved")
    await queue.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity' WHERE task_id = %s", blocked)
    await queue.enqueue()
    assert len({retrying, running, blocked}) == 3


async def _one_in_each_final_state(queue: Queue) -> None:
    """Store three tasks and end each in another way; a callback is cancelled."""
    failing, succeeding = await queue.enqueue(2, retry={"max_attempts": 1})
    callback = 'howdah.enqueue(\'q\', options => \'{"http": {"url": "https://example.com/"}}\')'
    await queue.sql(f"SELECT howdah.cancel({callback})")
    [run] = await queue.sql("SELECT run_at FROM howdah.runs WHERE task_id = %s", failing)
    runs = await queue.claim(2, horizon=(run["run_at"], failing))
    assert [each["task_id"] for each in runs] == [failing, succeeding]
    await queue.fail(runs[:1])
    await queue.complete(runs[1:])


async def _register(queue: Queue, name: str, **fields: object) -> int:
    """Register a live worker that serves all of the queue, and return its id."""
    [worker] = await queue.run(
        "worker.register",
        **{
            "name": name,
            "host": "localhost",
            "pid": 1,
            "version": "0",
            "queues": ["*"],
            "handlers": ["h"],
            "serves_http": False,
            "concurrency": 10,
            "lease_s": 15.0,
            **fields,
        },
    )
    return int(worker["id"])


async def _names(queue: Queue, kinds: str) -> list[str]:
    """Names of the relations of these kinds in the schema."""
    rows = await queue.sql(
        "SELECT relname FROM pg_class "
        "WHERE relnamespace = 'howdah'::regnamespace AND relkind = ANY (%s) ORDER BY relname",
        list(kinds),
    )
    return [row["relname"] for row in rows]
