"""Queues over HTTP: settings and counts."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.fix_api import Api, assert_problem

DEFAULTS = {
    "max_attempts": 4,
    "max_age": "24h",
    "backoff": "exponential",
    "initial": "1s",
    "max": "300s",
    "factor": 2.0,
    "jitter": 0.2,
}


async def test_put_makes_a_queue_and_then_replaces_its_settings(api: Api) -> None:
    """The first PUT answers 201 with its place; a later one sets what it does not name to the default."""
    made = await api.request("PUT", "/v1/queues/mail", {"timeout": "5m", "retry": {"max_attempts": 9}})
    replaced = await api.request("PUT", "/v1/queues/mail", {"timeout": "1.5s"})

    assert (made.status_code, made.headers["location"]) == (201, "/v1/queues/mail")
    assert (made.json()["timeout"], made.json()["retry"]) == ("5m", {**DEFAULTS, "max_attempts": 9})
    assert replaced.status_code == 200
    assert (replaced.json()["timeout"], replaced.json()["retry"]) == ("1500ms", DEFAULTS)
    assert (await api.get("/v1/queues/mail")).json() == replaced.json()


async def test_patch_changes_what_it_names(api: Api) -> None:
    """Everything else stays; a queue that does not exist is not made."""
    await api.request("PUT", "/v1/queues/mail", {"timeout": "5m", "retry": {"max_attempts": 9}})
    changed = await api.request("PATCH", "/v1/queues/mail", {"timeout": "6m"})

    assert (changed.json()["timeout"], changed.json()["retry"]["max_attempts"]) == ("6m", 9)
    assert_problem(await api.request("PATCH", "/v1/queues/none", {}), 404, "not_found")
    assert_problem(await api.get("/v1/queues/none"), 404, "not_found")


async def test_settings_count_for_tasks_that_bring_none(api: Api) -> None:
    """A task shows the timeout and attempts in force: its own, else its queue's."""
    await api.request("PUT", "/v1/queues/mail", {"timeout": "5m", "retry": {"max_attempts": 9}})
    bare = await api.create(queue="mail")
    own = await api.create(queue="mail", timeout="7s", retry={"max_attempts": 2})

    assert (bare["timeout"], bare["max_attempts"]) == ("5m", 9)
    assert (own["timeout"], own["max_attempts"]) == ("7s", 2)


async def test_settings_that_are_not_allowed_are_refused_with_all_their_places(api: Api) -> None:
    """Types one at a time; values all at once."""
    cases = {
        "/timeout": {"timeout": 5},
        "/retry/factor /retry/jitter": {"retry": {"factor": 0, "jitter": 2}},
        "/retry/backoff": {"retry": {"backoff": "random"}},
        "/retry/attempts": {"retry": {"attempts": 1}},
        "/paused": {"paused": True},
    }
    for at, body in cases.items():
        assert_problem(await api.request("PUT", "/v1/queues/mail", body), 422, "validation", at.split())
    for timeout in ("0s", "25h", "soon", ""):
        answer = await api.request("PUT", "/v1/queues/mail", {"timeout": timeout})
        assert_problem(answer, 422, "validation", ["/timeout"])
    for name in ("Mail", "a b", "x" * 129, "-a"):
        answer = await api.request("PUT", f"/v1/queues/{name.replace(' ', '+')}", {})
        assert_problem(answer, 422, "validation", ["queue"])

    assert await api.sql("SELECT 1 FROM howdah.queues") == []


async def test_limits_are_set_shown_and_taken_away(api: Api) -> None:
    """PUT and PATCH take max_running and rate; null takes them away, PUT without them too."""
    limits = {"max_running": 5, "rate": {"limit": 10, "period": "1m", "burst": 2}}
    made = (await api.request("PUT", "/v1/queues/mail", limits)).json()
    patched = (await api.request("PATCH", "/v1/queues/mail", {"rate": {"limit": 3, "period": "90s"}})).json()
    freed = (await api.request("PATCH", "/v1/queues/mail", {"rate": None})).json()
    replaced = (await api.request("PUT", "/v1/queues/mail", {})).json()

    assert (made["max_running"], made["rate"]) == (5, limits["rate"])
    assert (patched["max_running"], patched["rate"]) == (5, {"limit": 3, "period": "90s", "burst": 3})
    assert (freed["max_running"], freed["rate"]) == (5, None)
    assert (replaced["max_running"], replaced["rate"]) == (None, None)


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("limits", "pointer"),
    [
        ({"max_running": 0}, "/max_running"),
        ({"max_running": -1}, "/max_running"),
        ({"max_running": 10**12}, "/max_running"),
        ({"max_running": 1.5}, "/max_running"),
        ({"rate": {"limit": 0, "period": "1s"}}, "/rate/limit"),
        ({"rate": {"limit": 1}}, "/rate/period"),
        ({"rate": {"limit": 1, "period": "0.5s"}}, "/rate/period"),
        ({"rate": {"limit": 1, "period": "25h"}}, "/rate/period"),
        ({"rate": {"limit": 1, "period": "1s", "burst": 0}}, "/rate/burst"),
        ({"rate": {"limit": 1, "period": "1s", "per": 1}}, "/rate/per"),
        ({"rate": 5}, "/rate"),
    ],
)
async def test_limits_that_are_not_allowed_are_refused(api: Api, limits: dict[str, Any], pointer: str) -> None:
    """Over HTTP and from SQL, with the place at fault; nothing is changed."""
    answer = await api.request("PUT", "/v1/queues/mail", limits)
    assert_problem(answer, 422, "validation", [pointer])
    with pytest.raises(psycopg.DatabaseError, match=f"^{pointer} "):
        await api.sql("SELECT howdah.set_queue('mail', %s)", json.dumps(limits))
    assert (await api.get("/v1/queues/mail")).status_code == 404


