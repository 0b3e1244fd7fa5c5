"""What this worker may claim: its queues, the targets that it serves, and the tenants' names and secrets.

Read whole, which is a few small tables, when a wake-up says that it changed, when
a lane of an unknown queue is named, and every 10 s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from howdah.core.store.queues import Queues
from howdah.core.store.targets import Targets
from howdah.core.store.tenants import Tenants
from howdah_worker.place import LOOP, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from howdah.core.db.connect import Connection
    from howdah.core.model import TenantSecret
    from howdah.core.queue_pattern import QueueChoice
    from howdah.handlers import Handler, Registry
    from howdah_worker.place import Place

REFRESH_S: Final = 10.0
# Words about queues that nobody knows (made by a transaction that is still open, or
# gone) must not make a refresh each.
_PAUSE_S: Final = 0.25
HTTP_TARGET: Final = 0


class Catalogue:
    """The queues, targets and tenants of this worker, kept up to date."""

    def __init__(self, schema: str, choice: QueueChoice, registry: Registry, *, serves_http: bool) -> None:
        """Describe what to look for.

        Args:
            schema: Of the installation.
            choice: Which queues, of every tenant.
            registry: The handlers that this process has.
            serves_http: Whether it delivers callbacks.
        """
        self._queues_store = Queues(schema)
        self._targets_store = Targets(schema)
        self._tenants_store = Tenants(schema)
        self._choice = choice
        self._registry = registry
        self._serves_http = serves_http
        self._queues: dict[int, tuple[int, str]] = {}
        self._ignored: set[int] = set()
        self._weights: dict[int, int] = {}
        self._limited: frozenset[int] = frozenset()
        self._tenants: dict[int, TenantSecret] = {}
        self._handlers: dict[int, Handler] = {}
        self._loaded_at = -float("inf")
        self._is_wanted = True

    def want_refresh(self) -> None:
        """Ask for a refresh, which comes at most 0.25 s after the one before."""
        self._is_wanted = True

    def due_in_s(self) -> float:
        """Return the seconds until the next refresh is due."""
        return self._loaded_at + (_PAUSE_S if self._is_wanted else REFRESH_S) - time.monotonic()

    async def refresh(self, conn: Connection) -> bool:
        """Read everything again.

        Returns:
            Whether targets were added: their runs may lie below the horizons.

        Raises:
            DatabaseUnavailable: The connection is lost; everything stays as it was.
        """
        self._is_wanted = False
        queues = await self._queues_store.list(conn)
        targets = await self._targets_store.list(conn)
        tenants = await self._tenants_store.list_secrets(conn)
        self._loaded_at = time.monotonic()
        weights = {queue.id: weight for queue in queues if (weight := self._choice.weight(queue.name)) is not None}
        self._ignored = {queue.id for queue in queues} - weights.keys()
        self._queues = {queue.id: (queue.tenant_id, queue.name) for queue in queues if queue.id in weights}
        self._weights = {queue_id: weight for queue_id, weight in weights.items() if weight != 1}
        self._limited = frozenset(queue.id for queue in queues if queue.is_limited)
        self._tenants = {tenant.id: tenant for tenant in tenants}
        known = self._handlers.keys()
        self._handlers = {
            target.id: handler
            for target in targets
            if target.handler is not None and (handler := self._registry.get(target.handler)) is not None
        }
        return bool(self._handlers.keys() - known)

    def queues(self) -> Mapping[int, int]:
        """Return the tenant of each queue to claim from, by queue."""
        return {queue_id: tenant_id for queue_id, (tenant_id, _) in self._queues.items()}

    def limited(self) -> frozenset[int]:
        """Return the queues that had limits at the last refresh."""
        return self._limited

    def weights(self) -> Mapping[int, int]:
        """Return the weights of queues that have another than 1, by queue."""
        return self._weights

    def is_known(self, queue_id: int) -> bool:
        """Tell whether the queue was there at the last refresh, to claim from or not."""
        return queue_id in self._queues or queue_id in self._ignored

    def handler(self, target_id: int) -> Handler | None:
        """Return the handler that a target asks for; None for HTTP and for targets of others."""
        return self._handlers.get(target_id)

    def targets(self, place: Place) -> list[int]:
        """Return the targets that are performed in a place; HTTP is on the event loop."""
        http = [HTTP_TARGET] if self._serves_http and place is LOOP else []
        return http + sorted(number for number, handler in self._handlers.items() if place_of(handler) is place)

    def tenant_name(self, tenant_id: int) -> str:
        """Return a tenant's name, or its number if the tenant is too new to be known here."""
        known = self._tenants.get(tenant_id)
        return known.name if known is not None else str(tenant_id)

    def tenant_secrets(self, tenant_id: int) -> tuple[str, ...]:
        """Return the secrets that sign a tenant's callbacks, newest first; none if the tenant is unknown."""
        known = self._tenants.get(tenant_id)
        return (known.secret,) if known is not None else ()

    def callback_key(self, tenant_id: int) -> bytes | None:
        """Return the key of a tenant's callback tokens; None if the tenant is unknown."""
        known = self._tenants.get(tenant_id)
        return known.callback_key if known is not None else None

    def queue_name(self, queue_id: int) -> str:
        """Return a queue's name, or its number if the queue is unknown."""
        known = self._queues.get(queue_id)
        return known[1] if known is not None else str(queue_id)
