"""What receivers report over HTTP: by token alone, once, and for one attempt."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.core.callback_tokens import PREFIX, make_token
from howdah.core.db.queries import load
from howdah.core.model import LeaseKey
from tests.fix_api import Api, pointers
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    import httpx2

HTTP = {"url": "http://example.com/", "mode": "async"}


class Accepted:
    """A task whose receiver has it, as if a worker had delivered it; `token` is of its latest attempt."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.id = ""
        self.token = ""

    async def create(self, http: dict[str, Any] | None = None, **fields: Any) -> Accepted:
        """Store it."""
        task = {"queue": "q", "http": {**HTTP, **(http or {})}, **fields}
        answer = await self.api.post("/v1/tasks", task)
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["id"]
        return self

    async def claim(self) -> Accepted:
        """Lease it, as a worker does before it sends the request with the token."""
        lease_token = uuid.uuid4()
        [(queue_id, key)] = await self.api.sql(
            "UPDATE howdah.runs AS r SET claim_no = claim_no + 1, attempt = attempt + 1, lease_token = %s, "
            "lease_expires_at = now() + interval '15 s', deadline_at = now() + interval '60 s', worker_id = 1, "
            "claimed_at = now() FROM howdah.tenants AS t "
            "WHERE r.task_id = %s AND r.lease_token IS NULL AND t.id = r.tenant_id "
            "RETURNING r.queue_id, t.callback_key",
            lease_token,
            self.id,
        )
        self.lease = LeaseKey(1, uuid.UUID(self.id).bytes, lease_token.bytes)
        self.token = make_token(key, self.lease, queue_id)
        return self

    async def accept(self) -> Accepted:
        """Record the 202."""
        leases = {
            "tenant_ids": [1],
            "task_ids": [uuid.UUID(self.id)],
            "lease_tokens": [uuid.UUID(bytes=self.lease.token)],
        }
        async with await psycopg.AsyncConnection.connect(self.api.url, autocommit=True) as conn:
            cursor = await conn.execute(load("run.await", "howdah"), leases)
            assert cursor.rowcount == 1
        return self

    async def call(self, verb: str, body: Any = None, *, token: str | None = None) -> httpx2.Response:
        """Report something, without a key."""
        return await self.api.post(f"/v1/callbacks/{token or self.token}/{verb}", body, key="")

    async def task(self) -> dict[str, Any]:
        """Read the task."""
        found: dict[str, Any] = (await self.api.get(f"/v1/tasks/{self.id}")).json()
        return found


