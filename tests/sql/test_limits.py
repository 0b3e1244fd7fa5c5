"""Limits of queues and flow keys, statement by statement, with several workers played in turn."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.fix_queue import FLOOR
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from tests.fix_queue import Queue

FLOW = {"key": "customer-42", "concurrency": 1}


async def limit(queue: Queue, **columns: Any) -> None:
    """Set the limits of the queue `q`."""
    for name, value in columns.items():
        await queue.sql(f"UPDATE howdah.queues SET {name} = %s WHERE name = 'q'", value)


async def limit_rate(queue: Queue, limit: int, period_s: float, burst: int) -> None:
    """Set the rate of the queue `q`."""
    await queue.sql(
        "UPDATE howdah.queues SET rate_limit = %s, rate_period_s = %s, rate_burst = %s WHERE name = 'q'",
        limit,
        period_s,
        burst,
    )


async def advance(queue: Queue, seconds: float) -> None:
    """Let the database's time pass."""
    await queue.sql("SELECT set_config('howdah.clock_offset', %s, false)", f"{seconds} s")


async def now_s(queue: Queue) -> float:
    """Return the database's time in seconds."""
    [row] = await queue.sql("SELECT extract(epoch FROM howdah.now())::float8 AS s")
    return float(row["s"])


async def running(queue: Queue) -> int:
    """How many runs hold a lease."""
    [row] = await queue.sql("SELECT count(*) AS n FROM howdah.runs WHERE lease_token IS NOT NULL")
    return int(row["n"])


async def states(queue: Queue) -> Counter[str]:
    """How many tasks are in each state."""
    rows = await queue.sql("SELECT howdah.task_state(tenant_id, id) AS state FROM howdah.tasks")
    return Counter(row["state"] for row in rows)


async def test_runs_of_several_limited_queues_have_the_timeouts_of_their_own(queue: Queue) -> None:
    """One claim takes from all of them; what a task says of itself counts for more."""
    names = ["first", "between", "q"]
    for timeout_s, name in enumerate(names, start=100):
        await queue.sql("SELECT howdah.set_queue(%s, %s)", name, json.dumps({"max_running": 10}))
        await queue.sql("UPDATE howdah.queues SET timeout_s = %s WHERE name = %s", timeout_s, name)
    await queue.enqueue(1, timeout="7s")
    for name in names:
        await queue.enqueue(2, queue=name)
    ids = {row["name"]: row["id"] for row in await queue.sql("SELECT name, id FROM howdah.queues")}
    offered = [ids["q"], ids["first"]]
    runs = await queue.run(
        "run.claim_limited",
        queue_ids=offered,
        priorities=[1, 1],
        horizon_run_ats=[FLOOR[0]] * 2,
        horizon_task_ids=[FLOOR[1]] * 2,
        shares=[10, 10],
        target_ids=[queue.target_id],
        worker_id=1,
        lease_token=uuid.uuid4(),
        lease_s=15.0,
        grace_s=1e9,
    )

    assert sorted((run["queue_id"], run["timeout_s"]) for run in runs) == sorted(
        [(ids["first"], 100.0)] * 2 + [(ids["q"], 102.0)] * 2 + [(ids["q"], 7.0)]
    )


async def test_the_plain_claim_passes_queues_with_limits_by(queue: Queue) -> None:
    """A worker that has not heard of a limit yet claims nothing in spite of it."""
    await queue.enqueue(3)
    await limit(queue, max_running=2)

    assert await queue.claim(3) == []
    assert len(await queue.claim_limited(3)) == 2


async def test_max_running_is_never_exceeded_by_claims_at_once(queue: Queue) -> None:
    """Eight claims that begin together take exactly what is free, over all priorities."""
    await queue.enqueue(20)
    await queue.enqueue(20, priority="high")
    await limit(queue, max_running=7)
    sessions = [await queue.connect() for _ in range(8)]
    claims = await asyncio.gather(*(queue.claim_limited(3, priorities=(2, 1), conn=each) for each in sessions))

    assert sum(map(len, claims)) == 7
    assert await running(queue) == 7


async def test_room_comes_back_with_every_way_a_run_ends(queue: Queue) -> None:
    """Success, failure, hand-back and rescue free what they held, and settling names the lane that has work."""
    await queue.enqueue(9)
    await limit(queue, max_running=4)
    done, failed, released, lost = await queue.claim_limited(4)
    assert await queue.claim_limited(4) == []

    await queue.complete([done])
    await queue.fail([failed], retry_in_s=60)
    await queue.release([released])
    await queue.expire([lost])
    await queue.rescue()
    lanes = await queue.settle()

    assert [(row["queue_id"], row["priority"]) for row in lanes] == [(queue.queue_id, 1)]
    assert len(await queue.claim_limited(9)) == 4


