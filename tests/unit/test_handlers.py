"""The registry of handlers, and how payloads and results pass through it."""

import functools
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import howdah
from howdah import handlers
from howdah.core.errors import (
    HandlerDuplicate,
    HandlerImportFailed,
    HandlerInvalid,
    PayloadMismatch,
    ResultInvalid,
    SettingInvalid,
    StartRefused,
)
from howdah.handlers import RESULT_BYTES_MAX, Registry, build, encode_result, load_handlers
from howdah.testing import FakeContext


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Give each test an empty registry."""
    made = Registry()
    monkeypatch.setattr(handlers, "REGISTRY", made)
    return made


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory that is the current one, and forget the modules imported from it."""
    monkeypatch.chdir(tmp_path)
    before, path_before = set(sys.modules), list(sys.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = path_before
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@dataclass
class Order:
    """A payload as a dataclass."""

    number: int
    lines: list[str]


class OrderStruct(msgspec.Struct):
    """A payload as a Struct."""

    number: int


class OrderDict(TypedDict):
    """A payload as a typed dict."""

    number: int


class Mailer:
    """Has methods, which no worker could call."""

    def send(self, payload: int) -> None:
        """Need an object."""

    async def send_later(self, payload: int) -> None:
        """Need an object, too."""

    @classmethod
    def make(cls, payload: int) -> None:
        """Need the class."""

    @staticmethod
    def check(payload: int) -> int:
        """Need nothing."""
        return payload


@dataclass
class Loose:
    """A payload with a field that may be anything."""

    extra: object


def argument(annotation: Any, payload: bytes | None) -> Any:
    """Return what a function would be called with as its payload."""
    return build("test", of(annotation)).arguments(payload, FakeContext())[0]


def test_handler_is_registered_and_unchanged(registry: Registry) -> None:
    """The decorator leaves the function as it was and registers what kind it is."""

    @howdah.handler("reports.build", timeout=timedelta(minutes=5))
    async def report(payload: Order, ctx: howdah.Context) -> int:
        return payload.number

    @howdah.handler("plain")
    @howdah.handler("plain.again")
    def plain(payload):  # type: ignore[no-untyped-def]
        return payload

    found, other = registry.get("reports.build"), registry.get("plain")

    assert found is not None
    assert found.function is report
    assert (found.is_async, found.takes_context, found.timeout_s) == (True, True, 300.0)
    assert found.where.startswith(f"{__file__}:")
    assert other is not None
    assert (other.is_async, other.takes_context, other.timeout_s) == (False, False, None)
    assert registry.names() == ["plain", "plain.again", "reports.build"]
    assert plain(3) == 3


@pytest.mark.parametrize("name", ["", "A", "é", ".a", "-a", "a b", "a/b", "a\n", "a" * 129, "__proto__"])
def test_handler_name_that_is_not_allowed_is_refused(name: str) -> None:
    """A name that no task could ask for is refused where it is declared."""
    with pytest.raises(HandlerInvalid, match="does not match"):
        howdah.handler(name)


def test_handler_without_a_name_is_refused() -> None:
    """The decorator without parentheses says how to write it."""
    with pytest.raises(HandlerInvalid, match=r'@howdah\.handler\("'):

        @howdah.handler  # type: ignore[arg-type]
        def forgotten(payload: dict[str, Any]) -> None: ...


def test_handler_name_taken_twice_names_both_places() -> None:
    """The error of a duplicate shows module, file and line of both."""

    @howdah.handler("twice")
    def first(payload: int) -> None: ...

    with pytest.raises(HandlerDuplicate) as caught:

        @howdah.handler("twice")
        def second(payload: int) -> None: ...

    assert caught.value.first.startswith(f"{__name__} ({__file__}:")
    assert caught.value.second.startswith(f"{__name__} ({__file__}:")
    assert caught.value.first != caught.value.second


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda: None, "takes the payload"),
        (lambda a, b, c: None, "takes the payload"),
        (lambda *payloads: None, "cannot take"),
        (lambda payload, **options: None, "cannot take"),
        (lambda payload, *, size: None, "cannot take size"),
        (lambda payload, verbose=False: None, "default would never count"),
        (lambda payload: (yield), "cannot yield"),
        (lambda self, payload: None, "takes self"),
        (lambda self: None, "takes self"),
        (lambda cls, payload: None, "takes cls"),
        (Mailer().send, "not a method"),
        (Mailer().send_later, "not a method"),
        (Mailer.make, "not a method"),
        (Mailer.send, "takes self"),
        (Order, "must be a function"),
        (3, "must be a function"),
    ],
)
def test_function_that_cannot_be_a_handler_is_refused(function: Any, reason: str) -> None:
    """What could not be called with payload and context is refused at its declaration, with its place."""
    with pytest.raises(HandlerInvalid, match=reason) as caught:
        build("test", function)
    if hasattr(function, "__code__"):
        assert f"{__file__}:{function.__code__.co_firstlineno}" in str(caught.value)


