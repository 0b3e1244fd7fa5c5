"""Runs whose target is HTTP: from the task to the callback, and from its answer to the ending."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from howdah.core import metrics
from howdah.core.callback_tokens import make_token
from howdah.core.model import jsonb_text
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

    def __init__(self, callbacks: CallbackClient, catalogue: Catalogue, public_url: str | None) -> None:
        """Send with `callbacks`, signed by the secrets of `catalogue`; receivers reach the API at `public_url`."""
        self._callbacks = callbacks
        self._catalogue = catalogue
        self._public_url = public_url

    async def deliver(self, run: Run) -> Ending:
        """Deliver the callback of a run once; cancelling it aborts the request."""
        assert run.http is not None, "the target of this run is HTTP"
        try:
            request = request_of(jsonb_text(run.http), run.payload, run.timeout_s)
        except msgspec.DecodeError as error:
            return outcome.task_unreadable(f"the HTTP target: {error}")
        token = self._token(run) if request.is_async else None
        url = f"{self._public_url}/v1/callbacks/{token}" if token and self._public_url else None
        attempt = AttemptContext(
            task_id=str(UUID(bytes=run.task_id)),
            attempt=run.attempt,
            claim_no=run.claim_no,
            queue=self._catalogue.queue_name(run.queue_id),
            secrets=self._catalogue.tenant_secrets(run.tenant_id),
            traceparent=run.traceparent,
            callback_token=token,
            callback_url=url,
            parent_id=None if run.parent_id is None else str(UUID(bytes=run.parent_id)),
            batch=_text(run.batch_id),
            completes_batch=_text(run.completes_batch_id),
        )
        result = await self._callbacks.deliver(request, attempt)
        metrics.CALLBACKS.labels(_label(result)).inc()
        return outcome.of_callback(result)

    def _token(self, run: Run) -> str | None:
        """Return by what the receiver may report the outcome.

        None if the tenant is not known yet: then there is no secret to sign with, and nothing is sent.
        """
        key = self._catalogue.callback_key(run.tenant_id)
        return None if key is None else make_token(key, run.key, run.queue_id)


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else str(UUID(bytes=raw))


def _label(result: CallbackResult) -> str:
    """Name the result for metrics: the class of the status, or why there was none."""
    if result.status is not None:
        return f"{result.status // 100}xx"
    if result.error_type == "timeout":
        return "timeout"
    return "refused" if result.error_type in _REFUSED_TYPES else "network"
