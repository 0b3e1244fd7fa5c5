"""Tasks as clients write them, and what becomes of each: the same over HTTP and over SQL.

Each is the JSON text of one task, kept as text because what is inside a payload
must stay as it came.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Refused(NamedTuple):
    """A task that is refused, and where the error points.

    Over HTTP the code is `http_code`, where one is given: a body that is no good JSON is refused as a whole,
    and so is a callback to an address that the API knows to be special.
    """

    text: str
    pointer: str
    code: str = "validation"
    http_code: str | None = None


def _nested(levels: int) -> str:
    return "[" * levels + "]" * levels


# Payloads that are stored byte for byte.
PAYLOADS: Final = [
    r'{"b": 1,  "a": 2,"b":3}',
    '{\n\t"list": [ 1 ,2, 3 ]\n}',
    r'"top level \" with \\ escapes \u00e9 é"',
    r'"\\u0000 and \\ud800 are just letters"',
    r'"\ud83d\ude00"',
    "12345678901234567890.123456789012345678901234567890",
    "1e308",
    "1e-400",
    "[1E+300, 0e999]",
    '"1e999 is just a text, and so is ' + "9" * 400 + '"',
    "-0.0",
    "true",
    "[]",
    "{}",
    '""',
    '"' + "x" * 200_000 + '"',
    _nested(64),
    '"' + _nested(100) + '"',
    "[" + "{}," * 100 + "{}]",
]

ACCEPTED: Final = [
    '{"queue": "q", "handler": "h"}',
    '{"queue": "a.b_c-9", "handler": "0"}',
    '{"queue": "q", "handler": "h", "payload": null}',
    '{"queue": "q", "handler": "h", "priority": "critical", "timeout": "0.1s", "delay": "366d"}',
    '{"queue": "q", "handler": "h", "delay": "366d", "expires_in": "366d"}',
    '{"queue": "q", "handler": "h", "expires_in": "1ms"}',
    '{"queue": "q", "handler": "h", "timeout": "PT24H", "retry": {"max_attempts": 1000, "backoff": "fixed"}}',
    '{"queue": "q", "handler": "h", "retry": {"backoff": "list", "list": ["0s", "24h"], "jitter": 0}}',
    '{"queue": "q", "handler": "h", "retry": {"statuses": [404, 500], "errors": ["timeout", "Überlauf"]}}',
    '{"queue": "q", "handler": "h", "flow": {"key": "customer-42", "concurrency": 1}}',
    '{"queue": "q", "handler": "h", "flow": {"key": "é 1", "rate": {"limit": 1000000, "period": "24h", "burst": 1}}}',
    '{"queue": "q", "handler": "h", "tags": {"a": "", "b.c": "é"}}',
    '{"queue": "q", "handler": "h", "dedup": {"key": "order: 17 ü", "until": "PT1H", "on_conflict": "replace"}}',
    '{"queue": "q", "handler": "h", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}',
    '{"queue": "q", "http": {"url": "https://example.com"}}',
    '{"queue": "q", "http": {"url": "http://[2606:4700::1]:8080/a?b=%20", "method": "PUT", "headers": {"X-A": "b"}}}',
    '{"queue": "q", "http": {"url": "https://example.com", "body": "a=b", "content_type": "text/plain"}}',
    '{"queue": "q", "http": {"url": "https://example.com", "success_statuses": [200, 404]}, "payload": {}}',
]

REFUSED: Final = [
    Refused('{"queue": "q", "handler": "h", "dedup": {"key": ""}}', "/dedup/key"),
    Refused('{"queue": "q", "handler": "h", "dedup": {"key": "k", "until": "0.5s"}}', "/dedup/until"),
    Refused('{"queue": "q", "handler": "h", "dedup": {"key": "k", "on_conflict": "ignore"}}', "/dedup/on_conflict"),
    Refused('{"queue": "q", "handler": "h", "dedup": {"key": "k", "by": "queue"}}', "/dedup/by"),
    Refused('{"queue": "q", "handler": "h", "dedup": null}', "/dedup"),
    Refused('{"handler": "h"}', "/queue"),
    Refused('{"queue": null, "handler": "h"}', "/queue"),
    Refused('{"queue": "", "handler": "h"}', "/queue"),
    Refused('{"queue": "Q", "handler": "h"}', "/queue"),
    Refused('{"queue": "../q", "handler": "h"}', "/queue"),
    Refused('{"queue": ".q", "handler": "h"}', "/queue"),
    Refused('{"queue": "q\\n", "handler": "h"}', "/queue"),
    Refused('{"queue": "' + "q" * 129 + '", "handler": "h"}', "/queue"),
    Refused('{"queue": 5, "handler": "h"}', "/queue"),
    Refused('{"queue": ["q"], "handler": "h"}', "/queue"),
    Refused('{"queue": "q"}', "/handler"),
    Refused('{"queue": "q", "handler": "H"}', "/handler"),
    Refused('{"queue": "q", "handler": 1}', "/handler"),
    Refused('{"queue": "q", "handler": "h", "http": {"url": "https://example.com"}}', "/handler"),
    Refused('{"queue": "q", "handler": "h", "priority": "urgent"}', "/priority"),
    Refused('{"queue": "q", "handler": "h", "priority": 1}', "/priority"),
    Refused('{"queue": "q", "handler": "h", "delay": 5}', "/delay"),
    Refused('{"queue": "q", "handler": "h", "delay": "-5s"}', "/delay"),
    Refused('{"queue": "q", "handler": "h", "delay": "soon"}', "/delay"),
    Refused('{"queue": "q", "handler": "h", "delay": "367d"}', "/delay"),
    Refused('{"queue": "q", "handler": "h", "delay": "99999999999999999999d"}', "/delay"),
    Refused('{"queue": "q", "handler": "h", "delay": "5s", "run_at": "2026-01-01T00:00:00Z"}', "/delay"),
    Refused('{"queue": "q", "handler": "h", "run_at": "infinity"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "2026-02-30T00:00:00Z"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "2026-01-01T00:00:00"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "2026-01-01T23:59:60Z"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "2026-01-01T00:00:00+99:99"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "2026-01-01T00:00:00+23:00"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "0001-01-01T00:00:00Z"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": "9999-12-31T00:00:00Z"}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "run_at": 1767225600}', "/run_at"),
    Refused('{"queue": "q", "handler": "h", "expires_at": "soon"}', "/expires_at"),
    Refused('{"queue": "q", "handler": "h", "expires_at": "infinity"}', "/expires_at"),
    Refused('{"queue": "q", "handler": "h", "expires_at": "2026-02-30T00:00:00Z"}', "/expires_at"),
    Refused('{"queue": "q", "handler": "h", "expires_at": 1767225600}', "/expires_at"),
    Refused('{"queue": "q", "handler": "h", "expires_at": "2026-01-01T00:00:00Z"}', "/expires_at"),
    Refused('{"queue": "q", "handler": "h", "expires_at": "9999-12-31T00:00:00Z"}', "/expires_at"),
    Refused('{"queue": "q", "handler": "h", "expires_in": "0s"}', "/expires_in"),
    Refused('{"queue": "q", "handler": "h", "expires_in": "-5s"}', "/expires_in"),
    Refused('{"queue": "q", "handler": "h", "expires_in": "367d"}', "/expires_in"),
    Refused('{"queue": "q", "handler": "h", "expires_in": "99999999999999999999d"}', "/expires_in"),
    Refused('{"queue": "q", "handler": "h", "expires_in": 60}', "/expires_in"),
    Refused('{"queue": "q", "handler": "h", "expires_in": "1h", "expires_at": "2026-01-01T00:00:00Z"}', "/expires_in"),
    Refused('{"queue": "q", "handler": "h", "timeout": "0s"}', "/timeout"),
    Refused('{"queue": "q", "handler": "h", "timeout": "25h"}', "/timeout"),
    Refused('{"queue": "q", "handler": "h", "timeout": true}', "/timeout"),
    *(
        Refused('{"queue": "q", "handler": "h", "' + field + '": null}', "/" + field)
        for field in (
            "http",
            "priority",
            "run_at",
            "delay",
            "expires_at",
            "expires_in",
            "timeout",
            "retry",
            "flow",
            "tags",
            "traceparent",
        )
    ),
    Refused('{"queue": "q", "handler": "h", "timeout": -1}', "/timeout"),
    Refused('{"queue": "q", "handler": "h", "timeout": 1e18}', "/timeout"),
    Refused('{"queue": "q", "handler": "h", "timeout": "5"}', "/timeout"),
    Refused('{"queue": "q", "handler": "h", "retry": {"initial": null}}', "/retry/initial"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max": "25h"}}', "/retry/max"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": 1000000000}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": 9223372036854775808}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": 18446744073709551616}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": ' + "9" * 100 + "}}", "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": 1.5}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": true}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"jitter": 1.1}}', "/retry/jitter"),
    Refused('{"queue": "q", "handler": "h", "retry": []}', "/retry"),
    Refused('{"queue": "q", "handler": "h", "retry": {"backoff": "list", "list": []}}', "/retry/list"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": []}}', "/retry/statuses"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": 500}}', "/retry/statuses"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": null}}', "/retry/statuses"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": [500, 600]}}', "/retry/statuses/1"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": ["500"]}}', "/retry/statuses/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": [500.5]}}', "/retry/statuses/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": [-500]}}', "/retry/statuses/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"statuses": [1e30]}}', "/retry/statuses/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"errors": [""]}}', "/retry/errors/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"errors": [null]}}', "/retry/errors/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"errors": ["' + "x" * 201 + '"]}}', "/retry/errors/0"),
    Refused('{"queue": "q", "handler": "h", "retry": {"errors": [' + '"x",' * 100 + '"x"]}}', "/retry/errors"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": 0}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"max_attempts": "4"}}', "/retry/max_attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"attempts": 4}}', "/retry/attempts"),
    Refused('{"queue": "q", "handler": "h", "retry": {"factor": 1e308}}', "/retry/factor"),
    Refused('{"queue": "q", "handler": "h", "retry": {"factor": 1e400000}}', "/retry/factor", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "retry": ' + "9" * 140_000 + "}", "/retry", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "tags": {"a": -1E+400000}}', "/tags/a", http_code="invalid_json"),
    Refused('{"queue": "q", "http": {"url": 1e400000}}', "/http/url", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "retry": {"backoff": "list", "list": ["1s", "x"]}}', "/retry/list/1"),
    *(
        Refused('{"queue": "q", "handler": "h", "flow": ' + flow + "}", "/flow" + pointer)
        for flow, pointer in (
            ('"k"', ""),
            ('{"key": "k"}', ""),
            ('{"concurrency": 1}', "/key"),
            ('{"key": "", "concurrency": 1}', "/key"),
            ('{"key": "' + "x" * 10_000 + '", "concurrency": 1}', "/key"),
            ('{"key": "a\\nb", "concurrency": 1}', "/key"),
            ('{"key": 7, "concurrency": 1}', "/key"),
            ('{"key": null, "concurrency": 1}', "/key"),
            ('{"key": "k", "concurrency": 0}', "/concurrency"),
            ('{"key": "k", "concurrency": -1}', "/concurrency"),
            ('{"key": "k", "concurrency": 1.5}', "/concurrency"),
            ('{"key": "k", "concurrency": 1000001}', "/concurrency"),
            ('{"key": "k", "concurrency": 1000000000000}', "/concurrency"),
            ('{"key": "k", "concurrency": "1"}', "/concurrency"),
            ('{"key": "k", "rate": 5}', "/rate"),
            ('{"key": "k", "rate": {"period": "1s"}}', "/rate/limit"),
            ('{"key": "k", "rate": {"limit": 0, "period": "1s"}}', "/rate/limit"),
            ('{"key": "k", "rate": {"limit": 1}}', "/rate/period"),
            ('{"key": "k", "rate": {"limit": 1, "period": "0s"}}', "/rate/period"),
            ('{"key": "k", "rate": {"limit": 1, "period": "2d"}}', "/rate/period"),
            ('{"key": "k", "rate": {"limit": 1, "period": "1s", "burst": 0}}', "/rate/burst"),
            ('{"key": "k", "rate": {"limit": 1, "period": "1s", "per": 1}}', "/rate/per"),
            ('{"key": "k", "concurrency": 1, "limit": 1}', "/limit"),
        )
    ),
    Refused('{"queue": "q", "handler": "h", "tags": {"a": 1}}', "/tags/a"),
    Refused('{"queue": "q", "handler": "h", "tags": "a"}', "/tags"),
    Refused('{"queue": "q", "handler": "h", "traceparent": "junk"}', "/traceparent"),
    Refused('{"queue": "q", "handler": "h", "tags": {"A": "b"}}', "/tags"),
    Refused('{"queue": "q", "handler": "h", "tags": {"a": "' + "x" * 257 + '"}}', "/tags/a"),
    Refused('{"queue": "q", "handler": "h", "priorty": "high"}', "/priorty"),
    Refused('{"queue": "q", "handler": "h", "tenant_id": 2}', "/tenant_id"),
    Refused('{"queue": "q", "handler": "h", "state": "running"}', "/state"),
    Refused('{"queue": "q", "http": "https://example.com"}', "/http"),
    Refused('{"queue": "q", "http": {}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "ftp://example.com"}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "https://a@example.com"}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "http://0x7f.1/"}}', "/http/url", http_code="blocked_address"),
    Refused('{"queue": "q", "http": {"url": "http://2130706433/"}}', "/http/url", http_code="blocked_address"),
    Refused('{"queue": "q", "http": {"url": "http://a..b/"}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "https://example.com:22/"}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": 5}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "https://example.com", "retries": 5}}', "/http/retries"),
    Refused('{"queue": "q", "http": {"url": "https://example.com", "headers": {"X": 1}}}', "/http/headers/X"),
    Refused('{"queue": "q", "http": {"url": "https://example.com/#a"}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "https://ex ample.com/"}}', "/http/url"),
    Refused('{"queue": "q", "http": {"url": "https://example.com", "method": "TRACE"}}', "/http/method"),
    Refused('{"queue": "q", "http": {"url": "https://example.com", "headers": {"Host": "a"}}}', "/http/headers/Host"),
    Refused(
        '{"queue": "q", "http": {"url": "https://example.com", "headers": {"X": "a\\r\\nY: b"}}}', "/http/headers/X"
    ),
    Refused('{"queue": "q", "http": {"url": "https://example.com", "body": "a"}, "payload": 1}', "/http/body"),
    Refused(
        '{"queue": "q", "http": {"url": "https://example.com", "success_statuses": [99]}}', "/http/success_statuses"
    ),
    Refused('{"queue": "q", "handler": "h", "payload": "a\\u0000"}', "/payload"),
    Refused('{"queue": "q", "handler": "h", "payload": {"\\u0000": 1}}', "/payload"),
    Refused('{"queue": "q", "handler": "h", "payload": [1e400000, "\\u0000"]}', "/payload", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "payload": 1e999}', "/payload", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "payload": [-1E+309]}', "/payload", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "payload": ' + "9" * 400 + "}", "/payload", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "payload": "\\ud800"}', "/payload", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "payload": "\\udc00\\ud800"}', "/payload", http_code="invalid_json"),
    Refused('{"queue": "q", "handler": "h", "payload": ' + _nested(65) + "}", "/payload", http_code="json_too_deep"),
    Refused(
        '{"queue": "q", "handler": "h", "payload": ' + '{"a":[' * 33 + "]}" * 33 + "}",
        "/payload",
        http_code="json_too_deep",
    ),
    Refused('{"queue": "q", "handler": "h", "payload": "' + "x" * 262_143 + '"}', "/payload", "payload_too_large"),
]
