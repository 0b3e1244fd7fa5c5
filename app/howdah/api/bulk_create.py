"""Storing many tasks with one request: up to 1,000, each for itself or all or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from howdah.api import shapes
from howdah.api.call import Answer, json_answer
from howdah.api.committer import IN_DOUBT_S
from howdah.api.drafts import draft, take_trace
from howdah.api.problems import KINDS, Problem, refused
from howdah.api.task_view import holder_of, new_task
from howdah.core.errors import DatabaseUnavailable, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from howdah.api.call import Call
    from howdah.core.db.connect import Connection
    from howdah.core.store.tasks import Draft, Stored

    Work: TypeAlias = Callable[[Connection], Awaitable[tuple[Answer, Callable[[], None]]]]


class BulkCreate:
    """Tasks of one request on their way into the database."""

    def __init__(
        self, call: Call, items: Sequence[tuple[shapes.TaskCreate, bytes | None] | Problem], is_atomic: bool
    ) -> None:
        self._call = call
        self._items = items
        self._is_atomic = is_atomic
        if is_atomic:
            _raise_all([item for item in items if isinstance(item, Problem)])
        self._good = [item for item in items if not isinstance(item, Problem)]
        for task, _ in self._good:
            take_trace(call, task)
        ids = call.backend.database.mint.mint_many(len(self._good))
        self._drafts: list[Draft] = [
            draft(task_id, task, payload) for task_id, (task, payload) in zip(ids, self._good, strict=True)
        ]

    async def store(self) -> Answer:
        """Store in a transaction of its own; once more, with the same ids, if its connection was lost."""
        return await in_doubt_again(self._call, self.work)

    async def work(self, conn: Connection) -> tuple[Answer, Callable[[], None]]:
        """Store inside a transaction.

        Raises:
            Problem: All were to be stored or none, and some are refused.
        """
        call = self._call
        results, stored = await self.store_in(conn)
        answers = [
            shapes.BatchResult(result.status, problem=result.document(call.request_id))
            if isinstance(result, Problem)
            else shapes.BatchResult(201 if result.deduplicated is msgspec.UNSET else 200, task=result)
            for result in results
        ]
        return json_answer(200, shapes.BatchAnswer(answers)), lambda: call.backend.writer.report(stored, "batch")

    async def store_in(self, conn: Connection) -> tuple[list[Problem | shapes.Task], list[Stored]]:
        """Store inside a transaction; return what became of each, and what to report after the commit.

        Raises:
            Problem: All were to be stored or none, and some are refused.
        """
        call, tasks, tenant_id = self._call, self._call.backend.tasks, self._call.key.tenant_id
        stored: list[Stored] = []
        if self._drafts:
            stored = (await tasks.store(conn, {tenant_id: self._drafts}))[tenant_id]
        existing = [row for row in stored if row.id is not None and row.error is None and not row.created]
        repeated = [row.id for row in existing if row.id is not None and not row.is_deduplicated]
        holder_ids = {row.id for row in existing if row.id is not None and row.is_deduplicated}
        holders = await tasks.get_many(conn, tenant_id, list(holder_ids)) if holder_ids else []
        if repeated:
            known = await tasks.find_stored(conn, tenant_id, repeated)
            stored = [row if row.id is None or row.is_deduplicated else known.get(row.id, row) for row in stored]
        rows = iter(stored)
        good = iter(self._good)
        results: list[Problem | shapes.Task] = []
        for index, item in enumerate(self._items):
            results.append(
                item if isinstance(item, Problem) else _result(call, index, *next(good), next(rows), holders)
            )
        if self._is_atomic:
            _raise_all([result for result in results if isinstance(result, Problem)])
        return results, stored


async def in_doubt_again(call: Call, work: Work) -> Answer:
    """Do something in a transaction of its own; once more if its connection was lost.

    Args:
        call: The request.
        work: May be repeated although its first attempt was committed; returns the answer, and what to do after the
            commit.
    """
    try:
        return await in_transaction(call, work)
    except StorageUnavailable:
        raise
    except DatabaseUnavailable:
        database = call.backend.database
        if not await database.is_there() and not await database.wait_found(IN_DOUBT_S):
            raise
        return await in_transaction(call, work)


async def in_transaction(call: Call, work: Work) -> Answer:
    """Do something in a transaction of its own, and what is to be done after its commit."""
    async with call.backend.database.transaction() as conn:
        answer, after_commit = await work(conn)
    after_commit()
    return answer


def _result(
    call: Call, index: int, task: shapes.TaskCreate, payload: bytes | None, stored: Stored, holders: Sequence[Any]
) -> Problem | shapes.Task:
    if stored.error is not None:
        return refused(stored.error, f"/tasks/{index}", stored.id)
    if stored.is_deduplicated:
        assert stored.id is not None
        try:
            return holder_of(holders, stored.id, f"/tasks/{index}/dedup/key")
        except Problem as problem:
            return problem
    return new_task(task, payload, stored, reads_payloads=call.key.reads_payloads)


def _raise_all(problems: Sequence[Problem]) -> None:
    """Refuse a request for everything that is wrong with its parts; the first that will not pass decides the code."""
    if problems:
        faults = [fault for problem in problems for fault in problem.errors]
        first = next((problem for problem in problems if not KINDS[problem.code].retryable), problems[0])
        detail = first.detail if len(problems) == 1 else f"{len(problems)} tasks were refused; first: {first.detail}"
        raise Problem(first.code, detail, faults, task_id=first.task_id)
