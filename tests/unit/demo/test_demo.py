"""The demo: sample handlers, a receiver that believes only what is signed, and its sums."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

import howdah.testing
from howdah.core.sign import make_secret, sign
from howdah.demo import handlers
from howdah.demo.demo import line, table
from howdah.demo.load import kinds
from howdah.demo.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = make_secret()


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    """A receiver and its URL."""
    made = Receiver(SECRET)
    yield made, made.start()
    made.stop()


def _post(url: str, attempt: int = 1, secret: str = SECRET, body: bytes = b"{}") -> int:
    now_s = int(time.time())
    headers = {
        "webhook-id": "t",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign(secret, "t", now_s, body),
        "howdah-attempt": str(attempt),
    }
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST"), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


@pytest.mark.parametrize(
    ("path", "attempt", "status"),
    [
        ("/ok", 1, 200),
        ("/flaky", 1, 503),
        ("/flaky", 2, 503),
        ("/flaky", 3, 200),
        ("/gone", 1, 404),
        ("/later", 1, 202),
    ],
)
def test_receiver_answers_by_path_and_attempt(
    receiver: tuple[Receiver, str], path: str, attempt: int, status: int
) -> None:
    """Each path stands for one kind of receiver."""
    made, url = receiver

    assert _post(url + path, attempt) == status
    assert (made.genuine, made.refused) == (1, 0)


def test_receiver_refuses_a_wrong_signature(receiver: tuple[Receiver, str]) -> None:
    """A callback that somebody else signed is answered 401 and counted."""
    made, url = receiver

    assert _post(f"{url}/ok", secret=make_secret()) == 401
    assert (made.genuine, made.refused) == (0, 1)


def test_greeting_is_returned() -> None:
    """The sample handler's result is what the first curl line of howdah up leads to."""
    assert howdah.testing.run(handlers.greet, {"name": "Surus"}) == {"greeting": "Hello, Surus!"}


def test_flaky_handler_succeeds_in_the_end() -> None:
    """It fails as often as its payload says, and then succeeds."""
    for attempt in (1, 2):
        with pytest.raises(ConnectionError, match=f"attempt {attempt}"):
            howdah.testing.run(handlers.flaky, {"succeeds_at": 3}, attempt=attempt)

    assert howdah.testing.run(handlers.flaky, {"succeeds_at": 3}, attempt=3) == {"attempt": 3}


def test_report_that_is_cancelled_stops_early() -> None:
    """A plain function learns through its context that it should stop, and says that it is not done."""
    context = howdah.testing.FakeContext()
    context.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        howdah.testing.run(handlers.report, {"seconds": 60.0}, context=context)


def test_table_fits_a_terminal_of_80_columns() -> None:
    """No line of it wraps on the narrowest terminal in use."""
    assert max(len(row) for row in table(kinds("http://h"), Receiver(SECRET))) <= 80


def test_sums_stand_in_table_and_line() -> None:
    """Table and line show the same figures."""
    mix = kinds("http://h")
    mix[0].sent, mix[0].states["succeeded"], mix[0].retried = 7, 5, 2
    receiver = Receiver(SECRET)

    assert any(row.startswith(mix[0].name) and "7" in row and "5" in row for row in table(mix, receiver))
    assert "7 sent, 0 waiting, 0 running, 0 retrying, 5 succeeded, 2 retried, 0 dead;" in line(mix, receiver)
