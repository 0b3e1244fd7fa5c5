"""Arrays of one type, and rows that are not decoded: what PostgreSQL gets and gives is what was meant."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from howdah.core.db.arrays import (
    Array,
    Bools,
    Float4s,
    Float8s,
    Instants,
    Int2s,
    Int4s,
    Texts,
    Uuids,
    instant_us,
    read_raw,
    unix_s,
)
from howdah.core.model import jsonb_text

if TYPE_CHECKING:
    import psycopg

IDS = [uuid.UUID(int=number) for number in (0, 1, 2**128 - 1)]


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (Int2s([1, None, -32768]), "smallint[]", [1, None, -32768]),
        (Int4s([2**31 - 1, -(2**31), None]), "integer[]", [2**31 - 1, -(2**31), None]),
        (Bools([True, None, False]), "boolean[]", [True, None, False]),
        (Int4s([7, 7, 7]), "integer[]", [7, 7, 7]),
        (Int4s([None, None]), "integer[]", [None, None]),
        (Float4s([1.5, None]), "real[]", [1.5, None]),
        (Float4s([1.5, -0.25, 0.0, 3e38]), "real[]", [1.5, -0.25, 0.0, 3e38]),
        (Float8s([0.1, None, 1e300]), "double precision[]", [0.1, None, 1e300]),
        (Float8s([0.1, -1e300, 1e-300]), "double precision[]", [0.1, -1e300, 1e-300]),
        (Texts(["a", None, "", 'ä,{}"\\', "ä".encode()]), "text[]", ["a", None, "", 'ä,{}"\\', "ä"]),
        (Uuids([each.bytes for each in IDS]), "uuid[]", IDS),
        *((kind([]), f"{name}[]", []) for kind, name in ((Int4s, "integer"), (Texts, "text"), (Uuids, "uuid"))),
    ],
)
async def test_array_arrives_as_it_was(
    conn: psycopg.AsyncConnection, array: Array, kind: str, expected: list[Any]
) -> None:
    """Each class travels as its type, also empty and with NULLs."""
    cursor = await conn.execute("SELECT v, pg_typeof(v)::text FROM (SELECT %b AS v) AS x", [array])

    assert await cursor.fetchone() == (expected, kind)


async def test_instants_are_exact_to_the_microsecond(conn: psycopg.AsyncConnection) -> None:
    """An instant read raw and sent back is the same instant."""
    read_raw(conn)
    cursor = await conn.cursor(binary=True).execute("SELECT timestamptz '2026-11-22 00:00:00.000001+00'")
    row = await cursor.fetchone()
    assert row is not None
    cursor = await conn.execute(
        "SELECT (%b)[1] = timestamptz '2026-11-22 00:00:00.000001+00', (%b)[2] IS NULL",
        [Instants([row[0]]), Instants([row[0], None])],
    )

    assert await cursor.fetchone() == (True, True)
    assert unix_s(row[0]) == pytest.approx(1_795_305_600.000001, abs=1e-6)
    assert instant_us(1_795_305_600_000_001) == row[0]


async def test_rows_are_read_without_decoding(conn: psycopg.AsyncConnection) -> None:
    """Ids come as 16 bytes, json byte for byte as it was stored, jsonb as its text."""
    read_raw(conn)
    cursor = await conn.cursor(binary=True).execute(
        """SELECT %s::uuid, '{ "b": 1, "a": 2, "b": 1 }'::json, '{"b":1, "a":2}'::jsonb, NULL::jsonb""", [IDS[1]]
    )
    row = await cursor.fetchone()
    assert row is not None

    assert row[:2] == (IDS[1].bytes, b'{ "b": 1, "a": 2, "b": 1 }')
    assert jsonb_text(row[2]) == b'{"a": 2, "b": 1}'
    assert row[3] is None


async def test_statement_is_prepared_once_whatever_the_numbers_are(conn: psycopg.AsyncConnection) -> None:
    """Small, large and missing numbers are one type, so one plan serves them all."""
    conn.prepare_threshold = 0
    for values in ([1], [100_000], [None], [], [2**31 - 1, 1]):
        await conn.execute("SELECT cardinality(%b::integer[])", [Int4s(values)])
    cursor = await conn.execute(
        "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%cardinality%'", prepare=False
    )

    assert await cursor.fetchone() == (1,)
