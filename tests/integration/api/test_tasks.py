"""Tasks over HTTP: what is created can be read, listed and cancelled."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from itertools import product

import psycopg
import pytest

from tests.fix_api import TASK, Api, assert_problem
from tests.task_vectors import ACCEPTED, PAYLOADS, REFUSED, Refused


async def test_create_answers_what_get_then_answers(api: Api) -> None:
    """A client may keep the answer of the create: it is the task, in the shape of GET."""
    sent = {
        **TASK,
        "payload": {"to": "ada", "n": 1},
        "priority": "high",
        "delay": "5m",
        "timeout": "300ms",
        "retry": {"max_attempts": 7, "backoff": "list", "list": ["1s", "1m"]},
        "tags": {"a": "b"},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    created = await api.post("/v1/tasks", sent)
    read = await api.get(created.headers["location"])

    assert created.status_code == 201
    assert created.content == read.content
    assert created.json()["state"] == "scheduled"
    assert {name: created.json()[name] for name in sent if name != "delay"} == {
        name: value for name, value in sent.items() if name != "delay"
    }


async def test_create_with_a_delay_is_due_that_long_after_its_creation(api: Api) -> None:
    """run_at is exactly created_at and the delay, as it is stored."""
    task = await api.create(delay="90s")
    [(delay_s,)] = await api.sql("SELECT extract(epoch FROM run_at - created_at)::float FROM howdah.tasks")

    waits = datetime.fromisoformat(task["run_at"]) - datetime.fromisoformat(task["created_at"])
    assert waits.total_seconds() == delay_s == 90


async def test_payloads_are_stored_byte_for_byte(api: Api) -> None:
    """White space, order, duplicate keys, escapes and numbers of a payload stay as they came, in and out."""
    read = []
    for payload in PAYLOADS:
        body = f'{{"queue": "q", "payload": {payload}, "handler": "h"}}'
        created = await api.post("/v1/tasks", body.encode())
        assert created.status_code == 201, created.text
        assert f'"payload":{payload}' in created.text
        read.append((await api.get(created.headers["location"])).text)
    rows = await api.sql("SELECT payload::text FROM howdah.tasks ORDER BY id")

    assert [payload for (payload,) in rows] == PAYLOADS
    assert all(f'"payload":{payload}' in text for payload, text in zip(PAYLOADS, read, strict=True))


async def test_create_accepts_what_sql_accepts(api: Api) -> None:
    """The vectors that howdah.enqueue_many stores are stored over HTTP, single and as a batch."""
    answers = [await api.post("/v1/tasks", text.encode()) for text in ACCEPTED]
    batch = await api.post("/v1/tasks/batch", f'{{"tasks": [{", ".join(ACCEPTED)}]}}'.encode())

    assert [answer.status_code for answer in answers] == [201] * len(ACCEPTED)
    assert [result["status"] for result in batch.json()["results"]] == [201] * len(ACCEPTED)
    assert await api.task_count() == 2 * len(ACCEPTED)


async def test_create_refuses_what_sql_refuses(api: Api) -> None:
    """The vectors that howdah.enqueue_many refuses are refused with the same code at the same place, nothing stored."""
    found = {}
    for refused in REFUSED:
        answer = await api.post("/v1/tasks", refused.text.encode())
        document = answer.json()
        found[refused.text] = (document["code"], [error.get("pointer") for error in document["errors"]])

    assert found == {refused.text: _expected(refused) for refused in REFUSED}
    assert await api.task_count() == 0
    assert await api.sql("SELECT name FROM howdah.queues WHERE name NOT IN ('q')") == []


def _expected(refused: Refused) -> tuple[str, list[str]]:
    return refused.http_code or refused.code, [refused.pointer]


async def test_create_takes_the_trace_of_the_request(api: Api) -> None:
    """A traceparent header goes on to the task, a malformed one is ignored, the body's own wins."""
    mine, others = (f"00-{letter * 32}-{letter * 16}-01" for letter in "ab")
    by_header = await api.post("/v1/tasks", TASK, traceparent=mine)
    malformed = await api.post("/v1/tasks", TASK, traceparent="junk")
    by_body = await api.post("/v1/tasks", {**TASK, "traceparent": others}, traceparent=mine)

    assert by_header.json()["traceparent"] == mine
    assert "traceparent" not in malformed.json()
    assert by_body.json()["traceparent"] == others


