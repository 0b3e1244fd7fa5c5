"""Dead letters by the dozen, and bulk operations on them by SQL."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from howdah_scheduler.operate import Operate

if TYPE_CHECKING:
    import uuid

    from howdah_scheduler.chore import Round
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue, Row


@dataclass
class Operations:
    """Starts bulk operations, and works them off a round at a time."""

    queue: Queue
    chores: Chores

    async def bury(self, count: int = 1, *, error_type: str = "test", **fields: Any) -> list[uuid.UUID]:
        """Make dead letters in the queue `q`, and return their ids in order."""
        tasks = await self.queue.enqueue(count, **{"retry": {"max_attempts": 1}, **fields})
        await self.queue.fail(await self.queue.claim(count), error_type=error_type)
        return sorted(tasks)

    async def start(self, kind: str, queue: str | None = "q", filter: Any = None, **arguments: Any) -> uuid.UUID:
        """Start an operation by SQL; arguments that are objects are written as JSON."""
        named = "".join(f", {name} => %s" for name in arguments)
        values = [json.dumps(value) if isinstance(value, dict) else value for value in arguments.values()]
        statement = f"SELECT howdah.start_operation(%s, %s, %s{named}) AS id"
        [row] = await self.queue.sql(statement, kind, queue, json.dumps(filter or {}), *values)
        operation_id: uuid.UUID = row["id"]
        return operation_id

    async def round(self) -> Round | None:
        """Do one round as a scheduler would, whether the chore is due or not."""
        await self.chores.make_due("operations")
        return await self.chores.take(Operate("howdah"))

    async def work_off(self) -> int:
        """Do rounds until none is due at once; return how many."""
        count = 1
        while (done := await self.round()) is not None and done.next_in_s == 0:
            count += 1
        assert done is not None, await self.chores.row("operations")
        return count

    async def shown(self, operation_id: uuid.UUID) -> Row:
        """What the view says of an operation."""
        [row] = await self.queue.sql("SELECT * FROM howdah.bulk_operations WHERE operation_id = %s", operation_id)
        return row

    async def counts(self, operation_id: uuid.UUID) -> tuple[str, int, int, int, int]:
        """State, matched, done, skipped, failed of an operation."""
        row = await self.shown(operation_id)
        return row["state"], row["matched"], row["done"], row["skipped"], row["failed"]

    async def dead(self) -> list[uuid.UUID]:
        """Ids of all dead letters, in order."""
        rows = await self.queue.sql("SELECT task_id FROM howdah.dead_letters ORDER BY task_id")
        return [row["task_id"] for row in rows]

    async def states(self, tasks: list[uuid.UUID]) -> list[str]:
        """The states of tasks, in their order."""
        return [await self.queue.state(task) for task in tasks]


@pytest.fixture
def operations(queue: Queue, chores: Chores) -> Operations:
    """Bulk operations on the test's own database."""
    return Operations(queue, chores)
