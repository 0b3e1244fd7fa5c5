"""The life of `howdah up`: PostgreSQL, the schema, the processes; then the same backwards.

Everything is started, watched and stopped from the main thread. The first Ctrl-C
or SIGTERM stops all processes cleanly and PostgreSQL after them; the second does
not wait for what they have under way; the third kills them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import socket
import time
import urllib.request
from typing import TYPE_CHECKING, Final

from howdah.access import keep_key
from howdah.core.credentials import SCOPES, make_key
from howdah.core.db.database import make_database
from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.migrate import migrate
from howdah.core.errors import SettingInvalid, Stopped, UpRefused
from howdah.core.settings import Settings
from howdah.up.children import Children
from howdah.up.directory import DataDirectory
from howdah.up.screen import Screen
from howdah.up.stop import StopRequests

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DATABASE: Final = "howdah"
HANDLERS: Final = "howdah.demo.handlers"
LOOPBACK: Final = "127.0.0.0/8,::1/128"

_TICK_S: Final = 0.2
_READY_S_MAX: Final = 60.0
# What a stop may take beyond the time for draining: handing back, closing connections.
_STOP_S_EXTRA: Final = 10.0
# For the API, a scheduler and people's tools; and for a worker with the pool of its handlers.
_CONNECTIONS: Final = 40
_CONNECTIONS_PER_WORKER: Final = 10


def run(*, port: int, directory: Path, worker_count: int, is_demo: bool) -> int:
    """Run everything until told to stop; return the exit code.

    Args:
        port: Of the API; 0 takes a free one.
        directory: The data directory.
        worker_count: How many worker processes.
        is_demo: Also make a mixed load and show what becomes of it.

    Raises:
        UpRefused: It cannot run here.
        StartRefused: A setting, the server or the schema does not fit.
    """
    stop = StopRequests()
    try:
        # Before anything is started: a wrong setting or a busy port should cost nobody a second.
        Settings.from_env(os.environ, database_url="postgresql:///")
        _refuse_decided(os.environ)
        port = _free_port(port)
        data = DataDirectory(directory)
        data.claim()
        with contextlib.ExitStack() as stack:
            stack.callback(data.release)
            Up(data, port, worker_count, stop, stack).run(is_demo=is_demo)
    except Stopped:
        pass
    return 0


class Up:
    """One run of everything; what it starts is stopped when its stack unwinds, backwards."""

    def __init__(
        self, data: DataDirectory, port: int, worker_count: int, stop: StopRequests, stack: contextlib.ExitStack
    ) -> None:
        """Describe it."""
        self._data = data
        self._port = port
        self._worker_count = worker_count
        self._stop = stop
        self._stack = stack
        self._screen = Screen()
        self._url = f"http://127.0.0.1:{port}"
        self._server: EmbeddedPostgres | None = None

    def run(self, *, is_demo: bool) -> None:
        """Start everything and look after it.

        Raises:
            Stopped: As somebody asked for.
            UpRefused: A process refuses to start.
        """
        self._stack.callback(self._screen.say, "stopped")
        left = self._data.end_leftovers()
        if left:
            self._screen.say(f"ended {left} processes that an earlier howdah up left behind")
        environment = self._prepare()
        settings = Settings.from_env(environment)
        key = self._keep_key(settings)
        self._stop.check()
        children = Children(environment, self._screen, lambda pids: self._data.record(self._url, pids))
        self._stack.callback(self._stop_children, children, settings)
        children.add("api", "api", self._data.log_file("api"))
        children.add("scheduler", "scheduler", self._data.log_file("scheduler"))
        for number in range(1, self._worker_count + 1):
            children.add(f"worker-{number}", "worker", self._data.log_file(f"worker-{number}"))
        self._await_api(children)
        self._await_workers(children, key)
        self._greet(key)
        if is_demo:
            self._start_demo(key)
        while not self._stop.wait(_TICK_S):
            self._tend(children)
        self._stop.check()

    def _prepare(self) -> dict[str, str]:
        """Bring PostgreSQL and the schema up; return the environment of the children."""
        environment = _environment(os.environ, self._port)
        if "HOWDAH_DATABASE_URL" not in environment:
            self._server = EmbeddedPostgres(
                self._data.path,
                options={
                    "max_connections": str(_CONNECTIONS + _CONNECTIONS_PER_WORKER * self._worker_count),
                    "autovacuum_naptime": "10s",
                },
            )
            self._start_server()
            self._stack.callback(self._stop_server)
            make_database(self._server.dsn("postgres"), DATABASE)
            environment["HOWDAH_DATABASE_URL"] = self._server.dsn(DATABASE)
        self._stop.check()
        settings = Settings.from_env(environment)
        migrate(settings.direct_url or settings.database_url, settings.schema)
        return environment

    def _start_server(self) -> None:
        assert self._server is not None
        self._server.start()
        while self._server.notices:
            self._screen.say(self._server.notices.pop(0))

    def _stop_server(self) -> None:
        assert self._server is not None
        self._server.stop()

    def _keep_key(self, settings: Settings) -> str:
        key = self._data.read_key()
        if key is None:
            key = make_key().text
            self._data.write_key(key)
        if not asyncio.run(keep_key(settings, key, name="howdah up", scopes=SCOPES)):
            raise UpRefused(
                f"the key in {self._data.key_file} does not work any more; remove the file to get a new one"
            )
        return key

    def _await_api(self, children: Children) -> None:
        deadline = time.monotonic() + _READY_S_MAX
        while not _answers(f"{self._url}/readyz"):
            if time.monotonic() > deadline:
                raise UpRefused(f"the API was not ready within {_READY_S_MAX:g} s; see {self._data.log_file('api')}")
            if self._stop.wait(_TICK_S / 2):
                self._stop.check()
            self._tend(children)

    def _await_workers(self, children: Children, key: str) -> None:
        """Wait until every worker has imported its handlers and is registered, or one refuses to start.

        One that only takes long, say for large modules, does not keep the others from being used.
        """
        deadline = time.monotonic() + _READY_S_MAX
        while len(_live_workers(self._url, key) & children.pids("worker")) < self._worker_count:
            if time.monotonic() > deadline:
                self._screen.say("not every worker is ready yet; their logs may tell why")
                return
            if self._stop.wait(_TICK_S / 2):
                self._stop.check()
            self._tend(children)

    def _tend(self, children: Children) -> None:
        if self._server is not None and self._server.is_owner and not self._server.is_running():
            self._screen.say(f"PostgreSQL ended; starting it again (its log is {self._server.log_file})")
            self._server.stop()
            self._start_server()
        children.tend()

    def _greet(self, key: str) -> None:
        say = self._screen.say
        curl = f"curl -sS -H 'Authorization: Bearer {key}'"
        body = '{"queue": "hello", "handler": "demo.greet", "payload": {"name": "world"}}'
        say(f"Howdah is up at {self._url}  (its pages: {self._url}/docs)")
        say(f"API key:  {key}  (kept in {shlex.quote(str(self._data.key_file))})")
        say(f"Logs:     {shlex.quote(str(self._data.path / 'logs'))}")
        say(f"Callbacks may reach {LOOPBACK} here; nowhere else but under howdah up is that so.")
        say("Try it:")
        say(f"  {curl} -H 'Content-Type: application/json' -d {shlex.quote(body)} {self._url}/v1/tasks")
        say(f"  {curl} '{self._url}/v1/tasks?queue=hello'")
        say(f"  {curl} '{self._url}/v1/queues/hello/stats'")
        say("Ctrl-C stops it.")

    def _start_demo(self, key: str) -> None:
        from howdah.demo.demo import Demo

        demo = Demo(self._url, key, self._screen)
        self._stack.callback(demo.stop)
        demo.start()

    def _stop_children(self, children: Children, settings: Settings) -> None:
        self._screen.leave()
        self._screen.say(f"stopping; runs under way have {settings.drain_s:g} s (Ctrl-C again: do not wait for them)")
        for sent in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            children.signal(sent)
            if not children.wait(settings.drain_s + _STOP_S_EXTRA, self._stop):
                return


def _environment(inherited: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the environment of the children: ours, with what `howdah up` decides."""
    handlers = ",".join(filter(None, [inherited.get("HOWDAH_HANDLERS", "").strip(), HANDLERS]))
    ranges = ",".join(filter(None, [inherited.get("HOWDAH_CALLBACK_ALLOW_CIDRS", "").strip(), LOOPBACK]))
    environment = {
        "HOWDAH_PUBLIC_URL": f"http://127.0.0.1:{port}",
        **inherited,
        "HOWDAH_API_HOST": "127.0.0.1",
        "HOWDAH_API_PORT": str(port),
        "HOWDAH_HANDLERS": handlers,
        "HOWDAH_CALLBACK_ALLOW_CIDRS": ranges,
        "HOWDAH_LOG_FORMAT": "json",
    }
    if not environment.get("HOWDAH_DATABASE_URL", "").strip():
        environment.pop("HOWDAH_DATABASE_URL", None)
    return environment


