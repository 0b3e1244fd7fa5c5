"""A task that kills every worker which executes it, by nothing but the public surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_up import Up

pytestmark = pytest.mark.slow

HANDLERS: Final = """
import asyncio
import ctypes
import os
import time

import howdah

@howdah.handler("innocent")
async def innocent(payload: float) -> None:
    await asyncio.sleep(payload)

@howdah.handler("innocent.plain")
def innocent_plain(payload: float) -> None:
    time.sleep(payload)

@howdah.handler("poison")
async def poison(payload: object, ctx: howdah.Context) -> None:
    await asyncio.sleep(0.05)
    if ctx.attempt == 2:
        ctypes.string_at(0)
    os._exit(1)
"""


def test_poison_takes_no_innocent_task_along(up: Callable[..., Up], tmp_path: Path) -> None:
    """One task among 200 others kills three workers, by its exit and by a segmentation fault; they are started again
    each time. It alone is given up, because of crashes; all others succeed.
    """
    (tmp_path / "deadly_handlers.py").write_text(HANDLERS)
    environment = {"PYTHONPATH": str(tmp_path), "HOWDAH_HANDLERS": "deadly_handlers", "HOWDAH_LEASE_S": "3"}
    running = up("--workers", "2", **environment).started()
    handlers = ["innocent", "innocent.plain"] * 100
    tasks = [{"queue": "q", "handler": handler, "payload": 0.05 + 0.0002 * n} for n, handler in enumerate(handlers)]
    tasks.insert(30, {"queue": "q", "handler": "poison", "retry": {"max_attempts": 20}})
    results = running.request("POST", "/v1/tasks/batch", {"tasks": tasks})["results"]
    ids = [result["task"]["id"] for result in results]
    poisoned = ids.pop(30)

    def are_all_ended() -> bool:
        stats = running.request("GET", "/v1/queues/q/stats")
        return not any(stats[state] for state in ("queued", "running", "scheduled", "retrying"))

    eventually(are_all_ended, 90, "all tasks have ended")
    dead = running.request("GET", "/v1/queues/q/dlq")["data"]
    page = running.request("GET", "/v1/tasks?queue=q&state=succeeded&limit=200")["data"]

    assert [(letter["id"], letter["reason"], letter["crashes"]) for letter in dead] == [(poisoned, "crashes", 3)]
    assert sorted(task["id"] for task in page) == sorted(ids)
