"""Worker processes and consumers that claim over HTTP: their rows in `workers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from howdah.core.db.errors import translated
from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    import psycopg

    from howdah.core.db.connect import Connection

    SyncConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class WorkerRow(NamedTuple):
    """A worker process, or a consumer that claims over HTTP, of which host, pid and version are None."""

    id: int
    kind: Literal["worker", "pull"]
    name: str
    host: str | None
    pid: int | None
    version: str | None
    queues: list[str]
    handlers: list[str]
    serves_http: bool
    concurrency: int
    lease_s: float
    started_at: datetime
    heartbeat_at: datetime
    stopping_at: datetime | None
    stopped_at: datetime | None
    state: Literal["live", "stopping", "stopped", "silent"]


class PullRow(NamedTuple):
    """A consumer that claims over HTTP, as its row has it.

    Attributes:
        tenant_id: For whom it claims.
        pull_key: Digest of the next four, by which its row is found.
        name: As it calls itself.
        queue: That it claims from.
        handlers: That it takes.
        serves_http: Whether it takes callbacks too.
        concurrency: The most runs that it asks for at once.
        lease_s: Seconds of its leases.
    """

    tenant_id: int
    pull_key: UUID
    name: str
    queue: str
    handlers: Sequence[str]
    serves_http: bool
    concurrency: int
    lease_s: float


class Workers:
    """The queries under `sql/queries/worker`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._register = load("worker.register", schema)
        self._heartbeat = load("worker.heartbeat", schema)
        self._stop = load("worker.stop", schema)
        self._count = load("worker.count", schema)
        self._page = load("worker.page", schema)
        self._register_pull = load("worker.register_pull", schema)
        self._touch_pull = load("worker.touch_pull", schema)

    async def register(
        self,
        conn: Connection,
        *,
        name: str,
        host: str,
        pid: int,
        version: str,
        queues: Sequence[str],
        handlers: Sequence[str],
        serves_http: bool,
        concurrency: int,
        lease_s: float,
    ) -> int:
        """Register a worker process under an identity of its own and return its id.

        Args:
            conn: Autocommit.
            name: Unique over all time.
            host: Host name.
            pid: Process id on that host.
            version: Version of Howdah.
            queues: Names and patterns of the queues that it claims from.
            handlers: Names of the handlers that it has.
            serves_http: Whether it delivers callbacks.
            concurrency: Runs that it executes at once.
            lease_s: Seconds of its leases.

        Raises:
            DatabaseUnavailable: The connection is lost. A row that was made all the same is silent for ever.
        """
        parameters = {
            "name": name,
            "host": host,
            "pid": pid,
            "version": version,
            "queues": list(queues),
            "handlers": list(handlers),
            "serves_http": serves_http,
            "concurrency": concurrency,
            "lease_s": lease_s,
        }
        with translated():
            cursor = await conn.execute(self._register, parameters)
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    def heartbeat(self, conn: SyncConnection, worker_id: int, name: str, *, is_stopping: bool) -> bool:
        """Record a sign of life; False if the worker's row is gone, or another's by now.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            parameters = {"worker_id": worker_id, "name": name, "is_stopping": is_stopping}
            return conn.execute(self._heartbeat, parameters).fetchone() is not None

    async def stop(self, conn: Connection, worker_id: int) -> None:
        """Record that the worker stopped cleanly.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            await conn.execute(self._stop, {"worker_id": worker_id})

    async def register_pull(self, conn: Connection, pull: PullRow) -> int:
        """Record a sign of life of a consumer that claims over HTTP, and return its id.

        Raises:
            DatabaseUnavailable: The connection is lost; a repeat makes nothing twice.
        """
        parameters = {**pull._asdict(), "handlers": list(pull.handlers)}
        with translated():
            cursor = await conn.execute(self._register_pull, parameters)
            row = await cursor.fetchone()
        assert row is not None, "it is updated or inserted"
        return int(row[0])

    async def touch_pull(self, conn: Connection, ids: Collection[int]) -> None:
        """Record signs of life of consumers that claim over HTTP; ids of workers are passed over.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            await conn.execute(self._touch_pull, {"ids": list(ids)})

    async def page(self, conn: Connection, tenant_id: int, *, before_id: int, row_count: int) -> list[WorkerRow]:
        """Return worker processes and the tenant's pull consumers with ids below `before_id`, newest first.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        parameters = {"tenant_id": tenant_id, "before_id": before_id, "row_count": row_count}
        with translated():
            cursor = await conn.execute(self._page, parameters, binary=True)
            return [WorkerRow._make(row) for row in await cursor.fetchall()]

    async def count(self, conn: Connection) -> tuple[int, int, int]:
        """Count the workers that are live, those that drain, and those that fell silent within the last hour.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._count)
            row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        return row[0], row[1], row[2]