async def test_new_queue_is_told_to_the_workers(api: Api) -> None:
    """Workers read their catalogue again when a queue was made over HTTP."""
    async with await psycopg.AsyncConnection.connect(api.url, autocommit=True) as listener:
        await listener.execute("LISTEN howdah_wake")
        await api.request("PUT", "/v1/queues/mail", {})
        heard = [notify.payload async for notify in listener.notifies(timeout=10, stop_after=1)]

    assert heard == ["c"]


async def test_stats_count_what_a_queue_holds(api: Api) -> None:
    """By state, with the age of the oldest due run, and what this process accepted once the minute is over."""
    for fields in ({}, {}, {"delay": "1h"}):
        await api.create(**fields)
    await api.sql("UPDATE howdah.runs SET queued_at = queued_at - interval '10 s', due_at = due_at - interval '10 s'")
    await api.backend.tallies.flush()
    during = (await api.get("/v1/queues/q/stats")).json()
    await api.sql("UPDATE howdah.queue_stats SET bucket_at = bucket_at - interval '2 minutes'")
    stats = (await api.get("/v1/queues/q/stats")).json()

    assert (stats["queued"], stats["scheduled"], stats["running"], stats["dead_letters"]) == (2, 1, 0, 0)
    assert 10 <= stats["oldest_age_s"] < 40
    assert during["last_hour"]["enqueued"] == 0
    assert (stats["last_5_minutes"]["enqueued"], stats["last_hour"]["enqueued"]) == (3, 3)
    assert_problem(await api.get("/v1/queues/none/stats"), 404, "not_found")


async def test_stats_are_of_whole_minutes_by_their_age(api: Api) -> None:
    """The last one, the last five, the last sixty; what is older is not counted."""
    await api.request("PUT", "/v1/queues/q", {})
    await api.sql(
        "INSERT INTO howdah.queue_stats (bucket_at, queue_id, source, enqueued, succeeded, failed) "
        "SELECT date_trunc('minute', howdah.now() - interval '5 seconds') - make_interval(mins => age), q.id, "
        "gen_random_uuid(), 1, 10, 100 FROM howdah.queues AS q, unnest(ARRAY[0, 1, 2, 5, 6, 60, 61]) AS age"
    )
    stats = (await api.get("/v1/queues/q/stats")).json()
    sums = [stats[window] for window in ("last_minute", "last_5_minutes", "last_hour")]

    # 1; 1, 2 and 5; these, 6 and 60. What is written of the minute that is not over does not count.
    assert [each["enqueued"] for each in sums] == [1, 3, 5]
    assert [(each["succeeded"], each["failed"]) for each in sums] == [(10, 100), (30, 300), (50, 500)]


async def test_counts_of_a_long_queue_end_and_say_so(api: Api) -> None:
    """A long range of one kind hides none of the others, and what lies behind it is still the age."""
    await api.create(priority="low")
    await api.sql("UPDATE howdah.runs SET queued_at = queued_at - interval '1 h', due_at = due_at - interval '1 h'")
    await api.sql(
        "INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at, "
        "attempt, claim_no) SELECT 1, howdah.new_id(n), r.queue_id, r.target_id, 1, howdah.now() + range.ahead, "
        "howdah.now(), howdah.now(), n % 2, 1 FROM howdah.runs AS r, "
        "(VALUES (interval '-1 s', 10001), (interval '1 h', 4)) AS range (ahead, count), "
        "generate_series(1, range.count) AS n"
    )
    stats = (await api.get("/v1/queues/q/stats")).json()

    assert stats["queued"] + stats["retrying"] == 10_002
    assert (stats["scheduled"], stats["blocked"]) == (2, 0)
    assert stats["oldest_age_s"] >= 3600
    assert [name for name, value in stats.items() if value is True] == ["queued_is_at_least", "retrying_is_at_least"]


async def test_name_held_by_another_transaction_answers_in_time(api: Api) -> None:
    """A queue that somebody is making elsewhere is not waited for longer than a moment."""
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute("INSERT INTO howdah.queues (tenant_id, name) VALUES (1, 'mail')")
        answer = await api.request("PUT", "/v1/queues/mail", {})

    assert_problem(answer, 503, "storage_unavailable")
