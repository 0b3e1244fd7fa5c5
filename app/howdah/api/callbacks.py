"""What receivers report of runs that they accepted with 202: complete, fail, heartbeat.

The token in the path is the credential, and says which lease it is about. A token
that we did not make is answered as a path that does not exist.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec

from howdah.api.auth import refuse_without, unauthorized
from howdah.api.bodies import read, read_completion
from howdah.api.bounds import seconds_of
from howdah.api.call import Answer, json_answer
from howdah.api.callback_shapes import (
    ERROR_MESSAGE_LENGTH_MAX,
    ERROR_TYPE_LENGTH_MAX,
    CallbackAnswer,
    CallbackError,
    CallbackFail,
    CallbackHeartbeat,
    HeartbeatAnswer,
)
from howdah.api.drafts import sequel_of
from howdah.api.problems import Problem, invalid
from howdah.core.callback_tokens import split_token
from howdah.core.decisions import RETRY_S_MAX
from howdah.core.errors import StorageUnavailable
from howdah.core.model import Report

if TYPE_CHECKING:
    from typing import Literal

    from howdah.api.call import Call
    from howdah.api.database import Database
    from howdah.core.callback_tokens import CallbackToken
    from howdah.core.store.tenants import TenantCallbacks, Tenants

# As in howdah.http_problem.
EXTEND_S_MIN: Final = 1.0
EXTEND_S_MAX: Final = 7 * 86_400.0
# A key that somebody replaces works no longer than that.
_KEYS_KEPT_S: Final = 30.0
# Numbers of tenants that do not exist are made up by strangers.
_KEYS_MAX: Final = 10_000


class CallbackKeys:
    """The keys of tenants' tokens, looked up at their first use and kept for half a minute."""

    def __init__(self, database: Database, tenants: Tenants) -> None:
        """Look them up in `tenants`."""
        self._database = database
        self._tenants = tenants
        self._kept: dict[int, tuple[TenantCallbacks | None, float]] = {}

    async def get(self, tenant_id: int) -> TenantCallbacks | None:
        """Return the key of a tenant with what belongs to it; None if there is no such tenant.

        Raises:
            DatabaseUnavailable: It is not known here, and PostgreSQL is away.
        """
        now = time.monotonic()
        found, until = self._kept.get(tenant_id, (None, 0.0))
        if until <= now:
            async with self._database.connection() as conn:
                found = await self._tenants.get_callback_key(conn, tenant_id)
            if len(self._kept) >= _KEYS_MAX:
                self._kept.clear()
            self._kept[tenant_id] = (found, now + _KEYS_KEPT_S)
        return found


class _Caller(NamedTuple):
    token: CallbackToken
    tenant: TenantCallbacks

    @property
    def task_id(self) -> UUID:
        return UUID(bytes=self.token.task_id)


async def complete(call: Call) -> Answer:
    """End the attempt that the token belongs to with success.

    A repeat is answered `already_finished`; after the end of the attempt by other means it is 409. With `enqueue` it
    needs a key with the scope `producer` too.
    """
    caller = await _caller(call)
    body = await call.body_if_any()
    limit = min(call.backend.settings.payload_bytes_max, caller.tenant.payload_bytes_max)
    result, enqueued = read_completion(body, limit) if body else (None, [])
    if enqueued:
        await _refuse_strangers(call, caller)
    report = _report(caller, "succeeded", result=result)
    return await _record(call, caller, report._replace(sequel=sequel_of(call, enqueued, "/enqueue")))


async def fail(call: Call) -> Answer:
    """End the attempt that the token belongs to as failed; the retry policy says what follows.

    A repeat is answered `already_finished`; after the end of the attempt by other means it is 409.
    """
    caller = await _caller(call)
    body = await call.body_if_any()
    given = read(body, CallbackFail) if body else CallbackFail()
    retryable, retry_in_s = _decision(given)
    report = _report(
        caller,
        "failed",
        error=msgspec.json.encode(_error(given)),
        retryable=retryable is not False,
        retry_in_s=retry_in_s,
        is_decided=retryable is not None,
    )
    return await _record(call, caller, report)


