"""Bulk operations and edited replays by SQL: what may be asked for, and what becomes of the tasks."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.fix_operations import Operations
    from tests.fix_queue import Queue

LONG = "x" * 10_000


async def _fingerprint(queue: Queue, kind: str | None, message: str | None) -> str:
    error = {name: value for name, value in (("type", kind), ("message", message)) if value is not None}
    [row] = await queue.sql("SELECT howdah.error_fingerprint(%s) AS fingerprint", json.dumps(error))
    return str(row["fingerprint"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 is gone", "order 4711 is gone"),
        ("no user 0198a0c2-309c-7003-8040-4451cc92de6c", "no user DEADBEEF-309C-7003-8040-4451CC92DE6C"),
        ("at 0xDEADBEEF", "at 0x7f"),
        ("no object deadbeefcafe", "no object 1f3a9c"),
        ('key "a b" is taken', 'key "" is taken'),
        ("key 'a' is taken", "key 'bb' is taken"),
        ("Connection to 10.0.0.1:5432 refused", "connection to 10.0.77.1:80 REFUSED"),
        ("worker12 is full after 30s", "worker7 is full after 5s"),
        ("x" * 300 + "this", "x" * 300 + "that"),
    ],
)
async def test_what_varies_in_a_message_does_not_change_its_fingerprint(queue: Queue, one: str, other: str) -> None:
    """Numbers, UUIDs, hexadecimal words, quoted strings, case, and what comes late."""
    assert await _fingerprint(queue, "E", one) == await _fingerprint(queue, "E", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("E", "order is gone"), ("E", "user is gone")),
        (("E", "gone"), ("F", "gone")),
        (("E", "facade is gone"), ("E", "decade is gone")),
        (("E", None), ("E", "gone")),
    ],
)
async def test_other_errors_have_other_fingerprints(queue: Queue, one: Any, other: Any) -> None:
    """Words and types tell errors apart."""
    assert await _fingerprint(queue, *one) != await _fingerprint(queue, *other)


async def test_fingerprints_stay_as_they_are(queue: Queue) -> None:
    """Clients keep them, so no release may change them by accident; the database's collation does not count."""
    assert await _fingerprint(queue, "ConnectionError", "connection to 10.0.0.7:25 refused") == "57f31a8b4aa10afb"
    [row] = await queue.sql("SELECT howdah.error_fingerprint(NULL) AS fingerprint")
    assert row["fingerprint"] == await _fingerprint(queue, None, None)


