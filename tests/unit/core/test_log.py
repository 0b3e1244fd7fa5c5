"""Log lines and the thread that writes them."""

import asyncio
import contextvars
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core import log
from howdah.core.log_writer import LineWriter
from howdah.core.settings import Settings


@pytest.fixture
def logger() -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
    """Give a logger and the records that it makes."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            # Formatted at once, as in production: bound fields are gone later.
            record.line = json_line(record)

    made = logging.getLogger("shop.jobs")
    handler = Keep()
    made.addHandler(handler)
    made.setLevel(logging.DEBUG)
    yield made, records
    made.removeHandler(handler)


def json_line(record: logging.LogRecord) -> str:
    """Format as a worker would."""
    return log.JsonFormatter("worker").format(record)


def record_of(message: object, *args: object, **extra: object) -> logging.LogRecord:
    """Make a record as logging would."""
    return logging.getLogger("shop").makeRecord("shop", logging.INFO, "x.py", 1, message, args, None, extra=extra)


def entry(message: object, *args: object, **extra: object) -> dict[str, Any]:
    """Read back the JSON line of a record."""
    line = json_line(record_of(message, *args, **extra))
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    return read


def test_json_line_holds_event_fields_and_process() -> None:
    """A line says when, how severe, which process, what happened, and what belongs to it."""
    read = entry("run_claimed", fields={"count": 12})

    assert (read["level"], read["process"], read["pid"]) == ("info", "worker", os.getpid())
    assert (read["event"], read["count"], read["logger"]) == ("run_claimed", 12, "shop")
    assert read["at"][-1] == "Z"
    assert len(read["at"]) == len("2026-05-01T12:00:00.123Z")


def test_json_line_of_other_libraries_keeps_their_extra() -> None:
    """Fields that a handler's author passes in the standard library's own way are kept."""
    assert entry("sent %d of %s", 3, "five", recipient="ann")["event"] == "sent 3 of five"
    assert entry("sent", recipient="ann")["recipient"] == "ann"


def test_json_line_field_cannot_pose_as_ours() -> None:
    """A field named like one of the line's own keys does not replace it."""
    read = entry("real", fields={"event": "fake", "at": "1970", "level": "fake", "pid": 0, "process": "fake"})

    assert (read["event"], read["level"], read["process"]) == ("real", "info", "worker")
    assert read["pid"] == os.getpid()


class Hostile:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        """Refuse."""
        raise RuntimeError("no text")

    __repr__ = __str__


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        Hostile(),
        2**70,
        float("nan"),
        "\ud800",
        CIRCLE,
        b"\xff",
        object(),
        {1: Hostile()},
        {Hostile(): 1},
        {"a": {2**70}},
    ],
)
def test_json_line_of_any_value_is_a_line(value: object) -> None:
    """Whatever a field or an argument holds, a JSON line with the event comes out."""
    assert entry("run_failed", fields={"value": value})["event"] == "run_failed"
    assert "%s and %s" in entry("%s and %s", value)["event"]


@given(st.text())
def test_json_line_escapes_control_characters(text: str) -> None:
    """No control character or line break reaches the terminal, and the text reads back as it was."""
    line = json_line(record_of("%s", text, fields={"text": text}))

    assert not [each for each in line if ord(each) < 32 or 127 <= ord(each) < 160 or each in "\u2028\u2029\u202e"]
    assert json.loads(line)["text"] == text


@given(st.text())
def test_text_line_escapes_control_characters(text: str) -> None:
    """A forged second line or a terminal command stays visible text in the text format."""
    line = log.TextFormatter("worker").format(record_of("%s", text, fields={"text": text}))

    assert not [each for each in line if ord(each) < 32 or 127 <= ord(each) < 160 or each in "\u2028\u2029\u202e"]


def test_json_line_of_a_long_text_is_cut() -> None:
    """Texts of any length make lines of a bounded one."""
    line = json_line(record_of("x" * 10_000_000, fields={"body": "y" * 10_000_000}))

    assert len(line) < 3 * log.TEXT_CHARS_MAX
    assert "10000000 characters" in line


