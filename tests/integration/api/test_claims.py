"""Claims over HTTP: who gets which runs, who waits, and what becomes of runs that nobody is there for."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.api import pulls as pulls_module
from howdah.api.call import Call
from howdah.api.pull_line import ANSWER_BYTES_MAX
from howdah.core.store.lanes import Lanes
from howdah.core.store.runs import Runs
from tests.fix_api import Api, assert_problem, serving
from tests.fix_pull import Consumer, statuses
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from howdah.core.model import Offer


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[list[Offer]]:
    """What each claim statement of this process asks for."""
    seen: list[list[Offer]] = []
    original = Runs.claim

    async def claim(self: Runs, conn: Any, offers: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append(list(offers))
        return await original(self, conn, offers, *arguments, **keywords)

    monkeypatch.setattr(Runs, "claim", claim)
    return seen


async def waiting(api: Api, count: int) -> None:
    """Return once so many claims wait."""
    await eventually_async(lambda: api.backend.gate.wait_count == count, 10, f"{count} claims wait")


async def states(api: Api) -> list[tuple[Any, ...]]:
    """Attempt, claims and whether it is leased of every live run."""
    return await api.sql("SELECT attempt, claim_no, lease_token IS NOT NULL FROM howdah.runs ORDER BY task_id")


async def test_claim_answers_all_that_the_execution_needs(api: Api, consumer: Consumer) -> None:
    """A run comes with its lease, its deadline, its fence and the task's own data, the payload byte for byte."""
    body = b'{"queue": "q", "handler": "h", "payload": {"b": 1,  "a": 1.0}, "tags": {"x": "y"}, "timeout": "5m"}'
    task = (await api.post("/v1/tasks", body)).json()
    answer = await consumer.ask(lease="1m")
    [run] = answer.json()["runs"]
    [(now, token)] = await api.sql("SELECT claimed_at, lease_token::text FROM howdah.runs")

    assert b'"payload":{"b": 1,  "a": 1.0}' in answer.content
    assert run == {
        "task_id": task["id"],
        "lease_token": token,
        "lease_expires_at": run["lease_expires_at"],
        "deadline_at": run["deadline_at"],
        "timeout": "5m",
        "attempt": 1,
        "claim_no": 1,
        "queued_at": task["created_at"],
        "handler": "h",
        "payload": {"b": 1, "a": 1.0},
        "tags": {"x": "y"},
    }
    assert datetime.fromisoformat(run["lease_expires_at"]) == now + timedelta(minutes=1)
    assert datetime.fromisoformat(run["deadline_at"]) == now + timedelta(minutes=5)


async def test_timeout_of_the_task_bounds_the_lease(api: Api, consumer: Consumer) -> None:
    """However long a lease was asked for, it ends ten seconds past the deadline, and no heartbeat moves it further."""
    await api.create(timeout="2s")
    [run] = await consumer.claim(lease="1h")
    [beat] = await consumer.heartbeat(run, lease="1h")
    [(expires_at, deadline_at)] = await api.sql("SELECT lease_expires_at, deadline_at FROM howdah.runs")

    assert expires_at == deadline_at + timedelta(seconds=10)
    assert datetime.fromisoformat(run["lease_expires_at"]) == expires_at
    assert datetime.fromisoformat(beat["lease_expires_at"]) == expires_at


async def test_no_run_is_given_twice(api: Api, consumer: Consumer) -> None:
    """Claims at once, for batches, get different runs and all of them."""
    ids = {(await api.create())["id"] for _ in range(40)}
    claims = await asyncio.gather(*(consumer.claim(max=7) for _ in range(8)))
    got = [run["task_id"] for runs in claims for run in runs]

    assert len(got) == len(set(got)) == 40
    assert set(got) == ids
    assert await consumer.claim() == []


