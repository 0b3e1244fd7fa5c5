"""What runs in a child process: `python -m howdah_worker.isolation <descriptor> <worker>`.

The main thread imports the handlers and performs runs, one after another, so that it
can be interrupted by SIGTERM: a plain function by an exception, an async one by its
cancellation. Another thread hears what the worker says meanwhile. When the worker is
gone the whole process group is killed, whatever it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import os
import signal
import socket
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn

from msgspec import UNSET, Raw

from howdah.core import log
from howdah.core.clock import DatabaseClock
from howdah.core.errors import HandlerImportFailed, TransactionUnavailable
from howdah.core.ids import IdMint
from howdah.core.model import ClaimedRun
from howdah.core.settings import Settings
from howdah.handlers import load_handlers
from howdah_worker import outcome
from howdah_worker.isolation.wire import (
    Ended,
    Hello,
    Logged,
    MayRecord,
    Order,
    Ready,
    Recorded,
    Recording,
    Refused,
    Told,
    frame,
    next_word,
)
from howdah_worker.run import RUNNING, Run
from howdah_worker.run_context import RunContext, Surroundings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import BinaryIO

    from howdah.core.entries import Entry
    from howdah.handlers import Handler, Registry
    from howdah_worker.isolation.wire import ToChild, ToWorker
    from howdah_worker.outcome import Ending
    from howdah_worker.transaction import RunTransaction, Transactions

_PR_SET_PDEATHSIG: Final = 1
# Of a child whose worker is gone, or cannot be spoken to any more.
_EXIT_CODE: Final = 70


class Terminated(BaseException):
    """SIGTERM: raised in a plain function, wherever it is."""


class Link:
    """Our end of the socket."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor that the worker left open for us."""
        self._socket = socket.socket(fileno=descriptor)
        os.set_inheritable(descriptor, False)
        self._lock = threading.Lock()
        self._words: BinaryIO = self._socket.makefile("rb")
        # A process that a handler forks must neither speak for us nor keep the socket open.
        os.register_at_fork(after_in_child=self._leave)

    def next(self) -> ToChild | None:
        """Wait for what the worker says next; None once it is gone."""
        return next_word(self._words)

    def send(self, message: ToWorker) -> None:
        """Say something; who cannot be heard any more ends."""
        try:
            with self._lock:
                self._socket.sendall(frame(message))
        except OSError:
            os._exit(_EXIT_CODE)

    def _leave(self) -> None:
        os.close(self._socket.detach())


