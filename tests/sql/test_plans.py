"""Plans of the statements on the hot path, at a million waiting runs and a hundred partitions.

A plan that flips is an outage: these hold with statistics that are badly out of date
and with fresh ones. Buffers are counted (hit and read, all of the statement's work),
not timed, so that the numbers are the same on any machine. Budgets are about twice
what was measured on PostgreSQL 15 and 18, which stands beside them: stale, fresh.
"""

from __future__ import annotations

import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg import sql

from howdah.core.db.queries import load
from howdah.core.db.sql_files import sql_directory
from tests.fix_backlog import QUEUE_COUNT, TARGET_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backlog")]

BATCH: Final = 500
DAY_MS: Final = 86_400_000
LANES: Final[dict[str, Any]] = {
    "queue_ids": list(range(1, QUEUE_COUNT + 1)),
    "priorities": [1] * QUEUE_COUNT,
    "horizon_run_ats": [datetime(2000, 1, 1, tzinfo=UTC)] * QUEUE_COUNT,
    "horizon_task_ids": [uuid.UUID(int=0)] * QUEUE_COUNT,
    "target_ids": list(range(1, TARGET_COUNT + 1)),
}
CLAIM: Final = {
    **LANES,
    "shares": [BATCH // QUEUE_COUNT] * QUEUE_COUNT,
    "worker_id": 1,
    "lease_s": 15.0,
    "grace_s": 1e9,
}
HEARTBEAT: Final = {"lease_s": 15.0, "grace_s": 5.0}
OUTCOME: Final = {
    **dict.fromkeys(("errors", "response_statuses", "response_bodies"), [None] * BATCH),
    "durations_s": [0.1] * BATCH,
}
COMPLETE: Final = {**OUTCOME, "outcomes": ["succeeded"] * BATCH, "results": [None] * BATCH}
FAIL: Final = {
    **OUTCOME,
    "outcomes": ["failed"] * BATCH,
    "retryable": [True] * BATCH,
    "retry_ins_s": [None] * BATCH,
    "counts_crash": [True] * BATCH,
    "is_decided": [False] * BATCH,
}
LOG: Final = {
    "claim_nos": [1] * BATCH,
    "seqs": [1] * BATCH,
    "levels": [20] * BATCH,
    "fractions": [None] * BATCH,
    "logged_ats": [datetime(2026, 1, 1, tzinfo=UTC)] * BATCH,
    "messages": ["m"] * BATCH,
    "fields": [None] * BATCH,
}
# Leases that nobody holds.
NO_LEASES: Final = {
    "tenant_ids": [1] * BATCH,
    "task_ids": [uuid.UUID(int=number) for number in range(BATCH)],
    "lease_tokens": [uuid.UUID(int=0)] * BATCH,
}


@dataclass
class Case:
    """A statement, what it is executed with, and what it may cost.

    Attributes:
        name: As `load` knows it.
        row_count: Rows that it must return here.
        buffers_max: Budget for each of them.
        params: Its parameters, beside those of a claim of `BATCH` runs made before.
        before: SQL to be executed between.
    """

    name: str
    row_count: int
    buffers_max: float
    params: Mapping[str, Any]
    before: str = ""


EXPIRE: Final = "UPDATE howdah.runs SET lease_expires_at = now() - interval '1 s' WHERE lease_token IS NOT NULL"
FINISH: Final = """
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, finished_at, lease_token
    )
    SELECT tenant_id, task_id, claim_no, attempt, queue_id, 'succeeded', true, queued_at, now(), lease_token
    FROM howdah.runs
    WHERE lease_token IS NOT NULL
"""
PARK: Final = f"""
    UPDATE howdah.runs SET blocked_by = 8, run_at = 'infinity' WHERE task_id IN (
        SELECT task_id FROM howdah.runs
        WHERE queue_id = {QUEUE_COUNT} AND priority = 1 AND lease_token IS NULL
        LIMIT 100
    )
"""
# All but the batch has to wait, as runs do that are claimed in time.
OUTLIVE: Final = f"""
    UPDATE howdah.runs AS r SET expires_at = now() + make_interval(secs => 5 * (n.number - {BATCH})) FROM (
        SELECT tenant_id, task_id, row_number() OVER () AS number
        FROM howdah.runs
        WHERE queue_id = {QUEUE_COUNT} AND priority = 1 AND lease_token IS NULL
        LIMIT 5 * {BATCH}
    ) AS n
    WHERE r.tenant_id = n.tenant_id AND r.task_id = n.task_id
"""

CAP: Final = "UPDATE howdah.queues SET max_depth = 10000, max_age_s = 60 WHERE id = 1"

LIST: Final = {"after_queue_id": -1, "after_priority": -1, "lane_count_max": 1_000}
LANE: Final = {"queue_id": QUEUE_COUNT, "priority": 1, "target_ids": [TARGET_COUNT]}

CASES: Final = [
    Case("run.claim", BATCH, 40, CLAIM),  # 14.6, 17.1
    Case("run.complete", BATCH, 60, COMPLETE),  # 28.0, 25.0
    Case("run.fail", BATCH, 65, FAIL),  # 27.7, 28.5
    Case("run.release", BATCH, 50, {}),  # 22.1, 22.5
    # 6.0, 6.0: of what it changes, EXPLAIN counts nothing.
    Case("run.await", BATCH, 15, {}),
    Case("run.heartbeat", BATCH, 60, HEARTBEAT),  # 27.3, 27.7
    Case("run.find_claimed", BATCH, 11, {"worker_id": 1}),  # 3.2, 5.2
    Case("run.find_leased", BATCH, 12, {}),  # 4.0, 4.0
    Case("run.find_recorded", BATCH, 5, {}, before=FINISH),  # 2.0, 0.4
    Case("run.lock_expired", BATCH, 5, {"hold_until": None}, before=EXPIRE),  # 1.0, 1.0
    Case(
        "run.expire",
        BATCH,
        35,
        {"has_follow_ups": False, "passed_by": [], "run_count_max": 500},
        before=OUTLIVE,
    ),  # 14.7, 14.7
    Case("log.insert", 1, 20_000, LOG),
    Case("run.park", 1_000, 60, LANE),  # 20.5, 20.5
    Case("run.unpark", 100, 70, {**LANE, "after_task_id": uuid.UUID(int=0)}, before=PARK),  # 29.9, 34.4
    Case("lane.peek", QUEUE_COUNT, 25, {**LANES, "ahead_s": 60.0}),  # 11.5, 11.5
    Case("lane.sweep", 2 * QUEUE_COUNT, 20, LIST),  # 8.7, 8.7
    Case("lane.survey", 2 * QUEUE_COUNT, 20, {**LIST, "horizon_run_at": datetime(2000, 1, 1, tzinfo=UTC)}),
    Case("lane.unserved", QUEUE_COUNT + 1, 100, {"row_count": 100}, before=PARK),
    # One row, which counts 10,000 runs.
    Case("queue.stats", 1, 21_000, {"tenant": "default", "queue": "q1"}),
    Case("queue.watch_caps", 1, 21_000, {"after_queue_id": 0, "queue_count_max": 8, "mark_s": 10.0}, before=CAP),
]


class Executed:
    """What EXPLAIN (ANALYZE, BUFFERS) said of one execution."""

    def __init__(self, explained: Any) -> None:
        [self._plan] = explained
        self.root: dict[str, Any] = self._plan["Plan"]
        self.row_count = int(self.root["Actual Rows"])
        self.buffers = int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    def nodes(self, below: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """All nodes of the plan."""
        node = below or self.root
        yield node
        for child in node.get("Plans", []):
            yield from self.nodes(child)

    def indexes(self) -> set[str]:
        """Names of the indexes that were read; one of a partition counts as its parent's."""
        names = {node["Index Name"] for node in self.nodes() if "Index Name" in node}
        return {re.sub(r"_\d{8}_", "_", name) for name in names}

    def wide_reads(self) -> list[str]:
        """Nodes that read runs without an index, or keep more of it than the batch."""
        return [
            node["Node Type"]
            for node in self.nodes()
            if (node.get("Relation Name") == "runs" and node["Node Type"] in {"Seq Scan", "Bitmap Heap Scan"})
            or (
                node["Node Type"] in {"Materialize", "Hash", "Sort"}
                and node["Actual Rows"] > BATCH
                and any(each.get("Relation Name") == "runs" for each in self.nodes(node))
            )
        ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plan_stays_on_its_indexes(backlog: psycopg.Connection, case: Case) -> None:
    """The statement uses the indexes that its header names, never reads all of runs, and stays in its budget."""
    with backlog.transaction(force_rollback=True):
        leases = {"lease_token": uuid.uuid4()} if case.name == "run.claim" else _claim(backlog)
        backlog.execute(case.before.encode())
        [(explained,)] = _execute(backlog, case.name, {**leases, **case.params}, explain=True)
    executed = Executed(explained)

    assert executed.row_count == case.row_count
    assert executed.wide_reads() == []
    assert _indexes_in_header(case.name) - executed.indexes() == set()
    assert executed.buffers / case.row_count <= case.buffers_max


def test_look_at_results_reads_little_of_tasks_that_run(backlog: psycopg.Connection) -> None:
    """Of those that have not ended only the run is read, and no partition is opened but those of their days."""
    with backlog.transaction(force_rollback=True):
        leases = _claim(backlog)
        day = (leases["task_ids"][0].int >> 80) // DAY_MS
        ids = [task_id for task_id in leases["task_ids"] if (task_id.int >> 80) // DAY_MS == day]
        backlog.execute(FINISH.encode())
        backlog.execute("DELETE FROM howdah.runs WHERE task_id = %s", [ids[0]])
        asked = {"tenant_ids": [1] * len(ids), "ids": ids, "wants_state": [False] * len(ids)}
        bounds = {"id_min": min(ids), "id_max": max(ids)}
        [(explained,)] = _execute(backlog, "task.results", {**asked, **bounds}, explain=True)
    executed = Executed(explained)
    opened = [
        node["Relation Name"]
        for node in executed.nodes()
        if node.get("Relation Name", "").startswith(("finished_runs_", "tasks_"))
    ]

    assert executed.row_count == 1
    assert executed.wide_reads() == []
    assert _indexes_in_header("task.results") - executed.indexes() == set()
    # Of each an index and a row of runs, and of the one that ended three tables more.
    assert executed.buffers <= 10 * len(ids) + 30
    assert len(opened) == 2


def test_complete_locks_runs_in_the_order_of_its_sorted_report(backlog: psycopg.Connection) -> None:
    """The deleted rows come from a nested loop over the sort, so that overlapping reports cannot deadlock."""
    with backlog.transaction(force_rollback=True):
        [(explained,)] = _execute(backlog, "run.complete", {**_claim(backlog), **COMPLETE}, explain=True)
    [delete] = [node for node in Executed(explained).nodes() if node.get("Operation") == "Delete"]
    [loop] = delete["Plans"]
    report, run = loop["Plans"]

    assert (loop["Node Type"], report["Node Type"], run.get("Index Name")) == (
        "Nested Loop",
        "Subquery Scan",
        "runs_pkey",
    )
    assert report["Plans"][0]["Node Type"] == "Sort"


@pytest.mark.parametrize(
    ("name", "params", "lock_count_max"),
    [
        # 219 and 220: two for each partition of tasks, whose payload or policy they read.
        ("run.claim", {**CLAIM, "lease_token": uuid.uuid4()}, 250),
        ("run.fail", {**FAIL, **NO_LEASES}, 250),
        ("run.await", NO_LEASES, 250),
        # 14 and 18; a partition of finished_runs that is written to adds three.
        ("run.complete", {**COMPLETE, **NO_LEASES}, 30),
        ("run.heartbeat", {**HEARTBEAT, **NO_LEASES}, 30),
    ],
)
def test_statement_takes_a_bounded_number_of_locks(
    backlog: psycopg.Connection, name: str, params: Mapping[str, Any], lock_count_max: int
) -> None:
    """Once it is planned, a statement locks no more tables and indexes than this, at a hundred partitions."""
    for _ in range(2):
        with backlog.transaction(force_rollback=True):
            _execute(backlog, name, params)
            count = backlog.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()").fetchone()

    assert count is not None
    assert count[0] <= lock_count_max


@pytest.mark.parametrize(
    "view",
    ["oldest_waiting", "running", "stuck", "tasks_awaiting_callback", "tasks_blocked", "tasks_running", "workers_live"],
)
@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_view_said_to_be_cheap_reads_little(request: pytest.FixtureRequest, statistics: str, view: str) -> None:
    """A DBA reads these views at any backlog, with the planner's settings as PostgreSQL ships them."""
    with psycopg.connect(request.getfixturevalue(f"{statistics}_backlog"), autocommit=True) as conn:
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM howdah.{}")
        for _ in range(2):
            # The first time, index entries of what other tests rolled back are met, and marked as dead.
            [(explained,)] = conn.execute(explain.format(sql.Identifier(view))).fetchall()

    # At most 660 were measured, for stuck; the whole of runs has 13,300.
    assert Executed(explained).buffers <= 1_000


BURY: Final = """
    INSERT INTO howdah.dead_letters (
        tenant_id, task_id, queue_id, target_id, priority, claim_no, attempt, crashes, reason, queued_at, dead_at, error
    )
    SELECT
        tenant_id, task_id, 1, target_id, priority, 1, 1, 0, 'attempts', queued_at, queued_at,
        '{"type": "E", "message": "connection to 10.0.0.7:5432 refused"}'
    FROM howdah.runs
    WHERE queue_id <= 4
"""
OPERATE: Final = """
    INSERT INTO howdah.operations (
        tenant_id, id, kind, queue_id, mode, created_at, due_at, worked_at, created_by, filter, after_task_id
    )
    SELECT
        1, %s, 'cancel_tasks', 1, 'soft', now() + interval '1 year', now(), now(), 'test', %s,
        (SELECT task_id FROM howdah.runs WHERE queue_id <= 4 ORDER BY task_id OFFSET 100000 LIMIT 1)
"""


@pytest.mark.parametrize(
    ("name", "params", "filter", "index", "buffers_max"),
    [
        # 364, 3,509 and 5,049.
        ("operation.find_dead", {"look_max": 5_000, "row_max": 500}, "{}", "dead_letters_queue_idx", 730),
        (
            "operation.find_dead",
            {"look_max": 5_000, "row_max": 500},
            '{"reason": "age"}',
            "dead_letters_queue_idx",
            7_000,
        ),
        ("operation.find_live", {"look_max": 5_000, "row_max": 500, "stage": "waiting"}, "{}", "runs_pkey", 10_000),
    ],
)
def test_page_of_an_operation_reads_its_rows_and_no_others(
    backlog: psycopg.Connection, name: str, params: dict[str, Any], filter: str, index: str, buffers_max: int
) -> None:
    """In the middle of 200,000 dead letters or a million runs, by the index, and no table is read from end to end."""
    operation = {"tenant_id": 1, "id": uuid.uuid4()}
    with _buried_and_undone(backlog):
        if name == "operation.find_dead":
            backlog.execute(BURY)
        backlog.execute(OPERATE, [operation["id"], filter])
        # The first time its statement is planned, which reads the catalogue of a hundred partitions.
        _execute(backlog, name, {**operation, **params})
        before = _scans(backlog, index)
        [(explained,)] = _execute(backlog, name, {**operation, **params}, explain=True)
        after = _scans(backlog, index)

    assert after[index] > before[index]
    assert {**after, index: 0} == {**before, index: 0}
    assert Executed(explained).buffers <= buffers_max


@pytest.mark.parametrize(
    ("name", "params", "buffers_max"),
    [
        ("operation.cancel_runs", {"mode": "soft", "stage": None}, 80),
        ("operation.replay", {"died_until": datetime(2100, 1, 1, tzinfo=UTC)}, 120),
        ("operation.purge_dead", {"died_until": datetime(2100, 1, 1, tzinfo=UTC)}, 40),
    ],
)
def test_what_an_operation_does_to_a_page_costs_so_much_for_each_task(
    backlog: psycopg.Connection, name: str, params: dict[str, Any], buffers_max: int
) -> None:
    """Also with statistics that say the tables are empty: everything is found by its key."""
    with _buried_and_undone(backlog):
        rows = backlog.execute(
            "SELECT task_id FROM howdah.runs WHERE queue_id = 1 ORDER BY task_id LIMIT %s", [BATCH]
        ).fetchall()
        page = {"tenant_id": 1, "task_ids": [row[0] for row in rows]}
        if name != "operation.cancel_runs":
            backlog.execute(BURY)
            backlog.execute("DELETE FROM howdah.runs WHERE task_id = ANY (%s)", [page["task_ids"]])
        before = _scans(backlog)
        [(explained,)] = _execute(backlog, name, {**page, **params}, explain=True)
        after = _scans(backlog)
    executed = Executed(explained)

    assert executed.row_count == BATCH
    assert after == before
    assert executed.buffers / BATCH <= buffers_max


@contextmanager
def _buried_and_undone(conn: psycopg.Connection) -> Iterator[None]:
    """Undo what is done, and sweep up: 200,000 index entries of dead letters would lie in the way of other tests."""
    with conn.transaction(force_rollback=True):
        yield
    conn.execute("VACUUM howdah.dead_letters")


def _scans(conn: psycopg.Connection, *indexes: str) -> dict[str, int]:
    """How often this transaction has read tables from end to end, and used indexes."""
    names = [*indexes, "runs", "dead_letters", "tasks_" + datetime.now(UTC).strftime("%Y%m%d")]
    counted = conn.execute(
        "SELECT n, pg_stat_get_xact_numscans(('howdah.' || n)::regclass) FROM unnest(%s::text[]) AS n", [names]
    )
    return dict(counted.fetchall())


def _claim(conn: psycopg.Connection) -> dict[str, Any]:
    """Claim a batch, and return its leases as parameters."""
    token = uuid.uuid4()
    _execute(conn, "run.claim", {**CLAIM, "lease_token": token})
    rows = conn.execute("SELECT tenant_id, task_id FROM howdah.runs WHERE lease_token = %s", [token]).fetchall()
    return {
        "tenant_ids": [tenant_id for tenant_id, _ in rows],
        "task_ids": [task_id for _, task_id in rows],
        "lease_tokens": [token] * len(rows),
        "lease_token": token,
    }


def _execute(conn: psycopg.Connection, name: str, params: Mapping[str, Any], *, explain: bool = False) -> list[Any]:
    """Execute a statement with the generic plan that a hot connection keeps, and return its rows or their plan."""
    text = load(name, "howdah").decode()
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)b", text)))
    prepared = sql.Identifier(name)
    if not conn.execute("SELECT 1 FROM pg_prepared_statements WHERE name = %s", [name]).fetchone():
        numbered = re.sub(r"%\((\w+)\)b", lambda match: f"${names.index(match[1]) + 1}", text)
        conn.execute(sql.SQL("PREPARE {} AS {}").format(prepared, sql.SQL(numbered)), prepare=False)
    call = sql.SQL("{} EXECUTE {}{}").format(
        sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)" if explain else ""),
        prepared,
        sql.SQL("({})").format(sql.SQL(", ").join(sql.Literal(params[each]) for each in names))
        if names
        else sql.SQL(""),
    )
    return conn.execute(call, prepare=False).fetchall()


def _indexes_in_header(name: str) -> set[str]:
    """The indexes that a statement's file says it must use."""
    text = (sql_directory() / "queries" / f"{name.replace('.', '/')}.sql").read_text()
    [line] = re.findall(r"^-- index: (.+)$", text, re.MULTILINE)
    return set(line.split(", "))


# A batch of a thousand runs of the backlog, of which the last one is live.
ENDING: Final = f"""
    INSERT INTO howdah.batches (tenant_id, id, created_at, closed_at, created_by, follow_ups)
    VALUES (1, '00000000-0000-0000-0000-000000000001', now(), now(), 'test', '{{}}');
    WITH member AS (
        UPDATE howdah.runs AS r SET batch_id = '00000000-0000-0000-0000-000000000001' FROM (
            SELECT tenant_id, task_id FROM howdah.runs WHERE queue_id = {QUEUE_COUNT} AND lease_token IS NULL LIMIT 1000
        ) AS n
        WHERE r.tenant_id = n.tenant_id AND r.task_id = n.task_id
        RETURNING r.tenant_id, r.batch_id, r.task_id
    )
    INSERT INTO howdah.batch_tasks (tenant_id, batch_id, task_id) SELECT m.* FROM member AS m;
    DELETE FROM howdah.runs AS r USING (
        SELECT max(t.task_id::text)::uuid AS task_id FROM howdah.batch_tasks AS t
    ) AS last
    WHERE r.tenant_id = 1 AND r.batch_id IS NOT NULL AND r.task_id < last.task_id;
"""


def test_look_at_a_batch_costs_little_until_its_last_task_has_ended(backlog: psycopg.Connection) -> None:
    """However many entries of those that ended the snapshot of others keeps in the index: the last one is asked for."""
    params = {"tenant_ids": [1], "batch_ids": [uuid.UUID(int=1)]}
    buffers = []
    with backlog.transaction(force_rollback=True):
        for sql in (ENDING, "DELETE FROM howdah.runs WHERE tenant_id = 1 AND batch_id IS NOT NULL"):
            for statement in sql.split(";\n"):
                backlog.execute(statement.encode())
            with backlog.transaction(force_rollback=True):
                # Plans of functions are made by their first call.
                _execute(backlog, "batch.complete", params)
            [(explained,)] = _execute(backlog, "batch.complete", params, explain=True)
            buffers.append(Executed(explained).buffers)
        row = backlog.execute("SELECT task_count, succeeded FROM howdah.batches").fetchone()

    assert row == (1_000, 1_000)
    # 5, 6; and 1,971, 4,320: of each task what is dead, and counted, once.
    assert buffers[0] <= 15
    assert buffers[1] <= 9_000
