"""Run a handler in a test, without a database and without a worker.

    import howdah.testing

    def test_welcome_greets_by_name():
        assert howdah.testing.run(welcome, {"name": "Ann"}) == "Hello Ann"

The payload goes through JSON and the handler's annotation as in production, the
result must have a JSON form, and exceptions of the handler come out unchanged, so do
its decisions (`howdah.Snooze` and the like), raised or returned.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict

import msgspec

from howdah.core import enqueued, ids, log
from howdah.core.decisions import Decision
from howdah.core.entries import Entry, entry, progress_entry
from howdah.core.errors import TransactionUnavailable
from howdah.handlers import REGISTRY, Handler, build, encode_result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Unpack
    from uuid import UUID

_CANCEL_POLL_S: Final = 0.01
_mint: Final = ids.IdMint(lambda: time.time_ns() // 1_000_000)


class ContextFields(TypedDict, total=False):
    """What a test may say about the run; all of it has a default."""

    task_id: UUID
    tenant: str
    queue: str
    attempt: int
    claim_no: int
    tags: Mapping[str, str]
    timeout_s: float
    parent_id: UUID | None
    batch_id: UUID | None
    completes_batch_id: UUID | None


@dataclass(slots=True, kw_only=True)
class FakeContext:
    """A `howdah.Context` without a database; `cancel` tells the handler to stop."""

    handler: str = "test"
    task_id: UUID = field(default_factory=_mint.mint)
    tenant: str = "default"
    queue: str = "default"
    attempt: int = 1
    claim_no: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    parent_id: UUID | None = None
    batch_id: UUID | None = None
    completes_batch_id: UUID | None = None
    deadline_at: datetime = field(init=False)
    log: log.TaskLog = field(init=False)
    entries: list[Entry] = field(init=False, default_factory=list)
    """What the handler added to the task's log, progress too."""
    enqueued: list[dict[str, Any]] = field(init=False, default_factory=list)
    """What it enqueued: the fields of each task, as `POST /v1/tasks` would take them, with its id."""
    _cancelled: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Start the clock of the timeout."""
        self.deadline_at = datetime.now(UTC) + timedelta(seconds=self.timeout_s)
        fields = {"task_id": str(self.task_id), "run": self.claim_no, "attempt": self.attempt, "tenant": self.tenant}
        self.log = log.TaskLog(logging.getLogger(f"howdah.handler.{self.handler}"), fields, self._add)

    def _add(self, message: object, level: str, fields: dict[str, object]) -> None:
        self.entries.append(entry(message, level, fields))

    def progress(
        self, fraction: float | None = None, message: str | None = None, *, percent: float | None = None
    ) -> None:
        """Tell how much is done.

        Raises:
            ValueError: As in production: it is no number from 0 to 1, or to 100.
        """
        self.entries.append(progress_entry(fraction, message, percent))

    def cancel(self) -> None:
        """Tell the handler to stop; from any thread."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop."""
        return self._cancelled.is_set()

    def remaining_s(self) -> float:
        """Return the seconds left until `deadline_at`, 0 once it has passed."""
        return max(0.0, (self.deadline_at - datetime.now(UTC)).total_seconds())

    async def cancellation(self) -> None:
        """Wait until `cancelled` is true."""
        while not self._cancelled.is_set():  # noqa: ASYNC110 - the event is set from any thread
            await asyncio.sleep(_CANCEL_POLL_S)

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Block this thread until `cancelled` is true, at most `timeout_s`."""
        return self._cancelled.wait(timeout_s)

    def set_result(self, result: Any) -> None:
        """Check that the result has a JSON form, as in production; without a transaction it is not recorded.

        Raises:
            ResultInvalid: It has none, or is too large.
        """
        encode_result(result)

    def enqueue(self, queue: str, handler: str | None = None, payload: Any = None, /, **options: Any) -> UUID:
        """Add a task to `enqueued`.

        Raises:
            EnqueueInvalid: As in production: it cannot be a task, as far as that can be told without a database.
        """
        task_id = _mint.mint()
        items = [msgspec.json.encode(fields) for fields in self.enqueued]
        enqueued.add(items, task_id, queue, handler, payload, options)
        self.enqueued.append(msgspec.json.decode(items[-1]))
        return task_id

    def transaction(self) -> NoReturn:
        """Refuse.

        Raises:
            TransactionUnavailable: Always: there is no database here.
        """
        raise TransactionUnavailable(
            "ctx.transaction() needs PostgreSQL, and howdah.testing.run has none; test what stands inside "
            "the block as a function of a connection, or run a worker against a test database"
        )


def run(
    handler: Callable[..., Any] | str,
    payload: object = None,
    /,
    *,
    context: FakeContext | None = None,
    **fields: Unpack[ContextFields],
) -> Any:
    """Run a handler and return its result.

    Args:
        handler: The function, or the name of a handler that is declared.
        payload: Any value that has a JSON form; `bytes` are taken as JSON text.
        context: One of your own, for example to cancel it from another thread.
        fields: What the context should say, for example `attempt=3`; not together with `context`.

    Raises:
        PayloadMismatch: The payload does not fit the annotation, as in production.
        ResultInvalid: The result has no JSON form, as in production.
    """
    found, given = _prepare(handler, context, fields)
    arguments = found.arguments(_encoded(payload), given)
    if found.is_async:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            result = asyncio.run(_awaited(found, arguments))
        else:
            raise RuntimeError("an event loop is running here: use `await howdah.testing.run_async(...)`")
    else:
        result = found.call(arguments)
    return _checked(result)


async def run_async(
    handler: Callable[..., Any] | str,
    payload: object = None,
    /,
    *,
    context: FakeContext | None = None,
    **fields: Unpack[ContextFields],
) -> Any:
    """Run a handler from an async test, otherwise like `run`; a plain function runs in a thread, as in production."""
    found, given = _prepare(handler, context, fields)
    arguments = found.arguments(_encoded(payload), given)
    if found.is_async:
        result = await found.call(arguments)
    else:
        result = await asyncio.to_thread(found.call, arguments)
    return _checked(result)


def _checked(result: Any) -> Any:
    """Refuse what could not be stored; a decision about the task is not stored as it is."""
    if not isinstance(result, Decision):
        encode_result(result)
    return result


async def _awaited(found: Handler, arguments: tuple[Any, ...]) -> Any:
    return await found.call(arguments)


def _prepare(
    handler: Callable[..., Any] | str, context: FakeContext | None, fields: ContextFields
) -> tuple[Handler, FakeContext]:
    if isinstance(handler, str):
        found = REGISTRY.get(handler)
        if found is None:
            raise LookupError(f"no handler {handler!r} is declared; known: {', '.join(REGISTRY.names()) or 'none'}")
    else:
        found = REGISTRY.of_function(handler) or build("test", handler)
    if context is not None and fields:
        raise TypeError("give either a context or its fields")
    return found, context if context is not None else FakeContext(handler=found.name, **fields)


def _encoded(payload: object) -> bytes:
    return payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
