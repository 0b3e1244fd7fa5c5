"""Everything that the API's handlers work with, and the loops that keep it going."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from howdah.api.auth import Keys
from howdah.api.callbacks import CallbackKeys
from howdah.api.database import Database
from howdah.api.followers import Followers
from howdah.api.gate import Gate
from howdah.api.hot import HOT_CONNECTIONS, HotPool
from howdah.api.idempotency import KEPT_POOL, Keeper
from howdah.api.notifier import Notifier
from howdah.api.pulls import Pulls
from howdah.api.reporter import Reporter
from howdah.api.result_waits import ResultWaits
from howdah.api.tally import Tallies
from howdah.api.writer import Writer
from howdah.core.addresses import AddressPolicy
from howdah.core.db.listen import Listener
from howdah.core.store.api_keys import ApiKeys
from howdah.core.store.batches import Batches
from howdah.core.store.dead_letters import DeadLetters
from howdah.core.store.idempotency import Idempotency
from howdah.core.store.lanes import Lanes
from howdah.core.store.operations import Operations
from howdah.core.store.queue_states import QueueStates
from howdah.core.store.queues import Queues
from howdah.core.store.results import Results
from howdah.core.store.runs import Runs
from howdah.core.store.server import Server
from howdah.core.store.stats import Stats
from howdah.core.store.targets import Targets
from howdah.core.store.task_changes import TaskChanges
from howdah.core.store.task_logs import TaskLogs
from howdah.core.store.tasks import Tasks
from howdah.core.store.tenants import Tenants
from howdah.core.store.workers import Workers
from howdah.core.supervisor import Supervisor

if TYPE_CHECKING:
    from howdah.core.health import Readiness
    from howdah.core.settings import Settings

# Four writers, the notifier, the listener, the looks, and besides them three pools.
_OWN_CONNECTIONS: Final = 7
# A claim and a report take milliseconds; while PostgreSQL is away leases must run out.
_SETTLE_S_MAX: Final = 1.0


class Backend:
    """What one API process works with; must be made inside the event loop that serves.

    Attributes:
        settings: Of the process.
        readiness: Checks for /readyz.
        addresses: Decides which literal addresses a callback's URL may name.
        gate: Bounds what is under way.
        database: PostgreSQL.
        keys: Checks credentials.
        callback_keys: Checks the tokens of callbacks.
        writer: Stores single tasks.
        keeper: Keeps answers to requests with an Idempotency-Key.
        notifier: Wakes workers.
        tallies: Counts.
        hot: Connections with pinned plans.
        pulls: Serves claims over HTTP.
        reporter: Records how runs of consumers, and of receivers of callbacks, ended.
        result_waits: Serves those who wait for results.
        idempotency: What keeper stores with, for requests that keep something else than their answer.
        ending: Done when requests shall wait no longer.
        followers: Serves those who follow logs.
        tasks, task_changes, task_logs, runs, queues, queue_states, dead_letters, operations, batches, workers, tenants,
            stats, server: What is stored, by noun.
    """

    def __init__(self, settings: Settings, readiness: Readiness) -> None:
        """Make all parts; `start` sets them going."""
        self.settings = settings
        self.readiness = readiness
        self.addresses = AddressPolicy(settings.callback_allow_cidrs)
        self.gate = Gate()
        self.database = Database(
            settings, readiness, settings.api_pool + KEPT_POOL + HOT_CONNECTIONS + _OWN_CONNECTIONS
        )
        schema = settings.schema
        self.tasks = Tasks(schema)
        self.task_changes = TaskChanges(schema)
        self.task_logs = TaskLogs(schema)
        self.runs = Runs(schema)
        self.queues = Queues(schema)
        self.queue_states = QueueStates(schema)
        self.dead_letters = DeadLetters(schema)
        self.operations = Operations(schema)
        self.batches = Batches(schema)
        self.workers = Workers(schema)
        self.tenants = Tenants(schema)
        self.stats = Stats(schema)
        self.server = Server(schema)
        self.keys = Keys(self.database, ApiKeys(schema))
        self.notifier = Notifier(self.database, Lanes(schema))
        self.tallies = Tallies(self.database, self.stats)
        self.writer = Writer(self.database, self.tasks, self.server, self.notifier, self.tallies)
        self.idempotency = Idempotency(schema)
        self.keeper = Keeper(self.database, self.idempotency, self.server)
        self.hot = HotPool(self.database, self.server)
        self.result_waits = ResultWaits(self.database, self.hot, Results(schema))
        self.reporter = Reporter(self.database, self.hot, self.notifier, self.tallies, self.result_waits.hint)
        self.pulls = Pulls(self.database, self.hot, Targets(schema), self.workers, self.reporter)
        self.ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.followers = Followers(self.database, self.task_logs)
        self.callback_keys = CallbackKeys(self.database, self.tenants)
        self._stopping = asyncio.Event()
        self._listener = Listener(settings, "api", on_words=self.pulls.hear, on_reset=self.pulls.missed)
        supervisor = Supervisor(self._stopping)
        supervisor.add("gate", self.gate.run)
        supervisor.add("database", self.database.run)
        supervisor.add("writer", self.writer.known_names.run)
        supervisor.add("writer_of_new_names", self.writer.new_names.run)
        supervisor.add("writer_of_keys", self.writer.keyed.run)
        supervisor.add("writer_of_held_keys", self.writer.held_keys.run)
        supervisor.add("keeper", self.keeper.run)
        supervisor.add("notifier", self.notifier.run)
        supervisor.add("tallies", self.tallies.run)
        supervisor.add("keys", self.keys.run)
        supervisor.add("listener", self._listen)
        supervisor.add("pulls", self.pulls.run)
        supervisor.add("reporter", self.reporter.run)
        supervisor.add("result_waits", self.result_waits.run)
        supervisor.add("followers", self.followers.run)
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
        # What was claimed for clients that have gone goes back.
        await self.pulls.settle(_SETTLE_S_MAX)
        await self.reporter.flush(_SETTLE_S_MAX)
        self._stopping.set()
        await self.tallies.flush()
        await self.keys.touch()
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.hot.close()

    def end_waits(self) -> None:
        """Let requests that wait for work or a result have their answer now: the process is to stop."""
        if not self.ending.done():
            self.ending.set_result(None)

    async def _listen(self) -> None:
        # The first look decides whether this is a server to work on; until then there is nothing to hear.
        await self.database.wait_found(math.inf)
        await self._listener.run(self._stopping)