@pytest.mark.parametrize(
    ("arguments", "code", "pointer"),
    [
        ({"kind": "delete_all"}, "JQ422", "/kind"),
        ({"kind": None}, "JQ422", "/kind"),
        ({"queue": None}, "JQ422", "/queue"),
        ({"queue": "other"}, "JQ404", "there is no queue"),
        ({"queue": LONG}, "JQ404", "there is no queue"),
        ({"tenant": "nobody"}, "JQ404", "there is no tenant"),
        ({"rate": 0}, "JQ422", "/rate"),
        ({"rate": -1}, "JQ422", "/rate"),
        ({"rate": 1e9}, "JQ422", "/rate"),
        ({"rate": float("nan")}, "JQ422", "/rate"),
        ({"mode": "soft"}, "JQ422", "/mode"),
        ({"kind": "cancel_tasks", "mode": "rude"}, "JQ422", "/mode"),
        ({"kind": "cancel_tasks", "queue": None}, "JQ422", "/filter"),
        ({"kind": "cancel_tasks", "filter": {"state": "succeeded"}}, "JQ422", "/filter/state"),
        ({"kind": "purge_queue", "filter": {"state": "queued"}}, "JQ422", "/filter/state"),
        ({"kind": "purge_queue", "filter": {"older_than": "soon"}}, "JQ422", "/filter/older_than"),
        ({"kind": "purge_queue", "filter": {"priority": 1}}, "JQ422", "/filter/priority"),
        ({"kind": "purge_queue", "edits": {"payload": 1}}, "JQ422", "/edits"),
        ({"filter": [1]}, "JQ422", "/filter"),
        ({"filter": {"color": "red"}}, "JQ422", "/filter/color"),
        ({"filter": {LONG: "red"}}, "JQ422", "/filter/xxx"),
        ({"filter": {"error_type": LONG}}, "JQ422", "/filter/error_type"),
        ({"filter": {"tags": {"a": LONG}}}, "JQ422", "/filter/tags/a"),
        ({"filter": {"handler": LONG}}, "JQ422", "/filter/handler"),
        ({"filter": {"fingerprint": "zz"}}, "JQ422", "/filter/fingerprint"),
        ({"filter": {"reason": "boredom"}}, "JQ422", "/filter/reason"),
        ({"filter": {"dead_after": "2026-02-31T00:00:00Z"}}, "JQ422", "/filter/dead_after"),
        ({"edits": {}}, "JQ422", "/edits"),
        ({"edits": {"queue": "other"}}, "JQ422", "/edits/queue"),
        ({"edits": {"handler": "No!"}}, "JQ422", "/edits/handler"),
        ({"edits": {"handler": "a", "http": {"url": "https://example.com"}}}, "JQ422", "/edits/http"),
        ({"edits": {"http": {"url": "gopher://example.com"}}}, "JQ422", "/edits/http/url"),
        ({"edits": {"payload": "x" * 300_000}}, "JQ413", "/edits/payload"),
    ],
)
async def test_an_operation_that_is_not_allowed_is_refused_at_its_start(
    operations: Operations, arguments: dict[str, Any], code: str, pointer: str
) -> None:
    """The error says where, and nothing is stored."""
    await operations.queue.enqueue()
    given = {"kind": "replay_dead_letters", **arguments}
    with pytest.raises(psycopg.Error) as caught:
        await operations.start(**given)

    assert caught.value.sqlstate == code
    assert str(caught.value).startswith(pointer)
    assert await operations.queue.sql("SELECT 1 FROM howdah.operations") == []


async def test_a_tenant_has_so_many_operations_under_way(operations: Operations) -> None:
    """The next one is refused until one has ended."""
    await operations.queue.enqueue()
    started = [await operations.start("purge_queue") for _ in range(100)]
    with pytest.raises(psycopg.Error, match="100 bulk operations") as caught:
        await operations.start("purge_queue")
    await operations.queue.sql("SELECT howdah.cancel_operation(%s)", started[0])

    assert caught.value.sqlstate == "JQ409"
    assert await operations.start("purge_queue")


async def test_a_cancelled_operation_does_nothing_more(operations: Operations) -> None:
    """It can be cancelled twice; one that is done cannot, and one that is another tenant's is not found."""
    dead = await operations.bury(3)
    started = await operations.start("purge_dead_letters")
    for _ in range(2):
        [row] = await operations.queue.sql("SELECT howdah.cancel_operation(%s) AS state", started)
        assert row["state"] == "cancelled"
    await operations.work_off()
    left = await operations.dead()
    done = await operations.start("purge_dead_letters")
    await operations.work_off()
    await operations.queue.sql("INSERT INTO howdah.tenants (name) VALUES ('other')")

    assert left == dead
    assert await operations.counts(started) == ("cancelled", 0, 0, 0, 0)
    for operation, tenant, code in ((done, None, "JQ409"), (uuid.uuid4(), None, "JQ404"), (started, "other", "JQ404")):
        with pytest.raises(psycopg.Error) as caught:
            await operations.queue.sql("SELECT howdah.cancel_operation(%s, %s)", operation, tenant)
        assert caught.value.sqlstate == code


