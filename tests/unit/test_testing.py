"""Running handlers in tests, and the light import of the package."""

import asyncio
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

import howdah
import howdah.testing
from howdah import handlers
from howdah.core.errors import HandlerInvalid, PayloadMismatch, ResultInvalid, TransactionUnavailable
from howdah.handlers import Registry
from howdah.testing import FakeContext


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Give each test an empty registry."""
    made = Registry()
    monkeypatch.setattr(handlers, "REGISTRY", made)
    monkeypatch.setattr(howdah.testing, "REGISTRY", made)
    return made


def double(payload: int) -> int:
    """A plain handler."""
    return payload * 2


async def double_later(payload: int, ctx: howdah.Context) -> int:
    """An async handler."""
    await asyncio.sleep(0)
    return payload * 2 * ctx.attempt


def test_run_of_a_plain_function_returns_its_result() -> None:
    """A function that is declared nowhere can be tried too."""
    assert howdah.testing.run(double, 4) == 8


def test_run_of_an_async_function_returns_its_result() -> None:
    """A synchronous test can run an async handler."""
    assert howdah.testing.run(double_later, 4, attempt=3) == 24


async def test_run_async_runs_both_kinds() -> None:
    """An async test can run both, a plain one outside the event loop's thread."""

    def thread_name(payload: None) -> str:
        return threading.current_thread().name

    assert await howdah.testing.run_async(double_later, 4) == 8
    assert await howdah.testing.run_async(double, 4) == 8
    assert await howdah.testing.run_async(thread_name) != threading.current_thread().name


async def test_run_inside_a_loop_says_what_to_use() -> None:
    """An async handler cannot be run synchronously inside a running loop; the error names the way."""
    with pytest.raises(RuntimeError, match=r"await howdah\.testing\.run_async"):
        howdah.testing.run(double_later, 4)


def test_run_by_name_finds_the_declared_handler() -> None:
    """A handler can be run by the name that tasks use, and is told that name."""

    @howdah.handler("greet")
    def greet(payload: dict[str, str], ctx: howdah.Context) -> str:
        return f"{ctx.handler}: {payload['name']}"

    assert howdah.testing.run("greet", {"name": "Ann"}) == "greet: Ann"
    assert howdah.testing.run(greet, {"name": "Ann"}) == "greet: Ann"
    with pytest.raises(LookupError, match=r"'greeet'.*greet"):
        howdah.testing.run("greeet", {})


def test_run_decodes_and_encodes_as_production_does() -> None:
    """A payload that does not fit and a result without JSON form fail in the test already."""
    with pytest.raises(PayloadMismatch, match="Expected `int`, got `str`"):
        howdah.testing.run(double, "4")
    with pytest.raises(ResultInvalid):
        howdah.testing.run(lambda payload: object(), None)
    assert howdah.testing.run(lambda payload: payload, (1, 2)) == [1, 2]
    assert howdah.testing.run(lambda payload: payload, b'{"raw": true}') == {"raw": True}


def test_run_takes_and_refuses_what_a_worker_would() -> None:
    """A handler that passes in a test is one that a worker takes: any JSON for `object`, and no methods."""

    def keys(payload: dict[str, object]) -> list[str]:
        return sorted(payload)

    class Mailer:
        def send(self, payload: int) -> None: ...

    assert howdah.testing.run(keys, {"b": [1], "a": None}) == ["a", "b"]
    with pytest.raises(HandlerInvalid, match="not a method"):
        howdah.testing.run(Mailer().send, 1)
    with pytest.raises(HandlerInvalid, match="takes self"):
        howdah.testing.run(Mailer.send, 1)


def test_run_lets_the_handlers_error_through() -> None:
    """What the handler raises is what the test sees."""

    def fail(payload: Any) -> None:
        raise ZeroDivisionError("apples")

    with pytest.raises(ZeroDivisionError, match="apples"):
        howdah.testing.run(fail)


def test_context_says_what_the_test_asked_for() -> None:
    """Every field of the context can be set, the others have defaults that hold together."""
    seen: list[howdah.Context] = []
    task_id = UUID(int=7)
    howdah.testing.run(
        lambda payload, ctx: seen.append(ctx),
        None,
        task_id=task_id,
        tenant="acme",
        queue="q",
        claim_no=5,
        tags={"a": "b"},
        timeout_s=100,
    )
    [ctx] = seen

    assert (ctx.task_id, ctx.tenant, ctx.queue, ctx.attempt, ctx.claim_no) == (task_id, "acme", "q", 1, 5)
    assert ctx.tags == {"a": "b"}
    assert 90 < (ctx.deadline_at - datetime.now(UTC)).total_seconds() <= 100
    assert 90 < ctx.remaining_s() <= 100
    assert not ctx.cancelled
    assert FakeContext().task_id.version == 7


