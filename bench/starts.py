"""When handlers started: what `bench.mark` wrote, read back."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIZE = struct.calcsize("dd")


class Starts:
    """The file in which workers that get its path as BENCH_STARTS record every start of `bench.mark`."""

    def __init__(self, path: Path) -> None:
        """Use an empty file."""
        self.path = str(path)
        self._path = path
        path.touch()

    def count(self) -> int:
        """Return how many there were."""
        return self._path.stat().st_size // _SIZE

    def waits_ms(self, first: int = 0) -> list[float]:
        """Return how late each start was in milliseconds, from the `first` one on."""
        return [wait * 1000 for _, wait in self._read(first)]

    def instants(self, first: int = 0) -> list[float]:
        """Return the monotonic instant of each start, from the `first` one on."""
        return [at for at, _ in self._read(first)]

    def _read(self, first: int) -> list[tuple[float, float]]:
        written = self._path.read_bytes()[first * _SIZE :]
        return list(struct.iter_unpack("dd", written[: len(written) // _SIZE * _SIZE]))


@contextlib.contextmanager
def recorded() -> Iterator[Starts]:
    """Provide a file of starts that is removed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        yield Starts(Path(directory) / "starts")
