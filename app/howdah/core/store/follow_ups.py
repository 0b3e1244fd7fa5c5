"""Follow-ups of tasks that a scheduler ends: enqueued in the transaction that ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from howdah.core.db.connect import Connection

End: TypeAlias = Literal["failed", "expired"]

# A key that a client's open transaction has taken must not hold up what else the scheduler has to do.
_LIMIT_LOCKS: Final = "SET LOCAL lock_timeout = 20"


class Unfollowed(NamedTuple):
    """A task that has ended and whose follow-up its dedup key refused."""

    task_id: UUID
    reason: str


class FollowUps:
    """The statement that enqueues them."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._follow = load("run.follow", schema)

    async def enqueue(self, conn: Connection, ends: Sequence[tuple[int, UUID, End]]) -> list[Unfollowed]:
        """Enqueue the follow-ups of tasks that this transaction has ended; from here on it waits 20 ms for any lock.

        Args:
            conn: In that transaction.
            ends: Tenant, task and how it ended; at least one.

        Raises:
            LockNotAvailable: A key that a follow-up needs is another transaction's.
        """
        await conn.execute(_LIMIT_LOCKS)
        parameters = {
            "tenant_ids": [tenant_id for tenant_id, _, _ in ends],
            "task_ids": [task_id for _, task_id, _ in ends],
            "outcomes": [outcome for _, _, outcome in ends],
            "enqueues": [None] * len(ends),
        }
        cursor = await conn.execute(self._follow, parameters)
        return [Unfollowed(*row) for row in await cursor.fetchall()]
