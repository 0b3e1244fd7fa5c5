"""How tasks ended that clients wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from howdah.core.db.arrays import Bools, Int4s, Uuids
from howdah.core.db.errors import translated
from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.db.connect import Connection


class Asked(NamedTuple):
    """A task that is asked for.

    Attributes:
        tenant_id: Whose.
        task_id: 16 bytes.
        wants_state: Its state is wanted also if it has not ended.
    """

    tenant_id: int
    task_id: bytes
    wants_state: bool


class TaskResult(NamedTuple):
    """How a task stands; all but the state is None unless it has ended and history has it.

    Attributes:
        state: None if there is no such task.
        outcome: Of its last run.
        attempt: Attempts that were started.
        finished_at: Microseconds since 2000.
        response_status: Of a callback's answer.
        result: JSON text.
        error: jsonb, as `core.db.arrays.read_raw` reads it.
        response_body: Of a callback's answer, cut.
        failed_because: Why it was given up.
    """

    state: str | None
    outcome: str | None
    attempt: int | None
    finished_at: int | None
    response_status: int | None
    result: bytes | None
    error: bytes | None
    response_body: str | None
    failed_because: str | None


class Results:
    """The statement that looks at many tasks at once."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._results = load("task.results", schema)

    async def find(self, conn: Connection, asked: Sequence[Asked]) -> dict[int, TaskResult]:
        """Return how tasks stand, by their places in `asked`: those that ended, do not exist, or whose state is wanted.

        Args:
            conn: Hot, autocommit, reading raw.
            asked: At least one.

        Raises:
            DatabaseUnavailable: The connection is lost; ask again.
        """
        ids = [each.task_id for each in asked]
        parameters = {
            "tenant_ids": Int4s([each.tenant_id for each in asked]),
            "ids": Uuids(ids),
            "wants_state": Bools([each.wants_state for each in asked]),
            "id_min": UUID(bytes=min(ids)),
            "id_max": UUID(bytes=max(ids)),
        }
        with translated():
            cursor = await conn.cursor(binary=True).execute(self._results, parameters)
            return {row[0] - 1: TaskResult._make(row[1:]) for row in await cursor.fetchall()}