def test_context_past_its_deadline_has_no_time_left() -> None:
    """Remaining time never falls below zero."""
    assert FakeContext(timeout_s=-5).remaining_s() == 0


def test_context_log_names_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """What a handler logs carries its task and attempt."""
    ctx = FakeContext(attempt=2)
    with caplog.at_level("INFO"):
        ctx.log.info("sent")
    [record] = caplog.records

    assert record.fields["task_id"] == str(ctx.task_id)  # type: ignore[attr-defined]
    assert record.fields["attempt"] == 2  # type: ignore[attr-defined]


def test_context_keeps_what_was_logged_of_the_task() -> None:
    """A test can look at what clients would read, and meets the same refusals."""

    def work(payload: None, ctx: howdah.Context) -> None:
        ctx.log("sent", level="warning", to="a@example.com")
        ctx.progress(percent=50)

    ctx = FakeContext()
    howdah.testing.run(work, context=ctx)
    said, progress = ctx.entries

    assert (said.level, said.message, said.fields) == (30, "sent", b'{"to":"a@example.com"}')
    assert progress.fraction == 0.5
    with pytest.raises(ValueError, match="0 to 1"):
        ctx.progress(7)


def test_transaction_without_a_database_says_why() -> None:
    """ctx.transaction() in a test explains itself, in both kinds of handlers."""

    def plain(payload: None, ctx: howdah.Context) -> None:
        with ctx.transaction():
            pass

    async def later(payload: None, ctx: howdah.Context) -> None:
        async with ctx.transaction():
            pass

    for function in (plain, later):
        with pytest.raises(TransactionUnavailable, match="needs PostgreSQL"):
            howdah.testing.run(function)


async def test_cancelling_a_context_wakes_the_handler() -> None:
    """An async handler that waits for its cancellation is told."""
    ctx = FakeContext()

    async def wait(payload: None, given: howdah.Context) -> bool:
        await given.cancellation()
        return given.cancelled

    running = asyncio.create_task(howdah.testing.run_async(wait, context=ctx))
    await asyncio.to_thread(ctx.cancel)

    assert await asyncio.wait_for(running, 5)


def test_cancelling_a_context_wakes_a_plain_handler() -> None:
    """A plain handler that waits is told from another thread."""
    ctx = FakeContext()
    canceller = threading.Thread(target=ctx.cancel)

    def wait(payload: None, given: howdah.Context) -> list[bool]:
        before = given.wait_cancelled(0)
        canceller.start()
        return [before, given.wait_cancelled(5)]

    assert howdah.testing.run(wait, context=ctx) == [False, True]
    canceller.join()


def test_run_with_a_context_and_fields_is_refused() -> None:
    """Fields beside a context of one's own would be lost in silence."""
    with pytest.raises(TypeError):
        howdah.testing.run(double, 1, context=FakeContext(), attempt=2)


def imported_by(code: str) -> set[str]:
    """Return the modules that some code imports, in an interpreter of its own."""
    out = subprocess.run(
        [sys.executable, "-Ic", f"{code}\nimport json, sys; print(json.dumps(list(sys.modules)))"],
        capture_output=True,
        check=True,
        timeout=20,
    ).stdout
    return set(json.loads(out))


@pytest.mark.parametrize(
    "code",
    [
        "import howdah",
        "import howdah; howdah.handler; howdah.Context; howdah.LeaseLost; howdah.__version__",
        "import howdah.testing",
    ],
)
def test_import_of_howdah_pulls_in_no_server(code: str) -> None:
    """An application that declares handlers loads no web framework, no HTTP client and no driver."""
    heavy = {"starlette", "uvicorn", "aiohttp", "psycopg", "psycopg_pool", "prometheus_client", "click", "uvloop"}

    assert not heavy & imported_by(code)


def test_import_of_howdah_alone_loads_nothing_else() -> None:
    """Names are loaded on first use."""
    ours = {name for name in imported_by("import howdah") if name.startswith(("howdah", "msgspec", "asyncio"))}

    assert ours == {"howdah"}


def test_public_names_exist() -> None:
    """Every exported name is there, and no other is invented."""
    assert all(getattr(howdah, name) is not None for name in howdah.__all__)
    assert set(howdah.__all__) <= set(dir(howdah))
    with pytest.raises(AttributeError, match="no attribute 'Handler'"):
        howdah.Handler  # noqa: B018


def test_run_hands_on_what_a_handler_decides() -> None:
    """A decision comes out as the handler made it: raised or returned."""

    async def snooze(payload: Any) -> howdah.Snooze:
        return howdah.Snooze(30)

    async def give_up(payload: Any) -> None:
        raise howdah.GiveUp("no such customer")

    assert howdah.testing.run(snooze).delay_s == 30
    with pytest.raises(howdah.GiveUp, match="no such customer"):
        howdah.testing.run(give_up)
