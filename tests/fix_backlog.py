"""A backlog of a million waiting runs over a hundred partitions, for tests of plans.

Seeded once for the session (15 s) and copied. Tests leave it as it is: they work in
transactions that are rolled back.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from psycopg import sql

from howdah.core.db.connect import connect_sync
from howdah.core.settings import Settings
from tests.fix_db import with_database

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN_COUNT: Final = 1_000_000
QUEUE_COUNT: Final = 20
TARGET_COUNT: Final = 10
# From yesterday on: one hundred partitions of tasks, and as many of finished_runs.
DAYS_AHEAD: Final = 98

# What each statement needs is seeded straight into the tables: queues 1 to 20 with the
# priorities 1 and 2, tasks spread over all partitions, runs due in the last hour.
_SEED: Final = f"""
SET synchronous_commit = off;
SELECT howdah.make_partitions({DAYS_AHEAD});
INSERT INTO howdah.queues (tenant_id, name) SELECT 1, 'q' || n FROM generate_series(1, {QUEUE_COUNT}) AS n;
INSERT INTO howdah.targets (tenant_id, handler) SELECT 1, 'h' || n FROM generate_series(1, {TARGET_COUNT}) AS n;
ALTER TABLE howdah.runs SET (autovacuum_enabled = off);

INSERT INTO howdah.runs (
    tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at,
    claim_no, attempt, worker_id, lease_token, lease_expires_at, deadline_at, claimed_at
)
SELECT
    1, howdah.new_id(), 1, 1, 1, now(), now(), now(),
    1, 1, 1, gen_random_uuid(), now() + interval '1 minute', now(), now();
ANALYZE howdah.runs;
DELETE FROM howdah.runs;

CREATE TEMPORARY TABLE made AS
SELECT
    n,
    1 + n % {QUEUE_COUNT} AS queue_id,
    1 + n % {TARGET_COUNT} AS target_id,
    1 + (n % 7 = 0)::integer AS priority,
    now() - make_interval(secs => 3600 - n * 0.003) AS due_at,
    (
        substr(howdah.id_floor(now() + make_interval(days => n % {DAYS_AHEAD}))::text, 1, 13)
        || '-7000-8000-' || lpad(to_hex(n), 12, '0')
    )::uuid AS id
FROM generate_series(1, {RUN_COUNT}) AS n;
INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at)
SELECT 1, id, queue_id, target_id, priority, due_at, due_at, due_at FROM made;
INSERT INTO howdah.tasks (tenant_id, id, queue_id, target_id, priority, created_at, run_at, payload)
SELECT 1, id, queue_id, target_id, priority, due_at, due_at, '{{"n": 1}}' FROM made;
"""


@pytest.fixture(scope="session")
def stale_backlog(server_url: str, admin: psycopg.Connection, template_database: str) -> Iterator[str]:
    """URL of the backlog whose statistics say that runs holds one row, which is leased."""
    name = f"howdah_backlog_{uuid.uuid4().hex}"
    admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template_database))))
    try:
        with psycopg.connect(with_database(server_url, name), autocommit=True) as conn:
            conn.execute(_SEED)
        yield with_database(server_url, name)
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def fresh_backlog(server_url: str, admin: psycopg.Connection, stale_backlog: str) -> Iterator[str]:
    """URL of a copy with statistics taken while nothing ran, so that leases look impossible."""
    source = psycopg.conninfo.conninfo_to_dict(stale_backlog)["dbname"]
    name = f"{source}_fresh"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    admin.execute(copy.format(sql.Identifier(name), sql.Identifier(str(source))))
    try:
        with psycopg.connect(with_database(server_url, name), autocommit=True) as conn:
            conn.execute("ANALYZE")
        yield with_database(server_url, name)
    finally:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(params=["stale", "fresh"])
def backlog(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """A hot connection to the backlog, as a worker opens it; what a test does there it must roll back."""
    url = request.getfixturevalue(f"{request.param}_backlog")
    with connect_sync(Settings.from_env({"HOWDAH_DATABASE_URL": url}), "worker", purpose="hot") as conn:
        yield conn
