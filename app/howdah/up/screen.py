"""What people see of `howdah up`: lines, and below them, on a terminal, a block that is drawn anew."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

_UP_AND_CLEAR = "\x1b[{}F\x1b[J"


class Screen:
    """Writes lines from any thread; a block that is shown stays below them."""

    def __init__(self, out: TextIO | None = None) -> None:
        """Write to `out`, by default standard output."""
        self._out = out if out is not None else sys.stdout
        self._lock = threading.Lock()
        self._block: Sequence[str] = ()
        self.is_terminal = self._out.isatty()

    def say(self, line: str = "") -> None:
        """Write a line."""
        with self._lock:
            self._write([*self._erased(), line, *self._block])

    def show(self, block: Sequence[str]) -> None:
        """Replace the block at the bottom; on what is no terminal, write it as lines."""
        with self._lock:
            erased = self._erased()
            if self.is_terminal:
                # A line that wraps takes two rows, and the next block would be drawn over the wrong ones.
                columns = shutil.get_terminal_size().columns
                block = self._block = [line[:columns] for line in block]
            self._write([*erased, *block])

    def leave(self) -> None:
        """Let the block stand as it is, above what is written from now on."""
        with self._lock:
            self._block = ()

    def _erased(self) -> list[str]:
        return [_UP_AND_CLEAR.format(len(self._block))] if self._block else []

    def _write(self, parts: Sequence[str]) -> None:
        text = "".join(part if part.startswith("\x1b[") and part.endswith("\x1b[J") else f"{part}\n" for part in parts)
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            # Whoever read this has gone away; that is no reason to stop the service.
            self._block = ()
