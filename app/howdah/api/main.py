"""The API process: the application, and how it is served.

Starting does not wait for PostgreSQL: the port opens at once, /readyz says what
is missing, and every request that needs the database gets 503 until it is there.
A server or schema that this release must not work on ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.routing import Router

from howdah.api.backend import Backend
from howdah.api.middleware import Edge
from howdah.api.routes import not_found, routes
from howdah.core import garbage
from howdah.core.errors import SettingInvalid
from howdah.core.health import Readiness
from howdah.core.service import ExitCode, Service, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from howdah.core.settings import Settings

# Requests under way at a stop are bounded by the writer's own limits, which are shorter.
STOP_S_MAX: Final = 15
# Idle connections of a proxy's pool should be closed by the proxy, which nginx does after 60 s.
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 2_048

_log: Final = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    readiness: Readiness | None = None,
    on_failure: Callable[[BaseException], None] | None = None,
) -> Edge:
    """Make the ASGI application; its lifespan starts and stops everything that it works with.

    It is Starlette's router inside our own edge: the other layers of a `Starlette`
    object turn exceptions into responses, which the edge does (measured, they
    took a quarter of an empty request).

    Args:
        settings: Of the process.
        readiness: Shared with the process that serves it.
        on_failure: Called when something happened that must end the process.
    """
    checks = readiness or Readiness()

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        app.backend = backend = Backend(settings, checks)
        running = backend.start()
        if on_failure is not None:
            running.add_done_callback(lambda ended: _report(ended, on_failure))
        try:
            yield
        finally:
            await backend.stop()

    app = Edge(Router(routes(), redirect_slashes=False, default=not_found, lifespan=lifespan))
    return app


def main(settings: Settings) -> ExitCode:
    """Serve the API until a signal asks for a stop, and return the exit code."""
    # Health and metrics have the API's own port.
    return run(_serve, dataclasses.replace(settings, metrics_port=None), "api")


def listen(settings: Settings) -> socket.socket:
    """Open the socket that the API is to listen on.

    Raises:
        SettingInvalid: Nothing can listen there.
    """
    path = settings.api_socket
    try:
        if path is None:
            family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
            return socket.create_server((settings.api_host, settings.api_port), family=family, backlog=BACKLOG)
        _remove_stale(path)
        made = socket.socket(socket.AF_UNIX)
        made.bind(path)
        # A proxy of another user, in a common group, must be able to connect.
        os.chmod(path, 0o660)
        made.listen(BACKLOG)
        return made
    except OSError as error:
        variable = "HOWDAH_API_PORT" if path is None else "HOWDAH_API_SOCKET"
        place = f"{settings.api_host}:{settings.api_port}" if path is None else path
        raise SettingInvalid(variable, f"cannot listen on {place}: {error.strerror or error}") from error


def _remove_stale(path: str) -> None:
    """Remove a socket that a killed process left behind.

    Raises:
        OSError: Somebody listens on it, or it cannot be removed.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, "another process listens on it")


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: who runs it has them. At a stop it does not wait for those who wait."""

    def __init__(self, config: uvicorn.Config, app: Edge) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests that wait for work or a result, then the others, and end."""
        self._app.backend.end_waits()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def make_server(app: Edge) -> uvicorn.Server:
    """Make the HTTP server of an application; it leaves signals and the log alone."""
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S_MAX,
    )
    return _Server(config, app)


async def _serve(service: Service) -> None:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(error: BaseException) -> None:
        if not failed.done():
            failed.set_exception(error)

    with listen(service.settings) as listener:
        app = create_app(service.settings, service.readiness, fail)
        server = make_server(app)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(service.stopping.wait())
        garbage.tune()
        _log.info("api_listening", extra={"fields": {"address": _shown(listener)}})
        ends: set[asyncio.Future[Any]] = {serving, failed, stopping}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if server.started:
            # Streams would keep the server waiting.
            app.backend.followers.end()
        server.should_exit = True
        stopping_fast = asyncio.create_task(service.stopping_fast.wait())
        await asyncio.wait({serving, stopping_fast}, return_when=asyncio.FIRST_COMPLETED)
        server.force_exit = True
        await serving
        stopping.cancel()
        stopping_fast.cancel()
    if failed.done():
        failed.result()
    if not service.stopping.is_set():
        raise RuntimeError("the server ended although the process is not to stop")


def _report(ended: asyncio.Task[None], on_failure: Callable[[BaseException], None]) -> None:
    if not ended.cancelled() and (error := ended.exception()) is not None:
        on_failure(error)


def _shown(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"http://{name[0]}:{name[1]}"
