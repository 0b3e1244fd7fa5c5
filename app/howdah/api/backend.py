"""Everything that the API's handlers work with, and the loops that keep it going."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from howdah.api.auth import Keys
from howdah.api.database import Database
from howdah.api.gate import Gate
from howdah.api.idempotency import KEPT_POOL, Keeper
from howdah.api.notifier import Notifier
from howdah.api.tally import Tallies
from howdah.api.writer import Writer
from howdah.core.addresses import AddressPolicy
from howdah.core.store.api_keys import ApiKeys
from howdah.core.store.idempotency import Idempotency
from howdah.core.store.lanes import Lanes
from howdah.core.store.queue_states import QueueStates
from howdah.core.store.queues import Queues
from howdah.core.store.server import Server
from howdah.core.store.stats import Stats
from howdah.core.store.task_changes import TaskChanges
from howdah.core.store.tasks import Tasks
from howdah.core.store.tenants import Tenants
from howdah.core.store.workers import Workers
from howdah.core.supervisor import Supervisor

if TYPE_CHECKING:
    from howdah.core.health import Readiness
    from howdah.core.settings import Settings

# Two writers, the notifier, the looks, and the two pools.
_OWN_CONNECTIONS: Final = 4


class Backend:
    """What one API process works with; must be made inside the event loop that serves.

    Attributes:
        settings: Of the process.
        readiness: Checks for /readyz.
        addresses: Decides which literal addresses a callback's URL may name.
        gate: Bounds what is under way.
        database: PostgreSQL.
        keys: Checks credentials.
        writer: Stores single tasks.
        keeper: Keeps answers to requests with an Idempotency-Key.
        notifier: Wakes workers.
        tallies: Counts.
        tasks, task_changes, queues, queue_states, workers, tenants, stats, server: What is stored, by noun.
    """

    def __init__(self, settings: Settings, readiness: Readiness) -> None:
        """Make all parts; `start` sets them going."""
        self.settings = settings
        self.readiness = readiness
        self.addresses = AddressPolicy(settings.callback_allow_cidrs)
        self.gate = Gate()
        self.database = Database(settings, readiness, settings.api_pool + KEPT_POOL + _OWN_CONNECTIONS)
        schema = settings.schema
        self.tasks = Tasks(schema)
        self.task_changes = TaskChanges(schema)
        self.queues = Queues(schema)
        self.queue_states = QueueStates(schema)
        self.workers = Workers(schema)
        self.tenants = Tenants(schema)
        self.stats = Stats(schema)
        self.server = Server(schema)
        self.keys = Keys(self.database, ApiKeys(schema))
        self.notifier = Notifier(self.database, Lanes(schema))
        self.tallies = Tallies(self.database, self.stats)
        self.writer = Writer(self.database, self.tasks, self.server, self.notifier, self.tallies)
        self.keeper = Keeper(self.database, Idempotency(schema), self.server)
        self._stopping = asyncio.Event()
        supervisor = Supervisor(self._stopping)
        supervisor.add("gate", self.gate.run)
        supervisor.add("database", self.database.run)
        supervisor.add("writer", self.writer.known_names.run)
        supervisor.add("writer_of_new_names", self.writer.new_names.run)
        supervisor.add("keeper", self.keeper.run)
        supervisor.add("notifier", self.notifier.run)
        supervisor.add("tallies", self.tallies.run)
        supervisor.add("keys", self.keys.run)
        readiness.add("database", lambda: self.database.fault)
        readiness.add("loops", supervisor.fault)
        self._supervisor = supervisor

    def start(self) -> asyncio.Task[None]:
        """Set everything going.

        Returns:
            A task that ends only by an exception that must end the process, or by `stop`.
        """
        self._running = asyncio.create_task(self._supervisor.run())
        return self._running

    async def stop(self) -> None:
        """Write down what is only counted, then end all loops and close all connections."""
        self._stopping.set()
        await self.tallies.flush()
        await self.keys.touch()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
