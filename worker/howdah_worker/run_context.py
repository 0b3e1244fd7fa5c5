"""The context that a worker gives to handlers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import msgspec

from howdah.core import enqueued
from howdah.core.entries import entry, progress_entry
from howdah.core.errors import EnqueueInvalid
from howdah.core.log import TaskLog
from howdah.core.model import jsonb_text
from howdah.handlers import encode_result
from howdah_worker.run import RUNNING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from howdah.core.clock import DatabaseClock
    from howdah.core.entries import Entry
    from howdah.core.ids import IdMint
    from howdah_worker.run import Run
    from howdah_worker.transaction import RunTransaction


class Names(Protocol):
    """Knows names by numbers."""

    def tenant_name(self, tenant_id: int) -> str:
        """Return a tenant's name."""

    def queue_name(self, queue_id: int) -> str:
        """Return a queue's name."""


class Begins(Protocol):
    """Begins the transactions of handlers."""

    def begin(self, run: Run) -> RunTransaction:
        """Return the block of a run, to be entered."""


class Logs(Protocol):
    """Takes what handlers say of their tasks, in any thread."""

    def add(self, run: Run, entry: Entry) -> None:
        """Take an entry."""

    def set_progress(self, run: Run, entry: Entry) -> None:
        """Take progress."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all contexts of a process share."""

    names: Names
    clock: DatabaseClock
    transactions: Begins
    logs: Logs
    mint: IdMint


class RunContext:
    """A `howdah.Context` of a run that this worker holds; everything is read when it is asked for."""

    __slots__ = ("_around", "_run", "handler")

    def __init__(self, run: Run, handler: str, around: Surroundings) -> None:
        """Stand for `run`, whose task asked for `handler`."""
        self._run = run
        self._around = around
        self.handler = handler

    @property
    def task_id(self) -> UUID:
        """The task; the same in every attempt."""
        return UUID(bytes=self._run.task_id)

    @property
    def tenant(self) -> str:
        """Name of the tenant that the task belongs to."""
        return self._around.names.tenant_name(self._run.tenant_id)

    @property
    def queue(self) -> str:
        """Name of the queue that the run was claimed from."""
        return self._around.names.queue_name(self._run.queue_id)

    @property
    def attempt(self) -> int:
        """Number of this attempt, 1 for the first."""
        return self._run.attempt

    @property
    def claim_no(self) -> int:
        """Counts every claim of the task and never falls: a fence."""
        return self._run.claim_no

    @property
    def tags(self) -> Mapping[str, str]:
        """The task's tags."""
        tags: dict[str, str] = msgspec.json.decode(jsonb_text(self._run.tags)) if self._run.tags else {}
        return tags

    @property
    def parent_id(self) -> UUID | None:
        """The task whose end enqueued this one."""
        return None if self._run.parent_id is None else UUID(bytes=self._run.parent_id)

    @property
    def batch_id(self) -> UUID | None:
        """The batch that the task belongs to."""
        return None if self._run.batch_id is None else UUID(bytes=self._run.batch_id)

    @property
    def completes_batch_id(self) -> UUID | None:
        """The batch whose end enqueued this task."""
        return None if self._run.completes_batch_id is None else UUID(bytes=self._run.completes_batch_id)

    @property
    def deadline_at(self) -> datetime:
        """When this attempt times out, by the database's clock."""
        return self._around.clock.now() + timedelta(seconds=self.remaining_s())

    @property
    def log(self) -> TaskLog:
        """Called, it adds to the task's own log; its methods log to the process's, naming this run."""
        return TaskLog(logging.getLogger(f"howdah.handler.{self.handler}"), self._run.log_fields(), self._add)

    def _add(self, message: object, level: str, fields: dict[str, object]) -> None:
        self._around.logs.add(self._run, entry(message, level, fields))

    def progress(
        self, fraction: float | None = None, message: str | None = None, *, percent: float | None = None
    ) -> None:
        """Tell how much is done: a fraction of 1, or percent.

        Raises:
            ValueError: It is no number from 0 to 1, or to 100.
        """
        self._around.logs.set_progress(self._run, progress_entry(fraction, message, percent))

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop: cancelled, timed out, or its lease is lost or about to be."""
        run = self._run
        if run.is_told:
            run.has_seen = True
        return run.is_told

    def remaining_s(self) -> float:
        """Return the seconds left until `deadline_at`, 0 once it has passed."""
        return max(0.0, self._run.started_at + self._run.timeout_s - time.monotonic())

    async def cancellation(self) -> None:
        """Wait until `cancelled` is true; for async handlers."""
        await self._run.until_told()

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Block this thread until `cancelled` is true, at most `timeout_s`; for plain functions."""
        return self._run.wait_told(timeout_s)

    def enqueue(self, queue: str, handler: str | None = None, payload: Any = None, /, **options: Any) -> UUID:
        """Enqueue a task that is stored together with the success of the run, or not at all.

        Raises:
            EnqueueInvalid: It cannot be a task, there are too many, or the outcome is recorded already.
        """
        run = self._run
        if run.stage is not RUNNING:
            raise EnqueueInvalid("the outcome of this run is recorded already")
        if run.enqueued is None:
            run.enqueued = []
        task_id = self._around.mint.mint()
        enqueued.add(run.enqueued, task_id, queue, handler, payload, options)
        return task_id

    def transaction(self) -> RunTransaction:
        """Open a block whose writes take effect exactly once, with the run's success."""
        return self._around.transactions.begin(self._run)

    def set_result(self, result: Any) -> None:
        """Say what `transaction` records as the result of the run; without a transaction, return it instead.

        Raises:
            ResultInvalid: It has no JSON form, or is too large.
        """
        self._run.result = encode_result(result)