def test_function_with_optional_extras_is_a_handler() -> None:
    """Keyword parameters with defaults, and a context that tests may leave out, do no harm."""

    def flexible(payload: int, ctx: Any = None, *, size: int = 3) -> None: ...

    assert build("test", flexible).takes_context


def test_static_method_is_a_handler() -> None:
    """What needs no object can be called without one, wherever it stands."""
    assert build("test", Mailer.check).call((3,)) == 3


def test_timeout_that_is_not_positive_is_refused() -> None:
    """A timeout of nothing would fail every run."""
    with pytest.raises(HandlerInvalid, match="timeout"):
        build("test", lambda payload: None, timedelta(0))


UNANNOTATED = object()


def of(annotation: Any) -> Any:
    """Make a handler whose payload is annotated so, and whose context names a type that exists for checkers only."""

    def function(payload, ctx=None):  # type: ignore[no-untyped-def]
        return payload

    function.__annotations__ = {"ctx": "OnlyForTypeCheckers"}
    if annotation is not UNANNOTATED:
        function.__annotations__["payload"] = annotation
    return function


@pytest.mark.parametrize(
    ("annotation", "payload", "expected"),
    [
        (UNANNOTATED, b'{"a": [1, 2.5, null, "x"]}', {"a": [1, 2.5, None, "x"]}),
        (Any, b"18446744073709551616", 2**64),
        (Any, None, None),
        (object, b'"x"', "x"),
        (dict[str, Any], b'{"a": 1}', {"a": 1}),
        (dict[str, object], b'{"a": [1, null, {"b": 2.5}]}', {"a": [1, None, {"b": 2.5}]}),
        (dict[str, object] | None, None, None),
        ("list[object | None]", b'[1, "x", null]', [1, "x", None]),
        (Loose, b'{"extra": {"a": 1}}', Loose({"a": 1})),
        (list[int], b"[1]", [1]),
        (str, b'"5"', "5"),
        (int, b"5", 5),
        (bytes, b'{"b": 1,  "a":2}', b'{"b": 1,  "a":2}'),
        (bytes, None, b"null"),
        (Order, b'{"number": 5, "lines": ["x"], "more": 1}', Order(5, ["x"])),
        (OrderStruct, b'{"number": 5}', OrderStruct(5)),
        (OrderDict, b'{"number": 5}', {"number": 5}),
        (Order | None, None, None),
        (UUID, b'"00000000-0000-0000-0000-000000000001"', UUID(int=1)),
        ("Order", b'{"number": 5, "lines": []}', Order(5, [])),
    ],
)
def test_payload_is_decoded_by_the_annotation(annotation: Any, payload: bytes | None, expected: object) -> None:
    """Each kind of annotation gets what it says; a task without a payload is like null."""
    decoded = argument(annotation, payload)

    assert decoded == expected
    assert type(decoded) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "payload", "pointer"),
    [
        (Order, b'{"number": "5", "lines": []}', "/number"),
        (Order, b'{"number": 5, "lines": ["a", 1]}', "/lines/1"),
        (Order, b'{"number": 5}', "/lines"),
        (OrderDict, b"{}", "/number"),
        (int, b'"5"', ""),
        (int, b"true", ""),
        (dict[str, Any], None, ""),
        (dict[str, Any], b"{", ""),
        (dict[str, object], b"[1]", ""),
        (UNANNOTATED, b'"\xff"', ""),
        (UNANNOTATED, b"[" * 100_000, ""),
        (list[int], b'[1, "2"]', "/1"),
    ],
)
def test_payload_that_does_not_fit_is_refused_with_its_place(
    annotation: Any, payload: bytes | None, pointer: str
) -> None:
    """A mismatch names the place in the payload and is an error of its own, so that it is not retried."""
    with pytest.raises(PayloadMismatch) as caught:
        argument(annotation, payload)

    assert caught.value.pointer == pointer
    assert caught.value.detail


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_payload_without_annotation_reads_back_any_json(value: Any) -> None:
    """What a client sent is what the handler gets."""
    assert argument(UNANNOTATED, msgspec.json.encode(value)) == value


