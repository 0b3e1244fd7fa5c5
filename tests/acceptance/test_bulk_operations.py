"""Dead letters from the first failure to the last replay, by nothing but the public surface."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_up import Up

pytestmark = pytest.mark.slow


def _ended(running: Up, operation: str) -> dict[str, Any]:
    def done() -> Any:
        shown = running.request("GET", f"/v1/operations/{operation}")
        return shown if shown["state"] != "running" else None

    return eventually(done, 30, "the operation has ended")


def test_an_operator_finds_mends_and_replays_what_failed(up: Callable[..., Up], blank_database: str) -> None:
    """Thirty tasks die of a payload that does not fit; groups show why, a replay without edits helps none of them,
    one with edits helps all, and the counts over HTTP and by SQL agree.
    """
    running = up(HOWDAH_DATABASE_URL=blank_database).started()
    tasks = [{"queue": "q", "handler": "demo.greet", "payload": {"name": ["not", "a", number]}} for number in range(30)]
    made = running.request("POST", "/v1/tasks/batch", {"tasks": tasks})["results"]
    ids = {each["task"]["id"] for each in made}

    def dead() -> set[str]:
        page = running.request("GET", "/v1/queues/q/dlq?limit=200")
        return {letter["id"] for letter in page["data"]}

    eventually(lambda: dead() == ids, 30, "all have died")
    [group] = running.request("GET", "/v1/queues/q/dlq/groups")["data"]
    wanted = {"fingerprint": group["fingerprint"]}
    counted = running.request("POST", "/v1/queues/q/dlq/replay", {"filter": wanted, "dry_run": True})
    again = _ended(running, running.request("POST", "/v1/queues/q/dlq/replay", {"filter": wanted})["id"])
    eventually(lambda: dead() == ids, 30, "all have died again")
    with psycopg.connect(blank_database, autocommit=True) as conn:
        edits = json.dumps({"payload": {"name": "Ada"}})
        row = conn.execute(
            "SELECT howdah.start_operation('replay_dead_letters', 'q', %s, edits => %s)", [json.dumps(wanted), edits]
        ).fetchone()
        assert row is not None
        mended = _ended(running, str(row[0]))

        def succeeded() -> bool:
            page = running.request("GET", "/v1/tasks?queue=q&state=succeeded&limit=200")
            return {task["replayed_from"] for task in page["data"]} == ids

        eventually(succeeded, 30, "every new task has succeeded")
        seen = conn.execute(
            "SELECT state, matched, done, skipped, failed FROM howdah.bulk_operations WHERE operation_id = %s", [row[0]]
        ).fetchone()

    assert group["count"] == 30
    assert counted == {"dry_run": True, "matched": 30, "at_least": False}
    assert [again[name] for name in ("state", "matched", "done", "skipped", "failed")] == ["done", 30, 30, 0, 0]
    assert seen == ("done", 30, 30, 0, 0)
    assert mended["edited"] == ["payload"]
    assert dead() == set()
    assert {running.request("GET", f"/v1/tasks/{task}")["state"] for task in ids} == {"failed"}
