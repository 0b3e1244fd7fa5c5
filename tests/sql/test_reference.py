"""What is computed both in Python and in SQL gives the same in both."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from psycopg.types.json import Jsonb

from howdah.core import reader
from howdah.core.errors import DurationInvalid
from howdah.core.ids import IdMint, id_time, uuid7_floor
from howdah.core.retry import DEFAULT, RetryPolicy, check, delay_s
from howdah.core.units import parse_duration

if TYPE_CHECKING:
    import psycopg

DURATIONS = [
    *("0s", "250ms", "30s", "0.5s", "5m", "1.5h", "7d", "PT5M", "PT0.25S", "P1DT12H", "P2W", "P1W2DT3H4M5.5S"),
    *("", " ", "5", "s", "5 s", "-5s", "+5s", "1e3s", ".5s", "5.s", "5S", "1h30m", "2w", "infinity", "5s\n", "\n5s"),
    *("٣s", "P", "PT", "P1Y", "P1M", "PT5", "P1.5D", "pt5m", "P5M", "P1D2W", "PT5M ", "9" * 31 + "d", "9" * 32 + "d"),
]

POLICIES: list[dict[str, Any]] = [
    {},
    {"backoff": "linear", "initial": "10s", "max": "35s"},
    {"backoff": "fixed", "initial": "250ms", "jitter": 0},
    {"backoff": "list", "list": ["1s", "1m", "5m"]},
    {"backoff": "list", "list": ["1h"], "max": "30s", "jitter": 1},
    {"initial": "0s", "factor": 100},
    {"initial": "1s", "max": "0s"},
    {"initial": "1s", "max": "24h", "factor": 100, "jitter": 1},
    {"initial": "10s", "max": "1000s", "factor": 10},
    {"initial": "1ms", "factor": 1},
    {"backoff": "fixed", "initial": "24h", "max": "24h", "jitter": 1},
]

BAD_POLICIES: list[dict[str, Any]] = [
    {"max_attempts": 0},
    {"max_attempts": 1_000_000_000},
    {"max_age": "367d"},
    {"max_age": "0s"},
    {"initial": "1"},
    {"max": "25h"},
    {"factor": 0},
    {"factor": 1e308},
    {"jitter": -0.1},
    {"jitter": 1.1},
    {"backoff": "list"},
    {"list": ["1s"]},
    {"backoff": "list", "list": ["1s"] * 101},
    {"backoff": "list", "list": ["1s", "soon"]},
    {"statuses": []},
    {"statuses": [99]},
    {"statuses": [200, 600]},
    {"statuses": [500] * 101},
    {"errors": []},
    {"errors": ["x", ""]},
    {"errors": ["x" * 201]},
    {"errors": ["x"] * 101},
]


def decoded(policy: dict[str, Any]) -> RetryPolicy:
    """Decode a policy as the API does."""
    return msgspec.convert(policy, RetryPolicy)


@pytest.mark.parametrize("text", DURATIONS)
async def test_duration_is_the_same_in_both(conn: psycopg.AsyncConnection, text: str) -> None:
    """A text is a duration in SQL if it is one in Python, of the same length."""
    try:
        expected: float | None = parse_duration(text)
    except DurationInvalid:
        expected = None
    row = await (await conn.execute("SELECT howdah.duration_s(%s)", [text])).fetchone()

    assert row == (pytest.approx(expected) if expected is not None else None,)


async def test_retry_defaults_are_the_same_in_both(conn: psycopg.AsyncConnection) -> None:
    """A task without a policy on a queue without one gets Python's defaults."""
    row = await (await conn.execute("SELECT howdah.retry_policy('{}', NULL)")).fetchone()

    assert row is not None
    assert decoded(row[0]) == DEFAULT