async def test_an_edited_replay_makes_a_new_task_with_everything_else_of_the_old(operations: Operations) -> None:
    """Its payload stays byte for byte as it was given; the dead letter ends, and its task stays failed."""
    queue = operations.queue
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    [old] = await operations.bury(
        payload={"a": 1},
        priority="normal",
        timeout="30s",
        retry={"max_attempts": 1},
        tags={"a": "b"},
        traceparent=trace,
        dedup={"key": "d", "until": "finished"},
        expires_at=(datetime.now(UTC) + timedelta(days=1)).isoformat(),
    )
    # The plain claim of this test leaves tasks with a flow key alone.
    await queue.sql("UPDATE howdah.tasks SET flow = %s WHERE id = %s", '{"key": "f", "concurrency": 2}', old)
    [row] = await queue.sql("SELECT howdah.replay_edited(%s, %s::json) AS id", old, '{"payload": {"b" :2,"b":3}}')
    new = row["id"]
    same = "queue_id, target_id, priority, timeout_s, retry, flow, dedup, expires_at, tags, traceparent, http"
    [before] = await queue.sql(f"SELECT {same} FROM howdah.tasks WHERE id = %s", old)
    [after] = await queue.sql(f"SELECT {same} FROM howdah.tasks WHERE id = %s", new)
    [edited] = await queue.sql("SELECT payload::text, replayed_from FROM howdah.tasks WHERE id = %s", new)

    assert new != old
    assert before == after
    assert edited == {"payload": '{"b" :2,"b":3}', "replayed_from": old}
    assert await operations.states([old, new]) == ["failed", "queued"]
    assert await operations.dead() == []


