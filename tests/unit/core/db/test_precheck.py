"""Which servers are refused, and which are only warned about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from howdah.core.db.precheck import Finding, ServerFacts, ServerReport, judge
from howdah.core.errors import ClockSkewed, ServerRefused
from howdah.core.settings import Settings

GOOD = ServerFacts(
    version="18.6",
    version_number=180_006,
    has_fsync=True,
    has_full_page_writes=True,
    synchronous_commit="on",
    is_in_recovery=False,
    is_read_only=False,
    encoding="UTF8",
    time_zone="Europe/Berlin",
    isolation="read committed",
    has_autovacuum=True,
    statement_timeout_s=0,
    idle_session_timeout_s=0,
    is_remote_superuser=False,
    connections_free=10,
    has_partitions=None,
    server_at=datetime(2026, 11, 24, tzinfo=UTC),
)
URL = "postgresql://ann@db/jobs"


def findings(settings: Settings | None = None, **facts: Any) -> list[tuple[str, bool]]:
    """Names of what is found on a good server with some facts changed, and whether each is a refusal."""
    found = judge(replace(GOOD, **facts), settings or Settings(database_url=URL), connection_count=10)
    return [(finding.name, finding.is_refusal) for finding in found]


def test_a_good_server_has_no_findings() -> None:
    """Nothing is said about a server on which every promise holds, whatever its sessions' time zone."""
    assert findings() == []


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"version_number": 149_999}, "version"),
        ({"has_fsync": False}, "fsync"),
        ({"has_full_page_writes": False}, "full_page_writes"),
        ({"is_in_recovery": True}, "read_only"),
        ({"is_read_only": True}, "read_only"),
        ({"encoding": "SQL_ASCII"}, "encoding"),
        ({"synchronous_commit": "off"}, "lossy_commit"),
    ],
)
def test_what_breaks_a_promise_is_refused(facts: dict[str, Any], name: str) -> None:
    """Each of these alone keeps a process from starting."""
    assert findings(**facts) == [(name, True)]


@pytest.mark.parametrize("mode", ["local", "remote_write", "on", "remote_apply"])
def test_commits_that_reach_the_disk_are_accepted(mode: str) -> None:
    """Only `off` answers before the server's own disk has the commit."""
    assert findings(synchronous_commit=mode) == []


def test_lossy_commit_is_only_warned_about_where_it_is_allowed() -> None:
    """The operator may accept the loss, and keeps being told; nothing else is forgiven with it."""
    allowed = Settings(database_url=URL, allow_lossy_commit=True)

    assert findings(allowed, synchronous_commit="off") == [("lossy_commit", False)]
    assert findings(allowed, has_fsync=False) == [("fsync", True)]


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"has_autovacuum": False}, "autovacuum"),
        ({"connections_free": 9}, "connections"),
        ({"has_partitions": False}, "partitions"),
        ({"statement_timeout_s": 59.9}, "timeout"),
        ({"idle_session_timeout_s": 3_600}, "timeout"),
        ({"isolation": "repeatable read"}, "isolation"),
        ({"is_remote_superuser": True}, "superuser"),
    ],
)
def test_what_is_only_odd_is_warned_about(facts: dict[str, Any], name: str) -> None:
    """None of these keeps a process from starting."""
    assert findings(**facts) == [(name, False)]


def test_defaults_of_sessions_count_behind_a_pooler() -> None:
    """Where we cannot set the session up ourselves, the role's defaults are ours."""
    pooled = Settings(database_url=URL, direct_url=URL)

    assert findings(pooled) == [("time_zone", False)]
    assert findings(pooled, time_zone="Etc/UTC") == []


def test_report_names_every_refusal_at_once() -> None:
    """An operator need not restart once for each fault."""
    found = (Finding("fsync", True, "one"), Finding("clock", True, "two"), Finding("timeout", False, "three"))
    with pytest.raises(ServerRefused, match=r"^one; two$"):
        ServerReport("18.6", 6.0, False, found).refuse()


def test_report_tells_a_clock_that_is_off_apart() -> None:
    """A skewed clock is this machine's fault, not the server's."""
    with pytest.raises(ClockSkewed) as refusal:
        ServerReport("18.6", 6.0, False, (Finding("clock", True, "two"),)).refuse()

    assert refusal.value.skew_s == 6.0


def test_report_without_refusals_lets_the_process_start() -> None:
    """Warnings alone stop nobody."""
    ServerReport("18.6", 0.0, True, (Finding("lossy_commit", False, "allowed"),)).refuse()
