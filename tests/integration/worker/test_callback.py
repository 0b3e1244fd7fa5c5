"""A callback arrives once for each attempt, byte for byte, signed, and its answer is reported truly."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from howdah.core import sign
from howdah.core.errors import ClockUnset
from tests.fix_callback import NOW_S, SECRET, TASK_ID, make_client, make_context, make_request
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from howdah_worker.callback import CallbackClient
    from tests.fix_hostile import HostileServer

pytestmark = pytest.mark.one_server

OTHER_SECRET = "whsec_b3RoZXIga2V5IG9mIDMyIGJ5dGVzLCBmb3IgdGVzdHM="


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="empty object"),
        pytest.param(b"null", id="null"),
        pytest.param(b' {\n"b" : 1.0,\t"a":1e2, "b":2}\r\n', id="white space, order, duplicate keys, numbers"),
        pytest.param('{"ä€😀":"\\u00e4\\/\\ud83d\\ude00"}'.encode(), id="text with and without escapes"),
        pytest.param(b'{"pad":"' + b"x" * 262_134 + b'"}', id="256 KiB"),
        pytest.param(b"[" + b"1234567," * 500_000 + b"0]", id="4 MB"),
    ],
)
async def test_deliver_body_arrives_byte_for_byte_and_signed(
    callbacks: CallbackClient, hostile: HostileServer, body: bytes
) -> None:
    """The receiver gets the very bytes that the client posted, and can verify them."""
    result = await callbacks.deliver(make_request(hostile.url(), body=body), make_context())

    assert result.outcome == "succeeded"
    (received,) = hostile.requests
    assert received.body == body
    assert received.header("content-type") == "application/json"
    assert received.header("content-length") == str(len(body))
    sign.verify(
        SECRET,
        message_id=received.header("webhook-id"),
        timestamp=received.header("webhook-timestamp"),
        signature=received.header("webhook-signature"),
        body=received.body,
        now_s=NOW_S,
    )


async def test_deliver_request_carries_who_sent_it(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """Task, attempt, fence, queue and trace are in the headers, each of them once."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = make_context(attempt=3, claim_no=7, queue="mails.eu-1", traceparent=traceparent)

    await callbacks.deliver(make_request(hostile.url("ok?a=%2F&b=[]")), context)

    (received,) = hostile.requests
    assert received.line == "POST /ok?a=%2F&b=[] HTTP/1.1"
    assert {name.lower(): value for name, value in received.headers} == {
        "host": f"127.0.0.1:{hostile.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": received.header("user-agent"),
        "content-type": "application/json",
        "content-length": "2",
        "webhook-id": TASK_ID,
        "webhook-timestamp": str(int(NOW_S)),
        "webhook-signature": sign.sign(SECRET, TASK_ID, int(NOW_S), b"{}"),
        "howdah-attempt": "3",
        "howdah-fence": "7",
        "howdah-queue": "mails.eu-1",
        "traceparent": traceparent,
    }
    assert received.header("user-agent").startswith("Howdah/")