async def test_claim_that_waits_is_woken_by_new_work(api: Api, consumer: Consumer) -> None:
    """A task is with its consumer long before the next poll; over SQL too."""
    took_s = []
    for make in (api.create, lambda: api.sql("SELECT howdah.enqueue('q', 'h')")):
        claim = asyncio.create_task(consumer.claim(wait="20s"))
        await waiting(api, 1)
        began = time.monotonic()
        await make()
        [_] = await claim
        took_s.append(time.monotonic() - began)

    # Alone on a machine it takes 5 ms; a poll would take up to a second.
    assert min(took_s) < 0.5


async def test_claim_that_waits_gets_a_task_when_it_falls_due(api: Api, consumer: Consumer) -> None:
    """Nobody tells of a task whose time comes: the line knows, and wakes for it."""
    task = await api.create(delay="700ms")
    [run] = await consumer.claim(wait="20s")
    [(late_s,)] = await api.sql("SELECT extract(epoch FROM claimed_at - due_at)::float FROM howdah.runs")

    assert run["task_id"] == task["id"]
    assert 0 <= late_s < 0.5


async def test_wait_ends_with_nothing_when_it_is_over(api: Api, consumer: Consumer) -> None:
    """A long poll without work is answered with no runs, at its end and not before."""
    began = time.monotonic()
    runs = await consumer.claim(wait="300ms")

    assert runs == []
    assert 0.3 <= time.monotonic() - began < 5


async def test_many_who_wait_are_woken_as_work_comes_and_in_turn(
    api: Api, consumer: Consumer, offered: list[list[Offer]]
) -> None:
    """Three tasks serve the three who have waited longest, with about as many claims; the others wait on."""
    claims = []
    for place in range(20):
        claims.append(asyncio.create_task(consumer.claim(wait="30s", max=1)))
        await waiting(api, place + 1)
    before = len(offered)
    await api.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", json.dumps([{"queue": "q", "handler": "h"}] * 3))
    done = await asyncio.gather(*claims[:3])
    claim_count = len(offered) - before

    assert [len(runs) for runs in done] == [1, 1, 1]
    assert [claim.done() for claim in claims[3:]] == [False] * 17
    assert claim_count <= 5
    for claim in claims[3:]:
        claim.cancel()


async def test_client_that_goes_away_while_it_waits_gets_nothing(api: Api, consumer: Consumer) -> None:
    """What comes later goes to somebody else, as its first attempt."""
    gone = asyncio.create_task(consumer.claim(wait="30s"))
    await waiting(api, 1)
    gone.cancel()
    await waiting(api, 0)
    await api.create()
    [run] = await consumer.claim(wait="5s")

    assert (run["attempt"], run["claim_no"]) == (1, 1)


