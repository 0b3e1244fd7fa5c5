"""Dead letters and bulk operations over HTTP: what is asked for, what is answered, and who may."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_api import assert_problem
from tests.integration.api.test_task_changes import FAIL

if TYPE_CHECKING:
    from tests.fix_api import Api

REPLAY = "/v1/queues/q/dlq/replay"
STARTS = {
    REPLAY: "replay_dead_letters",
    "/v1/queues/q/dlq/purge": "purge_dead_letters",
    "/v1/queues/q/purge": "purge_queue",
    "/v1/tasks/cancel": "cancel_tasks",
}


async def _bury(api: Api, count: int = 1, message: str = "it failed", **fields: Any) -> list[str]:
    """Make dead letters, and return their ids, newest first."""
    tasks = [(await api.create(**fields))["id"] for _ in range(count)]
    for task in tasks:
        await api.sql(FAIL, task)
        await api.sql(
            "UPDATE howdah.dead_letters SET error = jsonb_build_object('type', 'E', 'message', %s::text) "
            "WHERE task_id = %s",
            message,
            task,
        )
    return sorted(tasks, reverse=True)


@pytest.mark.parametrize(("path", "kind"), STARTS.items())
async def test_a_bulk_operation_is_accepted_and_can_be_read(api: Api, path: str, kind: str) -> None:
    """The answer is the operation as GET shows it, at the place that Location names; the list has it first."""
    await api.create()
    body: dict[str, Any] = {"filter": {"tags": {"a": "b"}}, "rate": 2.5}
    answer = await api.post(path, body)
    shown = answer.json()
    read = await api.get(answer.headers["location"])
    listed = await api.get("/v1/operations")

    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/operations/{shown['id']}"
    assert read.json() == shown == listed.json()["data"][0]
    assert (shown["kind"], shown["state"], shown["filter"], shown["rate"]) == (
        kind,
        "running",
        {"tags": {"a": "b"}},
        2.5,
    )
    assert (shown["matched"], shown["done"], shown["skipped"], shown["failed"]) == (0, 0, 0, 0)
    assert shown.get("queue") == (None if kind == "cancel_tasks" else "q")
    assert shown.get("mode") == ("soft" if kind == "cancel_tasks" else None)
    assert shown["created_by"] in api.key


async def test_a_body_may_be_left_out_where_a_queue_is_named(api: Api) -> None:
    """Then it is about all of the queue."""
    await api.create()
    for path in list(STARTS)[:3]:
        assert (await api.request("POST", path)).status_code == 202


async def test_a_dry_run_counts_and_starts_nothing(api: Api) -> None:
    """Dead letters that fit; nothing is stored."""
    await _bury(api, 2)
    await _bury(api, 1, tags={"a": "b"})
    answer = await api.post(REPLAY, {"filter": {"tags": {"a": "b"}}, "dry_run": True})

    assert (answer.status_code, answer.json()) == (200, {"dry_run": True, "matched": 1, "at_least": False})
    assert (await api.get("/v1/operations")).json() == {"data": [], "next_cursor": None}


async def test_a_repeat_with_its_key_starts_no_second_operation(api: Api) -> None:
    """It gets the first answer, Location too."""
    await api.create()
    first = await api.post(REPLAY, {}, Idempotency_Key="k")
    second = await api.post(REPLAY, {}, Idempotency_Key="k")

    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["location"] == first.headers["location"]
    assert len((await api.get("/v1/operations")).json()["data"]) == 1


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("path", "body", "at"),
    [
        (REPLAY, {"rate": 0}, "/rate"),
        (REPLAY, {"rate": -5}, "/rate"),
        (REPLAY, {"rate": 1e300}, "/rate"),
        (REPLAY, {"rate": "fast"}, "/rate"),
        (REPLAY, {"filter": {"color": "red"}}, "/filter/color"),
        (REPLAY, {"filter": {"state": "failed"}}, "/filter/state"),
        (REPLAY, {"filter": {"error_type": "x" * 10_000}}, "/filter/error_type"),
        (REPLAY, {"filter": {"tags": {"a": "x" * 10_000}}}, "/filter/tags/a"),
        (REPLAY, {"filter": {"error_type": "a\0b"}}, "/filter/error_type"),
        (REPLAY, {"filter": {"dead_after": "yesterday"}}, "/filter/dead_after"),
        (REPLAY, {"edits": {"queue": "other"}}, "/edits/queue"),
        (REPLAY, {"edits": {"handler": "a", "http": {"url": "https://example.com"}}}, "/edits/http"),
        (REPLAY, {"edits": {}}, "/edits"),
        (REPLAY, {"mode": "hard"}, "/mode"),
        ("/v1/queues/q/purge", {"filter": {"older_than": "soon"}}, "/filter/older_than"),
        ("/v1/queues/q/purge", {"filter": {"priority": "urgent"}}, "/filter/priority"),
        ("/v1/tasks/cancel", {}, "/filter"),
        ("/v1/tasks/cancel", {"queue": "q", "mode": "rude"}, "/mode"),
        ("/v1/tasks/cancel", {"filter": {"state": "failed"}}, "/filter/state"),
    ],
)
async def test_what_is_not_allowed_is_refused_at_its_place(api: Api, path: str, body: dict[str, Any], at: str) -> None:
    """Before anything is stored, and by a dry run too."""
    await api.create()
    for is_dry in (True, False):
        assert_problem(await api.post(path, {**body, "dry_run": is_dry}), 422, "validation", [at])
    assert (await api.get("/v1/operations")).json()["data"] == []


async def test_edits_are_checked_as_the_fields_of_a_task(api: Api) -> None:
    """A private address, a payload that is too large, and one that is nested too deeply."""
    await api.create()
    private = {"edits": {"http": {"url": "http://127.0.0.1/"}}}
    large = {"edits": {"payload": "x" * 300_000}}
    fits, deep = ("[" * depth + "]" * depth for depth in (64, 65))

    assert_problem(await api.post(REPLAY, private), 422, "blocked_address", ["/edits/http/url"])
    assert_problem(await api.post(REPLAY, large), 413, "payload_too_large", ["/edits/payload"])
    assert (await api.post(REPLAY, f'{{"edits": {{"payload": {fits}}}}}'.encode())).status_code == 202
    answer = await api.post(REPLAY, f'{{"edits": {{"payload": {deep}}}}}'.encode())
    assert_problem(answer, 400, "json_too_deep")


async def test_an_unknown_queue_is_not_found(api: Api) -> None:
    """Whatever is asked of it; nothing makes it."""
    for name in ("nowhere", "No%20Queue"):
        for path in ("dlq", "dlq/groups"):
            assert_problem(await api.get(f"/v1/queues/{name}/{path}"), 404, "not_found")
        for path in ("dlq/replay", "dlq/purge", "purge"):
            assert_problem(await api.post(f"/v1/queues/{name}/{path}", {}), 404, "not_found")
    assert_problem(await api.post("/v1/tasks/cancel", {"queue": "nowhere"}), 404, "not_found", [])


async def test_an_operation_is_cancelled_until_it_has_ended(api: Api) -> None:
    """Twice gives the same answer; one that is done is a conflict."""
    await api.create()
    made = (await api.post(REPLAY, {})).json()
    path = f"/v1/operations/{made['id']}/cancel"
    first, second = await api.post(path, {}), await api.request("POST", path)
    await api.sql("UPDATE howdah.operations SET state = 'done'")

    assert (first.status_code, first.json()["state"]) == (200, "cancelled")
    assert first.json() == second.json()
    assert_problem(await api.post(path, {}), 409, "state_conflict")


async def test_another_tenants_operations_and_dead_letters_are_not_found(api: Api) -> None:
    """Neither read, nor cancelled, nor listed, nor touched by its operations."""
    await _bury(api)
    made = (await api.post(REPLAY, {})).json()
    stranger = await api.make_key("admin", tenant="other")
    path = f"/v1/operations/{made['id']}"

    assert_problem(await api.request("GET", path, key=stranger), 404, "not_found")
    assert_problem(await api.request("POST", f"{path}/cancel", {}, key=stranger), 404, "not_found")
    assert_problem(await api.request("GET", "/v1/queues/q/dlq", key=stranger), 404, "not_found")
    assert (await api.request("GET", "/v1/operations", key=stranger)).json()["data"] == []
    for unknown in (uuid.uuid4(), "x", f"{{{made['id']}}}"):
        assert_problem(await api.get(f"/v1/operations/{unknown}"), 404, "not_found")


@pytest.mark.parametrize("scope", ["viewer", "producer", "worker"])
async def test_only_operators_start_operations(api: Api, scope: str) -> None:
    """Who may read sees them."""
    task = await api.create()
    made = (await api.post(REPLAY, {})).json()
    key = await api.make_key(scope)
    for path in (*STARTS, f"/v1/operations/{made['id']}/cancel", f"/v1/tasks/{task['id']}/retry"):
        assert_problem(await api.request("POST", path, {}, key=key), 403, "forbidden")
    for path in ("/v1/operations", f"/v1/operations/{made['id']}", "/v1/queues/q/dlq", "/v1/queues/q/dlq/groups"):
        answer = await api.request("GET", path, key=key)
        assert answer.status_code == (200 if scope == "viewer" else 403)


async def test_dead_letters_are_listed_newest_first_page_by_page(api: Api) -> None:
    """Each once, whatever the size of a page; a cursor is of its list and filter only."""
    dead = await _bury(api, 5)
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        page = (await api.get(f"/v1/queues/q/dlq?limit=2{cursor and f'&cursor={cursor}'}")).json()
        seen += [letter["id"] for letter in page["data"]]
        cursor, pages = page["next_cursor"], pages + 1
        if pages == 1:
            assert_problem(await api.get(f"/v1/queues/q/dlq?limit=2&reason=age&cursor={cursor}"), 400, "bad_cursor")

    assert seen == dead
    assert pages == 3


async def test_a_dead_letter_is_shown_with_its_error_and_fingerprint(api: Api) -> None:
    """And with what it is found by, but without its payload."""
    [task] = await _bury(api, 1, "order 17 is gone", tags={"a": "b"}, payload={"secret": 1})
    [letter] = (await api.get("/v1/queues/q/dlq")).json()["data"]
    [(fingerprint,)] = await api.sql("SELECT error_fingerprint FROM howdah.tasks_dead")

    assert (letter["id"], letter["handler"], letter["tags"]) == (task, "h", {"a": "b"})
    assert letter["error"] == {"type": "E", "message": "order 17 is gone"}
    assert letter["fingerprint"] == fingerprint
    assert (letter["reason"], letter["attempt"], "payload" in letter) == ("attempts", 1, False)


async def test_dead_letters_are_filtered(api: Api) -> None:
    """By each of the parameters; the operations of the same filters find the same."""
    [other] = await _bury(api, 1, "another", tags={"a": "b"}, handler="h2")
    [plain] = await _bury(api, 1)
    [letter] = (await api.get("/v1/queues/q/dlq?tag=a:b")).json()["data"]
    at, fingerprint = letter["dead_at"], letter["fingerprint"]
    for parameters, found in (
        ("handler=h2", [other]),
        (f"fingerprint={fingerprint}", [other]),
        ("error_type=E", [plain, other]),
        ("error_type=F", []),
        ("reason=attempts", [plain, other]),
        ("reason=age", []),
        (f"dead_before={at}", []),
        (f"dead_after={at}", [plain, other]),
        ("dead_after=0194-09-08T19:56:19-20:37", [plain, other]),
        (f"dead_after={at}&handler=h2&tag=a:b", [other]),
    ):
        listed = (await api.get(f"/v1/queues/q/dlq?{parameters}")).json()["data"]
        assert [each["id"] for each in listed] == found, parameters


@pytest.mark.parametrize(
    "parameter",
    [
        "tag=a",
        "reason=boredom",
        "dead_after=now",
        "dead_after=0001-01-01T00:00:00%2B10:00",
        "fingerprint=abc",
        "limit=0",
        "state=failed",
    ],
)
async def test_a_bad_parameter_of_a_list_is_refused(api: Api, parameter: str) -> None:
    """It is named."""
    await api.create()
    answer = await api.get(f"/v1/queues/q/dlq?{parameter}")

    assert_problem(answer, 400, "bad_parameter", [parameter.partition("=")[0]])


async def test_dead_letters_are_grouped_by_kind_of_error(api: Api) -> None:
    """The largest group first, with its newest dead letter; the numbers say what was looked at."""
    await _bury(api, 1, "no user 'ada'")
    many = await _bury(api, 3, "order 17 is gone")
    groups = (await api.get("/v1/queues/q/dlq/groups")).json()
    alone = (await api.get(f"/v1/queues/q/dlq/groups?fingerprint={groups['data'][1]['fingerprint']}")).json()

    assert [group["count"] for group in groups["data"]] == [3, 1]
    assert groups["data"][0]["last_task_id"] in many
    assert groups["data"][0]["first_dead_at"] <= groups["data"][0]["last_dead_at"]
    assert groups["data"][1]["error_message"] == "no user 'ada'"
    assert (groups["group_count"], groups["looked_at"], groups["is_complete"]) == (2, 4, True)
    assert (alone["data"], alone["group_count"]) == ([groups["data"][1]], 1)


async def test_a_queue_without_dead_letters_has_no_groups(api: Api) -> None:
    """And the look is complete."""
    await api.create()

    assert (await api.get("/v1/queues/q/dlq/groups")).json() == {
        "data": [],
        "group_count": 0,
        "looked_at": 0,
        "is_complete": True,
    }


async def test_retry_with_edits_makes_a_new_task(api: Api) -> None:
    """It names the dead letter, which stays failed and is none any more; the key's repeat makes no third."""
    [old] = await _bury(api, 1, tags={"a": "b"}, payload=1)
    path, body = f"/v1/tasks/{old}/retry", b'{"payload": {"b" :2}, "handler": "h2"}'
    answer = await api.post(path, body, Idempotency_Key="k")
    repeat = await api.post(path, body, Idempotency_Key="k")
    made = answer.json()
    read = (await api.get(answer.headers["location"])).json()

    assert answer.status_code == 201, answer.text
    assert (made["replayed_from"], made["handler"], made["tags"]) == (old, "h2", {"a": "b"})
    assert {**made, "payload": {"b": 2}} == read
    assert repeat.json() == made
    assert (await api.get(f"/v1/tasks/{old}")).json()["state"] == "failed"
    assert (await api.get("/v1/queues/q/dlq")).json()["data"] == []
    assert_problem(await api.post(path, body), 409, "state_conflict")
    assert await api.task_count() == 2


@pytest.mark.parametrize(
    ("body", "status", "code", "at"),
    [
        ({"handler": "No!"}, 422, "validation", ["/handler"]),
        ({"handler": "a", "http": {"url": "https://example.com"}}, 422, "validation", ["/http"]),
        ({"http": {"url": "http://10.0.0.1/"}}, 422, "blocked_address", ["/http/url"]),
        ({"payload": "x" * 300_000}, 413, "payload_too_large", ["/payload"]),
        ({"tags": {}}, 422, "validation", ["/tags"]),
    ],
)
async def test_retry_with_edits_that_are_refused_leaves_the_dead_letter(
    api: Api, body: Any, status: int, code: str, at: list[str]
) -> None:
    """As a create would refuse them."""
    [old] = await _bury(api)
    answer = await api.post(f"/v1/tasks/{old}/retry", body)

    assert_problem(answer, status, code, at)
    assert [each["id"] for each in (await api.get("/v1/queues/q/dlq")).json()["data"]] == [old]