async def test_payload_needs_its_own_scope(api: Api) -> None:
    """A key without `payloads` sees neither payload and result nor the secrets of an HTTP target."""
    http = {"url": "https://example.com", "headers": {"Authorization": "Bearer s3cret"}, "body": "b0dy"}
    by_handler = await api.create(payload="payl0ad")
    by_http = (await api.post("/v1/tasks", {"queue": "q", "http": http})).json()
    await api.sql(
        "INSERT INTO howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, "
        "queued_at, finished_at, result, response_body) SELECT tenant_id, task_id, 1, 1, queue_id, 'succeeded', true, "
        "queued_at, howdah.now(), '\"resu1t\"', 'b0dy' FROM howdah.runs"
    )
    viewer, reader = await api.make_key("viewer"), await api.make_key("viewer", "payloads")
    texts = {
        key: "".join(
            [
                (await api.get(f"/v1/tasks/{task['id']}{rest}", key=key)).text
                for task in (by_handler, by_http)
                for rest in ("", "/runs")
            ]
        )
        for key in (viewer, reader)
    }

    secrets = ("payl0ad", "resu1t", "s3cret", "b0dy")
    assert [secret in texts[viewer] for secret in secrets] == [False] * 4
    assert [secret in texts[reader] for secret in secrets] == [True] * 4


async def test_get_of_a_failed_task_says_why(api: Api) -> None:
    """A dead letter shows the state failed, the reason and the last error."""
    task = await api.create()
    await api.sql(
        "WITH run AS (DELETE FROM howdah.runs RETURNING *) INSERT INTO howdah.dead_letters (tenant_id, task_id, "
        "queue_id, target_id, priority, claim_no, attempt, crashes, reason, queued_at, dead_at, error) "
        "SELECT tenant_id, task_id, queue_id, target_id, priority, 4, 4, 0, 'attempts', "
        'queued_at, howdah.now(), \'{"type": "Boom"}\' FROM run'
    )
    read = (await api.get(f"/v1/tasks/{task['id']}")).json()

    assert (read["state"], read["failed_because"], read["attempt"]) == ("failed", "attempts", 4)
    assert read["error"] == {"type": "Boom"}


async def test_error_on_the_way_to_a_success_is_shown_with_its_run_alone(api: Api) -> None:
    """A task that succeeded in its second attempt shows no error, neither alone nor in a list; its first run does."""
    task = await api.create()
    await api.sql(
        "INSERT INTO howdah.finished_runs (tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, "
        "queued_at, finished_at, error) SELECT tenant_id, task_id, 1, 1, queue_id, 'failed', false, queued_at, "
        'howdah.now(), \'{"type": "Boom"}\' FROM howdah.runs'
    )
    path = f"/v1/tasks/{task['id']}"
    waiting = (await api.get(path)).json()
    await api.sql(
        "WITH run AS (DELETE FROM howdah.runs RETURNING *) INSERT INTO howdah.finished_runs (tenant_id, task_id, "
        "claim_no, attempt, queue_id, outcome, is_final, queued_at, finished_at) "
        "SELECT tenant_id, task_id, 2, 2, queue_id, 'succeeded', true, queued_at, howdah.now() FROM run"
    )
    ended = [(await api.get(path)).json(), *(await api.get("/v1/tasks")).json()["data"]]
    runs = (await api.get(f"{path}/runs")).json()["data"]

    assert waiting["error"] == {"type": "Boom"}
    assert [(each["state"], "error" in each) for each in ended] == [("succeeded", False)] * 2
    assert [run.get("error") for run in runs] == [{"type": "Boom"}, None]


