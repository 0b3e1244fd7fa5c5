"""`ctx.transaction()`: a handler's writes and the run's success commit together, or not at all.

The last statement of the block records the run as succeeded, guarded by its
lease token, so that nothing takes effect twice: of two workers that hold a lease
of the task one after the other, only the one whose token still stands commits.
The run's row is not locked before that statement, or rescue would pass it by.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from howdah.core.errors import LeaseLost, TransactionUnavailable
from howdah.core.store.reports import complete_in_transaction, complete_in_transaction_sync
from howdah_worker.outcome import Ending
from howdah_worker.run import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from howdah.core.db.handler_connections import KeptConnections
    from howdah.core.model import Report
    from howdah.core.store.runs import Runs
    from howdah_worker.run import Run


class Ledger(Protocol):
    """Hears what transactions record."""

    def begins(self, run: Run) -> None:
        """Take note that the success of a run is about to be recorded.

        Raises:
            TransactionUnavailable: It must not be.
        """

    def recorded(self, run: Run) -> None:
        """Take note, in the thread of the event loop, that it is recorded."""

    def recorded_in_thread(self, run: Run) -> None:
        """Take note, in any thread, that it is recorded."""

    def not_recorded(self, run: Run) -> None:
        """Take note, in any thread, that it is not: the lease was lost."""


class Flushes(Protocol):
    """Stores what handlers have logged."""

    async def flush(self, run: Run) -> None:
        """Wait until all that the run has said so far is written, or dropped."""

    def flush_sync(self, run: Run) -> None:
        """Block a thread until then."""


class WorkerLedger:
    """The ledger of the worker's own process."""

    def __init__(self, on_recorded: Callable[[Run], None]) -> None:
        """Make it on the event loop, on which `on_recorded` is called with each run."""
        self._on_recorded = on_recorded
        self._loop = asyncio.get_running_loop()

    def begins(self, run: Run) -> None:
        """From now on the outcome may be recorded without our knowing it."""
        run.is_in_doubt = True

    def recorded(self, run: Run) -> None:
        """Pass it on."""
        self._on_recorded(run)

    def recorded_in_thread(self, run: Run) -> None:
        """Pass it on."""
        self._loop.call_soon_threadsafe(self._on_recorded, run)

    def not_recorded(self, run: Run) -> None:
        """There is no doubt any more."""
        run.is_in_doubt = False


class Transactions:
    """Begins the transactions of handlers."""

    def __init__(self, connections: KeptConnections, runs: Runs, logs: Flushes, ledger: Ledger) -> None:
        """Describe them.

        Args:
            connections: Where to take connections from.
            runs: Statement that records.
            logs: Stores what a handler logged before its success.
            ledger: Hears what is recorded.
        """
        self._connections = connections
        self._runs = runs
        self._logs = logs
        self._ledger = ledger

    def begin(self, run: Run) -> RunTransaction:
        """Return the block of a run, to be entered."""
        return RunTransaction(self._block(run), self._block_sync(run))

    @contextlib.asynccontextmanager
    async def _block(self, run: Run) -> AsyncIterator[Any]:
        _refuse_recorded(run)
        async with self._connections.take() as conn:
            async with conn.transaction():
                yield conn
                report = self._success(run)
                await self._logs.flush(run)
                if not await complete_in_transaction(conn, self._runs, report):
                    raise self._lost(run)
            if run.record_success(report):
                self._ledger.recorded(run)

    @contextlib.contextmanager
    def _block_sync(self, run: Run) -> Iterator[Any]:
        _refuse_recorded(run)
        with self._connections.take_sync() as conn:
            with conn.transaction():
                yield conn
                report = self._success(run)
                self._logs.flush_sync(run)
                if not complete_in_transaction_sync(conn, self._runs, report):
                    raise self._lost(run)
            # Here, and not on the event loop: the end of this thread's work may overtake a message to it.
            if run.record_success(report):
                self._ledger.recorded_in_thread(run)

    def _success(self, run: Run) -> Report:
        self._ledger.begins(run)
        return run.report_of(Ending("succeeded", run.result), time.monotonic() - run.started_at)

    def _lost(self, run: Run) -> LeaseLost:
        self._ledger.not_recorded(run)
        return LeaseLost("the lease was lost while the handler ran; what it wrote in the transaction is rolled back")


class RunTransaction:
    """A `howdah.context.Transaction`; one use, either `async with` or `with`."""

    def __init__(
        self,
        block: contextlib.AbstractAsyncContextManager[Any],
        block_sync: contextlib.AbstractContextManager[Any],
    ) -> None:
        """Offer both ways; the one that is not used costs nothing."""
        self._block = block
        self._block_sync = block_sync

    async def __aenter__(self) -> Any:
        """Begin, and return a psycopg `AsyncConnection`."""
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Record the success and commit, or roll back."""
        return await self._block.__aexit__(kind, error, trace)

    def __enter__(self) -> Any:
        """Begin, and return a psycopg `Connection`."""
        return self._block_sync.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Record the success and commit, or roll back."""
        return self._block_sync.__exit__(kind, error, trace)


def _refuse_recorded(run: Run) -> None:
    if run.stage is not Stage.RUNNING:
        raise TransactionUnavailable("the outcome of this run is recorded already; a run has one transaction")
