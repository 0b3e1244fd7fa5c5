"""The command howdah against a database: migrate, doctor, keys and tenants."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from howdah.api.auth import CACHE_S
from howdah.core.credentials import hash_secret, split_key
from howdah_scheduler.park import Park

if TYPE_CHECKING:
    from tests.fix_chores import Chores
    from tests.fix_queue import Queue

pytestmark = pytest.mark.one_server


def _howdah(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "howdah", *arguments],
        env={**inherited, "HOWDAH_DATABASE_URL": url},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _marks(output: str, mark: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in output.splitlines() if line.startswith(mark)]


def test_migrate_makes_the_schema_and_a_repeat_nothing(blank_database: str) -> None:
    """The first run applies every file and says so, the second has nothing to do."""
    first, second = _howdah(blank_database, "migrate"), _howdah(blank_database, "migrate")

    assert (first.returncode, second.returncode) == (0, 0)
    assert "applied 0001_pre_configuration.sql" in first.stdout
    assert second.stdout == "nothing to apply\n"


def test_migrate_pre_leaves_post_files_for_later(blank_database: str) -> None:
    """--post before --pre is refused with the code for a schema that does not fit."""
    refused = _howdah(blank_database, "migrate", "--post")

    assert refused.returncode == 69
    assert "--pre" in refused.stderr


def test_process_on_a_blank_database_is_refused_with_69(blank_database: str) -> None:
    """A process that finds no schema ends, and names the command that makes it."""
    refused = _howdah(blank_database, "scheduler")

    assert refused.returncode == 69
    assert "howdah migrate" in refused.stdout


def test_doctor_refuses_a_blank_database(blank_database: str) -> None:
    """Without a schema doctor says what processes would say, with their exit code."""
    report = _howdah(blank_database, "doctor")

    assert report.returncode == 69
    assert "run `howdah migrate`" in report.stdout


async def test_doctor_finds_nothing_where_all_is_well(database: str, chores: Chores, queue: Queue) -> None:
    """With chores done and a live worker, every line is ok and the exit code 0."""
    await queue.sql(
        "UPDATE howdah.maintenance SET next_at = howdah.now() + interval '1 hour', last_good_at = howdah.now()"
    )
    await chores.register()
    report = _howdah(database, "doctor")

    assert report.returncode == 0, report.stdout
    assert {line.split()[0] for line in report.stdout.splitlines()} == {"ok"}
    assert {"server", "schema", "partitions", "workers"} <= {line.split()[1] for line in report.stdout.splitlines()}


async def test_doctor_points_at_what_needs_attention(database: str, chores: Chores, queue: Queue) -> None:
    """Overdue and failing chores, partitions that run out, and missing workers are each a line, and exit code 1."""
    await queue.sql("UPDATE howdah.maintenance SET next_at = howdah.now() + interval '40 days'")
    await queue.sql("UPDATE howdah.maintenance SET next_at = howdah.now() WHERE chore = 'rescue'")
    await queue.sql("UPDATE howdah.maintenance SET failures = 3, last_error = 'out of luck' WHERE chore = 'sweep'")
    await chores.travel("10 days")
    report = _howdah(database, "doctor")
    attend = "\n".join(_marks(report.stdout, "attend"))

    assert report.returncode == 1
    assert "chore rescue     overdue by" in attend
    assert "chore sweep      failed 3 times in a row: out of luck" in attend
    assert "partitions       there for 5 of 14 days only" in attend
    assert "workers          0 live" in attend


async def test_doctor_names_tasks_that_no_worker_takes(database: str, chores: Chores, queue: Queue) -> None:
    """A queue that no worker with the handler claims from, and callbacks that nobody delivers, are a line each."""
    await queue.enqueue()
    await queue.sql('SELECT howdah.enqueue(\'hooks\', options => \'{"http": {"url": "https://example.com"}}\')')
    await queue.sql("SELECT howdah.enqueue('hooks', 'h')")
    await chores.travel("10 minutes")
    worker_id = await chores.register(handlers=("h",))
    await queue.sql("UPDATE howdah.workers SET queues = '{hook*}' WHERE id = %s", worker_id)
    await chores.take(Park("howdah", grace_s=1.0))
    await chores.travel("10 minutes 5 seconds")
    await chores.take(Park("howdah", grace_s=1.0))
    await chores.travel("20 minutes")
    await queue.sql("UPDATE howdah.workers SET heartbeat_at = howdah.now()")
    report = _howdah(database, "doctor")
    tasks = sorted(line for line in _marks(report.stdout, "attend") if line.startswith("tasks"))

    assert report.returncode == 1
    assert [line.split(maxsplit=1)[1] for line in tasks] == [
        "queue hooks of tenant default: due for 20m, and no live worker delivers callbacks (HOWDAH_CALLBACKS)",
        "queue q of tenant default: due for 20m, and no live worker that has the handler h claims from it "
        "(HOWDAH_HANDLERS, HOWDAH_QUEUES)",
    ]


def test_key_is_printed_once_and_only_its_hash_is_stored(database: str) -> None:
    """A new key works for the tenant and the scopes that were asked for, and cannot be read back."""
    made = _howdah(database, "tenant", "create", "acme")
    key = _howdah(database, "key", "create", "--name", "ci", "--tenant", "acme", "--scope", "viewer").stdout.strip()
    parts = split_key(key.encode())
    with psycopg.connect(database) as conn:
        row = conn.execute(
            "SELECT k.id, k.secret_hash, t.name, k.scopes, k.name FROM howdah.api_keys k "
            "JOIN howdah.tenants t ON t.id = k.tenant_id"
        ).fetchone()

    assert made.stdout == "made the tenant acme\n"
    assert parts is not None
    assert row == (parts[0], hash_secret(parts[1]), "acme", ["viewer"], "ci")


@pytest.mark.parametrize("form", ["key", "id"])
def test_revoked_key_is_dead(database: str, form: str) -> None:
    """A key is revoked by itself or by its id, and it is said how soon every process knows."""
    key = _howdah(database, "key", "create", "--name", "ci").stdout.strip()
    key_id = key.split("_")[1]
    revoked = _howdah(database, "key", "revoke", key if form == "key" else key_id)
    with psycopg.connect(database) as conn:
        row = conn.execute("SELECT revoked_at IS NOT NULL FROM howdah.api_keys").fetchone()

    assert revoked.stdout == f"revoked {key_id}; API processes that used it lately refuse it within {CACHE_S:g} s\n"
    assert row == (True,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["key", "create", "--name", "x", "--tenant", "nobody"], "there is no tenant 'nobody'"),
        (["key", "create", "--name", ""], "a key's name must have 1 to 128 printable characters"),
        (["key", "create", "--name", " "], "a key's name must have 1 to 128 printable characters"),
        (["key", "create", "--name", "a\nb"], "a key's name must have 1 to 128 printable characters"),
        (["key", "create", "--name", "x" * 129], "a key's name must have 1 to 128 printable characters"),
        (["key", "revoke", "abcdefghijkl"], "there is no such key"),
        (["tenant", "create", "Acme"], "a tenant's name must match"),
    ],
)
def test_refusal_is_one_line_with_1(database: str, arguments: list[str], words: str) -> None:
    """What cannot be done is said in one line, and nothing is stored."""
    refused = _howdah(database, *arguments)
    with psycopg.connect(database) as conn:
        stored = conn.execute("SELECT (SELECT count(*) FROM howdah.api_keys), (SELECT count(*) FROM howdah.tenants)")
        counts = stored.fetchone()

    assert refused.returncode == 1
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert counts == (0, 1)


def test_secret_of_a_mistyped_key_is_not_repeated(database: str) -> None:
    """What may be half of a secret is kept out of the message, which may end up in a log."""
    refused = _howdah(database, "key", "revoke", "hwd_abcdefghijkl_halfasecret")

    assert refused.returncode == 1
    assert "halfasecret" not in refused.stderr