async def test_a_lower_limit_waits_for_what_runs_already(queue: Queue) -> None:
    """Runs that were claimed before the limit was set count."""
    await queue.enqueue(6)
    plain = await queue.claim(3)
    await limit(queue, max_running=2)
    assert await queue.claim_limited(3) == []

    await queue.complete(plain[:2])
    assert len(await queue.claim_limited(3)) == 1


async def test_a_rate_lets_the_burst_go_and_then_its_pace(queue: Queue) -> None:
    """10 a second with a burst of 4: 4 at once, and never more than 4 + 10 t in t seconds, nor much less."""
    await queue.enqueue(100)
    await limit_rate(queue, 10, 1.0, 4)
    begun = await now_s(queue)

    taken = len(await queue.claim_limited(50))
    assert taken == 4
    for tick in range(1, 300):
        await advance(queue, tick / 100)
        taken += len(await queue.claim_limited(50))
        allowed = 4 + 10 * (await now_s(queue) - begun)
        assert allowed - 2 < taken <= allowed


async def test_a_fast_rate_is_paid_for_in_blocks(queue: Queue) -> None:
    """1,000 a second: the queue's row is updated about ten times a second, however often workers claim."""
    await queue.enqueue(5000)
    await limit_rate(queue, 1000, 1.0, 200)
    begun = await now_s(queue)
    counts = []
    for tick in range(100):
        await advance(queue, tick / 1000)
        counts.append(len(await queue.claim_limited(500)))
    seconds = await now_s(queue) - begun

    assert all(count == 0 or count >= 100 for count in counts)
    assert 200 + 1000 * seconds - 110 < sum(counts) <= 200 + 1000 * seconds


async def test_a_flow_key_of_one_runs_its_tasks_in_order(queue: Queue) -> None:
    """One at a time, in the order in which they came, also when an attempt has to be made again."""
    ids = await queue.enqueue(4, flow=FLOW)
    order = []
    for attempt in range(5):
        [run] = await queue.claim_limited(9)
        assert await queue.claim_limited(9) == []
        order.append(run["task_id"])
        if attempt == 1:
            await queue.fail([run], retry_in_s=0)
        else:
            await queue.complete([run])
        await queue.settle([run])

    assert order == [ids[0], ids[1], ids[1], ids[2], ids[3]]
    assert await states(queue) == {"succeeded": 4}


async def test_a_task_keeps_its_place_while_it_waits_for_another_attempt(queue: Queue) -> None:
    """With concurrency 1 nothing overtakes a task that failed and is to be tried again."""
    await queue.enqueue(2, flow=FLOW)
    [first] = await queue.claim_limited(9)
    await queue.fail([first], retry_in_s=30)
    await queue.settle([first])

    assert await queue.claim_limited(9) == []
    assert await states(queue) == {"retrying": 1, "blocked": 1}
    await advance(queue, 31)
    [again] = await queue.claim_limited(9)
    assert again["task_id"] == first["task_id"]


async def test_tasks_of_other_keys_and_without_one_are_not_kept_waiting(queue: Queue) -> None:
    """Parked runs leave the head of their lane."""
    await queue.enqueue(50, flow=FLOW)
    other = await queue.enqueue(1, flow={"key": "customer-43", "concurrency": 1})
    plain = await queue.enqueue(1)
    claimed = await queue.claim_limited(3)

    assert [run["task_id"] for run in claimed[1:]] == [*other, *plain]
    assert (await states(queue))["blocked"] == 49


async def test_parked_runs_are_not_looked_at_again(queue: Queue) -> None:
    """While a key is full, claims change nothing any more."""
    await queue.enqueue(30, flow=FLOW)
    await queue.claim_limited(9)
    [before] = await queue.sql(
        "SELECT md5(string_agg(r::text || r.xmin::text, ',' ORDER BY task_id)) FROM howdah.runs r"
    )
    for _ in range(3):
        assert await queue.claim_limited(9) == []
    [after] = await queue.sql(
        "SELECT md5(string_agg(r::text || r.xmin::text, ',' ORDER BY task_id)) FROM howdah.runs r"
    )

    assert after == before


