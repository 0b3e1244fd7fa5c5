"""What a handler is told about the run it does, and what it can ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from types import TracebackType
    from uuid import UUID

    from howdah.core.log import TaskLog


class Transaction(Protocol):
    """A block whose writes commit together with the run's success.

    Async handlers write `async with ctx.transaction() as conn` and get a
    psycopg `AsyncConnection`; plain functions write `with` and get a psycopg
    `Connection`. The block's end records the run as succeeded and commits both;
    an exception rolls both back. If the lease was lost meanwhile, nothing is
    committed and `LeaseLost` is raised.
    """

    async def __aenter__(self) -> Any:
        """Begin, and return a psycopg `AsyncConnection`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Record the success and commit, or roll back."""

    def __enter__(self) -> Any:
        """Begin, and return a psycopg `Connection`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Record the success and commit, or roll back."""


class Context(Protocol):
    """The second parameter of a handler."""

    @property
    def task_id(self) -> UUID:
        """The task; the same in every attempt."""

    @property
    def tenant(self) -> str:
        """Name of the tenant that the task belongs to."""

    @property
    def queue(self) -> str:
        """Name of the queue that the run was claimed from."""

    @property
    def handler(self) -> str:
        """Name under which the handler was asked for."""

    @property
    def attempt(self) -> int:
        """Number of this attempt, 1 for the first."""

    @property
    def claim_no(self) -> int:
        """Counts every claim of the task and never falls.

        Hand it to other systems as a fence: whoever has seen a greater number
        must refuse a smaller one.
        """

    @property
    def tags(self) -> Mapping[str, str]:
        """The task's tags."""

    @property
    def parent_id(self) -> UUID | None:
        """The task whose end enqueued this one, as its follow-up or by its handler."""

    @property
    def batch_id(self) -> UUID | None:
        """The batch that the task belongs to."""

    @property
    def completes_batch_id(self) -> UUID | None:
        """The batch whose end enqueued this task, as one of its follow-ups."""

    @property
    def deadline_at(self) -> datetime:
        """When this attempt times out, by the database's clock."""

    @property
    def log(self) -> TaskLog:
        """Two logs: called, it adds an entry to the task's, which clients read; its methods log to the process's.

        `ctx.log("sent", level="warning", to=address)` never waits and never fails for what it is given.
        An attempt may have 10,000 entries and 1 MiB. Entries are stored within a quarter of a second, and
        before the outcome; those made after the end of `transaction()` are not kept.

        `ctx.log.info("sent")` and the other methods of a `logging.LoggerAdapter` write records that name this run.
        """

    def progress(
        self, fraction: float | None = None, message: str | None = None, *, percent: float | None = None
    ) -> None:
        """Tell how much is done: a fraction of 1, or percent; clients see the latest, at most 4 a second are stored.

        Raises:
            ValueError: It is no number from 0 to 1, or to 100.
        """

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop: cancelled, timed out, or its lease is lost or about to be."""

    def remaining_s(self) -> float:
        """Return the seconds left until `deadline_at`, 0 once it has passed."""

    async def cancellation(self) -> None:
        """Wait until `cancelled` is true; for async handlers."""

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Block this thread until `cancelled` is true, at most `timeout_s`; for plain functions.

        Returns:
            Whether it is true.
        """

    def enqueue(self, queue: str, handler: str | None = None, payload: Any = None, /, **options: Any) -> UUID:
        """Enqueue a task that is stored together with this run's success, in one transaction, or not at all.

        `options` are the other fields of `POST /v1/tasks`: `ctx.enqueue("emails", "welcome", {"to": to}, delay="5m")`.
        A run enqueues at most 1,000 tasks, of 2 MiB together. If one of them is refused then, because its dedup
        key is taken for example, the run fails as `enqueue_refused`.

        Returns:
            The id that the task will have.

        Raises:
            EnqueueInvalid: A field is unknown or has no JSON form, or there are too many tasks.
        """

    def transaction(self) -> Transaction:
        """Open a block whose writes take effect exactly once, with the run's success.

        A run has one such block. What the handler returns after it is not
        recorded any more; give a result to `set_result` inside the block.
        """

    def set_result(self, result: Any) -> None:
        """Say what `transaction` records as the run's result; without a transaction, return it instead.

        Raises:
            ResultInvalid: It has no JSON form, or is too large.
        """
