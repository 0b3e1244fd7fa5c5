"""The demo's load: tasks of every kind, sent and followed over the HTTP API like any client would."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from howdah.core.errors import HowdahError

if TYPE_CHECKING:
    from collections.abc import Iterator

# At about 12 tasks a round none is followed for longer than a minute or so.
FOLLOWED_MAX: Final = 400
QUICK_RETRY: Final = {"initial": "500ms", "max": "2s"}
_FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "expired"})
_TIMEOUT_S: Final = 5.0


class RequestFailed(HowdahError):
    """The API did not answer a request of the demo as it should."""


class Client:
    """A minimal client of the API over one connection, for one thread."""

    def __init__(self, url: str, key: str) -> None:
        """Talk to the API at `url` with an API key."""
        self._netloc = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._conn: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send a request and return the decoded answer.

        Raises:
            RequestFailed: There was no answer, or its status is none of success.
        """
        written = None if body is None else json.dumps(body)
        try:
            if self._conn is None:
                self._conn = http.client.HTTPConnection(self._netloc, timeout=_TIMEOUT_S)
            self._conn.request(method, path, written, self._headers)
            answer = self._conn.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            if self._conn is not None:
                self._conn.close()
            self._conn = None
            raise RequestFailed(f"{method} {path}: {error}") from error
        if not 200 <= answer.status < 300:
            raise RequestFailed(f"{method} {path}: {answer.status} {text[:200].decode(errors='replace')}")
        return json.loads(text)


@dataclass
class Kind:
    """One kind of task.

    Attributes:
        name: What the table calls it.
        count: How many are sent in a round.
        task: What is posted.
        every: In each how-manieth round they are sent.
        sent: How many were sent so far.
        states: How many are in each state; final ones stay.
        retried: How many succeeded, but not at once.
        followed: Ids of those that have not ended, with their states.
    """

    name: str
    count: int
    task: dict[str, Any]
    every: int = 1
    sent: int = 0
    states: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    followed: dict[str, str] = field(default_factory=dict)


def kinds(receiver_url: str) -> list[Kind]:
    """Return the mix: successes, failures that are retried, delays, and some that fail for good."""

    def callback(path: str, **more: Any) -> dict[str, Any]:
        http = {"url": f"{receiver_url}{path}", **more}
        return {"queue": "demo-callbacks", "http": http, "payload": {"from": "the demo"}}

    def call(handler: str, payload: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"queue": "demo-handlers", "handler": handler, "payload": payload, **more}

    return [
        Kind("handler succeeds", 4, call("demo.greet", {"name": "Hannibal"})),
        Kind("callback succeeds", 2, callback("/ok")),
        Kind("callback, 202", 1, callback("/later", mode="async", callback_timeout="30s")),
        Kind("slow handler", 1, call("demo.report", {"seconds": 1.5})),
        Kind("flaky handler", 1, call("demo.flaky", {"succeeds_at": 3}, retry=QUICK_RETRY)),
        Kind("flaky callback, 503", 1, {**callback("/flaky"), "retry": QUICK_RETRY}),
        Kind("delayed by 5 s", 1, call("demo.greet", {"name": "Surus"}, delay="5s")),
        Kind("broken handler", 1, call("demo.broken", {}, retry={**QUICK_RETRY, "max_attempts": 2}), every=5),
        Kind("callback, 404", 1, callback("/gone"), every=5),
    ]


class Load:
    """Sends the mix round by round and follows every task to its end."""

    def __init__(self, client: Client, mix: list[Kind]) -> None:
        """Send with `client`."""
        self._client = client
        self._mix = mix
        self._round = 0

    def send(self) -> None:
        """Post the tasks of the next round, unless too many of the earlier ones have not ended.

        Raises:
            RequestFailed: The API is away; the round is lost.
        """
        if sum(len(kind.followed) for kind in self._mix) >= FOLLOWED_MAX:
            return
        self._round += 1
        due = [kind for kind in self._mix if (self._round - 1) % kind.every == 0]
        sent = [kind for kind in due for _ in range(kind.count)]
        answer = self._client.request("POST", "/v1/tasks/batch", {"tasks": [kind.task for kind in sent]})
        for kind, result in zip(sent, answer["results"], strict=True):
            if "task" not in result:
                raise RequestFailed(f"{kind.name}: {result}")
            kind.sent += 1
            self._move(kind, result["task"])

    def follow(self) -> None:
        """Look at every task that has not ended.

        Raises:
            RequestFailed: The API is away.
        """
        for kind, task_id in self._followed():
            self._move(kind, self._client.request("GET", f"/v1/tasks/{task_id}"))

    def _followed(self) -> Iterator[tuple[Kind, str]]:
        for kind in self._mix:
            for task_id in list(kind.followed):
                yield kind, task_id

    def _move(self, kind: Kind, task: dict[str, Any]) -> None:
        before = kind.followed.pop(task["id"], None)
        if before is not None:
            kind.states[before] -= 1
        kind.states[task["state"]] += 1
        if task["state"] not in _FINAL:
            kind.followed[task["id"]] = task["state"]
        elif task["state"] == "succeeded" and task["attempt"] > 1:
            kind.retried += 1
