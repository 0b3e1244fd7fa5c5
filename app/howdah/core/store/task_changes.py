"""Changes to one task that waits, or has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from uuid import UUID

    from howdah.core.db.connect import Connection

_NAMES: Final = ("task.run_now", "task.replay", "task.replay_edited", "task.change")


class TaskChanges:
    """The statements, each named as its query file; those without another result return the task's state after it.

    Each raises `Refused` if there is no such task (not_found), or it does not stand where it can be
    changed so (state_conflict), and `StorageUnavailable` if its row is locked for longer than the
    transaction's limit.
    """

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._run_now, self._replay, self._replay_edited, self._change = (load(name, schema) for name in _NAMES)

    async def run_now(self, conn: Connection, tenant: str, task_id: UUID) -> str:
        """Let a task that waits for its time start now."""
        return await _state(conn, self._run_now, {"tenant": tenant, "id": task_id})

    async def replay(self, conn: Connection, tenant: str, task_id: UUID) -> str:
        """Take a dead letter back to its queue, with all its attempts."""
        return await _state(conn, self._replay, {"tenant": tenant, "id": task_id})

    async def replay_edited(self, conn: Connection, tenant: str, task_id: UUID, edits: bytes) -> UUID:
        """Make a new task of a dead letter, end that, and return the new task's id.

        Args:
            conn: Inside a transaction.
            tenant: Name of its owner.
            task_id: The dead letter.
            edits: JSON text of an object with payload, and handler or http.

        Raises:
            Refused: Also (validation, payload_too_large) for a task that could not be enqueued either.
        """
        parameters = {"tenant": tenant, "id": task_id, "edits": edits.decode()}
        new_id: UUID = await _value(conn, self._replay_edited, parameters)
        return new_id

    async def change(self, conn: Connection, tenant: str, task_id: UUID, changes: bytes) -> str:
        """Change priority, run_at, expires_at or tags of a task that waits.

        Args:
            conn: Inside a transaction.
            tenant: Name of its owner.
            task_id: The task.
            changes: JSON text of an object.

        Raises:
            Refused: Also (validation) for what a field may not become.
        """
        return await _state(conn, self._change, {"tenant": tenant, "id": task_id, "changes": changes.decode()})


async def _state(conn: Connection, statement: bytes, parameters: dict[str, object]) -> str:
    state: str = await _value(conn, statement, parameters)
    return state


async def _value(conn: Connection, statement: bytes, parameters: dict[str, object]) -> Any:
    with translated(), within_limits():
        cursor = await conn.execute(statement, parameters)
        row = await cursor.fetchone()
    assert row is not None, "a function call returns a row"
    return row[0]
