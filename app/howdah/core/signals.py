"""Hears signals whatever the main thread does.

Python runs a signal's handler in the main thread, between two bytecodes: one that
lands just before a blocking call, or that the system gives to another thread, is
noticed only when that call has ended. But before that, at the very moment of the
signal, Python's own part in C writes its number into a descriptor, and here a
thread reads it. (`sigwait` would need the signals blocked in every thread, and
programs that a handler starts would inherit that.)
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def hear(numbers: Collection[signal.Signals], on_signal: Callable[[], None]) -> None:
    """Have `on_signal` called for each of these signals, in a thread of its own.

    Call it once, from the main thread, while the event loop runs: a loop takes the
    descriptor for itself when it starts, and leaves none behind when it ends.
    Children that are forked have the default behaviour again.
    """
    told, tells = socket.socketpair()
    tells.setblocking(False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=partial(_forget, numbers))
    arguments = (told, tells, frozenset(numbers), on_signal)
    threading.Thread(target=_listen, args=arguments, name="howdah-signals", daemon=True).start()


def _listen(
    told: socket.socket,
    tells: socket.socket,  # Held, so that it stays open.
    numbers: Collection[int],
    on_signal: Callable[[], None],
) -> None:
    while True:
        for number in told.recv(64):
            if number in numbers:
                on_signal()


def _forget(numbers: Collection[signal.Signals]) -> None:
    """Leave the descriptor, in a child: it shares the socket, so its signals would seem to be ours."""
    signal.set_wakeup_fd(-1)
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