class Alien:
    """A class that JSON cannot make."""


@pytest.mark.parametrize("annotation", [Alien, dict[str, list[Alien]], list[int] | tuple[int], "Missing", "list[("])
def test_annotation_that_json_cannot_fill_is_refused_when_declared(annotation: Any) -> None:
    """A handler that could never be given a payload stops the start, not each run."""
    with pytest.raises(HandlerInvalid, match="annotation"):
        build("test", of(annotation))


def test_plain_function_that_returns_a_coroutine_fails() -> None:
    """A coroutine that nobody awaits is an error, not a success."""

    async def real(payload: int) -> None: ...

    @functools.wraps(real)
    def wrapper(*arguments: Any) -> Any:
        return real(*arguments)

    made = build("test", wrapper)

    assert not made.is_async
    with pytest.raises(HandlerInvalid, match="async def"):
        made.call((1,))


def test_load_handlers_imports_from_the_current_directory(modules: Path) -> None:
    """A module beside where the worker was started is found, and what it declares is served."""
    (modules / "shop_jobs.py").write_text(
        "import howdah\n@howdah.handler('shop.pack')\ndef pack(payload: dict):\n    return 'packed'\n"
    )

    assert load_handlers(["shop_jobs"]).names() == ["shop.pack"]
    assert load_handlers(["shop_jobs"]).names() == ["shop.pack"]


def test_load_handlers_does_not_shadow_installed_modules(modules: Path) -> None:
    """A file of the user named like one of ours or of Python's does not replace it."""
    (modules / "queue.py").write_text("raise RuntimeError('shadowed')\n")
    (modules / "shop_jobs.py").write_text("import queue\nqueue.Queue\n")

    assert load_handlers(["shop_jobs"]).names() == []


def test_load_handlers_of_a_broken_module_shows_its_traceback(modules: Path) -> None:
    """The error that stops the start begins at the user's own line, without ours and Python's."""
    (modules / "shop_lines.py").write_text("def deep():\n    return 1 / 0\n")
    (modules / "shop_jobs.py").write_text("import shop_lines\nshop_lines.deep()\n")

    with pytest.raises(HandlerImportFailed) as caught:
        load_handlers(["shop_jobs"])
    lines = caught.value.trace.splitlines()
    assert isinstance(caught.value, StartRefused)
    assert caught.value.module == "shop_jobs"
    assert "shop_jobs.py" in lines[1]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "importlib" not in caught.value.trace
    assert "howdah" not in caught.value.trace


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import howdah\n@howdah.handler('a')\ndef f(): ...", "takes the payload"),
    ],
)
def test_load_handlers_that_fail_in_any_way_are_refused(modules: Path, code: str, last: str) -> None:
    """Whatever goes wrong at import is a refusal to start that names the module."""
    (modules / "shop_jobs.py").write_text(code)

    with pytest.raises(HandlerImportFailed) as caught:
        load_handlers(["shop_jobs"])
    assert "shop_jobs" in str(caught.value)
    assert last in caught.value.trace.splitlines()[-1]
    assert not isinstance(caught.value, SettingInvalid)


