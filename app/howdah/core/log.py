"""Structured logs: one line per record on standard output, JSON or text.

Everything goes through the standard library's logging, so records of uvicorn,
aiohttp, psycopg and of users' handlers come out alike. An event is named in the
past tense; what belongs to it stands in `extra={"fields": {...}}`. What a line is
about (task, run, attempt, tenant, request) is bound once with `bound` and added
to every record logged inside.

Logging never stops the work: nothing here raises into the caller, and lines are
written by a thread of their own (see `log_writer`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import orjson

from howdah.core.log_writer import LineWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from howdah.core.entries import Level
    from howdah.core.settings import Settings

# One line must stay readable and must not fill a disk by itself; a text of a
# handler or a receiver may have any length.
TEXT_CHARS_MAX: Final = 8_192
TRACE_CHARS_MAX: Final = 32_768

# What gives the bound fields.
_context: ContextVar[Callable[[], Mapping[str, object]]] = ContextVar("howdah_log_fields", default=dict)

# Attributes that logging itself (or uvicorn, for its colours) puts on a record;
# all others came through `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "fields"}

# orjson leaves these as they are. A terminal may obey the C1 ones, some viewers
# break lines at U+2028 and U+2029, and the others reorder what a reader sees.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_writer: LineWriter | None = None


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to every record that is logged inside, also by tasks and copied contexts started there.

    Howdah's own names are task_id, run (the claim number), attempt, tenant and request_id.
    """
    merged = {**_context.get()(), **fields}
    token = _context.set(lambda: merged)
    try:
        yield
    finally:
        _context.reset(token)


def bind(fields: Callable[[], Mapping[str, object]]) -> None:
    """Add what `fields` returns to every record from here on, in this context; called when a record is made."""
    _context.set(fields)