async def test_get_of_a_running_task_shows_its_lease(api: Api) -> None:
    """Who runs it until when, and that a cancel is pending, which its answer says too; hard stays hard."""
    task = await api.create()
    await api.sql(
        "WITH w AS (INSERT INTO howdah.workers (name, host, pid, version, queues, handlers, serves_http, concurrency, "
        "lease_s, started_at, heartbeat_at) VALUES ('w.1', 'w', 1, '0', '{*}', '{h}', true, 1, 15, now(), now()) "
        "RETURNING id) UPDATE howdah.runs SET worker_id = w.id, claim_no = 1, attempt = 1, claimed_at = now(), "
        "lease_token = gen_random_uuid(), lease_expires_at = now() + '15 s', deadline_at = now() + '60 s' FROM w"
    )
    soft = await api.request("DELETE", f"/v1/tasks/{task['id']}")
    hard = await api.post(f"/v1/tasks/{task['id']}/cancel", {"mode": "hard"})
    again = await api.post(f"/v1/tasks/{task['id']}/cancel", {"mode": "soft"})
    read = (await api.get(f"/v1/tasks/{task['id']}")).json()
    runs = (await api.get(f"/v1/tasks/{task['id']}/runs")).json()["data"]

    pending = {"id": task["id"], "state": "running"}
    assert soft.json() == {**pending, "cancel_requested": "soft"}
    assert [hard.json(), again.json()] == [{**pending, "cancel_requested": "hard"}] * 2
    assert (read["state"], read["worker"], read["cancel_requested"], read["attempt"]) == ("running", "w.1", "hard", 1)
    assert read["lease_expires_at"] < read["deadline_at"]
    assert [(run["claim_no"], run["outcome"], run["worker"]) for run in runs] == [(1, None, "w.1")]


async def test_get_of_a_parked_task_says_that_no_worker_serves_it(api: Api) -> None:
    """The reason why a task does not start is visible."""
    task = await api.create()
    await api.sql("UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity'")
    read = (await api.get(f"/v1/tasks/{task['id']}")).json()

    assert (read["state"], read["blocked_by"]) == ("blocked", ["no_worker"])


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_cancel_ends_a_waiting_task_and_may_be_repeated(api: Api, method: str) -> None:
    """Both spellings end it at once; a repeat after a lost answer gets the same one."""
    task = await api.create()
    path = f"/v1/tasks/{task['id']}" + ("/cancel" if method == "POST" else "")
    answers = [(await api.request(method, path)).json() for _ in range(2)]

    assert answers == [{"id": task["id"], "state": "cancelled"}] * 2
    assert (await api.get(f"/v1/tasks/{task['id']}")).json()["state"] == "cancelled"


async def test_cancel_of_an_ended_task_is_a_conflict(api: Api) -> None:
    """What is over cannot be cancelled."""
    task = await api.create()
    await api.sql("DELETE FROM howdah.runs")

    assert_problem(await api.post(f"/v1/tasks/{task['id']}/cancel", {}), 409, "state_conflict")


async def test_cancel_of_a_locked_run_answers_in_time(api: Api) -> None:
    """Somebody who holds the run's row costs the caller seconds, not for ever."""
    task = await api.create()
    async with await psycopg.AsyncConnection.connect(api.url) as other:
        await other.execute("SELECT 1 FROM howdah.runs FOR UPDATE")
        answer = await api.post(f"/v1/tasks/{task['id']}/cancel", {})

    assert_problem(answer, 503, "storage_unavailable")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_task_of_another_tenant_is_not_found(api: Api, method: str) -> None:
    """An id of somebody else is answered like one that never was, and nothing changes."""
    stranger = await api.make_key("admin", tenant="other")
    task = await api.create()
    paths = {"POST": ["/cancel"], "DELETE": [""], "GET": ["", "/runs"]}[method]
    for rest in paths:
        theirs = await api.request(method, f"/v1/tasks/{task['id']}{rest}", key=stranger)
        unknown = await api.request(method, f"/v1/tasks/{uuid.uuid4()}{rest}", key=stranger)

        assert_problem(theirs, 404, "not_found")
        assert_problem(unknown, 404, "not_found")
    assert (await api.get(f"/v1/tasks/{task['id']}")).json()["state"] == "queued"


async def test_id_has_one_spelling(api: Api) -> None:
    """Only the canonical form of an id addresses a task, so that proxies and we agree what a path means."""
    task_id = (await api.create())["id"]
    others = [
        "1",
        "x",
        f"urn:uuid:{task_id}",
        task_id.upper(),
        f"{task_id}.json",
        f"{task_id};x",
        task_id.replace("-", ""),
    ]
    for other in [*others, f"%7B{task_id}%7D", f"{task_id}%00", f"%30{task_id[1:]}"]:
        assert_problem(await api.get(f"/v1/tasks/{other}"), 404, "not_found")