@pytest.mark.parametrize("at", ["while it is claimed", "before it is answered"])
async def test_runs_of_a_client_that_has_gone_are_handed_back(
    api: Api, consumer: Consumer, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A client that vanishes when its claim is under way, or served, costs no attempt and no wait for a lease."""
    hold, held = asyncio.Event(), asyncio.Event()

    def paused(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wait(*arguments: Any, **keywords: Any) -> Any:
            if held.is_set():
                return await original(*arguments, **keywords)
            held.set()
            answer = await original(*arguments, **keywords)
            await hold.wait()
            return True if original is is_gone else answer

        return wait

    is_gone = Call.is_gone
    if at == "while it is claimed":
        monkeypatch.setattr(Runs, "claim", paused(Runs.claim))
    else:
        monkeypatch.setattr(Call, "is_gone", paused(is_gone))
    await api.create()
    gone = asyncio.create_task(consumer.claim(wait="30s"))
    await asyncio.wait_for(held.wait(), 10)
    gone.cancel()
    if at == "while it is claimed":
        await waiting(api, 0)
    hold.set()
    [run] = await consumer.claim(wait="10s")
    history = await api.sql("SELECT outcome, attempt FROM howdah.finished_runs")

    assert (run["attempt"], run["claim_no"]) == (1, 2)
    assert history == [("released", 1)]


async def test_priorities_share_a_claim_by_weight(api: Api, consumer: Consumer) -> None:
    """The most urgent come first, and the others get their share."""
    for priority in ("low", "normal", "high", "critical"):
        items = json.dumps([{"queue": "q", "handler": "h", "priority": priority}] * 40)
        await api.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", items)
    runs = await consumer.claim(max=30)
    claimed = await api.sql(
        "SELECT priority, count(*) FROM howdah.runs WHERE lease_token IS NOT NULL GROUP BY priority ORDER BY priority"
    )

    assert len(runs) == 30
    assert claimed == [(0, 2), (1, 4), (2, 8), (3, 16)]


async def test_claim_is_filled_from_whatever_lane_has_work(api: Api, consumer: Consumer) -> None:
    """A lane with less than its share leaves the rest to the others, in the same answer."""
    await api.create(priority="critical")
    for _ in range(9):
        await api.create(priority="low")

    assert len(await consumer.claim(max=10)) == 10


async def test_held_snapshot_does_not_make_claims_walk_what_is_dead(
    api: Api, consumer: Consumer, offered: list[list[Offer]]
) -> None:
    """Each claim begins to look where the one before ended: what was taken is not walked again, nor is it forgotten."""
    items = json.dumps([{"queue": "q", "handler": "h"}] * 300)
    await api.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", items)
    await api.sql("UPDATE howdah.runs SET run_at = run_at - interval '5 seconds'")
    for _ in range(3):
        assert len(await consumer.claim(max=100)) == 100
    horizons = [offer.horizon_task_id for offers in offered for offer in offers if offer.lane.priority == 1]

    assert horizons == sorted(horizons)
    assert len(set(horizons)) >= 3


async def test_run_below_the_horizon_is_found_when_its_lane_is_named(api: Api, consumer: Consumer) -> None:
    """A transaction that commits late brings an older run than those that were claimed meanwhile."""
    await api.create()
    [_] = await consumer.claim()
    async with await psycopg.AsyncConnection.connect(api.url) as late:
        await late.execute("SELECT howdah.enqueue('q', 'h')")
        for _ in range(3):
            await api.create()
            [_] = await consumer.claim()
        claim = asyncio.create_task(consumer.claim(wait="20s"))
        await waiting(api, 1)
        await late.commit()
        [run] = await claim

    assert run["claim_no"] == 1


async def test_callbacks_are_for_who_asks_for_them(api: Api, consumer: Consumer) -> None:
    """A task for an URL is left to workers, unless a consumer says that it takes them."""
    http = {"url": "https://example.com/x", "headers": {"a": "b"}}
    await api.post("/v1/tasks", {"queue": "q", "http": http, "payload": 1})
    assert await consumer.claim() == []
    [run] = await consumer.claim(handlers=[], http=True)

    assert "handler" not in run
    assert run["http"] == http
    assert run["payload"] == 1


async def test_queue_and_handler_that_do_not_exist_yet_are_waited_for(api: Api, consumer: Consumer) -> None:
    """A consumer may start before its first task; it makes no names."""
    claim = asyncio.create_task(consumer.claim("later", handlers=["unknown", "new"], wait="20s"))
    await waiting(api, 1)
    names = await api.sql("SELECT name FROM howdah.queues UNION SELECT handler FROM howdah.targets WHERE id > 0")
    await api.create(queue="later", handler="new")
    [run] = await claim

    assert names == []
    assert run["handler"] == "new"


async def test_tenants_know_nothing_of_each_other(api: Api, consumer: Consumer) -> None:
    """Tasks, leases and consumers of one tenant are neither given to another nor told of."""
    other = Consumer(api, await api.make_key("admin", tenant="other"))
    await api.create()
    assert await other.claim() == []
    [run] = await consumer.claim(consumer="mine")
    beat, end, back = await other.heartbeat(run), await other.finish(run), await other.release(run)
    shown = [
        [(each["kind"], each["name"]) for each in (await api.get("/v1/workers", key=key)).json()["data"]]
        for key in (None, other.key)
    ]
    unknown = {"task_id": "01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7", "lease_token": run["lease_token"]}

    assert [statuses(each) for each in (beat, end, back)] == [["lost"], ["lease_lost"], ["lease_lost"]]
    assert [*(await other.heartbeat(unknown))[0]] == [*beat[0]]
    assert shown[0] == [("pull", "mine")]
    assert ("pull", "mine") not in shown[1]
    assert statuses(await consumer.finish(run)) == ["ok"]


async def test_repeat_with_its_key_gets_the_runs_that_are_still_leased(api: Api, consumer: Consumer) -> None:
    """A claim whose answer was lost is sent again and claims nothing anew, not even when its runs have ended."""
    for _ in range(5):
        await api.create()
    key = {"Idempotency_Key": "claim-1"}
    first = await consumer.claim(max=2, headers=key)
    again = await consumer.claim(max=2, headers=key)
    await consumer.finish(first[0])
    rest = await consumer.claim(max=2, headers=key)
    await consumer.release(first[1])
    none = await consumer.claim(max=2, headers=key)
    changed = await consumer.ask(max=3, headers=key)
    stored = await api.sql("SELECT answer FROM howdah.idempotency_keys")

    assert len(first) == 2
    assert again == first
    assert rest == first[1:]
    assert none == []
    assert_problem(changed, 422, "idempotency_key_reused")
    assert stored == [(f'"{first[0]["lease_token"]}"',)]


async def test_answer_is_bounded_in_bytes(api: Api, consumer: Consumer) -> None:
    """Large payloads make an answer shorter; what does not fit stays where it is and has spent nothing."""
    payload = "x" * 250_000
    items = json.dumps([{"queue": "q", "handler": "h", "payload": payload}] * 60)
    await api.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", items)
    counts = []
    while runs := await consumer.claim(max=1000):
        counts.append(len(runs))
    spent = await api.sql("SELECT DISTINCT attempt FROM howdah.runs")

    assert sum(counts) == 60
    assert max(counts) <= ANSWER_BYTES_MAX // 250_000
    assert spent == [(1,)]


async def test_small_payloads_teach_nothing_that_large_ones_abuse(api: Api, consumer: Consumer) -> None:
    """Where large payloads follow small ones, more are claimed than fit, and those that do not are handed back."""
    for payload, count in (("1", 200), ("x" * 250_000, 50)):
        items = json.dumps([{"queue": "q", "handler": "h", "payload": payload}] * count)
        await api.sql("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", items)
    assert len(await consumer.claim(max=200)) == 200
    runs = await consumer.claim(max=1000)

    assert len(runs) <= ANSWER_BYTES_MAX // 250_000 + 1
    assert {run["attempt"] for run in runs} == {1}
    await eventually_async(
        lambda: _count(api, "lease_token IS NULL AND attempt = 0", 50 - len(runs)), 10, "the others are back"
    )


async def _count(api: Api, condition: str, wanted: int) -> bool:
    [(count,)] = await api.sql(f"SELECT count(*) FROM howdah.runs WHERE {condition}")
    return bool(count == wanted)


async def test_consumer_is_one_row_for_each_queue_and_set_of_handlers(api: Api, consumer: Consumer) -> None:
    """Claims find the row again, in whatever order they name handlers; another set has another row."""
    for handlers in (["a", "b"], ["b", "a"], ["b", "a", "b"], ["a"]):
        await consumer.claim(handlers=handlers, consumer="c")
    await consumer.claim("r", handlers=["a"])
    rows = await api.sql("SELECT name, queues, handlers FROM howdah.workers ORDER BY id")
    key_id = api.key.split("_")[1]

    assert rows == [("c", ["q"], ["a", "b"]), ("c", ["q"], ["a"]), (key_id, ["r"], ["a"])]


async def test_consumer_lives_as_long_as_it_waits_or_renews(
    api: Api, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long poll, and heartbeats of a run that takes long, keep its row from falling silent."""
    monkeypatch.setattr(pulls_module, "SEEN_EVERY_S", 0.05)
    async with serving(api.url) as served:

        async def is_live(name: str) -> bool:
            [(state,)] = await served.sql(
                "SELECT heartbeat_at > howdah.now() - interval '1 minute' FROM howdah.workers WHERE name = %s", name
            )
            return bool(state)

        own = Consumer(served)
        await served.create()
        [run] = await own.claim(consumer="busy")
        claim = asyncio.create_task(own.claim(wait="30s", consumer="idle"))
        await waiting(served, 1)
        await served.sql("UPDATE howdah.workers SET heartbeat_at = howdah.now() - interval '10 minutes'")
        await own.heartbeat(run)

        assert await eventually_async(lambda: is_live("idle"), 10, "who waits lives")
        assert await eventually_async(lambda: is_live("busy"), 10, "who renews lives")
        claim.cancel()


async def test_stop_of_the_process_ends_waits(database: str) -> None:
    """A long poll does not hold up a restart: it is answered with nothing."""
    async with serving(database) as api:
        claim = asyncio.create_task(Consumer(api).claim(wait="60s"))
        task = await api.create(queue="other")
        result = asyncio.create_task(api.get(f"/v1/tasks/{task['id']}/result?wait=60s"))
        await waiting(api, 2)
        api.backend.end_waits()

        assert await asyncio.wait_for(claim, 5) == []
        assert (await asyncio.wait_for(result, 5)).status_code == 202


async def test_waits_take_no_place_from_other_requests(api: Api, consumer: Consumer) -> None:
    """Whoever waits is counted apart, up to a bound of its own."""
    claim = asyncio.create_task(consumer.claim(wait="30s"))
    await waiting(api, 1)

    assert api.backend.gate.call_count == 0
    api.backend.gate.wait_count = 8_192
    assert_problem(await consumer.ask(wait="1s"), 429, "backpressure")
    api.backend.gate.wait_count = 1
    claim.cancel()
    await waiting(api, 0)


async def test_claim_over_a_connection_that_was_cut_is_found_again(
    api: Api, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of PostgreSQL that was lost after its commit costs the client nothing."""
    original = Runs.claim

    async def claim(self: Runs, conn: Any, *arguments: Any, **keywords: Any) -> Any:
        await original(self, conn, *arguments, **keywords)
        monkeypatch.setattr(Runs, "claim", original)
        await api.sql("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
        return await original(self, conn, *arguments, **keywords)

    await api.create()
    monkeypatch.setattr(Runs, "claim", claim)
    [run] = await consumer.claim(wait="5s")

    assert (run["attempt"], run["claim_no"]) == (1, 1)
    assert statuses(await consumer.finish(run)) == ["ok"]


async def test_connections_that_were_cut_while_idle_are_not_noticed(api: Api, consumer: Consumer) -> None:
    """A restart of a proxy, or an administrator, ends sessions: whoever waits, claims, renews or finishes goes on."""
    await api.create()
    [run] = await consumer.claim()
    claim = asyncio.create_task(consumer.claim(wait="30s"))
    result = asyncio.create_task(api.get(f"/v1/tasks/{run['task_id']}/result?wait=30s"))
    await waiting(api, 2)
    for _ in range(3):
        await api.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'howdah-api' "
            "AND datname = current_database() AND query ~ 'howdah:(lane.peek|task.results|run[.]|target.find)'"
        )
        assert statuses(await consumer.heartbeat(run)) == ["ok"]
    await api.create()

    assert len(await claim) == 1
    assert statuses(await consumer.finish(run)) == ["ok"]
    assert (await result).json()["state"] == "succeeded"


async def test_crash_of_a_line_leaves_nobody_waiting(
    api: Api, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours is answered 500, and the next claim works."""
    original = Lanes.peek

    async def peek(*arguments: Any, **keywords: Any) -> Any:
        monkeypatch.setattr(Lanes, "peek", original)
        raise RuntimeError("on purpose")

    await api.create()
    monkeypatch.setattr(Lanes, "peek", peek)
    answer = await consumer.ask(wait="10s")

    assert_problem(answer, 500, "internal_error")
    assert len(await consumer.claim()) == 1


async def test_run_whose_task_is_gone_is_failed_and_not_given(api: Api, consumer: Consumer) -> None:
    """Somebody deleted the task's row: its run is no use to a consumer, and is reported as a worker would."""
    await api.create()
    kept = await api.create()
    await api.sql("DELETE FROM howdah.tasks WHERE id <> %s", kept["id"])
    runs = await consumer.claim()
    errors = await api.sql("SELECT outcome, error ->> 'type' FROM howdah.finished_runs")

    assert [run["task_id"] for run in runs] == [kept["id"]]
    assert errors == [("failed", "task_gone")]


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"max": 0}, "/max"),
        ({"max": 1001}, "/max"),
        ({"max": -1}, "/max"),
        ({"max": 1.5}, "/max"),
        ({"max": "10"}, "/max"),
        ({"lease": "0s"}, "/lease"),
        ({"lease": "-5s"}, "/lease"),
        ({"lease": "2.9s"}, "/lease"),
        ({"lease": "3601s"}, "/lease"),
        ({"lease": "9" * 31 + "d"}, "/lease"),
        ({"lease": 30}, "/lease"),
        ({"wait": "61s"}, "/wait"),
        ({"wait": "soon"}, "/wait"),
        ({"handlers": []}, "/handlers"),
        ({"handlers": [f"h{number}" for number in range(101)]}, "/handlers"),
        ({"handlers": ["ok", "Not Ok"]}, "/handlers/1"),
        ({"handlers": ["a\u0000"]}, "/handlers/0"),
        ({"handlers": "h"}, "/handlers"),
        ({"consumer": ""}, "/consumer"),
        ({"consumer": "a b"}, "/consumer"),
        ({"consumer": "x" * 129}, "/consumer"),
        ({"http": 1}, "/http"),
        ({"tenant": "other"}, "/tenant"),
    ],
)
async def test_claim_with_a_wrong_field_is_refused(
    api: Api, consumer: Consumer, fields: dict[str, Any], pointer: str
) -> None:
    """Each is 422 and points at the field; nobody is registered, nothing is claimed."""
    await api.create()
    answer = await consumer.ask(**fields)

    assert_problem(answer, 422, "validation", [pointer])
    assert await api.sql("SELECT 1 FROM howdah.workers") == []
    assert await states(api) == [(0, 0, False)]