async def accepted(api: Api, http: dict[str, Any] | None = None, **fields: Any) -> Accepted:
    """Return a task that waits for its callback."""
    return await (await (await Accepted(api).create(http, **fields)).claim()).accept()


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code of a problem."""
    return answer.status_code, answer.json()["code"]


async def test_complete_ends_the_task_with_its_result(api: Api) -> None:
    """The result is kept byte for byte, and shown as any other."""
    task = await accepted(api)
    before = await task.task()
    answer = await task.call("complete", b'{"result": {"b": 1,  "a": [1.50, "\\u00e4"]}}')
    after = await task.task()
    [(text,)] = await api.sql("SELECT result::text FROM howdah.finished_runs")

    assert before["state"] == "awaiting_callback"
    assert "worker" not in before
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"status": "ok", "task_id": task.id, "outcome": "succeeded"}
    assert (after["state"], after["result"]) == ("succeeded", {"b": 1, "a": [1.5, "ä"]})
    assert text == '{"b": 1,  "a": [1.50, "\\u00e4"]}'


@pytest.mark.parametrize("body", [None, {}, {"result": None}])
async def test_complete_needs_no_result(api: Api, body: Any) -> None:
    """An empty request is enough."""
    task = await accepted(api)
    answer = await task.call("complete", body)

    assert answer.status_code == 200, answer.text
    assert "result" not in await task.task()


@pytest.mark.parametrize(
    ("verb", "bodies", "outcome"),
    [("complete", [{"result": 1}, {"result": 2}], "succeeded"), ("fail", [None, {"retryable": False}], "failed")],
)
async def test_repeat_is_told_that_it_is_one(api: Api, verb: str, bodies: list[Any], outcome: str) -> None:
    """The first report counts, whatever the second says; both are 200."""
    task = await accepted(api)
    first, second = [await task.call(verb, body) for body in bodies]

    assert (first.status_code, second.status_code) == (200, 200)
    assert (first.json()["status"], second.json()["status"]) == ("ok", "already_finished")
    assert second.json()["outcome"] == outcome
    if verb == "complete":
        assert (await task.task())["result"] == 1


@pytest.mark.parametrize(("first", "second"), [("complete", "fail"), ("fail", "complete")])
async def test_other_outcome_after_the_first_is_refused(api: Api, first: str, second: str) -> None:
    """An attempt has one outcome."""
    task = await accepted(api)
    await task.call(first)
    answer = await task.call(second)

    assert code_of(answer) == (409, "lease_lost")
    assert "has ended as" in answer.json()["detail"]
    assert code_of(await task.call("heartbeat")) == (409, "lease_lost")


async def test_callback_that_overtakes_the_worker_counts(api: Api) -> None:
    """A receiver may call before its 202 has been recorded; a heartbeat then says no times."""
    task = await (await Accepted(api).create()).claim()
    beat = await task.call("heartbeat")
    answer = await task.call("complete")

    assert beat.json() == {"status": "ok", "task_id": task.id}
    assert answer.json()["status"] == "ok"
    assert (await task.task())["state"] == "succeeded"


async def test_failure_is_tried_again_by_policy(api: Api) -> None:
    """The answer says when; the error is shown; the old token is worth nothing for the next attempt."""
    task = await accepted(api, retry={"initial": "0s", "jitter": 0})
    answer = await task.call("fail", {"error": {"type": "printer_jam", "message": "tray 2"}})
    shown = await task.task()
    old = task.token
    await (await task.claim()).accept()

    assert answer.json()["outcome"] == "failed"
    assert answer.json()["retry_at"] == shown["run_at"]
    assert (shown["state"], shown["error"]) == ("retrying", {"type": "printer_jam", "message": "tray 2"})
    assert code_of(await task.call("complete", token=old)) == (409, "lease_lost")
    assert code_of(await task.call("heartbeat", token=old)) == (409, "lease_lost")
    assert (await task.call("complete")).json()["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "retry", "state", "wait_s"),
    [
        ({"retryable": False}, {}, "failed", None),
        ({"retry_in": "10m"}, {}, "retrying", 600),
        ({"retry_in": "10m"}, {"max_attempts": 1}, "failed", None),
        ({}, {"errors": ["other"]}, "failed", None),
        ({"retryable": True}, {"errors": ["other"]}, "retrying", 1),
        ({"error": {"type": "other"}}, {"errors": ["other"]}, "retrying", 1),
    ],
)
async def test_receiver_may_decide_about_another_attempt(
    api: Api, body: Any, retry: dict[str, Any], state: str, wait_s: float | None
) -> None:
    """Its word counts before the policy's, except that attempts and age bound it."""
    task = await accepted(api, retry={"initial": "1s", "jitter": 0, **retry})
    answer = await task.call("fail", body)
    [(left_s,)] = await api.sql(
        "SELECT extract(epoch FROM max(r.run_at) - max(f.finished_at))::float8 FROM howdah.finished_runs AS f "
        "LEFT JOIN howdah.runs AS r USING (task_id)"
    )

    assert answer.status_code == 200
    assert (await task.task())["state"] == state
    assert ("retry_at" in answer.json()) == (state == "retrying")
    assert left_s == (None if wait_s is None else pytest.approx(wait_s, abs=1))


async def test_retry_wakes_the_workers(api: Api) -> None:
    """The lane of the next attempt is announced."""
    task = await accepted(api)
    async with await psycopg.AsyncConnection.connect(api.url, autocommit=True) as conn:
        await conn.execute("LISTEN howdah_wake")
        await task.call("fail", {"retry_in": "0s"})
        heard = [notify.payload async for notify in conn.notifies(timeout=10, stop_after=1)]

    assert heard[0].startswith("q")


async def test_heartbeat_moves_the_lease_and_not_the_deadline(api: Api) -> None:
    """The receiver reads when it must call again, and when it is too late in any case."""
    task = await accepted(api, {"callback_timeout": "10m"})
    plain = (await task.call("heartbeat")).json()
    short = (await task.call("heartbeat", {"extend": "30s"})).json()
    long = (await task.call("heartbeat", {"extend": "1d"})).json()

    assert plain["lease_expires_at"] == plain["deadline_at"] == short["deadline_at"] == long["deadline_at"]
    assert short["lease_expires_at"] < short["deadline_at"]
    assert long["lease_expires_at"] == long["deadline_at"]