def _refuse_decided(inherited: Mapping[str, str]) -> None:
    """Refuse settings that cannot count here, rather than pass them by in silence.

    Raises:
        SettingInvalid: One of them is set.
    """
    for variable in ("HOWDAH_API_HOST", "HOWDAH_API_PORT", "HOWDAH_API_SOCKET"):
        if inherited.get(variable, "").strip():
            raise SettingInvalid(
                variable, "must be unset for howdah up, which listens on 127.0.0.1; choose with --port"
            )
    if inherited.get("HOWDAH_METRICS_PORT", "").strip() not in ("", "0"):
        raise SettingInvalid(
            "HOWDAH_METRICS_PORT",
            "must be 0 or unset for howdah up: one port cannot serve its several processes. With 0 each takes a free "
            "one, which its log names (metrics_port_opened); the API has /metrics on its own port",
        )


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UpRefused(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error
        bound: int = probe.getsockname()[1]
        return bound


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def _live_workers(url: str, key: str) -> set[int]:
    """Return the process ids of this machine's live workers; none if the API does not say."""
    request = urllib.request.Request(f"{url}/v1/workers?limit=200", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            workers = json.load(answer)["data"]
    except OSError:
        return set()
    host = socket.gethostname()
    return {each["pid"] for each in workers if each["state"] == "live" and each["host"] == host}
