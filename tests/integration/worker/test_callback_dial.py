"""Callbacks reach no address that is refused, whatever a URL, a name server or the environment says."""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_network
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from howdah.core.addresses import AddressPolicy
from howdah_worker import callback_dial
from howdah_worker.callback_dial import AnswerHandler, BlockedAddress, VettedConnector, system_lookup
from tests.fix_callback import make_client, make_context, make_request
from tests.fix_hostile import listen
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from howdah_worker.callback import CallbackClient
    from tests.fix_hostile import HostileServer

pytestmark = pytest.mark.one_server

# For these tests 127.0.0.2 stands for a host on the Internet, and 127.0.0.1 is private.
OUTSIDE = "127.0.0.2"
INSIDE = "127.0.0.1"
OUTSIDE_OPEN = AddressPolicy((ip_network(OUTSIDE),))


@pytest.fixture
async def outside(hostile: HostileServer) -> AsyncIterator[HostileServer]:
    """A receiver outside, on the port of the one inside: only the address tells them apart."""
    async with listen(OUTSIDE, hostile.port) as server:
        yield server


async def test_connector_of_aiohttp_makes_protocols_where_ours_does() -> None:
    """Our limits on answers are put in place through a private name, which must be the one that aiohttp uses."""
    async with aiohttp.TCPConnector() as theirs, VettedConnector(AddressPolicy(), system_lookup, 1) as ours:
        assert type(theirs._factory()) is ResponseHandler
        assert type(ours._factory()) is AnswerHandler


async def connections(server: HostileServer) -> int:
    """Return how many connections a server has had, once it must have seen all of them."""
    _, writer = await asyncio.open_connection(server.host, server.port)
    ours = writer.get_extra_info("sockname")
    await eventually_async(lambda: ours in server.peers, 5, "the connection made last has been accepted")
    writer.close()
    await writer.wait_closed()
    return len(server.peers) - 1


def answering(*answers: list[str]) -> tuple[Callable[[str], list[str]], list[str]]:
    """Return a name server that gives one answer after the other, the last one for ever, and what it was asked."""
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return lookup, asked


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "localhost", "a.localhost."]
)
async def test_deliver_private_host_is_refused_undialled(hostile: HostileServer, host: str) -> None:
    """A URL that names a private address gets no TCP connection at all."""
    async with make_client(AddressPolicy()) as client:
        result = await client.deliver(make_request(hostile.url(host=host)), make_context())

    assert (result.error_type, result.retryable, result.status) == ("blocked_address", False, None)
    assert await connections(hostile) == 0


@pytest.mark.parametrize(
    ("host", "error_type"),
    [
        *((host, "blocked_address") for host in ("127.1", "0x7f000001", "2130706433", "0177.0.0.1", "017700000001")),
        *((host, "blocked_address") for host in ("127.0.0.1.", "0")),
        ("①②⑦.⓪.⓪.①", "request_invalid"),
    ],
)
async def test_deliver_odd_spelling_is_refused_undialled(hostile: HostileServer, host: str, error_type: str) -> None:
    """Spellings that resolvers take for 127.0.0.1 get no TCP connection either."""
    async with make_client(AddressPolicy()) as client:
        result = await client.deliver(make_request(hostile.url(host=host)), make_context())

    assert (result.error_type, result.retryable) == (error_type, False)
    assert await connections(hostile) == 0


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param([INSIDE], id="private"),
        pytest.param([OUTSIDE, INSIDE], id="public first, private second"),
        pytest.param([INSIDE, OUTSIDE], id="private first, public second"),
        pytest.param([OUTSIDE, "::1"], id="public A, private AAAA"),
        pytest.param([OUTSIDE, "::ffff:127.0.0.1"], id="private in disguise"),
        pytest.param([OUTSIDE, "fe80::1%lo"], id="with a zone"),
        pytest.param([OUTSIDE, "not an address"], id="not an address"),
        pytest.param([OUTSIDE] * 50 + [INSIDE], id="private after many"),
    ],
)
async def test_deliver_name_with_any_private_address_is_refused_undialled(
    hostile: HostileServer, outside: HostileServer, addresses: list[str]
) -> None:
    """One private address among those of a name is enough: nothing is dialled."""
    lookup, _ = answering(addresses)

    async with make_client(OUTSIDE_OPEN, lookup=lookup) as client:
        result = await client.deliver(make_request(hostile.url(host="hooks.example")), make_context())

    assert (result.error_type, result.retryable) == ("blocked_address", False)
    assert result.error_message is not None
    assert INSIDE not in result.error_message
    assert await connections(hostile) == 0
    assert await connections(outside) == 0