class _Names:
    """The names of the run under way."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def tenant_name(self, _: int) -> str:
        return self._order.tenant

    def queue_name(self, _: int) -> str:
        return self._order.queue


class Child:
    """Performs orders in the main thread, and hears the worker in another."""

    def __init__(self, link: Link, settings: Settings, registry: Registry) -> None:
        """Serve the handlers of `registry`."""
        self._link = link
        self._settings = settings
        self._registry = registry
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._answers: SimpleQueue[bool] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._order: Order | None = None
        self._run: Run | None = None
        self._transactions: Transactions | None = None
        # What SIGTERM meets: nothing under way, a plain function, an async handler.
        self._is_idle, self._is_in_function = True, False
        self._task: asyncio.Task[Any] | None = None
        self._is_leaving = False

    def work(self) -> NoReturn:
        """Perform orders until SIGTERM, or for ever."""
        signal.signal(signal.SIGTERM, self._terminate)
        threading.Thread(target=self._listen, name="howdah-link", daemon=True).start()
        while True:
            order = self._orders.get()
            self._is_idle = False
            ended = self._perform(order)
            self._link.send(ended)
            if self._is_leaving:
                raise SystemExit(0)
            self._is_idle = True

    def begin(self, run: Run) -> RunTransaction:
        """Return the block of a run's transaction, over a connection of this process's own."""
        if self._transactions is None:
            # Not before it is needed: 13 MB of every child.
            from howdah.core.db.handler_connections import KeptConnections
            from howdah.core.store.runs import Runs
            from howdah_worker.transaction import Transactions

            connections = KeptConnections(self._settings, "worker")
            self._transactions = Transactions(connections, Runs(self._settings.schema), self, self)
        return self._transactions.begin(run)

    # What a handler says of its task.

    def add(self, run: Run, entry: Entry) -> None:
        """Pass an entry on to the worker, which stores it."""
        self._say(run, entry)

    def set_progress(self, run: Run, entry: Entry) -> None:
        """Pass progress on to the worker."""
        self._say(run, entry)

    async def flush(self, run: Run) -> None:
        """Do nothing: the worker stores what was said before it lets a success be recorded (`begins`)."""

    def flush_sync(self, run: Run) -> None:
        """Do nothing, either."""

    def _say(self, run: Run, entry: Entry) -> None:
        order = self._order
        if order is not None and run is self._run:  # A thread may outlive its run.
            self._link.send(Logged(order.number, entry.level, entry.message, entry.fields, entry.fraction))

    # What a transaction tells us, and we the worker.

    def begins(self, run: Run) -> None:
        """Ask the worker whether the success may be recorded: it may have decided otherwise."""
        assert self._order is not None
        if run is not self._run:
            raise TransactionUnavailable("the run has ended")
        self._link.send(Recording(self._order.number))
        if not self._answers.get():
            raise TransactionUnavailable("the worker has decided on the outcome of this run already")

    def recorded(self, _: Run) -> None:
        """Tell the worker that the success is recorded."""
        self._tell_recorded(True)

    def recorded_in_thread(self, _: Run) -> None:
        """Tell the worker that the success is recorded."""
        self._tell_recorded(True)

    def not_recorded(self, _: Run) -> None:
        """Tell the worker that the lease was lost before."""
        self._tell_recorded(False)

    def _tell_recorded(self, is_recorded: bool) -> None:
        assert self._order is not None
        self._link.send(Recorded(self._order.number, is_recorded))

    # The thread that hears the worker.

    def _listen(self) -> None:
        while True:
            match self._link.next():
                case Order() as order:
                    self._orders.put(order)
                case Told(number):
                    self._tell(number)
                case MayRecord(_, is_allowed):
                    self._answers.put(is_allowed)
                case _:  # The end of the socket, and of the worker.
                    os.killpg(os.getpid(), signal.SIGKILL)

    def _tell(self, number: int) -> None:
        order, run = self._order, self._run
        if order is None or run is None or order.number != number or run.handler is None:
            return
        if run.handler.is_async:
            self._loop.call_soon_threadsafe(run.tell)
        else:
            run.tell()

    # The main thread.

    def _terminate(self, *_: object) -> None:
        self._is_leaving = True
        if self._is_idle:
            raise SystemExit(0)
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        elif self._is_in_function:
            self._is_in_function = False
            raise Terminated("told to stop by SIGTERM")

    def _perform(self, order: Order) -> Ended:
        run = _run_of(order)
        handler = run.handler = self._registry.get(order.handler)
        assert handler is not None
        self._order, self._run = order, run
        ending = contextvars.copy_context().run(self._call, run, handler, self._around(order))
        self._run = None
        return Ended(
            number=order.number,
            outcome=ending.outcome,
            result=UNSET if ending.result is None else Raw(ending.result),
            error=UNSET if ending.error is None else Raw(ending.error),
            retryable=ending.retryable,
            retry_in_s=ending.retry_in_s,
            is_decided=ending.is_decided,
            has_seen=run.has_seen,
            is_leaving=self._is_leaving,
            enqueued=[Raw(item) for item in run.enqueued or ()],
        )

    def _around(self, order: Order) -> Surroundings:
        clock = DatabaseClock()
        clock.add_sample(order.asked_at, order.now, order.asked_at)
        return Surroundings(_Names(order), clock, self, self, IdMint(clock.now_ms))

    def _call(self, run: Run, handler: Handler, around: Surroundings) -> Ending:
        log.bind(run.log_fields)
        try:
            context = RunContext(run, handler.name, around) if handler.takes_context else None
            arguments = handler.arguments(run.payload, context)
            if handler.is_async:
                return outcome.of_result(self._await(handler.function(*arguments)))
            self._is_in_function = True
            try:
                result = handler.call(arguments)
            finally:
                self._is_in_function = False
            return outcome.of_result(result)
        except BaseException as error:
            return outcome.of_error(error)

    def _await(self, work: Coroutine[Any, Any, Any]) -> Any:
        self._task = self._loop.create_task(work)
        if self._is_leaving:
            self._task.cancel()
        try:
            return self._loop.run_until_complete(self._task)
        finally:
            self._task = None
            self._cancel_leftovers()

    def _cancel_leftovers(self) -> None:
        """Cancel what the handler began and did not wait for: the event loop stands still until the next run."""
        leftovers = asyncio.all_tasks(self._loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            self._loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))


def _run_of(order: Order) -> Run:
    row = ClaimedRun(
        tenant_id=order.tenant_id,
        task_id=order.task_id,
        queue_id=order.queue_id,
        target_id=0,
        priority=0,
        claim_no=order.claim_no,
        attempt=order.attempt,
        run_at=0,
        queued_at=0,
        timeout_s=order.timeout_s,
        deadline_at=0,
        has_task=True,
        payload=order.payload,
        http=None,
        tags=order.tags,
        traceparent=order.traceparent,
        parent_id=order.parent_id,
        completes_batch_id=order.completes_batch_id,
        flow_key_id=None,
        batch_id=order.batch_id,
        has_follow_ups=order.has_follow_ups,
        crashes=0,
    )
    run = Run(row, order.token, order.started_at, _Names(order))
    run.started_at = order.started_at
    run.stage = RUNNING
    return run


def _die_with(worker: int) -> None:
    """Have Linux kill this process when the worker's ends, also if no line of Python runs here any more."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != worker:
        os._exit(_EXIT_CODE)


def main(descriptor: int, worker: int) -> NoReturn:
    """Become what the worker's first word says, and work; it ends with `SystemExit`."""
    _die_with(worker)
    link = Link(descriptor)
    hello = link.next()
    if not isinstance(hello, Hello):
        raise SystemExit(_EXIT_CODE)
    sys.path[:] = hello.path
    settings = Settings(
        database_url=hello.database_url,
        direct_url=hello.direct_url,
        schema=hello.schema,
        log_level=hello.log_level,
        log_format=hello.log_format,
    )
    log.setup(settings, "worker")
    try:
        registry = load_handlers(hello.modules)
    except HandlerImportFailed as error:
        link.send(Refused(str(error)))
        raise SystemExit(_EXIT_CODE) from None
    link.send(Ready({name: handler.where for name, handler in registry.isolated().items()}))
    Child(link, settings, registry).work()
