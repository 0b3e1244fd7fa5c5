"""The worker process: claims runs, runs their handlers and callbacks, records outcomes.

    claimer ──> executor ──> finisher        each with a connection of its own,
       ^            |            |           beside those of keeper and listener
    listener     keeper (thread) ┘

`main` is what `howdah worker` calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple

from howdah.core import garbage
from howdah.core.addresses import AddressPolicy
from howdah.core.backoff import pause, retry_forever
from howdah.core.clock import DatabaseClock
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.db.handler_connections import HandlerConnections
from howdah.core.db.listen import Listener
from howdah.core.db.precheck import READ_ONLY_S_MAX, check_server
from howdah.core.db.schema_version import check_schema
from howdah.core.errors import DatabaseUnavailable, RegistrationLost, ReportsLost, Stopped
from howdah.core.ids import IdMint
from howdah.core.queue_pattern import QueueChoice
from howdah.core.service import run
from howdah.core.store.lanes import Lanes
from howdah.core.store.runs import Runs
from howdah.core.store.server import Server
from howdah.core.store.stats import Stats
from howdah.core.store.task_logs import TaskLogs as Store
from howdah.core.store.workers import Workers
from howdah.core.supervisor import Supervisor
from howdah.handlers import load_handlers
from howdah_worker.batch_ends import BatchEnds
from howdah_worker.callback import CallbackClient
from howdah_worker.catalogue import Catalogue
from howdah_worker.claimer import Claimer
from howdah_worker.connection import PROCESS
from howdah_worker.delivery import Delivery
from howdah_worker.drain import drain
from howdah_worker.executor import Executor
from howdah_worker.finisher import Finisher
from howdah_worker.isolation.children import Children
from howdah_worker.lease_keeper import LeaseKeeper
from howdah_worker.run_context import Surroundings
from howdah_worker.tally import TallySheet
from howdah_worker.task_logs import TaskLogs
from howdah_worker.transaction import Transactions, WorkerLedger
from howdah_worker.vacancies import Vacancies

if TYPE_CHECKING:
    from howdah.core.service import ExitCode, Service
    from howdah.core.settings import Settings
    from howdah.handlers import Registry

# Claim, finish, keeper, listener; once a tenant comes while others have work, another claim; once a handler logs, the
# tasks' logs.
CONNECTIONS: Final = 6
# How often leases that are not renewed and runs that wait too long are looked at.
_CARE_S: Final = 0.25
_DEREGISTER_S: Final = 2.0

_logger = logging.getLogger(__name__)


def main(settings: Settings) -> ExitCode:
    """Run a worker until it is told to stop.

    Returns:
        The exit code: 0 drained, 64 a bad setting or handler module, 69 a schema or
        server that is refused, 1 any other end. (70, a stuck event loop, does not return.)
    """
    return run(serve, settings, PROCESS)


async def serve(service: Service) -> None:
    """Start a worker, keep it going until the process is to stop, and drain it.

    Raises:
        StartRefused: The process must not start, or must not go on.
        Stopped: The process was to stop before it had started.
        ProcessFailed: A loop crashed again and again, the database forgot this worker, or outcomes are not recorded.
    """
    registry = load_handlers(service.settings.handlers)
    children = Children(service.settings)
    try:
        if registry.isolated():
            await children.prove(registry, service.stopping)
        await _serve(service, registry, children)
    finally:
        await children.close()


async def _serve(service: Service, registry: Registry, children: Children) -> None:
    settings, stop = service.settings, service.stopping
    garbage.tune()
    clock = DatabaseClock()
    refuse_read_only_at = time.monotonic() + READ_ONLY_S_MAX
    report = await retry_forever(
        lambda: check_server(
            settings,
            PROCESS,
            clock,
            connection_count=CONNECTIONS + settings.handler_pool + (settings.processes if registry.isolated() else 0),
            refuse_read_only_at=refuse_read_only_at,
        ),
        "server_check",
        stop,
    )
    if report.is_lossy:
        service.readiness.warn("lossy_commit", "a crash of PostgreSQL may lose acknowledged tasks, as was allowed")
    worker = await retry_forever(lambda: _register(settings, registry), "worker_register", stop)
    policy = AddressPolicy(settings.callback_allow_cidrs)
    async with CallbackClient(
        policy=policy, now_s=clock.now_s, response_bytes_max=settings.callback_response_bytes_max
    ) as callbacks:
        await _Worker(service, registry, clock, worker, callbacks, children).run()


class _Worker:
    """The parts of one worker, put together."""

    def __init__(
        self,
        service: Service,
        registry: Registry,
        clock: DatabaseClock,
        worker: _Identity,
        callbacks: CallbackClient,
        children: Children,
    ) -> None:
        settings = service.settings
        runs, lanes = Runs(settings.schema), Lanes(settings.schema)
        self._service = service
        self._settings = settings
        self._worker_id = worker.id
        self._forgotten = asyncio.Event()
        self._workers = Workers(settings.schema)
        catalogue = Catalogue(settings.schema, QueueChoice(settings.queues), registry, serves_http=settings.callbacks)
        self._keeper = LeaseKeeper(
            settings,
            runs,
            self._workers,
            worker.id,
            worker.name,
            asyncio.get_running_loop(),
            on_forgotten=self._forgotten.set,
        )
        self._claimer = Claimer(
            settings,
            worker.id,
            catalogue=catalogue,
            clock=clock,
            runs=runs,
            lanes=lanes,
            server=Server(settings.schema),
            keeper=self._keeper,
        )
        self._logs = TaskLogs(settings, Store(settings.schema), clock)
        self._finisher = Finisher(
            settings,
            runs,
            lanes,
            self._keeper,
            TallySheet(Stats(settings.schema), clock),
            Vacancies(runs, catalogue),
            BatchEnds(runs),
            self._logs,
            on_rearmed=self._claimer.rearmed,
            on_room=self._claimer.room,
        )
        self._handler_connections = HandlerConnections(settings, "handler")
        ledger = WorkerLedger(self._finisher.recorded)
        transactions = Transactions(self._handler_connections, runs, self._logs, ledger)
        self._executor = Executor(
            concurrency=settings.concurrency,
            threads=settings.threads,
            children=children,
            catalogue=catalogue,
            around=Surroundings(catalogue, clock, transactions, self._logs, IdMint(clock.now_ms)),
            logs=self._logs,
            finisher=self._finisher,
            keeper=self._keeper,
            delivery=Delivery(callbacks, catalogue, settings.public_url),
            on_room=self._claimer.room,
        )
        self._listener = Listener(settings, PROCESS, on_words=self._claimer.hear, on_reset=self._claimer.missed)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Work until the process is to stop or a loop fails, then drain."""
        stop = self._service.stopping
        try:
            await retry_forever(self._listener.start, "listen", stop)
        except BaseException:
            await self._deregister()
            raise
        self._keeper.start(self._executor)
        claiming, keeping = Supervisor(stop), Supervisor(self._ended)
        claiming.add("claim", lambda: self._claimer.run(stop, self._executor))
        claiming.add("claim_beside", lambda: self._claimer.run_beside(stop, self._executor))
        keeping.add("finish", lambda: self._finisher.run(self._ended))
        keeping.add("logs", lambda: self._logs.run(self._ended))
        keeping.add("listen", lambda: self._listener.run(self._ended))
        keeping.add("care", self._care)
        readiness = self._service.readiness
        readiness.add("loops", lambda: claiming.fault() or keeping.fault())
        readiness.add("leases", self._keeper.fault)
        tasks = [asyncio.create_task(work) for work in (claiming.run(), keeping.run(), self._until_forgotten())]
        _logger.info("worker_ready", extra={"fields": {"worker_id": self._worker_id}})
        try:
            # The first ends when the process is to stop; the first two when a loop fails.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks[0].cancel()
            tasks[2].cancel()
            tasks.append(asyncio.create_task(self._recover(tasks[0])))
            lost = await drain(
                self._executor,
                self._finisher,
                self._keeper,
                recovering=tasks[3],
                drain_s=self._settings.drain_s,
                hurry=self._service.stopping_fast,
            )
            self._executor.end()
            self._keeper.end()
            self._ended.set()
            tasks[3].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._handler_connections.close()
            await self._deregister()
        for result in results:
            if isinstance(result, Exception):
                raise result
        if lost:
            raise ReportsLost(f"{lost} outcomes were not recorded before the process had to end")

    async def _recover(self, claiming: asyncio.Task[None]) -> None:
        """Hand back what was claimed without our knowing it: it would be lost, and count as a crash."""
        await asyncio.wait({claiming})
        with contextlib.suppress(Stopped):
            await self._claimer.recover(self._executor, self._ended)

    async def _until_forgotten(self) -> None:
        """Wait until the database knows this worker no longer: another process can register, this one is not seen."""
        await self._forgotten.wait()
        raise RegistrationLost(f"the database does not know worker {self._worker_id} any more: was it restored?")

    async def _care(self) -> None:
        """Stop runs whose lease is about to end unrenewed, and hand back those that wait too long."""
        while not await pause(self._ended, _CARE_S):
            for each in self._keeper.ending_leases(time.monotonic()):
                self._executor.fence(each)
            self._executor.look_after(time.monotonic())

    async def _deregister(self) -> None:
        if self._forgotten.is_set():
            return  # The id may be another worker's by now.
        try:
            async with asyncio.timeout(_DEREGISTER_S):
                async with await connect(self._settings, PROCESS, purpose="plain") as conn:
                    await self._workers.stop(conn, self._worker_id)
        except (DatabaseUnavailable, TimeoutError) as reason:
            _logger.warning("worker_not_deregistered", extra={"fields": {"reason": str(reason)}})


class _Identity(NamedTuple):
    id: int
    name: str


async def _register(settings: Settings, registry: Registry) -> _Identity:
    host, pid = socket.gethostname(), os.getpid()
    name = f"{host}-{pid}-{secrets.token_hex(4)}"
    async with await connect(settings, PROCESS, purpose="plain") as conn:
        with translated():
            await check_schema(conn, settings.schema)
        worker_id = await Workers(settings.schema).register(
            conn,
            name=name,
            host=host,
            pid=pid,
            version=version("howdah"),
            queues=QueueChoice(settings.queues).patterns,
            handlers=registry.names(),
            serves_http=settings.callbacks,
            concurrency=settings.concurrency,
            lease_s=settings.lease_s,
        )
    fields = {"worker_id": worker_id, "queues": list(settings.queues), "handlers": registry.names()}
    _logger.info("worker_registered", extra={"fields": fields})
    return _Identity(worker_id, name)