async def test_claim_from_what_is_no_name_is_not_found(api: Api, consumer: Consumer) -> None:
    """Where no queue can be, there is none to wait for."""
    assert_problem(await consumer.ask("Not-Ok"), 404, "not_found")


@pytest.mark.parametrize("path", ["/v1/queues/q/claim", "/v1/runs/heartbeat", "/v1/runs/finish", "/v1/runs/release"])
async def test_consumers_need_the_scope_worker(api: Api, path: str) -> None:
    """An operator's key, which may do much, may not execute; a worker's may do nothing else."""
    operator, worker = await api.make_key("operator", "payloads"), await api.make_key("worker")

    assert_problem(await api.post(path, {}, key=operator), 403, "forbidden")
    assert (await api.post(path, {}, key=worker)).status_code == 422
    assert_problem(await api.get("/v1/tasks", key=worker), 403, "forbidden")


async def test_lease_of_a_claim_can_be_finished_through_another_process(api: Api, consumer: Consumer) -> None:
    """Processes are equal: nothing that a consumer needs is kept in the one that served its claim."""
    await api.create()
    [run] = await consumer.claim()
    async with serving(api.url) as second:
        other = Consumer(second)

        assert statuses(await other.heartbeat(run)) == ["ok"]
        assert statuses(await other.finish(run)) == ["ok"]


