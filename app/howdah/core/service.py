"""The life of a process that works in the background: start, signals, end.

`run` gives the process's main coroutine a `Service` and sees to the rest: the
event loop, the log, the port for health and metrics, and the exit code. The
first SIGTERM or SIGINT sets `stopping`: main drains and returns. The second sets
`stopping_fast`: main has 3 s to return without draining, then the process ends
as it is. That deadline holds even if a handler blocks the event loop: signals are
heard by a thread of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
import sys
import threading
import time
import traceback
from enum import IntEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NoReturn

import uvloop

from howdah.core import log, signals
from howdah.core.errors import (
    HandlerImportFailed,
    HandlerUnfound,
    LoopFailed,
    ProcessFailed,
    SettingInvalid,
    StartRefused,
    Stopped,
)
from howdah.core.health import HealthServer, Readiness
from howdah.core.open_files import raise_limit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from howdah.core.settings import Settings

FAST_STOP_S_MAX: Final = 3.0
_LEFTOVERS_S_MAX: Final = 1.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_logger = logging.getLogger(__name__)


class ExitCode(IntEnum):
    """What the end of a process tells its supervisor; docs/reference/exit-codes.md lists them."""

    DRAINED = 0
    """Stopped as asked: what was under way is finished or handed back."""
    FAILED = 1
    """Ended by an unexpected error, or a second signal before it had drained, or with outcomes not recorded."""
    SETTING_INVALID = 64
    """A setting is missing, wrong or unknown, or a handler cannot be imported or isolated; a restart cannot help."""
    SCHEMA_REFUSED = 69
    """The schema does not fit this version, or the server or a clock would break a promise."""
    LOOP_STUCK = 70
    """The event loop did not answer; a restart helps."""


class Service:
    """What main is given: settings, the wish to stop, and readiness."""

    def __init__(self, settings: Settings, process: str) -> None:
        """Make it inside the event loop that main runs in."""
        self.settings = settings
        self.process = process
        self.stopping = asyncio.Event()
        """Set by the first signal: drain and return."""
        self.stopping_fast = asyncio.Event()
        """Set by the second signal: hand back what can be handed back at once, and return."""
        self.readiness = Readiness()
        self.readiness.add("stopping", lambda: "the process is to stop" if self.stopping.is_set() else None)
        self._loop = asyncio.get_running_loop()
        self._signal_count = 0

    def stop(self) -> None:
        """Ask for a stop, from the event loop's thread; a second call asks for a fast one."""
        if not self.stopping.is_set():
            _logger.info("stop_requested")
            self.stopping.set()
        elif not self.stopping_fast.is_set():
            _logger.warning("fast_stop_requested")
            self.stopping_fast.set()

    def on_signal(self) -> None:
        """Take a signal, in the thread that hears them; the second one's call does not return."""
        self._signal_count += 1
        # Once the loop is closed the process ends anyway.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.stop)
        if self._signal_count == 2:
            time.sleep(FAST_STOP_S_MAX)
            abort(ExitCode.FAILED, "fast_stop_timed_out")


def run(main: Callable[[Service], Awaitable[None]], settings: Settings, process: str) -> ExitCode:
    """Run a process until its main coroutine returns.

    Call it once, from the main thread, and end with `leave`.

    Args:
        main: Works until `stopping` is set. A `StartRefused` that it raises is logged and decides the exit code.
        settings: Of the whole process.
        process: Its name in the log: worker, scheduler.
    """
    log.setup(settings, process)
    loop = uvloop.new_event_loop()
    try:
        code = loop.run_until_complete(_serve(main, settings, process))
    finally:
        # Not asyncio.Runner: it waits for the threads of plain handlers, for ever.
        loop.run_until_complete(_cancel_leftovers())
        loop.close()
    _logger.info("process_stopped", extra={"fields": {"exit_code": code.value, "meaning": code.name.lower()}})
    return code


def leave(code: ExitCode) -> NoReturn:
    """End the process with an exit code, without waiting for threads of handlers that do not return."""
    held_up_by = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if not held_up_by:
        sys.exit(code)
    _logger.warning("threads_abandoned", extra={"fields": {"threads": held_up_by}})
    log.flush()
    os._exit(code)


def abort(code: ExitCode, event: str) -> NoReturn:
    """End the process at once, from any thread; the log says where the main thread was."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    trace = "".join(traceback.format_stack(frame)) if frame is not None else ""
    _logger.critical(event, extra={"fields": {"exit_code": code.value, "main_thread": trace}})
    log.flush()
    os._exit(code)


async def _serve(main: Callable[[Service], Awaitable[None]], settings: Settings, process: str) -> ExitCode:
    service = Service(settings, process)
    health = HealthServer(service.readiness)
    signals.hear(_SIGNALS, service.on_signal)
    fields = {
        "version": version("howdah"),
        "python": platform.python_version(),
        "open_files_max": raise_limit(),
        "settings": repr(settings),
    }
    _logger.info("process_started", extra={"fields": fields})
    try:
        if settings.metrics_port is not None:
            await health.start(settings.metrics_host, settings.metrics_port)
        await main(service)
    except Exception as error:
        return _code_of(error, service)
    else:
        return ExitCode.FAILED if service.stopping_fast.is_set() else ExitCode.DRAINED
    finally:
        await health.stop()


def _code_of(error: Exception, service: Service) -> ExitCode:
    """Log why main ended with an error, and choose the exit code."""
    if isinstance(error, Stopped) and service.stopping.is_set():
        return ExitCode.DRAINED
    if isinstance(error, StartRefused):
        _logger.error("start_refused", extra={"fields": {"reason": str(error)}})
        is_setting = isinstance(error, (SettingInvalid, HandlerImportFailed, HandlerUnfound))
        return ExitCode.SETTING_INVALID if is_setting else ExitCode.SCHEMA_REFUSED
    if isinstance(error, LoopFailed):
        _logger.critical("loop_failed", extra={"fields": {"reason": str(error)}})
    elif isinstance(error, ProcessFailed):
        _logger.critical("process_failed", extra={"fields": {"reason": str(error)}})
    else:
        _logger.critical("process_crashed", exc_info=error)
    return ExitCode.FAILED


async def _cancel_leftovers() -> None:
    """Cancel tasks and close generators that main left behind; those that ignore it are abandoned."""
    leftovers = asyncio.all_tasks() - {asyncio.current_task()}
    for task in leftovers:
        task.cancel()
    if leftovers:
        await asyncio.wait(leftovers, timeout=_LEFTOVERS_S_MAX)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LEFTOVERS_S_MAX):
            await asyncio.get_running_loop().shutdown_asyncgens()