async def test_deliver_two_secrets_signs_with_both(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """While a tenant replaces its secret, a receiver that knows either can verify."""
    await callbacks.deliver(make_request(hostile.url()), make_context(secrets=(SECRET, OTHER_SECRET)))

    (received,) = hostile.requests
    for secret in (SECRET, OTHER_SECRET):
        sign.verify(
            secret,
            message_id=TASK_ID,
            timestamp=received.header("webhook-timestamp"),
            signature=received.header("webhook-signature"),
            body=b"{}",
            now_s=NOW_S,
        )


async def test_deliver_client_headers_are_sent_as_given(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """A client's own headers arrive in its own letter case; Accept replaces the usual one."""
    headers = {"Authorization": "Bearer abc", "x-Mixed-CASE": "a\tb  c", "Cookie": "s=1", "Accept": "text/plain"}

    await callbacks.deliver(make_request(hostile.url(), headers=headers), make_context())

    (received,) = hostile.requests
    assert [pair for pair in received.headers if pair[0] in headers] == list(headers.items())
    assert received.header("accept") == "text/plain"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_deliver_method_and_content_type_are_the_clients(
    callbacks: CallbackClient, hostile: HostileServer, method: str
) -> None:
    """A task may choose another method, and a body of another type."""
    text = "grüße".encode()
    request = make_request(hostile.url(), method=method, body=text, content_type="text/plain; charset=utf-8")

    result = await callbacks.deliver(request, make_context())

    assert result.outcome == "succeeded"
    (received,) = hostile.requests
    assert received.line == f"{method} /ok HTTP/1.1"
    assert received.body == text
    assert received.header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_deliver_empty_body_has_no_content_type(
    callbacks: CallbackClient, hostile: HostileServer, method: str
) -> None:
    """A request without a body says so, and is signed like any other."""
    hostile.answers["hook"] = b"HTTP/1.1 204 No Content\r\n\r\n"

    result = await callbacks.deliver(make_request(hostile.url("hook"), method=method, body=b""), make_context())

    assert (result.outcome, result.status, result.response_text) == ("succeeded", 204, "")
    (received,) = hostile.requests
    assert "content-type" not in {name.lower() for name, _ in received.headers} or method == "POST"
    assert received.header("webhook-signature") == sign.sign(SECRET, TASK_ID, int(NOW_S), b"")


async def test_deliver_repeated_reuses_one_connection(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """Connections are kept between attempts, whatever the answers were."""
    hostile.answers["busy"] = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"

    for _ in range(10):
        await callbacks.deliver(make_request(hostile.url()), make_context())
        await callbacks.deliver(make_request(hostile.url("busy")), make_context())

    assert len(hostile.requests) == 20
    assert hostile.connection_count == 1


async def test_deliver_concurrently_does_not_wait_for_each_other(
    callbacks: CallbackClient, hostile: HostileServer
) -> None:
    """A receiver that hangs does not hold up deliveries to the same host."""
    hanging = asyncio.create_task(callbacks.deliver(make_request(hostile.url("never"), timeout_s=30), make_context()))
    await eventually_async(lambda: hostile.requests, 5, "the request that hangs has arrived")

    results = await asyncio.gather(
        *(callbacks.deliver(make_request(hostile.url(), timeout_s=5), make_context()) for _ in range(50))
    )

    assert {result.outcome for result in results} == {"succeeded"}
    assert not hanging.done()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_deliver_cancelled_aborts_the_request(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """A hard cancel closes the connection: the receiver can see that nobody waits any more."""
    delivery = asyncio.create_task(callbacks.deliver(make_request(hostile.url("never"), timeout_s=30), make_context()))
    await eventually_async(lambda: hostile.requests, 5, "the request has arrived")

    delivery.cancel()

    with pytest.raises(asyncio.CancelledError):
        await delivery
    await eventually_async(lambda: hostile.open_count == 0, 5, "the connection is closed")


@pytest.mark.parametrize("status", [200, 202, 404, 410, 429, 500, 999])
async def test_deliver_answer_is_reported_with_status_and_text(
    callbacks: CallbackClient, hostile: HostileServer, status: int
) -> None:
    """Status and body of the answer are in the result, for successes and failures alike."""
    hostile.answers["hook"] = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\nRetry-After: 7\r\n\r\nhello" % status

    result = await callbacks.deliver(make_request(hostile.url("hook")), make_context())

    assert (result.status, result.response_text) == (status, "hello")
    assert result.outcome == ("succeeded" if status < 300 else "failed")
    assert result.retry_in_s == (None if status < 300 else 7)
    assert 0 < result.duration_s < 5


async def test_deliver_retry_after_date_is_read_against_the_databases_time(
    callbacks: CallbackClient, hostile: HostileServer
) -> None:
    """A date in Retry-After counts from the database's time, not from this machine's."""
    hostile.answers["hook"] = (
        b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: Tue, 14 Nov 2023 22:15:00 GMT\r\n\r\n"
    )

    result = await callbacks.deliver(make_request(hostile.url("hook")), make_context())

    assert result.retry_in_s == 1_700_000_100 - NOW_S


@pytest.mark.parametrize(("success_statuses", "outcome"), [({404}, "succeeded"), ({200}, "failed"), (set(), "failed")])
async def test_deliver_success_statuses_decide(
    callbacks: CallbackClient, hostile: HostileServer, success_statuses: set[int], outcome: str
) -> None:
    """The client says which statuses count as a success."""
    hostile.answers["hook"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    request = make_request(hostile.url("hook"), success_statuses=frozenset(success_statuses))

    result = await callbacks.deliver(request, make_context())

    assert result.outcome == outcome


@pytest.mark.parametrize(
    ("size", "connection_count"), [(0, 1), (63, 1), (64, 1), (65, 1), (4_096, 1), (65_536, 1), (400_000, 2)]
)
async def test_deliver_answer_is_cut_at_its_limit(
    callbacks: CallbackClient, hostile: HostileServer, size: int, connection_count: int
) -> None:
    """As much of an answer is kept as the setting says; only a long one costs its connection."""
    hostile.answers["hook"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)

    for _ in range(2):
        result = await callbacks.deliver(make_request(hostile.url("hook")), make_context())

    assert result.response_text == "x" * min(size, 64)
    assert hostile.connection_count == connection_count


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"headers": {"X-Note": "a\r\nX-Evil: 1"}}, id="line break in a value"),
        pytest.param({"headers": {"X-Note\r\nEvil": "1"}}, id="line break in a name"),
        pytest.param({"headers": {"Host": "evil"}}, id="Host"),
        pytest.param({"headers": {"Content-Length": "0"}}, id="Content-Length"),
        pytest.param({"headers": {"Transfer-Encoding": "chunked"}}, id="Transfer-Encoding"),
        pytest.param({"headers": {"Connection": "close"}}, id="Connection"),
        pytest.param({"headers": {"webhook-ID": "forged"}}, id="webhook-id"),
        pytest.param({"headers": {"HOWDAH-Fence": "99"}}, id="Howdah-Fence"),
        pytest.param({"content_type": "text/plain\r\nX-Evil: 1"}, id="line break in the content type"),
        pytest.param({"method": "GET / HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET"}, id="request in the method"),
        pytest.param({"method": "CONNECT"}, id="CONNECT"),
        pytest.param({"method": "TRACE"}, id="TRACE"),
        pytest.param({"method": "post"}, id="lower case"),
        pytest.param({"url": "file:///etc/passwd"}, id="file"),
        pytest.param({"url": "http://user:s3cret@127.0.0.1/"}, id="user in the URL"),
        pytest.param({"url": "http://127.0.0.1:22/s3cret"}, id="port"),
        pytest.param({"url": "http://127.1/s3cret"}, id="short address"),
    ],
)
async def test_deliver_request_that_must_not_be_sent_is_final(
    callbacks: CallbackClient, hostile: HostileServer, changes: dict[str, Any]
) -> None:
    """Whatever got into the tables past the API, no forged header or second request leaves the worker."""
    request = make_request(**{"url": hostile.url(), **changes})

    result = await callbacks.deliver(request, make_context())

    assert (result.outcome, result.error_type, result.retryable) == ("failed", "request_invalid", False)
    assert hostile.requests == []
    assert result.error_message
    assert result.error_message.isprintable()
    assert "s3cret" not in result.error_message
    assert "X-Evil" not in result.error_message


@pytest.mark.parametrize("changes", [{"queue": "a\r\nX-Evil: 1"}, {"traceparent": "00\r\nX-Evil: 1"}])
async def test_deliver_context_cannot_break_out_of_a_header(
    callbacks: CallbackClient, hostile: HostileServer, changes: dict[str, str]
) -> None:
    """Our own headers are guarded like the client's."""
    result = await callbacks.deliver(make_request(hostile.url()), make_context(**changes))

    assert result.error_type == "request_invalid"
    assert hostile.requests == []


@pytest.mark.parametrize("secrets", [(), ("whsec_short",), (SECRET, "nonsense")])
async def test_deliver_without_usable_secret_sends_nothing(
    callbacks: CallbackClient, hostile: HostileServer, secrets: tuple[str, ...]
) -> None:
    """Nothing leaves unsigned; the attempt can be repeated when the tenant's secret is repaired."""
    result = await callbacks.deliver(make_request(hostile.url()), make_context(secrets=secrets))

    assert (result.error_type, result.retryable) == ("signing_failed", True)
    assert hostile.connection_count == 0


async def test_deliver_cookies_are_not_kept(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """One tenant's session at a receiver is not used for another tenant's callback."""
    hostile.answers["hook"] = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n"

    for _ in range(2):
        await callbacks.deliver(make_request(hostile.url("hook")), make_context())

    assert len(hostile.requests) == 2
    assert "cookie" not in {name.lower() for name, _ in hostile.requests[1].headers}


async def test_deliver_without_the_databases_time_says_so(hostile: HostileServer) -> None:
    """A message with a made-up timestamp is not sent."""

    def now_s() -> float:
        raise ClockUnset

    async with make_client(now_s=now_s) as client:
        with pytest.raises(ClockUnset):
            await client.deliver(make_request(hostile.url()), make_context())

    assert hostile.connection_count == 0


async def test_client_left_closes_its_connections(hostile: HostileServer) -> None:
    """Nothing stays open when the worker stops, and nothing is delivered after."""
    async with make_client() as client:
        await client.deliver(make_request(hostile.url()), make_context())

    await eventually_async(lambda: hostile.open_count == 0, 5, "the connection is closed")
    with pytest.raises(RuntimeError):
        await client.deliver(make_request(hostile.url()), make_context())