async def test_limits_hold_for_consumers_too(api: Api, consumer: Consumer) -> None:
    """A queue's max_running bounds what consumers hold, and a report makes room that another claim is woken for."""
    await api.request("PUT", "/v1/queues/q", {"max_running": 2})
    for _ in range(3):
        await api.create()
    [first, _] = (await consumer.ask(max=10)).json()["runs"]
    third = asyncio.create_task(consumer.ask(max=10, wait="20s"))
    await waiting(api, 1)
    begun = time.monotonic()
    report = {"task_id": first["task_id"], "lease_token": first["lease_token"], "outcome": "succeeded"}
    await api.post("/v1/runs/finish", {"runs": [report]})
    answer = await third

    assert len(answer.json()["runs"]) == 1
    assert time.monotonic() - begun < 5


async def test_a_flow_key_is_handed_on_by_a_report(api: Api, consumer: Consumer) -> None:
    """Of a key of concurrency 1 a consumer gets the next task once it has finished the one before."""
    made = [await api.create(flow={"key": "customer-42", "concurrency": 1}) for _ in range(3)]
    order = []
    for _ in made:
        [run] = (await consumer.ask(max=10, wait="20s")).json()["runs"]
        order.append(run["task_id"])
        report = {"task_id": run["task_id"], "lease_token": run["lease_token"], "outcome": "succeeded"}
        await api.post("/v1/runs/finish", {"runs": [report]})

    assert order == [task["id"] for task in made]