async def test_flow_keys_hold_under_claims_and_ends_at_once(queue: Queue) -> None:
    """Four workers, twenty keys of concurrency 2, 400 tasks: never more than 2 of a key, and all get done."""
    for number in range(20):
        await queue.enqueue(20, flow={"key": f"k{number}", "concurrency": 2})
    sessions = [await queue.connect() for _ in range(4)]
    most: Counter[int] = Counter()
    is_done = asyncio.Event()

    async def watch() -> None:
        while not is_done.is_set():
            rows = await queue.sql(
                "SELECT flow_key_id, count(*) AS n FROM howdah.runs WHERE lease_token IS NOT NULL GROUP BY 1"
            )
            for row in rows:
                most[row["flow_key_id"]] = max(most[row["flow_key_id"]], row["n"])

    async def work(conn: Any) -> None:
        while not is_done.is_set():
            runs = await queue.claim_limited(7, conn=conn)
            if runs:
                await queue.complete(runs, conn=conn)
                keys = [run["flow_key_id"] for run in runs]
                await queue.run("run.settle", conn, queue_ids=[queue.queue_id], flow_key_ids=keys)
            else:
                [row] = await (await conn.execute("SELECT count(*) AS n FROM howdah.runs")).fetchall()
                if row["n"] == 0:
                    is_done.set()
                # What the chore does: a key whose lock took longer than 50 ms on a busy machine was left out.
                keys = [each["id"] for each in await queue.sql("SELECT id FROM howdah.flow_keys")]
                await queue.run("run.settle", conn, queue_ids=[], flow_key_ids=keys)

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(asyncio.gather(*(work(conn) for conn in sessions)), 60)
    await watching

    assert await states(queue) == {"succeeded": 400}
    assert max(most.values()) <= 2


async def test_a_higher_priority_of_a_key_goes_first(queue: Queue) -> None:
    """Of the runs that wait for a key, priority decides, then age."""
    await queue.enqueue(1, flow=FLOW)
    [first] = await queue.claim_limited(1)
    low = await queue.enqueue(1, flow=FLOW, priority="low")
    high = await queue.enqueue(1, flow=FLOW, priority="high")
    assert await queue.claim_limited(9, priorities=(2, 0)) == []
    await queue.complete([first])
    await queue.settle([first])
    [second] = await queue.claim_limited(9)
    await queue.complete([second])
    await queue.settle([second])
    [third] = await queue.claim_limited(9)

    assert [second["task_id"], third["task_id"]] == [*high, *low]


async def test_a_delayed_task_takes_its_place_when_it_is_due(queue: Queue) -> None:
    """A task that is not due yet holds nobody up."""
    await queue.enqueue(1, flow=FLOW, delay="60s")
    soon = await queue.enqueue(1, flow=FLOW)
    [run] = await queue.claim_limited(9)

    assert run["task_id"] == soon[0]


async def test_a_key_is_shared_by_queues_of_a_tenant(queue: Queue) -> None:
    """The limit of a key holds over all queues of its tenant, and is another key in another tenant."""
    await queue.enqueue(1, flow=FLOW)
    await queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")
    items = json.dumps([{"queue": "q", "handler": "h", "flow": FLOW}])
    await queue.sql("SELECT howdah.enqueue('q2', 'h', options => %s)", json.dumps({"flow": FLOW}))
    await queue.sql("SELECT * FROM howdah.enqueue_many('other', %s)", items)
    claimed = []
    for row in await queue.sql("SELECT id FROM howdah.queues ORDER BY id"):
        queue.queue_id = row["id"]
        [target] = await queue.sql(
            "SELECT t.id FROM howdah.targets AS t JOIN howdah.queues AS q ON q.tenant_id = t.tenant_id AND q.id = %s "
            "WHERE t.handler = 'h'",
            row["id"],
        )
        queue.target_id = target["id"]
        claimed.append(len(await queue.claim_limited(9)))

    assert claimed == [1, 0, 1]


async def test_the_newest_task_says_what_its_key_allows(queue: Queue) -> None:
    """A key's limit is changed by the next task that names another; what waits is granted by the next settling."""
    await queue.enqueue(3, flow=FLOW)
    [first] = await queue.claim_limited(9)
    await queue.enqueue(1, flow={**FLOW, "concurrency": 3})
    [word] = await queue.settle([first])

    assert word["priority"] == 4
    assert len(await queue.claim_limited(9)) == 2


async def test_a_cancelled_holder_gives_its_place_away(queue: Queue) -> None:
    """Cancelling a task that waits for its next attempt lets the next one of its key start."""
    first, second = await queue.enqueue(2, flow=FLOW)
    [run] = await queue.claim_limited(9)
    await queue.fail([run], retry_in_s=60)
    assert await queue.claim_limited(9) == []
    await queue.sql("SELECT howdah.cancel(%s)", first)

    assert [each["task_id"] for each in await queue.claim_limited(9)] == [second]


