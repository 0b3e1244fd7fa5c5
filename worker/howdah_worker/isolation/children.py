"""The children of a worker: as many as there are isolated runs at once, kept for the runs that follow."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from howdah.core.errors import HandlerUnfound, Stopped
from howdah_worker import outcome
from howdah_worker.isolation.child_link import GRACE_S, ChildLink
from howdah_worker.isolation.process import Warden
from howdah_worker.isolation.wire import Hello, Order, Refused
from howdah_worker.run import RUNNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from howdah.core.clock import DatabaseClock
    from howdah.core.entries import Entry
    from howdah.core.settings import Settings
    from howdah.handlers import Registry
    from howdah_worker.catalogue import Catalogue
    from howdah_worker.outcome import Ending
    from howdah_worker.run import Run
    from howdah_worker.task_logs import TaskLogs

# Modules may be large, and disks slow. Chosen.
_READY_S_MAX: Final = 120.0

_logger = logging.getLogger(__name__)


class Children:
    """Starts children when they are first needed, and gives each one run at a time; an `Employer`."""

    def __init__(self, settings: Settings) -> None:
        """Start none yet; call it on the event loop, in the main thread."""
        self._loop = asyncio.get_running_loop()
        self._count = settings.processes
        self._hello = Hello(
            modules=list(settings.handlers),
            path=list(sys.path),
            database_url=settings.database_url,
            direct_url=settings.direct_url,
            schema=settings.schema,
            log_level=settings.log_level,
            log_format=settings.log_format,
        )
        self._warden = Warden()
        self._busy = 0
        self._order_count = 0
        self._idle: list[ChildLink] = []
        self._all: set[ChildLink] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def employ(
        self,
        catalogue: Catalogue,
        clock: DatabaseClock,
        *,
        logs: TaskLogs,
        on_ended: Callable[[Run, Ending, bool], None],
        on_recorded: Callable[[Run], None],
    ) -> None:
        """Say what runs are to be told, and who hears of them.

        Args:
            catalogue: Knows the names.
            clock: Knows the database's time.
            logs: Stores what handlers say of their tasks.
            on_ended: Called with a run that has ended, how, and whether it was interrupted.
            on_recorded: Called with a run whose success its own transaction has recorded.
        """
        self._catalogue = catalogue
        self._clock = clock
        self._logs = logs
        self._on_ended = on_ended
        self._on_recorded = on_recorded

    async def prove(self, registry: Registry, stop: asyncio.Event) -> None:
        """Start the first child, and see that it finds the isolated handlers.

        Raises:
            HandlerUnfound: It does not find all of them, or others; or it does not start.
            Stopped: `stop` was set before.
        """
        wanted = {name: handler.where for name, handler in registry.isolated().items()}
        try:
            child = self._start()
        except OSError as error:
            raise HandlerUnfound(f"no child process can be started for isolated handlers: {error}") from error
        stopping = asyncio.ensure_future(stop.wait())
        waits: set[asyncio.Future[Any]] = {child.ready, stopping}
        try:
            await asyncio.wait(waits, timeout=_READY_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if stop.is_set():
            raise Stopped
        if not child.ready.done():
            raise HandlerUnfound(f"a child process was not ready within {_READY_S_MAX:g} s")
        word = child.ready.result()
        reason = word.reason if isinstance(word, Refused) else _missing(wanted, word.handlers)
        if reason is not None:
            raise HandlerUnfound(reason)
        if not child.is_ending:
            self._idle.append(child)

    @property
    def free(self) -> int:
        """How many runs may be given."""
        return self._count - self._busy

    def give(self, run: Run) -> None:
        """Have a run performed; there must be a child free, or to be started."""
        self._busy += 1
        self._order_count += 1
        try:
            child = self._idle.pop() if self._idle else self._start()
        except OSError as error:
            self._loop.call_soon(self._not_given, run, f"no child process can be started: {error}")
            return
        run.child = child
        child.give(run, self._order(run))

    async def close(self) -> None:
        """End all of them; none can be started after that."""
        self._count = 0
        for child in list(self._all):
            child.stop(at_once=False)
        try:
            async with asyncio.timeout(2 * GRACE_S):
                await self._none_left.wait()
        except TimeoutError:
            _logger.warning("children_abandoned", extra={"fields": {"count": len(self._all)}})
        self._warden.end()

    # What they report.

    def ended(self, child: ChildLink, run: Run, ending: Ending, is_interrupted: bool) -> None:
        """Take how the run of a child ended, and keep the child for the next."""
        self._busy -= 1
        if not child.is_ending:
            self._idle.append(child)
        self._on_ended(run, ending, is_interrupted)

    def logged(self, run: Run, entry: Entry) -> None:
        """Have stored what a handler says of its task."""
        if entry.fraction is None:
            self._logs.add(run, entry)
        else:
            self._logs.set_progress(run, entry)

    async def may_record(self, run: Run) -> bool:
        """Tell whether the child may record success: nobody has decided on the run before, and its log is stored."""
        await self._logs.flush(run)
        if run.stage is not RUNNING:
            return False
        run.is_in_doubt = True
        return True

    def recorded(self, run: Run, *, is_recorded: bool) -> None:
        """Take note of what the run's transaction did."""
        if not is_recorded:
            run.is_in_doubt = False
        elif run.stage is RUNNING:
            run.record_success()
            self._on_recorded(run)

    def gone(self, child: ChildLink) -> None:
        """Forget a child that is no more."""
        if child in self._idle:
            self._idle.remove(child)
        self._all.discard(child)
        if not self._all:
            self._none_left.set()

    def _start(self) -> ChildLink:
        child = ChildLink(self._hello, self._warden, self)
        self._all.add(child)
        self._none_left.clear()
        return child

    def _not_given(self, run: Run, reason: str) -> None:
        self._busy -= 1
        self._on_ended(run, outcome.process_died(reason, None), True)

    def _order(self, run: Run) -> Order:
        assert run.handler is not None
        return Order(
            number=self._order_count,
            handler=run.handler.name,
            tenant=self._catalogue.tenant_name(run.tenant_id),
            queue=self._catalogue.queue_name(run.queue_id),
            tenant_id=run.tenant_id,
            task_id=run.task_id,
            queue_id=run.queue_id,
            claim_no=run.claim_no,
            attempt=run.attempt,
            token=run.token,
            timeout_s=run.timeout_s,
            payload=run.payload,
            tags=run.tags,
            traceparent=run.traceparent,
            parent_id=run.parent_id,
            completes_batch_id=run.completes_batch_id,
            batch_id=run.batch_id,
            has_follow_ups=run.has_follow_ups,
            started_at=run.started_at,
            asked_at=time.monotonic(),
            now=self._clock.now(),
        )


def _missing(wanted: dict[str, str], found: dict[str, str]) -> str | None:
    """Say which handlers a child has not found as its worker has; None if all is well."""
    for name, where in wanted.items():
        if name not in found:
            return (
                f"{where}: the isolated handler {name!r} is not declared again when a child process imports the "
                "modules of HOWDAH_HANDLERS; declare it at the top level of one of them"
            )
        if found[name] != where:
            return (
                f"the isolated handler {name!r} is {where} in the worker and {found[name]} in a child process: a "
                "declaration must not depend on the process that imports it"
            )
    return None
