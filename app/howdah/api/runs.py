"""Runs over HTTP: a consumer in any language claims, renews, finishes and hands back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from howdah.api import run_shapes, shapes
from howdah.api.auth import refuse_without
from howdah.api.bodies import read, read_runs
from howdah.api.bounds import check_count, seconds_of
from howdah.api.call import Answer, ClientGone, json_answer
from howdah.api.drafts import sequel_of
from howdah.api.idempotency import hash_of, key_of
from howdah.api.problems import Fault, Problem, invalid
from howdah.api.pull_line import HTTP_TARGET, LineKey
from howdah.api.pulls import new_token
from howdah.api.reporter import released
from howdah.api.run_view import claimed_run, report_of, verdict_of
from howdah.core.db.arrays import instant_at
from howdah.core.model import ClaimedRun, LeaseKey, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.api.call import Call
    from howdah.api.pull_line import Entry, Line, Row
    from howdah.core.model import Beat

RUN_COUNT_MAX: Final = 1_000
HANDLERS_MAX: Final = 100
LEASE_S_MIN: Final = 3.0
LEASE_S_MAX: Final = 3_600.0
WAIT_S_MAX: Final = 60.0

_NAME: Final = re.compile(shapes.NAME_PATTERN)
_CONSUMER: Final = re.compile(shapes.CONSUMER_PATTERN)
_TARGET_ID, _HAS_TASK, _TASK_ID, _TENANT_ID = map(
    ClaimedRun._fields.index, ("target_id", "has_task", "task_id", "tenant_id")
)
# As a worker: somebody may bring the task's row back.
_GONE_RETRY_S: Final = 60.0


async def claim(call: Call) -> Answer:
    """Lease runs of a queue, waiting for some if there are none.

    A task that becomes ready is given to the one who has waited longest, within milliseconds. A client that goes away
    while it waits gets nothing; if it goes away while its answer is sent, its runs come back when their leases end.
    With an `Idempotency-Key` a repeat gets those runs of the first request that are still leased, and claims nothing.
    """
    body = await call.body(call.backend.settings.body_bytes_max)
    wanted = read(body, run_shapes.Claim)
    key = _line_key(call, wanted)
    lease_s, wait_s = _lease_s(wanted.lease), seconds_of(wanted.wait, "/wait", 0, WAIT_S_MAX)
    check_count(wanted.max, "/max", RUN_COUNT_MAX)
    repeat_key = key_of(call)
    pulls = call.backend.pulls
    worker_id = await pulls.register(key, _consumer(call, wanted), wanted.max, lease_s)
    line = pulls.line(key)
    token = new_token()
    if repeat_key is not None:
        known = await _remember(call, repeat_key, body, token)
        if known is not None:
            return await _answer(call, line, await pulls.find_claimed(known, worker_id), known, lease_s)
    entry = line.enter(worker_id, wanted.max, lease_s, token, wait_s)
    try:
        rows = await _taken(call, line, entry, wait_s)
        answer = await _answer(call, line, rows, token, lease_s)
        if rows and await call.is_gone():
            raise ClientGone
    except BaseException:
        line.abandon(entry)
        raise
    return answer


async def heartbeat(call: Call) -> Answer:
    """Renew leases, and learn which runs were lost or are to be cancelled.

    A lease reaches no further than 10 seconds past the task's timeout.
    """
    key_of(call)
    body = await call.body(call.backend.settings.body_bytes_max)
    whole, items = read_runs(body, run_shapes.RunHeartbeatsEnvelope, run_shapes.RunLease)
    lease_s = _lease_s(whole.lease)
    keys = [None if isinstance(item, Problem) else _lease(call, item) for item in items]
    asked = list(dict.fromkeys(key for key in keys if key is not None))
    beats: dict[LeaseKey, Beat] = {}
    if asked:
        found = await call.backend.hot.repeat(lambda desk: desk.runs.heartbeat_on(desk.conn, asked, lease_s))
        beats = {beat.key: beat for beat in found}
        call.backend.pulls.seen({beat.worker_id for beat in beats.values() if beat.worker_id is not None})
    results = [
        run_shapes.RunBeat(None, "invalid", problem=item.document(call.request_id))
        if isinstance(item, Problem)
        else _beat_of(item, beats[_lease(call, item)])
        for item in items
    ]
    return json_answer(200, run_shapes.RunBeats(results))


async def finish(call: Call) -> Answer:
    """Record how runs ended, each for itself.

    Safe to repeat: what was recorded before is `already_finished`. A lease that is held no longer is `lease_lost`, and
    its outcome is not recorded: the run is, or was, somebody else's.
    """
    key_of(call)
    body = await call.body(call.backend.settings.batch_bytes_max)
    _, items = read_runs(body, run_shapes.RunsEnvelope, run_shapes.RunEnd)
    if any(isinstance(item, run_shapes.RunEnd) and item.enqueue is not msgspec.UNSET for item in items):
        refuse_without(call.key, "producer", "Enqueuing with an outcome")
    reports: list[Report | Problem] = []
    for index, item in enumerate(items):
        try:
            reports.append(item if isinstance(item, Problem) else _report(call, item, f"/runs/{index}"))
        except Problem as problem:
            reports.append(problem)
    return await _reported(call, reports)


async def release(call: Call) -> Answer:
    """Hand runs back that will not be executed; they spend no attempt, and others get them at once.

    Safe to repeat, as finish is.
    """
    key_of(call)
    body = await call.body(call.backend.settings.body_bytes_max)
    _, items = read_runs(body, run_shapes.RunsEnvelope, run_shapes.RunLease)
    return await _reported(
        call, [item if isinstance(item, Problem) else released(_lease(call, item)) for item in items]
    )


def _line_key(call: Call, wanted: run_shapes.Claim) -> LineKey:
    queue: str = call.path_parameters["queue"]
    if not _NAME.fullmatch(queue):
        raise Problem("not_found", f"There is no queue {queue[:128]}.")
    if not wanted.handlers and not wanted.http:
        raise invalid("/handlers", "must name at least one handler, unless http is true")
    if len(wanted.handlers) > HANDLERS_MAX:
        raise invalid("/handlers", f"must have at most {HANDLERS_MAX} items, not {len(wanted.handlers)}")
    for index, name in enumerate(wanted.handlers):
        if not _NAME.fullmatch(name):
            raise invalid(f"/handlers/{index}", f"must match {shapes.NAME_PATTERN}")
    return LineKey(call.key.tenant_id, queue, tuple(sorted(set(wanted.handlers))), wanted.http)


def _consumer(call: Call, wanted: run_shapes.Claim) -> str:
    if wanted.consumer is msgspec.UNSET:
        return call.key.id
    if not _CONSUMER.fullmatch(wanted.consumer):
        raise invalid("/consumer", f"must match {shapes.CONSUMER_PATTERN}")
    return wanted.consumer


def _lease_s(text: str) -> float:
    return seconds_of(text, "/lease", LEASE_S_MIN, LEASE_S_MAX)


async def _remember(call: Call, repeat_key: str, body: bytes, token: bytes) -> bytes | None:
    """Keep the token of a claim under its Idempotency-Key; return the first request's, if this is a repeat.

    Only the token is kept, before anything is claimed: so a key never claims twice, and no payload is stored.

    Raises:
        Problem: The key belongs to another request.
    """
    store, tenant_id, request_hash = call.backend.idempotency, call.key.tenant_id, hash_of(call, body)
    async with call.backend.database.transaction() as conn:
        if await store.take(conn, tenant_id, repeat_key, request_hash):
            text = msgspec.json.encode(str(UUID(bytes=token))).decode()
            await store.answer(conn, tenant_id, repeat_key, status=200, location=None, answer=text)
            return None
        kept = await store.get(conn, tenant_id, repeat_key)
    if kept is None:
        raise Problem("idempotency_key_in_use", "The key has just expired.")
    if bytes(kept.request_hash) != request_hash:
        detail = "was used before with another request"
        fault = Fault(detail, header="Idempotency-Key")
        raise Problem("idempotency_key_reused", f"Idempotency-Key {detail}", [fault])
    first: str = msgspec.json.decode(kept.answer)
    return UUID(first).bytes


async def _taken(call: Call, line: Line, entry: Entry, wait_s: float) -> list[Row]:
    """Wait for what a claim gets: a little longer than its line does, which ends the wait itself."""
    if wait_s and not await call.wait(entry.taken, wait_s + WAIT_S_MAX):
        line.abandon(entry)
        return []
    return await entry.taken


async def _answer(call: Call, line: Line, rows: Sequence[Row], token: bytes, lease_s: float) -> Answer:
    gone = [LeaseKey(row[_TENANT_ID], row[_TASK_ID], token) for row in rows if not row[_HAS_TASK]]
    if gone:
        await call.backend.reporter.report([_task_gone(key) for key in gone])
    names = await line.names({row[_TARGET_ID] for row in rows}) if rows else {}
    runs = [
        claimed_run(row, token, lease_s, names.get(row[_TARGET_ID]) if row[_TARGET_ID] != HTTP_TARGET else None)
        for row in rows
        if row[_HAS_TASK]
    ]
    return json_answer(200, run_shapes.Pulled(runs))


def _task_gone(key: LeaseKey) -> Report:
    """Report a run whose task somebody deleted, or a restore did not bring back; a worker does the same."""
    error = b'{"type":"task_gone","message":"the task\'s row cannot be found"}'
    return Report(*key, "failed", None, error, None, None, None, True, _GONE_RETRY_S, False, True)


def _lease(call: Call, item: run_shapes.RunLease | run_shapes.RunEnd) -> LeaseKey:
    # The tenant is the key's: another's lease matches nothing, as one that is lost.
    return LeaseKey(call.key.tenant_id, item.task_id.bytes, item.lease_token.bytes)


def _report(call: Call, end: run_shapes.RunEnd, place: str) -> Report:
    report = report_of(_lease(call, end), end, place)
    if end.enqueue is msgspec.UNSET:
        return report
    if end.outcome != "succeeded":
        raise invalid(f"{place}/enqueue", "is for succeeded only")
    return report._replace(sequel=sequel_of(call, end.enqueue, f"{place}/enqueue"))


def _beat_of(item: run_shapes.RunLease, beat: Beat) -> run_shapes.RunBeat:
    if beat.verdict != "held" or beat.lease_expires_at is None:
        return run_shapes.RunBeat(item.task_id, "busy" if beat.verdict == "busy" else "lost")
    return run_shapes.RunBeat(item.task_id, "ok", instant_at(beat.lease_expires_at), beat.cancel_mode)


async def _reported(call: Call, reports: Sequence[Report | Problem]) -> Answer:
    good = [report for report in reports if not isinstance(report, Problem)]
    verdicts = iter(await call.backend.reporter.report(good) if good else [])
    results = [
        run_shapes.RunVerdict(None, "invalid", problem=report.document(call.request_id))
        if isinstance(report, Problem)
        else verdict_of(call, UUID(bytes=report.task_id), next(verdicts), f"/runs/{index}")
        for index, report in enumerate(reports)
    ]
    return json_answer(200, run_shapes.RunVerdicts(results))