async def test_batch_stores_the_good_and_names_the_bad(api: Api) -> None:
    """Without `atomic` each task stands for itself, in order."""
    tasks = [TASK, {"queue": "Q", "handler": "h"}, {"queue": 5}, {**TASK, "payload": [1]}, {**TASK, "tenant_id": 2}]
    answer = await api.post("/v1/tasks/batch", {"tasks": tasks})
    results = answer.json()["results"]

    assert answer.status_code == 200
    assert [result["status"] for result in results] == [201, 422, 422, 201, 422]
    assert [result["problem"]["errors"][0]["pointer"] for result in results if "problem" in result] == [
        "/tasks/1/queue",
        "/tasks/2/queue",
        "/tasks/4/tenant_id",
    ]
    stored = [result["task"]["id"] for result in results if "task" in result]
    assert [str(task_id) for (task_id,) in await api.sql("SELECT id FROM howdah.tasks ORDER BY id")] == stored


async def test_plain_batch_is_answered_as_it_is_stored(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of many kinds, with and without payload, go the short way, and GET shows what the answer said."""
    for queue in ("q", "r"):
        await api.create(queue=queue)
    monkeypatch.setattr(api.backend.tasks, "enqueue", None)  # Nothing can go the long way.
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    own = "00-11111111111111111111111111111111-2222222222222222-00"
    tasks = [
        {
            **TASK,
            "queue": queue,
            "priority": priority,
            **({} if trace is None else {"traceparent": trace, "payload": n}),
        }
        for n, (queue, priority, trace) in enumerate(product(("q", "r"), ("low", "normal", "critical"), (None, own)))
    ]
    answer = await api.post("/v1/tasks/batch", {"tasks": tasks}, traceparent=header)
    shown = [result["task"] for result in answer.json()["results"]]
    read = [(await api.get(f"/v1/tasks/{task['id']}")).json() for task in shown]

    assert read == shown
    assert [task["traceparent"] for task in shown] == [header, own] * 6
    assert [{name: task.get(name) for name in ("queue", "priority", "payload")} for task in shown] == [
        {name: task.get(name) for name in ("queue", "priority", "payload")} for task in tasks
    ]


async def test_atomic_batch_with_a_bad_task_stores_nothing(api: Api) -> None:
    """All or none: the answer points at each task at fault, whoever found the fault."""
    tasks = [TASK] * 20
    tasks[7] = {**TASK, "priority": "urgent"}
    tasks[17] = {**TASK, "queue": "Q"}  # Types are right: only PostgreSQL refuses it.
    by_types = await api.post("/v1/tasks/batch", {"tasks": tasks, "atomic": True})
    tasks[7] = TASK
    by_values = await api.post("/v1/tasks/batch", {"tasks": tasks, "atomic": True})

    assert_problem(by_types, 422, "validation", ["/tasks/7/priority"])
    assert_problem(by_values, 422, "validation", ["/tasks/17/queue"])
    assert await api.task_count() == 0


@pytest.mark.parametrize("count", [0, 1001])
async def test_batch_of_a_wrong_size_is_refused(api: Api, count: int) -> None:
    """1 to 1,000 tasks are a batch."""
    answer = await api.post("/v1/tasks/batch", {"tasks": [TASK] * count})

    assert_problem(answer, 422, "validation", ["/tasks"])
    assert await api.task_count() == 0


@pytest.mark.slow
async def test_batch_of_a_thousand_is_stored_in_order(api: Api) -> None:
    """The largest batch works, and its ids rise with its order."""
    tasks = [{**TASK, "payload": number} for number in range(1000)]
    answer = await api.post("/v1/tasks/batch", {"tasks": tasks, "atomic": True})
    rows = await api.sql("SELECT payload::text::int FROM howdah.tasks ORDER BY id")

    assert answer.status_code == 200
    assert [payload for (payload,) in rows] == list(range(1000))


async def test_unknown_queue_is_made_on_first_use(api: Api) -> None:
    """A client need not make a queue before it uses it."""
    await api.create(queue="brand.new-1")

    assert (await api.get("/v1/queues/brand.new-1")).status_code == 200


async def test_large_text_passes_whole(api: Api) -> None:
    """A body in several packets arrives as one."""
    text = json.dumps("x" * 250_000)
    created = await api.post("/v1/tasks", f'{{"queue":"q","handler":"h","payload":{text}}}'.encode())

    assert created.status_code == 201
    assert await api.sql("SELECT octet_length(payload::text) FROM howdah.tasks") == [(250_002,)]
