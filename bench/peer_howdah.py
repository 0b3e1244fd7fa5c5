"""Howdah as one more peer of the harness that measures job queues side by side (see bench/README.md).

Only what users have: the commands `howdah migrate`, `key create`, `api` and
`worker`, POST /v1/tasks and /v1/tasks/batch, howdah.enqueue and enqueue_many in SQL.
Settings that --opt can change: `bulk` and `send` say whether jobs come over
`http` (through one API process) or `sql`; `chunk` how many to a bulk call;
`concurrency` is the worker's.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import core  # The harness, which runs this file with its folder in PYTHONPATH.
import orjson
from http_client import Client
from meter import cpu_s
from psycopg_pool import AsyncConnectionPool
from rig import BENCH, Rig

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENQUEUE = "SELECT howdah.enqueue('peer', 'peer.noop', %s::json)"
_ENQUEUE_MANY = "SELECT count(*) FROM howdah.enqueue_many(NULL, %s::json)"


class Howdah(core.Peer):  # type: ignore[misc]
    """The peer; the harness's `Peer` says what each method is for."""

    name = dist = "howdah"
    settings = {"bulk": "sql", "send": "http", "chunk": 1000, "concurrency": 100}  # noqa: RUF012
    sql_left = "select count(*) from howdah.runs"

    def __init__(self) -> None:
        """Take the database that the harness has made."""
        self._rig = Rig(core.DSN, Path("/usr/bin"))
        self._held = contextlib.ExitStack()
        self._http: Client | None = None
        self.bulk_chunk = self.opt("chunk")

    async def setup(self) -> None:
        """Make the schema."""
        self._rig.command("migrate")

    async def open(self, conns: int) -> None:
        """Connect; over HTTP, to an API process that lives until `close`."""
        if self.opt("bulk" if sys.argv[1] in ("bulk", "feed") else "send") == "http":
            api = self._held.enter_context(self._rig.api())
            self._http = await Client.connect(api.port, api.key, conns)
            producer_s = core.cpu
            # The API is a part of the producer: what it costs belongs to a job's client share.
            core.cpu = lambda: producer_s() + cpu_s(api.pid)
        self._pool = AsyncConnectionPool(
            core.DSN, min_size=conns, max_size=conns, open=False, kwargs={"autocommit": True}
        )
        await self._pool.open(wait=True)

    async def close(self) -> None:
        """End everything that `open` began."""
        await self._pool.close()
        if self._http is not None:
            self._http.close()
        self._held.close()

    async def bulk(self, jobs: Sequence[dict[str, Any]]) -> None:
        """Store many jobs with one call."""
        tasks = [_task(job) for job in jobs]
        if self.opt("bulk") == "http":
            await self._post("/v1/tasks/batch", {"tasks": tasks})
        else:
            await self._execute(_ENQUEUE_MANY, tasks)

    async def send(self, job: dict[str, Any]) -> None:
        """Store one job, durably, with one call."""
        if self.opt("send") == "http":
            await self._post("/v1/tasks", _task(job))
        else:
            await self._execute(_ENQUEUE, job)

    def worker_sync(self, recorder: Any) -> None:
        """Become `howdah worker`, which records starts by itself."""
        environment = self._rig.environment(
            HOWDAH_HANDLERS="peer_handlers",
            HOWDAH_CONCURRENCY=str(self.opt("concurrency")),
            PEER_STARTS=sys.argv[2],
            PYTHONPATH=f"{BENCH}:{os.environ['PYTHONPATH']}",
        )
        os.execve(sys.executable, [sys.executable, "-m", "howdah", "worker"], environment)

    async def _post(self, path: str, body: Any) -> None:
        assert self._http is not None
        await self._http.post(path, orjson.dumps(body))

    async def _execute(self, statement: str, argument: Any) -> None:
        async with self._pool.connection() as conn:
            await conn.execute(statement, [orjson.dumps(argument).decode()])


def _task(job: dict[str, Any]) -> dict[str, Any]:
    return {"queue": "peer", "handler": "peer.noop", "payload": job}


if __name__ == "__main__":
    core.main(Howdah())