async def test_retry_delay_is_the_same_in_both(conn: psycopg.AsyncConnection) -> None:
    """Every backoff, from the first to the thousandth attempt, with any jitter."""
    seed = random.randrange(2**32)
    drawn = random.Random(seed)
    cases = [
        (policy, attempt, drawn.choice([0.0, 0.5, drawn.random()]))
        for policy in POLICIES
        for attempt in (1, 2, 3, 4, 5, 8, 9, 10, 11, 20, 200, 1_000)
    ]
    rows = await (
        await conn.execute(
            "SELECT howdah.retry_delay_s(howdah.retry_policy('{}', c.policy), c.attempt, c.unit_random)"
            " FROM unnest(%s::jsonb[], %s::int[], %s::float8[]) WITH ORDINALITY AS c (policy, attempt, unit_random, n)"
            " ORDER BY c.n",
            [[Jsonb(case[0]) for case in cases], [case[1] for case in cases], [case[2] for case in cases]],
        )
    ).fetchall()

    for (policy, attempt, unit_random), (found_s,) in zip(cases, rows, strict=True):
        expected_s = delay_s(decoded(policy), attempt, unit_random)
        assert found_s == pytest.approx(expected_s), f"{policy} attempt {attempt}, {unit_random}, seed {seed}"


@pytest.mark.parametrize("policy", POLICIES + BAD_POLICIES)
async def test_retry_policy_is_allowed_in_both_or_in_neither(
    conn: psycopg.AsyncConnection, policy: dict[str, Any]
) -> None:
    """SQL refuses what Python refuses, at the same field."""
    row = await (await conn.execute("SELECT howdah.retry_problem(%s)", [Jsonb(policy)])).fetchone()
    expected = check(decoded(policy), "/retry")

    assert row is not None
    assert (row[0] is None) == (not expected)
    if expected:
        assert row[0].split(" ")[0] == expected[0].pointer


async def test_number_that_python_takes_for_no_integer_is_refused(conn: psycopg.AsyncConnection) -> None:
    """A failure of a task with "max_attempts": 4.0 could never be recorded: its text is no integer."""
    row = await (await conn.execute("""SELECT howdah.retry_problem('{"max_attempts": 4.0}')""")).fetchone()

    assert row is not None
    assert row[0].startswith("/retry/max_attempts ")


async def test_id_time_and_floor_are_the_same_in_both(conn: psycopg.AsyncConnection) -> None:
    """Partitions are cut where Python says, and the time of an id reads the same."""
    instant = datetime(2026, 5, 1, 12, 30, 15, 123_999, tzinfo=UTC)
    minted = IdMint(lambda: int(instant.timestamp() * 1_000)).mint()
    row = await (await conn.execute("SELECT howdah.id_floor(%s), howdah.id_time(%s)", [instant, minted])).fetchone()

    assert row is not None
    assert row[0].int >> 80 == uuid7_floor(instant).int >> 80
    assert row[0] <= uuid7_floor(instant)
    assert row[1] == id_time(minted) == instant.replace(microsecond=123_000)


async def test_id_minted_by_sql_is_one_of_ours(conn: psycopg.AsyncConnection) -> None:
    """An id made in SQL is a UUIDv7 whose time Python reads."""
    row = await (await conn.execute("SELECT howdah.new_id(), howdah.now()")).fetchone()

    assert row is not None
    assert abs(id_time(row[0]) - row[1]) < timedelta(seconds=1)


async def test_queue_pattern_is_the_same_in_both(conn: psycopg.AsyncConnection) -> None:
    """SQL says of every name and pattern that are allowed what a worker's own matching says."""
    seed = random.randrange(2**32)
    drawn = random.Random(seed)
    letters = "ab_.-0"
    names = ["a", "a" + "_.-" * 40, *("a" + "".join(drawn.choices(letters, k=drawn.randrange(5))) for _ in range(80))]
    patterns = ["*", "?", "a*", "*a", "a_b", "a?b", "a.*", "*.*", "a-*", "**"]
    patterns += ["".join(drawn.choices(letters[:2] + "_.*?", k=drawn.randrange(1, 5))) for _ in range(80)]
    allowed = [each for each in patterns if _is_allowed(each)]
    pairs = [(name, pattern) for name in names for pattern in allowed]
    cursor = await conn.execute(
        "SELECT c.name LIKE ANY (howdah.like_patterns(ARRAY['zzz', c.pattern]))"
        " FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS c (name, pattern, n) ORDER BY c.n",
        [[name for name, _ in pairs], [pattern for _, pattern in pairs]],
    )
    answers = [row[0] for row in await cursor.fetchall()]
    expected = [fnmatchcase(name, pattern) for name, pattern in pairs]

    assert 100 < sum(expected) < len(pairs) - 100
    assert answers == expected, f"seed {seed}"


def _is_allowed(pattern: str) -> bool:
    try:
        return bool(reader.queue_patterns().read(pattern) == (pattern,))
    except ValueError:
        return False
