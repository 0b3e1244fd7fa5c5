"""The spelling of callback URLs and headers: SQL, which stores tasks, and the worker, which dials, agree."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from howdah.core.addresses import AddressPolicy, CallbackUrl, check_url
from howdah.core.callback_headers import check_headers
from howdah_worker.callback_request import request_of

if TYPE_CHECKING:
    import psycopg

# Which addresses may be dialled is not SQL's to know.
ANYWHERE = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))

URLS = [
    "http://a",
    "HTTPS://A.example/",
    "http://a.example.:80/?",
    "https://a.example:443",
    "https://a_b-c.example:1024/x?y=%20#",
    "https://a.example:65535/x",
    "https://a.example:65536/x",
    "https://a.example:1023",
    "https://a.example:0",
    "https://a.example:/",
    "https://a.example:80a/",
    "https://a.example/x?y=[1]|2&z='(,)*;+=!$@:~",
    "https://a.example/\\b",
    "https://a.example/<b>",
    "https://a.example/a b",
    "https://a.example/ä",
    "https://ä.example/",
    "https://user@a.example/",
    "https://user:pw@a.example/",
    "https://a.example?x=1",
    "https://a.example#x",
    "https://?x",
    "https:///x",
    "https://",
    "https:/a.example",
    "//a.example",
    "ftp://a.example",
    "javascript:alert(1)",
    "",
    "http://127.0.0.1/",
    "http://127.0.0.1.:80/",
    "http://127.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.256/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://a.0x7f/",
    "http://1.2.3.4.5/",
    "http://a.1/",
    "http://[::1]:8080/x",
    "http://[::ffff:127.0.0.1]/",
    "http://[1:2:3:4:5:6:7:8]/",
    "http://[1::2::3]/",
    "http://[127.0.0.1]/",
    "http://[::1/",
    "http://[fe80::1%25eth0]/",
    "http://a..b/",
    "http://.a/",
    "http://a../",
    "http://-a-/",
    "http://" + "a" * 63 + ".example/",
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 126 + "a/",
    "http://" + "a." * 127 + "a/",
    "http://a.example/" + "x" * (2048 - 17),
    "http://a.example/" + "x" * (2049 - 17),
]

HEADERS: list[dict[str, str]] = [
    {},
    {"X-A": "b", "Authorization": "Bearer x y"},
    {"X-A": ""},
    {"X-A": " b"},
    {"X-A": "b\t"},
    {"X-A": "a\tb"},
    {"X-A": "ä"},
    {"X-A": "a\r\nB: c"},
    {"X A": "b"},
    {"": "b"},
    {"X:": "b"},
    {"x" * 128: "b"},
    {"x" * 129: "b"},
    {"X-A": "b", "x-a": "c"},
    {"Host": "a"},
    {"hOsT": "a"},
    {"User-Agent": "a"},
    {"tracestate": "a"},
    {"Webhook-Id": "a"},
    {"Howdah-Fence": "a"},
    {"Proxy-Authorization": "a"},
    {"Webhooks": "a"},
    {"Content-Type": "a"},
    {f"X-{number}": "a" for number in range(64)},
    {f"X-{number}": "a" for number in range(65)},
    {"X-A": "a" * (6144 - 7)},
    {"X-A": "a" * (6145 - 7)},
]


async def _problem(conn: psycopg.AsyncConnection, http: dict[str, object]) -> str | None:
    cursor = await conn.execute("SELECT howdah.http_problem(%s::jsonb, false)", [json.dumps(http)])
    row = await cursor.fetchone()
    assert row is not None
    found: str | None = row[0]
    return found


async def test_urls_are_judged_alike_by_sql_and_worker(conn: psycopg.AsyncConnection) -> None:
    """What is stored can be dialled, and what cannot be dialled for its spelling is not stored."""
    by_sql = {url: await _problem(conn, {"url": url}) is None for url in URLS}
    by_worker = {url: isinstance(check_url(url, ANYWHERE), CallbackUrl) for url in URLS}

    assert by_sql == by_worker
    assert {True, False} == set(by_sql.values())


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: str(headers)[:30])
async def test_headers_are_judged_alike_by_sql_and_worker(
    conn: psycopg.AsyncConnection, headers: dict[str, str]
) -> None:
    """The worker never finds a header at an attempt that SQL let pass at the creation."""
    found = await _problem(conn, {"url": "https://example.com", "headers": headers})

    assert (found is None) == (check_headers(headers) == [])


@pytest.mark.parametrize("status", ["200", "599", "99", "600", "200.0", "2e2", "1e400", '"200"', "null"])
async def test_statuses_are_judged_alike_by_sql_and_worker(conn: psycopg.AsyncConnection, status: str) -> None:
    """What SQL lets pass the worker can read; else the task would end at its first attempt, unreadable."""
    written = f'{{"url": "https://example.com", "success_statuses": [{status}]}}'
    cursor = await conn.execute(
        "SELECT http::text, howdah.http_problem(http, false) FROM (SELECT %s::jsonb) AS t (http)", [written]
    )
    row = await cursor.fetchone()
    assert row is not None
    stored, problem = row

    assert (problem is None) == (status in ("200", "599", "2e2"))
    if problem is None:
        assert request_of(stored.encode(), None, 1.0).success_statuses