async def test_deliver_rebound_name_is_dialled_at_the_address_that_was_judged(
    hostile: HostileServer, outside: HostileServer
) -> None:
    """A name is resolved once for a connection: a second answer, which would point inside, is never asked for."""
    lookup, asked = answering([OUTSIDE], [INSIDE])

    async with make_client(OUTSIDE_OPEN, lookup=lookup) as client:
        result = await client.deliver(make_request(hostile.url(host="hooks.example")), make_context())

    assert result.outcome == "succeeded"
    assert asked == ["hooks.example"]
    assert outside.requests[0].header("host") == f"hooks.example:{hostile.port}"
    assert await connections(hostile) == 0


async def test_deliver_name_that_moved_inside_is_refused_for_the_next_connection(
    hostile: HostileServer, outside: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a short life is judged anew for each connection, and never connects inside."""
    monkeypatch.setattr(callback_dial, "NAME_CACHE_S", 0)
    lookup, asked = answering([OUTSIDE], [INSIDE])
    url = hostile.url("ok-without-length", host="hooks.example")

    async with make_client(OUTSIDE_OPEN, lookup=lookup) as client:
        first = await client.deliver(make_request(url), make_context())
        second = await client.deliver(make_request(url), make_context())

    assert first.outcome == "succeeded"
    assert second.error_type == "blocked_address"
    assert len(asked) == 2
    assert await connections(hostile) == 0


async def test_deliver_kept_connection_stays_at_its_judged_address(
    hostile: HostileServer, outside: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is reused goes where it was judged to go, although the name points inside by then."""
    monkeypatch.setattr(callback_dial, "NAME_CACHE_S", 0)
    lookup, _ = answering([OUTSIDE], [INSIDE])

    async with make_client(OUTSIDE_OPEN, lookup=lookup) as client:
        for _ in range(3):
            result = await client.deliver(make_request(hostile.url(host="hooks.example")), make_context())
            assert result.outcome == "succeeded"

    assert len(outside.requests) == 3
    assert await connections(outside) == 1
    assert await connections(hostile) == 0


async def test_connector_literal_address_is_judged_when_dialled(hostile: HostileServer) -> None:
    """The last guard does not depend on the checks before it: no socket is made for a refused address."""
    lookup, asked = answering([OUTSIDE])
    connector = VettedConnector(AddressPolicy(), lookup, 1_024)

    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(hostile.url())

    assert isinstance(caught.value.os_error, BlockedAddress)
    assert asked == []
    assert await connections(hostile) == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_deliver_redirect_inside_is_not_followed(
    hostile: HostileServer, outside: HostileServer, status: int
) -> None:
    """A receiver cannot send a callback on to a private address, nor in circles."""
    outside.answers["hook"] = (
        f"HTTP/1.1 {status} Moved\r\nLocation: {hostile.url()}?s3cret\r\nContent-Length: 0\r\n\r\n".encode()
    )

    async with make_client(OUTSIDE_OPEN) as client:
        result = await client.deliver(make_request(outside.url("hook", host=OUTSIDE)), make_context())

    assert (result.error_type, result.retryable, result.status) == ("redirect", False, status)
    assert result.error_message == f"answered {status}: redirects are not followed; it points to {hostile.url()}"
    assert len(outside.requests) == 1
    assert await connections(hostile) == 0


async def test_deliver_proxy_of_the_environment_is_ignored(
    hostile: HostileServer, outside: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables meant for other programs do not send callbacks elsewhere."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{INSIDE}:{hostile.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async with make_client(OUTSIDE_OPEN) as client:
        result = await client.deliver(make_request(outside.url(host=OUTSIDE)), make_context())

    assert result.outcome == "succeeded"
    assert await connections(hostile) == 0


async def test_deliver_second_address_is_tried_when_the_first_refuses(hostile: HostileServer) -> None:
    """A host of several addresses is reached while one of them answers."""
    lookup, _ = answering([OUTSIDE, INSIDE])

    async with make_client(lookup=lookup) as client:
        result = await client.deliver(make_request(hostile.url(host="hooks.example")), make_context())

    assert result.outcome == "succeeded"
    assert len(hostile.requests) == 1


async def test_deliver_closed_port_fails_to_connect(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """A receiver that is down is tried again."""
    with socket.create_server((INSIDE, 0)) as unused:
        port = unused.getsockname()[1]

    result = await callbacks.deliver(make_request(f"http://{INSIDE}:{port}/s3cret"), make_context())

    assert (result.error_type, result.retryable) == ("connect_failed", True)
    assert result.error_message == f"no connection to http://{INSIDE}:{port}: Connection refused"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), id="no such name"),
        pytest.param(socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), id="name server does not answer"),
        pytest.param(UnicodeError("label too long"), id="not encodable"),
        pytest.param(None, id="no addresses"),
    ],
)
async def test_deliver_unresolvable_name_is_tried_again(error: Exception | None) -> None:
    """A name without an address today may have one tomorrow."""

    def lookup(host: str) -> list[str]:
        if error is not None:
            raise error
        return []

    async with make_client(lookup=lookup) as client:
        result = await client.deliver(make_request("http://hooks.example/s3cret"), make_context())

    assert (result.error_type, result.retryable) == ("dns_failed", True)
    assert result.error_message == "http://hooks.example:80 cannot be reached: the name has no address"