def test_error_is_logged_with_its_type_and_traceback(
    logger: tuple[logging.Logger, list[logging.LogRecord]],
) -> None:
    """An exception's type and trace are fields of the line, in one line."""
    made, records = logger
    try:
        raise ZeroDivisionError("apples")
    except ZeroDivisionError:
        made.exception("run_failed")
    read = json.loads(records[0].line)  # type: ignore[attr-defined]

    assert read["error"] == "ZeroDivisionError"
    assert read["trace"].rstrip().endswith("ZeroDivisionError: apples")
    assert "test_log.py" in read["trace"]


def test_text_line_shows_fields_and_an_indented_trace() -> None:
    """At a terminal a line begins with time, level and process, and a trace follows it."""
    record = record_of("run_failed", fields={"queue": "emails", "detail": "two words"})
    try:
        raise ZeroDivisionError("apples")
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    first, *rest = log.TextFormatter("worker").format(record).splitlines()

    assert first[12:] == ' info    worker    run_failed queue=emails detail="two words" error=ZeroDivisionError'
    assert rest[-1] == "    ZeroDivisionError: apples"


async def test_bound_fields_belong_to_their_own_task(
    logger: tuple[logging.Logger, list[logging.LogRecord]],
) -> None:
    """Two runs at once each log with their own ids, also from threads and after an inner binding ended."""
    made, records = logger
    both_bound = asyncio.Barrier(2)

    async def run(task_id: str) -> None:
        with log.bound(task_id=task_id, run=1, tenant="acme"):
            await both_bound.wait()
            with log.bound(run=2):
                await asyncio.to_thread(made.info, "inner")
            made.info("outer", extra={"fields": {"tenant": "given"}})

    await asyncio.gather(run("a"), run("b"))
    made.info("outside")
    read = [json.loads(record.line) for record in records]  # type: ignore[attr-defined]

    seen = sorted((each["event"], each["task_id"], each["run"], each["tenant"]) for each in read[:-1])
    assert seen == [
        ("inner", "a", 2, "acme"),
        ("inner", "b", 2, "acme"),
        ("outer", "a", 1, "given"),
        ("outer", "b", 1, "given"),
    ]
    assert "task_id" not in read[-1]


def test_task_log_carries_its_run_into_any_thread(
    logger: tuple[logging.Logger, list[logging.LogRecord]],
) -> None:
    """The log that a handler gets names its run without a bound context; fields of the call win."""
    made, records = logger
    task_log = log.TaskLog(made, {"task_id": "t", "run": 3}, lambda *_: None)
    contextvars.Context().run(task_log.info, "sent", extra={"fields": {"count": 1}, "queue": "q"})
    contextvars.Context().run(task_log.info, "sent", extra={"fields": {"run": 9}})
    first, second = (json.loads(record.line) for record in records)  # type: ignore[attr-defined]

    assert (first["task_id"], first["run"], first["count"], first["queue"]) == ("t", 3, 1, "q")
    assert second["run"] == 9