async def heartbeat(call: Call) -> Answer:
    """Say that the outcome is still to come, and learn whether it is still wanted.

    No heartbeat moves the deadline, which is the client's `http.callback_timeout`.
    """
    caller = await _caller(call)
    body = await call.body_if_any()
    given = read(body, CallbackHeartbeat) if body else CallbackHeartbeat()
    extend_s = None
    if given.extend is not msgspec.UNSET:
        extend_s = seconds_of(given.extend, "/extend", EXTEND_S_MIN, EXTEND_S_MAX)
    runs, lease = call.backend.runs, caller.token.lease
    async with call.backend.database.transaction() as conn:
        extended = await runs.extend(conn, lease, extend_s)
        if extended is None:
            raise _over(await runs.find_outcome(conn, lease))
    answer = HeartbeatAnswer("ok", caller.task_id)
    if extended.is_awaiting:
        answer.lease_expires_at, answer.deadline_at = extended.lease_expires_at, extended.deadline_at
    return json_answer(200, answer)


async def _refuse_strangers(call: Call, caller: _Caller) -> None:
    """Refuse who may not enqueue: a token is known to its receiver, and good for the end of its attempt only.

    Raises:
        Problem: There is no key of the task's tenant that may.
    """
    key = await call.backend.keys.check(call.headers)
    if key.tenant_id != caller.token.tenant_id:
        raise unauthorized()
    refuse_without(key, "producer", "Enqueuing with an outcome")


async def _caller(call: Call) -> _Caller:
    """Return who calls, once the token has proved it.

    Raises:
        Problem: It is none of ours.
    """
    token = split_token(call.path_parameters["token"])
    tenant = None if token is None else await call.backend.callback_keys.get(token.tenant_id)
    if token is None or tenant is None or not token.is_genuine(tenant.callback_key):
        raise Problem("not_found", "There is no such callback token.")
    caller = _Caller(token, tenant)
    call.task_id = str(caller.task_id)
    return caller


def _decision(given: CallbackFail) -> tuple[bool | None, float | None]:
    """Return whether there shall be another attempt, None if the policy decides, and when."""
    if given.retry_in is msgspec.UNSET:
        return None if given.retryable is msgspec.UNSET else given.retryable, None
    if given.retryable is False:
        raise invalid("/retry_in", "excludes retryable false")
    return True, seconds_of(given.retry_in, "/retry_in", 0.0, RETRY_S_MAX)


def _error(given: CallbackFail) -> CallbackError:
    error = CallbackError() if given.error is msgspec.UNSET else given.error
    if not 1 <= len(error.type) <= ERROR_TYPE_LENGTH_MAX:
        raise invalid("/error/type", f"must have 1 to {ERROR_TYPE_LENGTH_MAX} characters")
    if len(error.message) > ERROR_MESSAGE_LENGTH_MAX:
        raise invalid("/error/message", f"must have at most {ERROR_MESSAGE_LENGTH_MAX} characters")
    return error


def _report(
    caller: _Caller,
    outcome: str,
    *,
    result: bytes | None = None,
    error: bytes | None = None,
    retryable: bool = False,
    retry_in_s: float | None = None,
    is_decided: bool = False,
) -> Report:
    return Report(
        *caller.token.lease,
        outcome=outcome,
        result=result,
        error=error,
        response_status=None,
        response_body=None,
        # The database knows when it was claimed.
        duration_s=None,
        retryable=retryable,
        retry_in_s=retry_in_s,
        counts_crash=False,
        is_decided=is_decided,
    )


async def _record(call: Call, caller: _Caller, report: Report) -> Answer:
    [verdict] = await call.backend.reporter.report([report])
    if verdict.status == "lease_lost":
        raise _over(verdict.outcome)
    if verdict.status == "busy" or (verdict.status == "invalid" and verdict.state is None):
        raise StorageUnavailable(verdict.detail or "the run cannot be ended at this moment")
    if verdict.status == "already_finished":
        return json_answer(200, CallbackAnswer("already_finished", caller.task_id, _ended(verdict.outcome)))
    answer = CallbackAnswer("ok", caller.task_id, _ended(verdict.state))
    if verdict.run_at is not None:
        answer.retry_at = verdict.run_at
    return json_answer(200, answer)


def _ended(outcome: str | None) -> Literal["succeeded", "failed", "cancelled"]:
    """Return how the attempt ended; a success whose result cannot be stored is a failure, and so is what is retried."""
    match outcome:
        case "succeeded" | "cancelled":
            return outcome
        case _:
            return "failed"


def _over(outcome: str | None) -> Problem:
    """Say that the attempt is over, and how it ended."""
    if outcome == "cancelled":
        return Problem("cancelled", "The task was cancelled: nothing more is to be done.")
    ended = "has ended" if outcome is None else f"has ended as {outcome}"
    return Problem("lease_lost", f"The attempt that this token belongs to {ended}.")