async def test_deliver_without_threads_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker at its limit of threads reports that the name was not resolved, and goes on."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with make_client() as client:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        result = await client.deliver(make_request("http://hooks.example/"), make_context())

    assert (result.error_type, result.retryable) == ("dns_failed", True)


async def test_deliver_hanging_name_server_holds_up_nobody_else(hostile: HostileServer) -> None:
    """Lookups that hang end with their attempts' timeouts, and other names resolve meanwhile."""
    answer = threading.Event()
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        if host.startswith("hanging"):
            asked.append(host)
            answer.wait(30)
        return [INSIDE]

    try:
        async with make_client(lookup=lookup) as client:
            hanging = [
                asyncio.create_task(
                    client.deliver(make_request(hostile.url(host=f"hanging{n}.example"), timeout_s=1), make_context())
                )
                for n in range(50)
            ]
            await eventually_async(lambda: len(asked) == 50, 5, "all names that hang are being looked up")
            good = await client.deliver(make_request(hostile.url(host="good.example")), make_context())
            results = await asyncio.gather(*hanging)
    finally:
        answer.set()

    assert good.outcome == "succeeded"
    assert good.duration_s < 1
    assert {result.error_type for result in results} == {"timeout"}
    assert max(result.duration_s for result in results) < 2


@pytest.mark.slow
async def test_deliver_connection_has_five_seconds(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """A handshake that hangs ends after 5 s, long before the timeout of the attempt."""
    result = await callbacks.deliver(make_request(hostile.url(scheme="https"), timeout_s=60), make_context())

    assert (result.error_type, result.retryable) == ("connect_failed", True)
    assert 5 <= result.duration_s < 6
    await eventually_async(lambda: hostile.open_count == 0, 5, "the connection is closed")


async def test_system_lookup_finds_the_addresses_of_localhost() -> None:
    """The operating system's resolver is asked as it should be."""
    found = await asyncio.to_thread(system_lookup, "localhost")

    assert {"127.0.0.1", "::1"} & set(found)
