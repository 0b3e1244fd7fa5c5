"""A consumer over HTTP, as short calls."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx2

    from tests.fix_api import Api

Run = dict[str, Any]


@dataclass
class Consumer:
    """A consumer of the queue `q` and the handler `h`; `key` is the admin's if not given."""

    api: Api
    key: str | None = None

    async def ask(self, queue: str = "q", *, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """Send a claim, for at most ten runs."""
        body = {"handlers": ["h"], "max": 10, **fields}
        return await self.api.post(f"/v1/queues/{queue}/claim", body, key=self.key, **(headers or {}))

    async def claim(self, queue: str = "q", **fields: Any) -> list[Run]:
        """Claim, which must be answered, and return the runs."""
        answer = await self.ask(queue, **fields)
        assert answer.status_code == 200, answer.text
        runs: list[Run] = answer.json()["runs"]
        return runs

    async def call(self, verb: str, runs: Sequence[object], **fields: Any) -> list[dict[str, Any]]:
        """Send a heartbeat, finish or release, which must be answered, and return the results."""
        answer = await self.api.post(f"/v1/runs/{verb}", {"runs": runs, **fields}, key=self.key)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    async def heartbeat(self, *runs: Run, lease: str = "30s") -> list[dict[str, Any]]:
        """Renew leases."""
        return await self.call("heartbeat", [lease_of(run) for run in runs], lease=lease)

    async def finish(self, *runs: Run, outcome: str = "succeeded", **fields: Any) -> list[dict[str, Any]]:
        """Report runs as ended, all of them alike."""
        return await self.call("finish", [{**lease_of(run), "outcome": outcome, **fields} for run in runs])

    async def release(self, *runs: Run) -> list[dict[str, Any]]:
        """Hand runs back."""
        return await self.call("release", [lease_of(run) for run in runs])


def lease_of(run: Run) -> dict[str, str]:
    """What names a run's lease."""
    return {"task_id": run["task_id"], "lease_token": run["lease_token"]}


def statuses(results: Sequence[dict[str, Any]]) -> list[str]:
    """What became of each."""
    return [result["status"] for result in results]


def pull(tenant_id: int = 1, *, lease_s: float = 3600.0, http: bool = False) -> dict[str, Any]:
    """The row of a consumer of the queue `q` and the handler `h`, as parameters of worker/register_pull."""
    return {
        "tenant_id": tenant_id,
        "pull_key": uuid.uuid4(),
        "name": "consumer",
        "queue": "q",
        "handlers": ["h"],
        "serves_http": http,
        "concurrency": 10,
        "lease_s": lease_s,
    }


@pytest.fixture
def consumer(api: Api) -> Consumer:
    """A consumer of the served API."""
    return Consumer(api)
