"""Holding, closing and removing queues as an operator does it: over HTTP and SQL, with the whole service running."""

from __future__ import annotations

import json
import urllib.error
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_up import Up

pytestmark = pytest.mark.slow


@pytest.fixture
def running(up: Callable[..., Up], blank_database: str) -> Iterator[tuple[Up, psycopg.Connection]]:
    """The service on a database, and a session of a DBA there."""
    service = up(HOWDAH_DATABASE_URL=blank_database).started()
    with psycopg.connect(blank_database, autocommit=True) as dba:
        yield service, dba


def _create(service: Up, queue: str = "q", **fields: Any) -> str:
    body = {"queue": queue, "handler": "demo.greet", "payload": {"name": "Surus"}, **fields}
    return str(service.request("POST", "/v1/tasks", body)["id"])


def _refusal(service: Up, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        service.request(method, path, body)
    with caught.value as answer:
        problem = json.loads(answer.read())
    return caught.value.code, problem["code"], problem["detail"]


def _state(service: Up, task: str) -> str:
    return str(service.request("GET", f"/v1/tasks/{task}")["state"])


def _succeeds(service: Up, task: str, timeout_s: float = 20.0) -> None:
    eventually(lambda: _state(service, task) == "succeeded", timeout_s, f"{task} has succeeded")


def test_queue_is_paused_over_http_and_resumed_by_sql(running: tuple[Up, psycopg.Connection]) -> None:
    """Nothing of it starts meanwhile, others go on, and each side sees what the other did."""
    service, dba = running
    _succeeds(service, _create(service))
    answer = service.request("POST", "/v1/queues/q/pause", {"reason": "maintenance"})
    held = [_create(service) for _ in range(3)]
    _succeeds(service, _create(service, "other"))
    reasons = service.request("GET", f"/v1/tasks/{held[0]}/explain")["reasons"]
    states = [_state(service, task) for task in held]
    shown = dba.execute("SELECT state, pause_reason FROM howdah.queue_states WHERE queue = 'q'").fetchall()
    resumed = dba.execute("SELECT howdah.resume('q'), howdah.resume('q')").fetchall()

    assert (answer["changed"], answer["queue"]["state"]) == (True, "paused")
    assert states == ["queued"] * 3
    assert (reasons[0]["code"], "maintenance" in reasons[0]["message"]) == ("paused", True)
    assert shown == [("paused", "maintenance")]
    assert resumed == [(True, False)]
    for task in held:
        _succeeds(service, task)


def test_pause_ends_by_itself(running: tuple[Up, psycopg.Connection]) -> None:
    """Its tasks then start, and the queue is active again."""
    service, dba = running
    _succeeds(service, _create(service))
    dba.execute("SELECT howdah.pause('q', 'a moment', now() + interval '2 seconds')")
    task = _create(service)
    paused = service.request("GET", "/v1/queues/q")
    _succeeds(service, task)
    run = service.request("GET", f"/v1/tasks/{task}/runs")["data"][0]
    eventually(lambda: service.request("GET", "/v1/queues/q")["state"] == "active", 10, "it is active")

    assert (paused["state"], paused["paused"]["reason"]) == ("paused", "a moment")
    assert run["claimed_at"] >= paused["paused"]["until"]


def test_queue_is_drained_and_deleted(running: tuple[Up, psycopg.Connection]) -> None:
    """It takes nothing new, is worked off, and goes; its tasks can still be read."""
    service, dba = running
    task = _create(service, delay="1h")
    service.request("POST", "/v1/queues/q/drain")
    refused = _refusal(service, "POST", "/v1/tasks", {"queue": "q", "handler": "demo.greet"})
    with pytest.raises(psycopg.Error) as caught:
        dba.execute("SELECT howdah.enqueue('q', 'demo.greet')")
    holding = _refusal(service, "DELETE", "/v1/queues/q")
    service.request("POST", f"/v1/tasks/{task}/run-now")
    _succeeds(service, task)
    deleted = service.request("DELETE", "/v1/queues/q")
    gone = _refusal(service, "GET", "/v1/queues/q")
    read = service.request("GET", f"/v1/tasks/{task}")
    _succeeds(service, _create(service))

    assert refused[:2] == (409, "queue_draining")
    assert caught.value.sqlstate == "JQ409"
    assert (holding[:2], "1 live tasks" in holding[2]) == ((409, "state_conflict"), True)
    assert deleted == {"name": "q", "deleted": True}
    assert gone[:2] == (404, "not_found")
    assert (read["queue"], read["state"]) == ("q", "succeeded")


def test_queue_without_history_tells_what_became_of_its_tasks(running: tuple[Up, psycopg.Connection]) -> None:
    """Those that succeeded leave no run to be listed, one that was cancelled does."""
    service, _ = running
    service.request("PUT", "/v1/queues/q", {"keep_history": "none"})
    done, cancelled = _create(service), _create(service, delay="1h")
    service.request("DELETE", f"/v1/tasks/{cancelled}")
    _succeeds(service, done)

    assert service.request("GET", f"/v1/tasks/{done}/runs")["data"] == []
    assert _state(service, cancelled) == "cancelled"
    assert [run["outcome"] for run in service.request("GET", f"/v1/tasks/{cancelled}/runs")["data"]] == ["cancelled"]


def test_queue_at_its_depth_refuses_until_there_is_room(running: tuple[Up, psycopg.Connection]) -> None:
    """Within a second of reaching it, and of having room again; others take tasks as ever."""
    service, dba = running
    service.request("PUT", "/v1/queues/q", {"max_depth": 2})
    tasks = [_create(service, delay="1h") for _ in range(2)]
    eventually(lambda: service.request("GET", "/v1/queues/q")["pressure"] == "depth", 10, "the cap is noticed")
    refused = _refusal(service, "POST", "/v1/tasks", {"queue": "q", "handler": "demo.greet"})
    with pytest.raises(psycopg.Error) as caught:
        dba.execute("SELECT howdah.enqueue('q', 'demo.greet')")
    _succeeds(service, _create(service, "other"))
    stats = service.request("GET", "/v1/queues/q/stats")
    for task in tasks:
        service.request("DELETE", f"/v1/tasks/{task}")
    eventually(lambda: service.request("GET", "/v1/queues/q")["pressure"] is None, 10, "there is room")

    assert refused[:2] == (429, "backpressure")
    assert caught.value.sqlstate == "JQ429"
    assert (stats["scheduled"], stats["scheduled_is_at_least"]) == (2, False)
    _succeeds(service, _create(service))