async def test_run_that_two_workers_were_lost_with_is_the_only_one_of_its_answer(api: Api, consumer: Consumer) -> None:
    """The others go back and spend no attempt; should the consumer be lost with it too, it is known to be to blame."""
    ids = [(await api.create())["id"] for _ in range(5)]
    await api.sql("UPDATE howdah.runs SET crashes = 2 WHERE task_id = %s", ids[2])
    [run] = await consumer.claim(max=5)

    async def are_back() -> bool:
        return await states(api) == [(0, 1, False), (0, 1, False), (1, 1, True), (0, 1, False), (0, 1, False)]

    await eventually_async(are_back, 10, "the others were given back")
    rest = await consumer.claim(max=5)
    [(alone_state,)] = await api.sql("SELECT alone_state FROM howdah.runs WHERE task_id = %s", ids[2])

    assert (run["task_id"], run["alone"]) == (ids[2], True)
    assert [each["task_id"] for each in rest] == [ids[0], ids[1], ids[3], ids[4]]
    assert all("alone" not in each for each in rest)
    assert alone_state == 2


async def test_claim_that_was_in_doubt_still_gives_a_suspect_by_itself(
    api: Api, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is lost while it is noted costs nothing but the note: then a loss is nobody's fault."""
    ids = [(await api.create())["id"] for _ in range(3)]
    await api.sql("UPDATE howdah.runs SET crashes = 2 WHERE task_id = %s", ids[1])
    original = Runs.begin_alone

    async def cut(self: Runs, conn: Any, *arguments: Any) -> bool:
        monkeypatch.setattr(Runs, "begin_alone", original)
        await conn.close()
        return await original(self, conn, *arguments)

    monkeypatch.setattr(Runs, "begin_alone", cut)
    [run] = await consumer.claim(max=3)
    [(attempt, crashes, alone_state)] = await api.sql(
        "SELECT attempt, crashes, alone_state FROM howdah.runs WHERE task_id = %s", ids[1]
    )

    assert (run["task_id"], run["alone"]) == (ids[1], True)
    assert (attempt, crashes, alone_state) == (1, 2, None)