@pytest.mark.parametrize("mode", ["soft", "hard"])
async def test_receiver_of_a_cancelled_task_is_told(api: Api, mode: str) -> None:
    """The cancel ends it at once; whatever the receiver says then, it hears that nothing more is to be done."""
    task = await accepted(api)
    cancelled = await api.post(f"/v1/tasks/{task.id}/cancel", {"mode": mode})

    assert cancelled.json() == {"id": task.id, "state": "cancelled"}
    assert code_of(await task.call("heartbeat")) == (409, "cancelled")
    assert code_of(await task.call("complete")) == (409, "cancelled")
    assert (await task.call("fail")).json() == {
        "status": "already_finished",
        "task_id": task.id,
        "outcome": "cancelled",
    }


async def test_receiver_that_is_late_is_told(api: Api) -> None:
    """After rescue has ended the attempt, its report changes nothing."""
    task = await accepted(api, retry={"max_attempts": 1})
    await api.sql("DELETE FROM howdah.runs")
    await api.sql(
        "INSERT INTO howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, "
        "queued_at, finished_at, lease_token) "
        "SELECT tenant_id, id, 1, 1, queue_id, 'timed_out', true, now(), now(), %s FROM howdah.tasks",
        uuid.UUID(bytes=task.lease.token),
    )
    for verb in ("complete", "fail", "heartbeat"):
        answer = await task.call(verb)

        assert code_of(answer) == (409, "lease_lost")
        assert "timed_out" in answer.json()["detail"]


async def test_token_that_we_did_not_make_is_not_found(api: Api) -> None:
    """A made-up one, one of another key, one with another task's id, and one of 10 kB: all are answered alike."""
    task, other = await accepted(api), await accepted(api)
    [(key,)] = await api.sql("SELECT callback_key FROM howdah.tenants")
    forged = [
        "x",
        PREFIX,
        PREFIX + "A" * 80,
        PREFIX + "A" * 10_000,
        make_token(bytes(32), task.lease, 1),
        make_token(key, task.lease._replace(tenant_id=2), 1),
        make_token(key, task.lease._replace(tenant_id=-1), 1),
        task.token[:-27] + other.token[-27:],
        task.token.swapcase(),
        task.token + "A",
    ]
    for token in forged:
        for verb in ("complete", "fail", "heartbeat"):
            assert code_of(await task.call(verb, token=token)) == (404, "not_found")

    assert (await task.task())["state"] == (await other.task())["state"] == "awaiting_callback"


async def test_genuine_token_of_a_lease_that_nobody_knows_is_lost(api: Api) -> None:
    """For example after its history was purged."""
    task = await accepted(api)
    [(key,)] = await api.sql("SELECT callback_key FROM howdah.tenants")
    token = make_token(key, task.lease._replace(token=bytes(16)), 1)

    assert code_of(await task.call("complete", token=token)) == (409, "lease_lost")


