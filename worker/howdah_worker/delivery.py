"""Runs whose target is HTTP: from the task to the callback, and from its answer to the ending."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from howdah.core import metrics
from howdah.core.db.arrays import jsonb_text
from howdah_worker import outcome
from howdah_worker.callback import AttemptContext
from howdah_worker.callback_request import request_of

if TYPE_CHECKING:
    from howdah_worker.callback import CallbackClient
    from howdah_worker.callback_outcome import CallbackResult
    from howdah_worker.catalogue import Catalogue
    from howdah_worker.outcome import Ending
    from howdah_worker.run import Run

_REFUSED_TYPES = frozenset({"blocked_address", "request_invalid", "signing_failed"})


class Delivery:
    """Delivers the callbacks of one worker."""

    def __init__(self, callbacks: CallbackClient, catalogue: Catalogue) -> None:
        """Send with `callbacks`, signed by the secrets of `catalogue`."""
        self._callbacks = callbacks
        self._catalogue = catalogue

    async def deliver(self, run: Run) -> Ending:
        """Deliver the callback of a run once; cancelling it aborts the request."""
        assert run.http is not None, "the target of this run is HTTP"
        try:
            request = request_of(jsonb_text(run.http), run.payload, run.timeout_s)
        except msgspec.DecodeError as error:
            return outcome.task_unreadable(f"the HTTP target: {error}")
        attempt = AttemptContext(
            task_id=str(UUID(bytes=run.task_id)),
            attempt=run.attempt,
            claim_no=run.claim_no,
            queue=self._catalogue.queue_name(run.queue_id),
            secrets=self._catalogue.tenant_secrets(run.tenant_id),
            traceparent=run.traceparent,
        )
        result = await self._callbacks.deliver(request, attempt)
        metrics.CALLBACKS.labels(_label(result)).inc()
        return outcome.of_callback(result)


def _label(result: CallbackResult) -> str:
    """Name the result for metrics: the class of the status, or why there was none."""
    if result.status is not None:
        return f"{result.status // 100}xx"
    if result.error_type == "timeout":
        return "timeout"
    return "refused" if result.error_type in _REFUSED_TYPES else "network"