def test_load_handlers_of_a_missing_module_is_refused(modules: Path) -> None:
    """A misspelt module name is named."""
    with pytest.raises(HandlerImportFailed, match="'shop_jbos'") as caught:
        load_handlers(["shop_jbos"])
    assert caught.value.trace.splitlines()[-1] == "ModuleNotFoundError: No module named 'shop_jbos'"


def test_load_handlers_of_two_modules_with_one_name_names_both(modules: Path) -> None:
    """A duplicate across modules stops the start and shows both modules."""
    for name in ("shop_one", "shop_two"):
        (modules / f"{name}.py").write_text("import howdah\n@howdah.handler('same')\ndef f(payload): ...\n")

    with pytest.raises(HandlerImportFailed, match=r"shop_one.*shop_two"):
        load_handlers(["shop_one", "shop_two"])


def test_reloaded_module_replaces_its_handlers(modules: Path, registry: Registry) -> None:
    """Reloading a module, as notebooks do, is no duplicate."""
    (modules / "shop_jobs.py").write_text("import howdah\n@howdah.handler('a')\ndef f(payload): ...\n")
    load_handlers(["shop_jobs"])
    before = registry.get("a")
    importlib.reload(sys.modules["shop_jobs"])

    assert registry.get("a") is not before


def test_load_handlers_of_an_empty_module_warns(modules: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A module that declares nothing, often the wrong one, is logged."""
    (modules / "shop_empty.py").write_text("")
    load_handlers(["shop_empty"])

    assert [record.getMessage() for record in caplog.records] == ["handler_module_empty"]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, None),
        ({"a": 1}, b'{"a":1}'),
        (Order(1, []), b'{"number":1,"lines":[]}'),
        (datetime(2026, 1, 1, tzinfo=UTC), b'"2026-01-01T00:00:00Z"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        ("\\u0000", b'"\\\\u0000"'),
        ("x" * (RESULT_BYTES_MAX - 2), b'"' + b"x" * (RESULT_BYTES_MAX - 2) + b'"'),
    ],
)
def test_result_is_written_as_json(value: object, encoded: bytes | None) -> None:
    """Whatever msgspec can write, a handler can return; None is no result."""
    assert encode_result(value) == encoded


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value", [object(), {"a": Alien()}, "\ud800", "a\x00b", ["\\\x00"], CIRCLE, "x" * RESULT_BYTES_MAX, {(1, 2): 3}]
)
def test_result_that_cannot_be_stored_is_refused(value: object) -> None:
    """A result without a JSON form, too large, or with a NUL is an error of its own."""
    with pytest.raises(ResultInvalid):
        encode_result(value)


def test_isolated_handler_is_told_apart() -> None:
    """Of those that are declared, the worker asks for the isolated ones."""

    @howdah.handler("isolated", isolation="process")
    def isolated(payload: int) -> None: ...

    @howdah.handler("not.isolated")
    def other(payload: int) -> None: ...

    assert list(handlers.REGISTRY.isolated()) == ["isolated"]


@pytest.mark.parametrize("isolation", ["thread", "Process", "", True, 1])
def test_isolation_of_another_kind_is_refused(isolation: object) -> None:
    """At the declaration, with its place."""

    def work(payload: int) -> None: ...

    with pytest.raises(
        HandlerInvalid, match=r"test_handlers\.py:\d+: the isolation of 'work' is \"process\" or left out"
    ):
        howdah.handler("work", isolation=isolation)(work)  # type: ignore[arg-type]
