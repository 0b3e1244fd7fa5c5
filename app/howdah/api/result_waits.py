"""Who waits for results: one look at all tasks that are waited for, again and again, however many clients wait.

A look is one statement, `LOOK_EVERY_S` after the one before while somebody waits, and
none while nobody does. Nothing is asked of workers: to tell of each task that ends would
cost those that nobody waits for. A client that has waited for long is looked after less
often: what it may lose is 1 % of what it has waited. Tasks that this process itself has
ended, for a consumer over HTTP, are looked at at once.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from howdah.core.backoff import pause
from howdah.core.errors import DatabaseUnavailable, HowdahError
from howdah.core.state import TaskState
from howdah.core.store.results import Asked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from howdah.api.database import Database
    from howdah.api.hot import HotPool
    from howdah.core.model import LeaseKey
    from howdah.core.store.results import Results, TaskResult

    Task: TypeAlias = tuple[int, bytes]
    Future: TypeAlias = asyncio.Future[TaskResult]

LOOK_EVERY_S: Final = 0.025
# A look shall not take more than a fifth of a connection's time.
_REST: Final = 4
_LOST_SHARE: Final = 0.01
# One statement for more would take too long for those in it; they take turns.
ASKED_MAX: Final = 5_000
_SLEEP_S_MAX: Final = 60.0


class _Wait:
    """A task that is waited for, and by whom."""

    __slots__ = ("began_at", "due_at", "futures")

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.due_at = now
        self.futures: list[Future] = []


class ResultWaits:
    """Looks at tasks for those who wait for their end."""

    def __init__(self, database: Database, hot: HotPool, results: Results) -> None:
        """Look with `results` over a connection of `hot`."""
        self._database = database
        self._hot = hot
        self._results = results
        # Whose state is wanted, and whose end.
        self._looks: dict[Task, list[Future]] = {}
        self._waits: dict[Task, _Wait] = {}
        self._wanted = asyncio.Event()
        # Also while it rests between two looks.
        self._urgent = asyncio.Event()

    @property
    def task_count(self) -> int:
        """How many tasks are waited for."""
        return len(self._waits)

    async def look(self, tenant_id: int, task_id: bytes) -> TaskResult:
        """Return how a task stands now; requests that come together are answered by one statement.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
        """
        self._database.refuse_if_away()
        future: Future = asyncio.get_running_loop().create_future()
        self._looks.setdefault((tenant_id, task_id), []).append(future)
        self._wanted.set()
        self._urgent.set()
        return await future

    def wait(self, tenant_id: int, task_id: bytes) -> Future:
        """Return what will tell how the task ended; whoever gives up must `leave`."""
        future: Future = asyncio.get_running_loop().create_future()
        task = (tenant_id, task_id)
        wait = self._waits.get(task)
        if wait is None:
            wait = self._waits[task] = _Wait(time.monotonic())
        wait.futures.append(future)
        # Somebody new is looked after as such.
        wait.began_at = time.monotonic()
        self._wanted.set()
        return future

    def leave(self, tenant_id: int, task_id: bytes, future: Future) -> None:
        """Wait no longer."""
        wait = self._waits.get((tenant_id, task_id))
        if wait is not None and future in wait.futures:
            wait.futures.remove(future)
            if not wait.futures:
                del self._waits[tenant_id, task_id]

    def hint(self, leases: Iterable[LeaseKey]) -> None:
        """Look at these tasks at once, if they are waited for."""
        if not self._waits:
            return
        for lease in leases:
            wait = self._waits.get((lease.tenant_id, lease.task_id))
            if wait is not None:
                wait.due_at = 0.0
                self._wanted.set()
                self._urgent.set()

    async def run(self) -> None:
        """Look for as long as somebody waits, until cancelled."""
        while True:
            await self._until_due()
            self._urgent.clear()
            began = time.monotonic()
            looks, due = self._take(began)
            try:
                await self._look(looks, due)
            except HowdahError as error:
                self._fail(looks, due, error)
            except BaseException:
                self._fail(looks, due, DatabaseUnavailable("the look at results was interrupted"))
                raise
            took_s = time.monotonic() - began
            await pause(self._urgent, max(LOOK_EVERY_S - took_s, _REST * took_s))

    async def _until_due(self) -> None:
        while not self._looks:
            left_s = min((wait.due_at for wait in self._waits.values()), default=math.inf) - time.monotonic()
            if left_s <= 0:
                return
            self._wanted.clear()
            await pause(self._wanted, min(left_s, _SLEEP_S_MAX))

    def _take(self, now: float) -> tuple[dict[Task, list[Future]], list[Task]]:
        """Take whose state is wanted, and those waited for whose turn it is, the longest overdue first."""
        looks = dict(list(self._looks.items())[:ASKED_MAX])
        for task in looks:
            del self._looks[task]
        due = [task for task, wait in self._waits.items() if wait.due_at <= now and task not in looks]
        if len(due) > ASKED_MAX - len(looks):
            due.sort(key=lambda task: self._waits[task].due_at)
            del due[ASKED_MAX - len(looks) :]
        return looks, due

    async def _look(self, looks: dict[Task, list[Future]], due: list[Task]) -> None:
        tasks = [*looks, *due]
        asked = [Asked(*task, wants_state=place < len(looks)) for place, task in enumerate(tasks)]
        found = await self._hot.repeat(lambda desk: self._results.find(desk.conn, asked))
        now = time.monotonic()
        for task in due:
            wait = self._waits.get(task)
            if wait is not None:
                wait.due_at = now + max(LOOK_EVERY_S / 2, _LOST_SHARE * (now - wait.began_at))
        for place, result in found.items():
            task = tasks[place]
            for future in looks.get(task, ()):
                _tell(future, result)
            if has_ended(result) and (ended := self._waits.pop(task, None)) is not None:
                for future in ended.futures:
                    _tell(future, result)

    def _fail(self, looks: dict[Task, list[Future]], due: list[Task], error: HowdahError) -> None:
        """Tell everybody who was in a look that failed."""
        futures = [future for each in looks.values() for future in each]
        for task in due:
            if (wait := self._waits.pop(task, None)) is not None:
                futures += wait.futures
        for future in futures:
            if not future.done():
                future.set_exception(error)
                # Its client may have gone.
                future.exception()


def has_ended(result: TaskResult) -> bool:
    """Tell whether a task does not exist, or changes no more unless somebody replays it."""
    return result.state is None or TaskState(result.state).is_final


def _tell(future: Future, result: TaskResult) -> None:
    if not future.done():
        future.set_result(result)