async def test_a_rate_of_a_key_spreads_its_starts(queue: Queue) -> None:
    """Two a second with a burst of 1: starts in order, half a second from each to the next, and not much more."""
    ids = await queue.enqueue(4, flow={"key": "k", "rate": {"limit": 2, "period": "1s", "burst": 1}})
    starts = []
    for tick in range(300):
        await advance(queue, tick / 100)
        starts += await queue.claim_limited(9)
        if len(starts) == 4:
            break
    rows = await queue.sql("SELECT task_id, extract(epoch FROM claimed_at)::float8 AS s FROM howdah.runs ORDER BY s")
    gaps = [after["s"] - before["s"] for before, after in itertools.pairwise(rows)]

    assert [row["task_id"] for row in rows] == ids
    assert all(0.5 <= gap < 0.65 for gap in gaps)


async def test_put_off_runs_are_looked_at_when_they_may_start(queue: Queue) -> None:
    """A hundred runs over the rate are each put off once, to a time of their own."""
    await queue.enqueue(100, flow={"key": "k", "rate": {"limit": 10, "period": "1s", "burst": 1}})
    assert len(await queue.claim_limited(100)) == 1
    rows = await queue.sql("SELECT run_at FROM howdah.runs WHERE lease_token IS NULL ORDER BY run_at, task_id")
    gaps = {round((b["run_at"] - a["run_at"]).total_seconds(), 3) for a, b in itertools.pairwise(rows)}

    assert len(rows) == 99
    assert gaps == {0.1}


async def test_an_open_transaction_that_has_a_key_delays_only_that_key(queue: Queue) -> None:
    """Runs of a key whose row a client keeps locked are parked; the next settling grants them their place."""
    [mine] = await queue.enqueue(1, flow=FLOW)
    other = await queue.enqueue(1, flow={"key": "other", "concurrency": 1})
    client = await queue.connect()
    async with client.transaction():
        await client.execute("SELECT 1 FROM howdah.flow_keys WHERE key = 'customer-42' FOR UPDATE")
        claimed = await asyncio.wait_for(queue.claim_limited(9), 5)
        assert [run["task_id"] for run in claimed] == other
        assert await queue.state(mine) == "blocked"
    [key] = await queue.sql("SELECT id FROM howdah.flow_keys WHERE key = 'customer-42'")
    await queue.run("run.settle", queue_ids=[], flow_key_ids=[key["id"]])

    assert [run["task_id"] for run in await queue.claim_limited(9)] == [mine]


async def test_a_claim_does_not_wait_for_a_client_that_keeps_a_queue_locked(queue: Queue) -> None:
    """The queue is left out; the claim answers at once."""
    await queue.enqueue(1)
    await limit(queue, max_running=1)
    client = await queue.connect()
    async with client.transaction():
        await client.execute("SELECT 1 FROM howdah.queues FOR UPDATE")
        assert await asyncio.wait_for(queue.claim_limited(9), 5) == []

    assert len(await queue.claim_limited(9)) == 1


async def test_two_claims_at_once_keep_the_order_of_a_key(queue: Queue) -> None:
    """A claim that comes while another one is under way waits for it: it must not pass the first run of a key by."""
    ids = await queue.enqueue(2, flow=FLOW)
    first, second = await queue.connect(), await queue.connect()
    async with first.transaction():
        [run] = await queue.claim_limited(1, conn=first)
        waiting = asyncio.create_task(queue.claim_limited(1, conn=second))
        await eventually_async(lambda: _is_waiting(queue, second), 5, "the second claim waits")
    assert run["task_id"] == ids[0]
    assert await waiting == []


async def _is_waiting(queue: Queue, conn: Any) -> bool:
    [row] = await queue.sql(
        "SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity WHERE pid = %s", conn.info.backend_pid
    )
    return bool(row["waits"])


async def test_a_flow_that_is_refused_makes_no_key(queue: Queue) -> None:
    """Neither a bad flow nor another flaw of the item leaves anything behind."""
    items = [
        {"queue": "q", "handler": "h", "flow": {"key": "a", "concurrency": 0}},
        {"queue": "q", "handler": "h", "flow": {"key": "b", "concurrency": 1}, "priority": "urgent"},
    ]
    rows = await queue.sql("SELECT * FROM howdah.enqueue_many('default', %s)", json.dumps(items))

    assert {row["ordinal"]: row["error"].split()[1] for row in rows} == {1: "/flow/concurrency", 2: "/priority"}
    assert await queue.sql("SELECT 1 FROM howdah.flow_keys") == []