def run_logging(code: str, *, log_format: str = "json", **popen: Any) -> subprocess.Popen[bytes]:
    """Run code in a process of its own whose logging is set up."""
    prelude = (
        "import logging, os, sys\n"
        "from howdah.core import log\n"
        "from howdah.core.settings import Settings\n"
        f"log.setup(Settings(database_url='postgresql://h/d', log_format={log_format!r}), 'worker')\n"
    )
    return subprocess.Popen([sys.executable, "-Ic", prelude + code], **popen)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_setup_writes_every_library_to_standard_output(log_format: str) -> None:
    """Records of uvicorn, aiohttp and psycopg and warnings of Python come out as our lines, all of them, in order."""
    process = run_logging(
        "import warnings\n"
        "for name in ('uvicorn.error', 'uvicorn.access', 'aiohttp.client', 'psycopg.pool', 'howdah'):\n"
        "    logging.getLogger(name).warning('from_' + name)\n"
        "warnings.warn('from_warnings')\n"
        "logging.getLogger('howdah').debug('not_this')\n",
        log_format=log_format,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(timeout=20)
    lines = out.decode().splitlines()

    assert err == b""
    assert process.returncode == 0
    for line, source in zip(
        lines, ["uvicorn.error", "uvicorn.access", "aiohttp.client", "psycopg.pool", "howdah", "warnings"], strict=True
    ):
        assert f"from_{source}" in line
        assert "worker" in line


def test_setup_twice_logs_once() -> None:
    """A second set-up replaces the first."""
    process = run_logging(
        "log.setup(Settings(database_url='postgresql://h/d'), 'api')\nlogging.getLogger('howdah').info('once')\n",
        stdout=subprocess.PIPE,
    )
    out, _ = process.communicate(timeout=20)

    assert [json.loads(line)["process"] for line in out.splitlines()] == ["api"]


def test_closed_standard_output_does_not_stop_the_process() -> None:
    """When the reader of the log is gone, work goes on, lines are counted as dropped, nothing is complained."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = run_logging(
        "for n in range(300): logging.getLogger('howdah').info('run_claimed')\n"
        "log.flush(5)\n"
        "sys.exit(7 if log.lines_dropped() == 300 else 1)\n",
        stdout=write_end,
        stderr=subprocess.PIPE,
    )
    os.close(write_end)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (7, b"")


def test_blocked_standard_output_does_not_stop_the_process() -> None:
    """When nobody reads a full pipe, logging calls still return, and the process can end."""
    read_end, write_end = os.pipe()
    process = run_logging(
        "for n in range(20_000): logging.getLogger('howdah').info('x' * 100)\n"
        "sys.exit(7 if log.lines_dropped() > 5_000 else 1)\n",
        stdout=write_end,
        stderr=subprocess.PIPE,
    )
    os.close(write_end)
    _, err = process.communicate(timeout=20)
    os.close(read_end)

    assert (process.returncode, err) == (7, b"")


def test_line_writer_reports_what_it_dropped() -> None:
    """Once the reader reads again, the lines kept follow in order and a line says how many are missing."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end, lines_waiting_max=10)
    # Not started yet, as if the thread hung in a write: only ten lines find room.
    for number in range(25):
        writer.put(b'{"event":"%d"}\n' % number)
    writer.start()
    assert writer.flush(5)
    writer.stop()
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        read = [json.loads(line) for line in pipe]

    assert writer.dropped == 15
    assert (read[0]["event"], read[0]["count"]) == ("log_lines_dropped", 15)
    assert [each["event"] for each in read[1:]] == [str(number) for number in range(10)]


def test_line_writer_to_a_non_blocking_pipe_writes_everything() -> None:
    """A descriptor that another program made non-blocking loses no line."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    writer = LineWriter(write_end)
    writer.start()
    for _ in range(300):
        writer.put(b"x" * 999 + b"\n")
    received = bytearray()

    def read() -> None:
        with open(read_end, "rb") as pipe:
            received.extend(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    assert writer.flush(10)
    writer.stop()
    os.close(write_end)
    reader.join()

    assert len(received) == 300_000
    assert writer.dropped == 0


def test_line_writer_after_stop_counts_lines_as_dropped() -> None:
    """A line that comes after the end is counted, not kept for ever."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end)
    writer.start()
    writer.stop()
    writer.put(b"late\n")
    os.close(read_end)
    os.close(write_end)

    assert writer.dropped == 1


def test_flush_before_setup_does_nothing() -> None:
    """A process that never set logging up may flush all the same."""
    process = subprocess.run(
        [sys.executable, "-Ic", "from howdah.core import log; log.flush(); print(log.lines_dropped())"],
        capture_output=True,
        check=True,
        timeout=20,
    )

    assert process.stdout == b"0\n"


def test_settings_of_the_log_are_the_ones_that_logging_knows() -> None:
    """Every level that the setting allows exists in the standard library."""
    allowed = Settings.__dataclass_fields__["log_level"].metadata["spec"].allowed

    assert all(word.upper() in logging.getLevelNamesMapping() for word in allowed.removeprefix("one of ").split(", "))