class TaskLog(logging.LoggerAdapter[logging.Logger]):
    """The log that a handler is given: its records carry the run's fields, in any thread.

    Called, it adds an entry to the task's own log instead, which whoever looks at the task can read:
    `ctx.log("sent", level="warning", to=address)`.
    """

    def __init__(
        self,
        logger: logging.Logger,
        fields: Mapping[str, object],
        add: Callable[[object, str, dict[str, object]], None],
    ) -> None:
        """Add `fields` to each record of `logger`; `add` takes entries of the task's log."""
        super().__init__(logger, fields)
        self._fields = fields
        self._add = add

    def __call__(self, message: object, /, *, level: Level = "info", **fields: object) -> None:
        """Add an entry to the task's log: from any thread, at once, and without failing for what it holds.

        Args:
            message: At most 8 KiB of it are kept.
            level: debug, info, warning or error.
            fields: Whatever has a JSON form, 8 KiB in all; what has none is kept as text.

        Raises:
            ValueError: There is no such level.
        """
        self._add(message, level, fields)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge our fields with those of the call, which win."""
        extra = dict(kwargs.get("extra") or {})
        extra["fields"] = {**self._fields, **extra.get("fields", {})}
        return msg, {**kwargs, "extra": extra}


def setup(settings: Settings, process: str) -> None:
    """Send all logging of this process to standard output; a repeat replaces the first.

    Args:
        settings: Their log level and format count.
        process: Name of the process in each line: api, worker, scheduler, …
    """
    global _writer  # noqa: PLW0603 - the process has one standard output
    if _writer is None:
        _writer = LineWriter(1)
        _writer.start()
    formatter = JsonFormatter(process) if settings.log_format == "json" else TextFormatter(process)
    handler = _WriterHandler(_writer)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # uvicorn installs handlers of its own if it may; asyncio is chatty at debug.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("asyncio").setLevel(max(root.level, logging.INFO))
    # At info it tells of every connection that is taken and given back.
    logging.getLogger("psycopg.pool").setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)


def flush(timeout_s: float = 1.0) -> None:
    """Wait until what was logged is written, but not longer than `timeout_s`."""
    if _writer is not None:
        _writer.flush(timeout_s)


def lines_dropped() -> int:
    """Count the lines that could not be written since the start."""
    return 0 if _writer is None else _writer.dropped


def entry_of(record: logging.LogRecord) -> dict[str, object]:
    """Collect what a record says: event, the bound fields, those of the call, the error.

    The record's own keys win over fields of the same name; of bound and given
    fields the given ones do.
    """
    entry: dict[str, object] = {"logger": record.name, "event": _message(record)}
    given = getattr(record, "fields", None)
    merged = dict(_context.get()())
    merged.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
    if isinstance(given, dict):
        merged.update(given)
    for key, value in merged.items():
        entry.setdefault(str(key), _cut(value) if isinstance(value, str) else value)
    if record.exc_info and record.exc_info[0] is not None:
        entry["error"] = record.exc_info[0].__name__
        entry["trace"] = _cut_start("".join(traceback.format_exception(*record.exc_info)))
    if record.stack_info:
        entry["stack"] = _cut_start(record.stack_info)
    return entry


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, whatever it holds."""

    def __init__(self, process: str) -> None:
        """Name the process in each line."""
        super().__init__()
        self._process = process
        self._pid = os.getpid()

    def format(self, record: logging.LogRecord) -> str:
        """Write time (UTC), level, process, then everything else that the record says."""
        entry: dict[str, object] = {
            "at": _time(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": self._pid,
        }
        for key, value in entry_of(record).items():
            entry.setdefault(key, value)
        try:
            line = orjson.dumps(entry, default=_shown, option=orjson.OPT_NON_STR_KEYS).decode()
        except Exception:
            # Integers past 64 bits, lone surrogates, deep or circular values.
            line = json.dumps({key: _plain(value) for key, value in entry.items()})
        return _UNSAFE.sub(_escape, line)


class TextFormatter(logging.Formatter):
    """Formats a record as a line for people; a traceback follows it, indented."""

    def __init__(self, process: str) -> None:
        """Name the process in each line."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Write time (UTC), level, process, event, then fields as key=value."""
        entry = entry_of(record)
        event = str(entry.pop("event"))
        entry.pop("logger")
        blocks = [str(entry.pop(key)) for key in ("trace", "stack") if key in entry]
        fields = "".join(f" {key}={_word(value)}" for key, value in entry.items())
        clock = _time(record.created)[11:23]
        lines = [f"{clock} {record.levelname.lower():<7} {self._process:<9} {event}{fields}"]
        lines += [f"    {line}" for block in blocks for line in block.splitlines()]
        return "\n".join(_UNSAFE.sub(_escape, line) for line in lines)


class _WriterHandler(logging.Handler):
    """Formats in the caller's thread, where the bound fields are known, and hands the line over."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            line = f'{{"level":"error","event":"log_record_unreadable","at":"{_time(record.created)}"}}'
        self._writer.put(line.encode("utf-8", "backslashreplace") + b"\n")


def _message(record: logging.LogRecord) -> str:
    try:
        return _cut(record.getMessage())
    except Exception:
        # The arguments do not fit the format; the message without them still helps.
        return _cut(f"{record.msg!s} {_shown(record.args)}")


def _time(created: float) -> str:
    whole, fraction = divmod(created, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(fraction * 1_000):03d}Z"


def _shown(value: object) -> str:
    try:
        return _cut(str(value))
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, (str, int, float, bool)) else _shown(value)


def _word(value: object) -> str:
    shown = _shown(value)
    return shown if shown and not re.search(r'[\s"=]', shown) else json.dumps(shown, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}… ({len(text)} characters)"


def _cut_start(text: str) -> str:
    """Keep the end, where the error itself stands."""
    return text if len(text) <= TRACE_CHARS_MAX else f"({len(text)} characters) …{text[-TRACE_CHARS_MAX:]}"


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
