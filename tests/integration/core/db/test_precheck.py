"""The start-up examination, on servers that are set up badly."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from howdah.core import metrics
from howdah.core.clock import DatabaseClock
from howdah.core.db import precheck
from howdah.core.db.precheck import check_server
from howdah.core.errors import ClockSkewed, DatabaseUnavailable, ServerRefused
from howdah.core.settings import Settings
from tests.fix_fleet import free_port
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from howdah.core.db.embedded import EmbeddedPostgres


async def names(url: str, connection_count: int = 1, **fields: object) -> list[str]:
    """What a process that starts on this database finds, and is not refused for."""
    settings = Settings(database_url=url, **fields)  # type: ignore[arg-type]
    report = await check_server(settings, "test", DatabaseClock(), connection_count=connection_count)
    return [finding.name for finding in report.findings]


def configure(url: str, assignment: str) -> None:
    """Change a default of the sessions of this database."""
    with psycopg.connect(url, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(assignment)))  # type: ignore[arg-type]


async def test_a_migrated_database_has_no_findings(database: str) -> None:
    """What bin/up and the tests run on is a server that keeps every promise."""
    clock = DatabaseClock()
    report = await check_server(Settings(database_url=database), "test", clock, connection_count=4)

    assert report.findings == ()
    assert abs(report.skew_s) < 1
    assert abs(clock.now_s() - time.time()) < 1
    assert report.version[:2] in {"15", "16", "17", "18"}


async def test_examination_works_before_the_schema_exists(blank_database: str) -> None:
    """`howdah doctor` can be asked first, and a start on an empty database fails for the right reason."""
    assert await names(blank_database) == []


async def test_server_without_fsync_is_refused(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """Both ways in which a crash of the machine can destroy data are named, and the operator's flag allows neither."""
    server = make_server(options={"fsync": "off", "full_page_writes": "off"})
    with pytest.raises(ServerRefused, match=r"^fsync is off.*; full_page_writes is off"):
        await names(server.dsn("postgres"), allow_lossy_commit=True)


async def test_standby_is_refused(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """A process does not start on a server that only replays another's log."""
    server = make_server()
    server.stop()
    cluster = server.data_dir / "pg"
    signal_file = cluster / "standby.signal"
    signal_file.touch()
    owner = cluster.stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    server.start()
    with pytest.raises(ServerRefused, match="read-only"):
        await names(server.dsn("postgres"))


async def test_read_only_server_counts_as_away_for_a_while(database: str) -> None:
    """A process that starts during a failover waits for the standby that it meets, and refuses it in the end."""
    configure(database, "default_transaction_read_only = on")
    settings, clock, now = Settings(database_url=database), DatabaseClock(), time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="is read-only"):
        await check_server(settings, "test", clock, connection_count=1, refuse_read_only_at=now + 60)
    with pytest.raises(ServerRefused, match="is read-only"):
        await check_server(settings, "test", clock, connection_count=1, refuse_read_only_at=now)


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("default_transaction_read_only = on", "read-only"),
        ("synchronous_commit = off", "HOWDAH_ALLOW_LOSSY_COMMIT"),
    ],
)
async def test_session_that_breaks_a_promise_is_refused(database: str, assignment: str, text: str) -> None:
    """What a database sets for its sessions counts like what the server sets."""
    configure(database, assignment)
    with pytest.raises(ServerRefused, match=text):
        await names(database)


async def test_lossy_commit_that_was_allowed_is_shown(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """The operator who accepted the loss sees it in the log and in the metrics."""
    configure(database, "synchronous_commit = off")
    with caplog.at_level(logging.WARNING, logger=precheck.__name__):
        found = await names(database, allow_lossy_commit=True)

    assert found == ["lossy_commit"]
    assert [record.getMessage() for record in caplog.records] == ["server_suspect"]
    assert metrics.REGISTRY.get_sample_value("howdah_durability_degraded") == 1


@pytest.mark.parametrize(
    ("assignment", "name"),
    [
        ("statement_timeout = '5s'", "timeout"),
        ("idle_session_timeout = '1h'", "timeout"),
        ("TimeZone = 'Asia/Tokyo'", "time_zone"),
        ("default_transaction_isolation = 'serializable'", "isolation"),
    ],
)
async def test_odd_defaults_of_sessions_are_warned_about(database: str, assignment: str, name: str) -> None:
    """A process starts all the same, and its log says what may go wrong."""
    configure(database, assignment)

    assert await names(database, direct_url=database) == [name]


async def test_missing_partition_is_warned_about(database: str) -> None:
    """Tomorrow's partition has not been made: the night would be full of refused tasks."""
    with psycopg.connect(database, autocommit=True) as conn:
        row = conn.execute("SELECT to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')").fetchone()
        assert row is not None
        conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("howdah", f"finished_runs_{row[0]}")))

    assert await names(database) == ["partitions"]


async def test_server_with_too_few_connections_is_warned_about(database: str) -> None:
    """A process whose connections will not fit is told before it finds out under load."""
    assert await names(database, connection_count=100_000) == ["connections"]


async def test_superuser_over_the_network_is_warned_about(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """Over a private socket the superuser is the operator; over TCP it is a risk for nothing."""
    port = free_port()
    server = make_server(port=port)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'boss'")
        conn.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")

    assert await names(f"postgresql://boss:boss@127.0.0.1:{port}/postgres") == ["superuser"]
    assert await names(f"postgresql://plain:plain@127.0.0.1:{port}/postgres") == []
    assert await names(server.dsn("postgres")) == []


async def test_machine_whose_clock_is_off_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures and log times of such a machine would mislead; it says by how much it is off."""
    honest = time.time
    monkeypatch.setattr(precheck.time, "time", lambda: honest() - 60)
    with pytest.raises(ClockSkewed) as refusal:
        await names(database)

    assert refusal.value.skew_s == pytest.approx(60, abs=1)


def test_connection_count_of_the_server_is_what_it_admits(make_server: Callable[..., EmbeddedPostgres]) -> None:
    """As many connections fit as the examination says are free."""
    server = make_server(options={"max_connections": "12"})
    url = server.dsn("postgres")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE ROLE plain LOGIN")
        plain = url.replace("//howdah@", "//plain@")

        def free() -> int:
            statement = precheck.load("server.examine", "howdah")
            row = conn.cursor(row_factory=psycopg.rows.dict_row).execute(statement).fetchone()
            assert row is not None
            return int(row["connections_free"])

        others = [psycopg.connect(plain) for _ in range(free())]
        eventually(lambda: free() == 0, 5, "all ordinary slots are taken")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(plain)
        for other in others:
            other.close()