async def test_every_column_of_a_task_is_taken_over_or_meant_to_be_new(queue: Queue) -> None:
    """A column that comes with a new feature must be thought of in howdah.replay_edited_rows, and then here."""
    rows = await queue.sql(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'howdah.tasks'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    taken = {
        "tenant_id",
        "queue_id",
        "target_id",
        "priority",
        "timeout_s",
        "traceparent",
        "expires_at",
        "retry",
        "flow",
        "dedup",
        "tags",
        "http",
        "payload",
        "parent_id",
        "follow_ups",
        "batch_id",
        "completes_batch_id",
    }
    new = {"id", "created_at", "run_at", "replayed_from"}

    assert {row["attname"] for row in rows} == taken | new


@pytest.mark.parametrize(
    ("edits", "target", "payload", "http"),
    [
        ({"handler": "other"}, "other", "1", None),
        ({"payload": None}, "h", None, None),
        ({"http": {"url": "https://example.com/a"}}, None, "1", {"url": "https://example.com/a"}),
        (
            {"http": {"url": "https://example.com/a", "body": "x", "content_type": "text/plain"}},
            None,
            None,
            {"url": "https://example.com/a", "body": "x", "content_type": "text/plain"},
        ),
    ],
)
async def test_an_edited_replay_changes_payload_or_target(
    operations: Operations, edits: dict[str, Any], target: str | None, payload: str | None, http: Any
) -> None:
    """What is not edited stays, but for a payload that a body takes the place of."""
    [old] = await operations.bury(payload=1)
    [row] = await operations.queue.sql("SELECT howdah.replay_edited(%s, %s::json) AS id", old, json.dumps(edits))
    [made] = await operations.queue.sql(
        "SELECT g.handler, t.payload::text AS payload, t.http FROM howdah.tasks AS t "
        "JOIN howdah.targets AS g ON g.id = t.target_id WHERE t.id = %s",
        row["id"],
    )

    assert made == {"handler": target, "payload": payload, "http": http}


@pytest.mark.parametrize(
    ("edits", "code"), [({"tags": {}}, "JQ422"), ({}, "JQ422"), ([], "JQ422"), ({"http": {"url": "x"}}, "JQ422")]
)
async def test_an_edited_replay_that_is_refused_leaves_the_dead_letter(
    operations: Operations, edits: Any, code: str
) -> None:
    """Nothing is made, and nothing ends."""
    dead = await operations.bury()
    with pytest.raises(psycopg.Error) as caught:
        await operations.queue.sql("SELECT howdah.replay_edited(%s, %s::json)", dead[0], json.dumps(edits))

    assert caught.value.sqlstate == code
    assert await operations.dead() == dead


async def test_a_task_is_replayed_with_edits_once(operations: Operations) -> None:
    """The second is told that there is no dead letter, and one that never was likewise."""
    [old] = await operations.bury()
    [waiting] = await operations.queue.enqueue()
    await operations.queue.sql("SELECT howdah.replay_edited(%s, '{\"payload\": 1}')", old)

    for task, function, code in (
        (old, "replay_edited(%s, '{\"payload\": 1}')", "JQ409"),
        (old, "replay(%s)", "JQ409"),
        (waiting, "replay_edited(%s, '{\"payload\": 1}')", "JQ409"),
        (uuid.uuid4(), "replay_edited(%s, '{\"payload\": 1}')", "JQ404"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            await operations.queue.sql(f"SELECT howdah.{function}", task)
        assert caught.value.sqlstate == code


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "lost"])
async def test_a_purged_dead_letter_is_failed_by_its_history(operations: Operations, outcome: str) -> None:
    """However its last attempt ended; the view of dead letters has it no more."""
    queue = operations.queue
    [task] = await queue.enqueue(retry={"max_attempts": 1})
    await queue.sql("UPDATE howdah.runs SET crashes = 2")
    await queue.fail(await queue.claim(), outcome)
    started = await operations.start("purge_dead_letters")
    await operations.work_off()

    assert await operations.counts(started) == ("done", 1, 1, 0, 0)
    assert await queue.sql("SELECT 1 FROM howdah.tasks_dead") == []
    assert await queue.state(task) == "failed"


@pytest.mark.parametrize(
    ("kind", "filter", "matched"),
    [
        ("replay_dead_letters", {}, 3),
        ("replay_dead_letters", {"error_type": "other"}, 1),
        ("purge_dead_letters", {"tags": {"a": "b"}}, 1),
        ("purge_dead_letters", {"handler": "unheard"}, 0),
        ("purge_dead_letters", {"reason": "age"}, 0),
        ("purge_dead_letters", {"dead_before": "2020-01-01T00:00:00Z"}, 0),
        ("purge_dead_letters", {"dead_after": "2020-01-01T00:00:00Z", "handler": "h"}, 3),
        ("purge_queue", {}, 2),
        ("purge_queue", {"priority": "high"}, 1),
        ("purge_queue", {"older_than": "1h"}, 0),
        ("cancel_tasks", {}, 3),
        ("cancel_tasks", {"state": "running"}, 1),
        ("cancel_tasks", {"state": "queued", "handler": "h"}, 2),
    ],
)
async def test_a_dry_run_counts_what_fits_and_changes_nothing(
    operations: Operations, kind: str, filter: dict[str, Any], matched: int
) -> None:
    """The operation itself then finds as many."""
    await operations.bury(1, error_type="other")
    await operations.bury(1, tags={"a": "b", "c": "d"})
    await operations.bury(1)
    await operations.queue.enqueue()
    await operations.queue.claim()
    await operations.queue.enqueue(priority="high")
    await operations.queue.enqueue()
    facts = "SELECT (SELECT count(*) FROM howdah.runs) AS runs, (SELECT count(*) FROM howdah.dead_letters) AS dead"
    before = await operations.queue.sql(facts)
    [found] = await operations.queue.sql("SELECT * FROM howdah.count_matches(%s, 'q', %s)", kind, json.dumps(filter))
    after = await operations.queue.sql(facts)
    started = await operations.start(kind, filter=filter)
    await operations.work_off()

    assert found == {"matched": matched, "is_complete": True}
    assert before == after
    assert await operations.counts(started) == ("done", matched, matched, 0, 0)


async def test_no_role_but_the_services_may_start_operations(operations: Operations) -> None:
    """Producers enqueue and cancel what is theirs; bulk operations are for operators."""
    rows = await operations.queue.sql(
        "SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'howdah'::regnamespace "
        "AND p.proname ~ 'operation|replay|count_matches' "
        "AND has_function_privilege('howdah_producer', p.oid, 'EXECUTE')"
    )

    assert rows == []
