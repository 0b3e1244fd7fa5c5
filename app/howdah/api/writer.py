"""Stores single tasks: which of the committers a task goes to, and who is told after its commit.

Tasks of queues and handlers that were seen before go through one committer; the
first one of a name goes through another, because making the name may have to wait
for somebody else's transaction, which nobody behind it should. For the same reason
those with a dedup or flow key, or a batch, have two of their own (see `keyed_writer`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from howdah.api.committer import Committer, Entry
from howdah.api.keyed_writer import HeldCommitter, KeyedCommitter
from howdah.core import metrics
from howdah.core.wake import AllLanes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.api.database import Database
    from howdah.api.notifier import Notifier
    from howdah.api.shapes import TaskCreate
    from howdah.api.tally import Tallies
    from howdah.core.store.server import Server
    from howdah.core.store.tasks import Stored, Tasks

# Names are made by clients; forgetting them all costs one slower create each.
NAMES_MAX: Final = 100_000


class Writer:
    """Stores single tasks: what POST /v1/tasks waits for."""

    def __init__(self, database: Database, tasks: Tasks, server: Server, notifier: Notifier, tallies: Tallies) -> None:
        """Store with `tasks`; announce and count what was stored."""
        parts: dict[str, Any] = {
            "database": database,
            "tasks": tasks,
            "server": server,
            "report": partial(self.report, source="single"),
        }
        self.known_names = Committer(**parts)
        self.new_names = Committer(**parts, by_name=True)
        self.held_keys = HeldCommitter(**parts)
        self.keyed = KeyedCommitter(self.held_keys, **parts)
        self._database = database
        self._notifier = notifier
        self._tallies = tallies
        self._names: set[tuple[int, str, str | None]] = set()

    async def store(self, tenant_id: int, task: TaskCreate, payload: bytes | None) -> Stored:
        """Store one task and return after its commit.

        Args:
            tenant_id: Owner.
            task: The task, without its payload.
            payload: JSON text as it came, None if there is none.

        Raises:
            DatabaseUnavailable: PostgreSQL is away; if it was lost meanwhile, the task may be stored all the same.
            StorageUnavailable: It cannot store now; nothing was stored.
        """
        self._database.refuse_if_away()
        key = _contended(task)
        if key is not None:
            entry = Entry(tenant_id, (tenant_id, *key), task, payload)
            self.keyed.submit(entry)
            return await entry.stored
        name = (tenant_id, task.queue, task.handler if isinstance(task.handler, str) else None)
        is_known = name in self._names
        entry = Entry(tenant_id, name, task, payload)
        (self.known_names if is_known else self.new_names).submit(entry)
        row = await entry.stored
        if row.created and not is_known:
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            self._names.add(name)
        return row

    def report(self, rows: Sequence[Stored], source: str) -> None:
        """Count tasks after their commit, and wake workers; rows that created nothing are passed over."""
        created = [row for row in rows if row.created]
        metrics.TASKS_ENQUEUED.labels(source).inc(len(created))
        for row in created:
            if row.queue_id is None:
                # Stored by a statement whose answer was lost: its lane is not known here.
                self._notifier.say(AllLanes())
            else:
                self._tallies.add(row.queue_id, 1)
        self._notifier.announce(rows)


def _contended(task: TaskCreate) -> tuple[str, str] | None:
    """Return what another transaction may just be taking, making or closing; as `Draft.contended`."""
    if task.dedup is not UNSET:
        return task.queue, task.dedup.key
    if task.flow is not UNSET:
        return "", task.flow.key
    return None if task.batch is UNSET else ("/", task.batch)
