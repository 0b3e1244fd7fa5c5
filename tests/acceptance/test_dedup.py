"""Dedup keys on the whole service: clients, SQL and a worker at once, while API processes are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_up import Up

pytestmark = pytest.mark.slow

KEYS: Final = [f"key {n}" for n in range(100)]
ON_CONFLICT: Final = ("return_existing", "reject", "replace")
# Keys that two tasks hold: live ones with until finished, and with until started those that were never claimed.
TWICE: Final = (
    "SELECT count(*) FROM (SELECT t.queue_id, t.dedup ->> 'key' FROM howdah.runs AS r "
    "JOIN howdah.tasks AS t ON t.tenant_id = r.tenant_id AND t.id = r.task_id "
    "WHERE t.dedup IS NOT NULL AND (t.dedup ->> 'until' = 'finished' OR r.claim_no = 0) "
    "GROUP BY 1, 2 HAVING count(*) > 1) AS twice"
)


def _task(number: int) -> dict[str, Any]:
    """One of the tasks that are sent, of two queues; those of the first end at once, those of the other wait."""
    waits = number % 2 == 1
    return {
        "queue": "waits" if waits else "ends",
        "handler": "demo.greet",
        "payload": {"name": str(number)},
        **({"delay": "1h"} if waits else {}),
        "dedup": {
            "key": KEYS[number * 7 % 100],
            "until": "started" if number % 3 else "finished",
            "on_conflict": ON_CONFLICT[number % 5 % 3],
        },
    }


def test_no_key_is_ever_held_twice(up: Callable[..., Up]) -> None:
    """16 clients and 4 SQL sessions on 100 keys, with the API killed three times: one holder a key at any time."""
    running = up().started()
    database = {"host": str(running.data / "run"), "user": "howdah", "dbname": "howdah"}
    statuses: list[int] = []
    found: list[int] = []
    is_over = threading.Event()
    done = threading.Semaphore(0)

    def http(client: int) -> None:
        for n in range(60):
            try:
                answer = running.request(
                    "POST", "/v1/tasks/batch", {"tasks": [_task(client * 61 + n * 13 + m) for m in range(5)]}
                )
                statuses.extend(result["status"] for result in answer["results"])
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
            except OSError:
                is_over.wait(0.1)
            done.release()

    def sql(session: int) -> None:
        with psycopg.connect(**database, autocommit=True) as conn:
            for n in range(60):
                items = [_task(session * 37 + n * 11 + m) for m in range(5)]
                conn.execute("SELECT * FROM howdah.enqueue_many(NULL, %s::json)", [json.dumps(items)])

    def check() -> None:
        with psycopg.connect(**database, autocommit=True) as conn:
            while not is_over.is_set():
                found.extend(conn.execute(TWICE.encode()).fetchone() or ())
                is_over.wait(0.02)

    def kill() -> None:
        for _ in range(3):
            for _ in range(150):
                done.acquire()
            with contextlib.suppress(OSError):
                os.kill(_api_pid(running), signal.SIGKILL)

    with ThreadPoolExecutor() as threads, ThreadPoolExecutor(1) as checker:
        checking = checker.submit(check)
        try:
            jobs = [
                threads.submit(kill),
                *(threads.submit(http, n) for n in range(16)),
                *(threads.submit(sql, n) for n in range(4)),
            ]
            for job in jobs:
                job.result(120)
        finally:
            is_over.set()
        checking.result(10)
    eventually(lambda: _answers(running), 20, "the API is back")
    with psycopg.connect(**database, autocommit=True) as conn:
        waiting = conn.execute(
            "SELECT t.dedup ->> 'key' FROM howdah.runs AS r JOIN howdah.tasks AS t ON t.id = r.task_id "
            "JOIN howdah.queues AS q ON q.id = t.queue_id WHERE q.name = 'waits' ORDER BY 1"
        ).fetchall()

    assert len(found) > 10
    assert set(found) == {0}
    assert {200, 201, 409} <= set(statuses) <= {200, 201, 409, 503}
    # Nobody ran them, so every key that was ever taken has exactly one.
    assert [key for (key,) in waiting] == sorted({task["dedup"]["key"] for task in map(_task, range(1, 200, 2))})


def _api_pid(running: Up) -> int:
    [pid] = [pid for pid in running.child_pids if b"\0api\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def _answers(running: Up) -> bool:
    with contextlib.suppress(OSError):
        return bool(running.request("GET", "/v1/ping"))
    return False