async def test_api_key_is_neither_needed_nor_enough(api: Api) -> None:
    """The token is the credential."""
    task = await accepted(api)
    answer = await api.post(f"/v1/callbacks/{task.id}/complete", {})

    assert answer.status_code == 404
    assert (await task.call("complete")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_only_post_is_allowed(api: Api, method: str) -> None:
    """Another method is 405, and changes nothing."""
    task = await accepted(api)
    answer = await api.request(method, f"/v1/callbacks/{task.token}/complete", key="")

    assert code_of(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("verb", "body", "status", "code", "pointer"),
    [
        ("complete", b"{", 400, "invalid_json", ""),
        ("complete", b'"x"', 422, "validation", ""),
        ("complete", b"[]", 422, "validation", ""),
        ("complete", {"outcome": 1}, 422, "validation", "/outcome"),
        ("complete", b'{"result": 1, "result": 2}', 400, "duplicate_key", "/result"),
        ("complete", b'{"result": {"a": 1}, "result": {"a": 1, "b": 2}}', 400, "duplicate_key", "/result"),
        ("complete", b'{"result": "\\u0000"}', 422, "validation", "/result"),
        ("complete", b'{"result": [{"a": "x\\u0000"}]}', 422, "validation", "/result/0/a"),
        ("complete", b'{"result": {"\\u0000": 1}}', 422, "validation", "/result"),
        ("complete", b'{"result": "\\ud800"}', 400, "invalid_json", "/result"),
        ("complete", b'{"result": 1e999}', 400, "invalid_json", "/result"),
        ("complete", b'{"result": NaN}', 400, "invalid_json", "/result"),
        ("complete", b'{"result": "\xff"}', 400, "invalid_json", "/result"),
        ("complete", b'{"result": %s}' % (b"[" * 65 + b"]" * 65), 400, "json_too_deep", "/result/0/0/0/0"),
        ("complete", b'{"result": "%s"}' % (b"x" * 262_143), 413, "payload_too_large", "/result"),
        ("complete", b'{"result": "%s"}' % (b"x" * 1_048_576), 413, "payload_too_large", ""),
        ("fail", {"error": "broken"}, 422, "validation", "/error"),
        ("fail", {"error": {"kind": "x"}}, 422, "validation", "/error/kind"),
        ("fail", {"error": {"type": ""}}, 422, "validation", "/error/type"),
        ("fail", {"error": {"type": "x" * 201}}, 422, "validation", "/error/type"),
        ("fail", {"error": {"message": "x" * 2_001}}, 422, "validation", "/error/message"),
        ("fail", {"error": {"message": "\0"}}, 422, "validation", "/error/message"),
        ("fail", {"retryable": "no"}, 422, "validation", "/retryable"),
        ("fail", {"retry_in": "25h"}, 422, "validation", "/retry_in"),
        ("fail", {"retry_in": "-1s"}, 422, "validation", "/retry_in"),
        ("fail", {"retry_in": 5}, 422, "validation", "/retry_in"),
        ("fail", {"retry_in": "5s", "retryable": False}, 422, "validation", "/retry_in"),
        ("heartbeat", {"extend": "0s"}, 422, "validation", "/extend"),
        ("heartbeat", {"extend": "8d"}, 422, "validation", "/extend"),
        ("heartbeat", {"extend": "soon"}, 422, "validation", "/extend"),
        ("heartbeat", {"extend": None}, 422, "validation", "/extend"),
        ("heartbeat", {"result": 1}, 422, "validation", "/result"),
    ],
)
async def test_bad_body_is_refused_with_a_pointer(
    api: Api, verb: str, body: Any, status: int, code: str, pointer: str
) -> None:
    """Nothing is recorded, and the receiver may call again, corrected."""
    task = await accepted(api)
    answer = await task.call(verb, body)

    assert code_of(answer) == (status, code), answer.text
    assert pointers(answer) == [pointer]
    assert (await task.task())["state"] == "awaiting_callback"


async def test_result_may_be_as_large_and_as_deep_as_a_payload(api: Api) -> None:
    """Exactly at the limits it is taken, and may repeat its own keys."""
    for result in (b'"%s"' % (b"x" * 262_142), b"[" * 64 + b"]" * 64, b'{"a": 1, "a": 2}'):
        task = await accepted(api)
        answer = await task.call("complete", b'{"result": %s}' % result)

        assert answer.status_code == 200, answer.text


async def test_tenants_own_limit_bounds_results_too(api: Api) -> None:
    """As it bounds its payloads."""
    await api.sql("UPDATE howdah.tenants SET payload_bytes_max = 100")
    task = await accepted(api)

    assert code_of(await task.call("complete", {"result": "x" * 99})) == (413, "payload_too_large")
    assert (await task.call("complete", {"result": "x" * 98})).status_code == 200


async def test_wrong_media_type_is_refused(api: Api) -> None:
    """As for all bodies."""
    task = await accepted(api)
    answer = await api.client.post(f"/v1/callbacks/{task.token}/complete", content=b"a=1")

    assert code_of(answer) == (415, "unsupported_media_type")


async def test_unknown_query_parameter_is_refused(api: Api) -> None:
    """A parameter is not silently passed over."""
    task = await accepted(api)

    assert code_of(await task.call("complete?x=1")) == (400, "bad_parameter")


async def test_no_log_shows_a_token(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Not of calls that go well, nor of paths that nearly fit; the task is named instead."""
    task = await accepted(api)
    with caplog.at_level(logging.INFO):
        for path in ("complete/", "heartbeat", "complete/x", "done", "complete"):
            await api.post(f"/v1/callbacks/{task.token}/{path}", {}, key="")
        await api.post(f"//v1/callbacks/{task.token}", {}, key="")
        await api.post(f"/v1/callbacks/{task.token.replace('_', '%5F')}/complete", {}, key="")
    records = [getattr(record, "fields", {}) for record in caplog.records if record.message == "request_answered"]
    written = json.dumps(records)

    assert len(records) == 7
    assert task.token[:20] not in written
    assert "/v1/callbacks/hcb_***/done" in written
    assert [fields.get("route") for fields in records].count("/v1/callbacks/{token}/complete") == 1
    assert any(fields.get("task_id") == task.id for fields in records)


async def test_run_that_somebody_locked_is_asked_for_again(api: Api) -> None:
    """The receiver gets 503 in time, and its repeat counts once the lock is gone; others are not held up."""
    task, other = await accepted(api), await accepted(api)
    async with await psycopg.AsyncConnection.connect(api.url) as conn:
        await conn.execute("SELECT 1 FROM howdah.runs WHERE task_id = %s FOR UPDATE", (task.id,))
        answers = await asyncio.gather(task.call("complete"), other.call("complete"))
        beat = await task.call("heartbeat")

    assert [answer.status_code for answer in answers] == [503, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert beat.status_code == 503
    assert (await task.call("complete")).json()["status"] == "ok"


async def test_cut_connection_is_no_reason_to_ask_again(api: Api) -> None:
    """If PostgreSQL is there, the report is sent once more, and recorded once."""
    task = await accepted(api)
    [(before,)] = await api.sql("SELECT count(*) FROM howdah.finished_runs")
    await api.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    answer = await eventually_async(
        lambda: _answered(task), 10, "the report is answered with something else than an outage"
    )
    [(after,)] = await api.sql("SELECT count(*) FROM howdah.finished_runs")

    assert answer is not None
    assert answer.json()["status"] in ("ok", "already_finished")
    assert (before, after) == (0, 1)


async def _answered(task: Accepted) -> httpx2.Response | None:
    answer = await task.call("complete")
    return answer if answer.status_code != 503 else None


async def test_many_reports_at_once_are_recorded_each(api: Api) -> None:
    """Those of one token are one outcome, and those of others do not mix."""
    tasks = [await accepted(api) for _ in range(40)]
    answers = await asyncio.gather(
        *(task.call("complete", {"result": number}) for number, task in enumerate(tasks) for _ in range(3))
    )
    statuses = [answer.json()["status"] for answer in answers]
    results = await asyncio.gather(*(task.task() for task in tasks))

    assert statuses.count("ok") == 40
    assert statuses.count("already_finished") == 80
    assert [each["result"] for each in results] == list(range(40))


async def test_outcomes_are_counted_in_the_queue(api: Api) -> None:
    """As those of workers are: successes, attempts to come, and dead letters."""
    for body, verb in ((None, "complete"), ({"retry_in": "1h"}, "fail"), ({"retryable": False}, "fail")):
        task = await accepted(api)
        await task.call(verb, body)
    await api.backend.tallies.flush()
    [row] = await api.sql("SELECT succeeded, retried, failed FROM howdah.queue_stats WHERE succeeded + failed > 0")
    stats = (await api.get("/v1/queues/q/stats")).json()

    assert row == (1, 1, 1)
    assert (stats["running"], stats["awaiting_callback"], stats["retrying"]) == (0, 0, 1)


async def test_tasks_that_wait_are_listed_by_their_state(api: Api) -> None:
    """`state=awaiting_callback` finds them, and `running` does not."""
    task = await accepted(api)
    listed = {
        state: [each["id"] for each in (await api.get(f"/v1/tasks?state={state}")).json()["data"]]
        for state in ("awaiting_callback", "running")
    }
    reasons = (await api.get(f"/v1/tasks/{task.id}/explain")).json()["reasons"]

    assert listed == {"awaiting_callback": [task.id], "running": []}
    assert [reason["code"] for reason in reasons] == ["awaiting_callback"]


@pytest.mark.parametrize(
    ("http", "pointer"),
    [
        ({"mode": "later"}, "/http/mode"),
        ({"callback_timeout": "0s"}, "/http/callback_timeout"),
        ({"callback_timeout": "-1s"}, "/http/callback_timeout"),
        ({"callback_timeout": "8d"}, "/http/callback_timeout"),
        ({"callback_timeout": 60}, "/http/callback_timeout"),
        ({"heartbeat_timeout": "0.5s"}, "/http/heartbeat_timeout"),
        ({"mode": "sync", "callback_timeout": "1h"}, "/http/callback_timeout"),
    ],
)
async def test_task_with_a_bad_mode_is_refused(api: Api, http: dict[str, Any], pointer: str) -> None:
    """The problem points at the field."""
    answer = await api.post("/v1/tasks", {"queue": "q", "http": {**HTTP, **http}})

    assert code_of(answer) == (422, "validation")
    assert pointers(answer) == [pointer]


async def test_task_shows_its_mode_and_waits(api: Api) -> None:
    """As they were given."""
    http = {**HTTP, "callback_timeout": "2h", "heartbeat_timeout": "1m"}
    made = await api.post("/v1/tasks", {"queue": "q", "http": http})

    assert made.json()["http"] == http
    assert (await api.get(f"/v1/tasks/{made.json()['id']}")).json()["http"] == http
