"""`howdah up --demo`: a mixed load, and a table of what becomes of it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from howdah.demo.load import Client, Kind, Load, RequestFailed, kinds
from howdah.demo.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUND_S: Final = 1.0
# Where nothing can be drawn anew, a line now and then says how it goes.
LINE_EVERY_S: Final = 5.0

_COLUMNS: Final[Sequence[tuple[str, Callable[[Kind], int]]]] = (
    ("sent", lambda kind: kind.sent),
    ("waiting", lambda kind: sum(kind.states[state] for state in ("queued", "scheduled", "blocked"))),
    ("running", lambda kind: kind.states["running"] + kind.states["awaiting_callback"]),
    ("retrying", lambda kind: kind.states["retrying"]),
    ("succeeded", lambda kind: kind.states["succeeded"]),
    ("retried", lambda kind: kind.retried),
    ("dead", lambda kind: kind.states["failed"]),
)
_LEGEND: Final = "retried: of those that succeeded; dead: given up, waiting as dead letters"


class Display(Protocol):
    """Where the demo shows itself."""

    is_terminal: bool

    def say(self, line: str = "") -> None:
        """Write a line."""

    def show(self, block: Sequence[str]) -> None:
        """Replace the block at the bottom."""


class Demo:
    """Sends the load from a thread of its own until it is stopped."""

    def __init__(self, url: str, key: str, display: Display) -> None:
        """Talk to the API at `url` with an API key that may do everything."""
        self._client = Client(url, key)
        self._display = display
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, at latest after the request that is under way."""
        self._is_over.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            receiver = Receiver(self._client.request("GET", "/v1/tenant/callback-secret")["callback_secret"])
        except RequestFailed as error:
            self._display.say(f"the demo cannot begin: {error}")
            return
        try:
            self._rounds(receiver)
        finally:
            receiver.stop()

    def _rounds(self, receiver: Receiver) -> None:
        mix = kinds(receiver.start())
        load = Load(self._client, mix)
        shown_at = time.monotonic()
        while not self._is_over.wait(ROUND_S):
            try:
                load.send()
                load.follow()
            except RequestFailed as error:
                self._display.say(f"demo: {error}")
            if self._display.is_terminal:
                self._display.show(table(mix, receiver))
            elif time.monotonic() - shown_at >= LINE_EVERY_S:
                shown_at = time.monotonic()
                self._display.say(line(mix, receiver))


def table(mix: Sequence[Kind], receiver: Receiver) -> list[str]:
    """Return the lines of the table."""
    width = max(len(kind.name) for kind in mix)
    rows = ["", " " * width + "".join(f"  {title:>{len(title)}}" for title, _ in _COLUMNS)]
    for kind in mix:
        cells = "".join(f"  {read(kind):>{len(title)}}" for title, read in _COLUMNS)
        rows.append(f"{kind.name:<{width}}{cells}")
    return [*rows, _LEGEND, _callbacks(receiver)]


def line(mix: Sequence[Kind], receiver: Receiver) -> str:
    """Return the sums of the table in a line."""
    sums = [f"{sum(read(kind) for kind in mix)} {title}" for title, read in _COLUMNS]
    return f"demo: {', '.join(sums)}; {_callbacks(receiver)}"


def _callbacks(receiver: Receiver) -> str:
    return f"callbacks received: {receiver.genuine} with a genuine signature, {receiver.refused} without"
