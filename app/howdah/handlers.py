"""Named handlers: the registry that `@howdah.handler("reports.build")` fills.

A handler is a function, async or plain, whose first parameter is the payload and
whose second, if it has one, is the `Context`. The payload is decoded into what
the first parameter is annotated with: a dataclass, a msgspec Struct, a
TypedDict, `dict`, `list`, `str`, `int` and so on; `object`, alone or inside of
others as in `dict[str, object]`, takes any JSON value as Python has it, and so
does no annotation; `bytes` takes the JSON text as it is. Types are strict: "5" is
no int.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sys
import traceback
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from howdah.core.errors import (
    HandlerDuplicate,
    HandlerImportFailed,
    HandlerInvalid,
    PayloadMismatch,
    ResultInvalid,
)
from howdah.core.pointer import fault_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from types import TracebackType

    from howdah.context import Context

Function = TypeVar("Function", bound="Callable[..., Any]")

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}")
# Chosen: a quarter of a payload's default limit; results are for reading, not for shipping files.
RESULT_BYTES_MAX: Final = 65_536

_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """A function that serves a handler name.

    Attributes:
        name: As tasks ask for it.
        function: The function as it was declared.
        is_async: It is a coroutine function; else it runs in a thread.
        takes_context: It has a second parameter.
        timeout_s: Ends an attempt earlier than the task's own timeout; None leaves that alone.
        is_isolated: It runs in a child process of the worker.
        where: `file:line` of the declaration.
        decode: Turns the payload's JSON text into the first argument.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    takes_context: bool
    timeout_s: float | None
    is_isolated: bool
    where: str
    decode: Callable[[bytes], Any]

    def arguments(self, payload: bytes | None, context: Context | None) -> tuple[Any, ...]:
        """Build what the function is called with.

        Args:
            payload: The JSON text; a task without a payload has None, which is decoded like `null`.
            context: Passed on if the function takes it; otherwise it need not be made.

        Raises:
            PayloadMismatch: The payload does not fit the annotation; no repeat can help.
        """
        text = b"null" if payload is None else payload
        try:
            decoded = self.decode(text)
        except msgspec.DecodeError as error:
            raise PayloadMismatch(*fault_of(error)) from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise PayloadMismatch("", f"is not JSON that can be read: {error}") from error
        return (decoded, context) if self.takes_context else (decoded,)

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """Call the function; of an async one the caller awaits what comes back.

        Raises:
            HandlerInvalid: A plain function returned a coroutine, which nobody would await.
        """
        result = self.function(*arguments)
        if not self.is_async and inspect.iscoroutine(result):
            result.close()
            raise HandlerInvalid(
                f"{self.where}: the handler {self.name!r} returned a coroutine; declare it `async def`"
            )
        return result


class Registry:
    """The handlers of a process by name."""

    def __init__(self) -> None:
        """Begin empty."""
        self._handlers: dict[str, Handler] = {}

    def add(self, added: Handler) -> None:
        """Register a handler; the same function again (a module reloaded) replaces itself.

        Raises:
            HandlerDuplicate: Another function has that name.
        """
        known = self._handlers.get(added.name)
        if known is not None and _identity(known.function) != _identity(added.function):
            raise HandlerDuplicate(added.name, _place(known), _place(added))
        self._handlers[added.name] = added

    def get(self, name: str) -> Handler | None:
        """Return the handler of that name, if there is one."""
        return self._handlers.get(name)

    def of_function(self, function: Callable[..., Any]) -> Handler | None:
        """Return the first handler that was declared on that function, if there is one."""
        return next((each for each in self._handlers.values() if each.function is function), None)

    def isolated(self) -> dict[str, Handler]:
        """Return the handlers that run in child processes, by name."""
        return {name: each for name, each in self._handlers.items() if each.is_isolated}

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._handlers)


REGISTRY: Final = Registry()


def handler(
    name: str, *, timeout: timedelta | None = None, isolation: Literal["process"] | None = None
) -> Callable[[Function], Function]:
    """Declare that a function serves a handler name.

    The function itself is returned unchanged, so it can be called and tested as
    before. It may be declared under several names.

    Args:
        name: Of the form `^[a-z0-9][a-z0-9_.-]{0,127}$`, for example `reports.build`.
        timeout: Ends an attempt earlier than the task's own timeout would; never later.
        isolation: "process" runs it in a child process of the worker, which is killed when it must stop: for
            functions that compute for long, or that cannot be trusted to end. The child imports the modules of
            `HOWDAH_HANDLERS` anew, so it must be declared while one of them is imported.

    Raises:
        HandlerInvalid: The name or the function cannot work; HandlerDuplicate if the name is taken.
    """
    if not isinstance(name, str):
        raise HandlerInvalid('a handler is declared with a name: @howdah.handler("reports.build")')
    if NAME.fullmatch(name) is None:
        raise HandlerInvalid(f"the handler name {name!r} does not match ^{NAME.pattern}$")

    def declare(function: Function) -> Function:
        REGISTRY.add(build(name, function, timeout, isolation))
        return function

    return declare


def build(
    name: str,
    function: Callable[..., Any],
    timeout: timedelta | None = None,
    isolation: Literal["process"] | None = None,
) -> Handler:
    """Make a handler of a function without registering it.

    Raises:
        HandlerInvalid: The function cannot be a handler; the message names its place.
    """
    where = _where(function)
    if not callable(function) or inspect.isclass(function):
        raise HandlerInvalid(f"{where}: a handler must be a function")
    if inspect.ismethod(function):
        raise HandlerInvalid(f"{where}: a handler must be a function, not a method of an object or a class")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerInvalid(f"{where}: a handler must return, it cannot yield")
    if timeout is not None and timeout.total_seconds() <= 0:
        raise HandlerInvalid(f"{where}: the timeout of {name!r} must be longer than nothing")
    if isolation not in (None, "process"):
        raise HandlerInvalid(f'{where}: the isolation of {name!r} is "process" or left out, not {isolation!r}')
    payload, takes_context = _parameters(function, where)
    return Handler(
        name=name,
        function=function,
        is_async=inspect.iscoroutinefunction(function),
        takes_context=takes_context,
        timeout_s=None if timeout is None else timeout.total_seconds(),
        is_isolated=isolation is not None,
        where=where,
        decode=_decoder(_annotation(function, payload, where), where),
    )


def load_handlers(modules: Iterable[str]) -> Registry:
    """Import the modules named in `HOWDAH_HANDLERS`; what they declare is then registered.

    The current directory is searched last, as a console script would not.

    Raises:
        HandlerImportFailed: A module could not be imported, with the traceback from its first line on.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    for module in modules:
        known = set(REGISTRY.names())
        is_new = module not in sys.modules
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise HandlerImportFailed(module, _trace(error)) from error
        if is_new and known == set(REGISTRY.names()):
            _logger.warning("handler_module_empty", extra={"fields": {"module": module}})
    return REGISTRY


def encode_result(result: object) -> bytes | None:
    """Write what a handler returned as JSON, as it is stored with the run.

    Returns:
        JSON text of at most `RESULT_BYTES_MAX` bytes, or None for None.

    Raises:
        ResultInvalid: The value has no JSON form, is too large, or holds a NUL, which PostgreSQL cannot read out.
    """
    if result is None:
        return None
    try:
        encoded = msgspec.json.encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ResultInvalid(f"the result cannot be written as JSON: {error}") from error
    check_result(encoded)
    return encoded


def check_result(encoded: bytes) -> None:
    """Refuse JSON text that cannot be stored as a result.

    Raises:
        ResultInvalid: It is too large, or holds a NUL, which PostgreSQL cannot read out.
    """
    if len(encoded) > RESULT_BYTES_MAX:
        raise ResultInvalid(f"the result has {len(encoded)} bytes as JSON; at most {RESULT_BYTES_MAX} are stored")
    if b"\\u0000" in encoded and _ESCAPED_NUL.search(encoded):
        raise ResultInvalid("the result holds a NUL character (\\u0000)")


def _parameters(function: Callable[..., Any], where: str) -> tuple[inspect.Parameter, bool]:
    """Return the payload's parameter, and whether there is one for the context."""
    kinds = inspect.Parameter
    positional: list[inspect.Parameter] = []
    for each in _signature(function).parameters.values():
        if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
            positional.append(each)
        elif each.kind is not kinds.KEYWORD_ONLY or each.default is kinds.empty:
            raise HandlerInvalid(f"{where}: a handler cannot take {each}; it is called with payload and context")
    if len(positional) not in (1, 2):
        raise HandlerInvalid(
            f"{where}: a handler takes the payload, or the payload and the context, not {len(positional)} parameters"
        )
    if positional[0].name in ("self", "cls"):
        raise HandlerInvalid(
            f"{where}: a handler takes the payload first, and this one takes {positional[0].name}: it would be called "
            "without an object; declare a function outside of the class, or a staticmethod"
        )
    if len(positional) == 2 and positional[1].default not in (kinds.empty, None):
        raise HandlerInvalid(f"{where}: the second parameter is given the context, its default would never count")
    return positional[0], len(positional) == 2


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations are evaluated on demand there; names that exist for type
        # checkers only (often the context's) must not fail the others.
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter, where: str) -> Any:
    """Return the payload's type, resolved if it was written as a string; Any if there is none."""
    if parameter.annotation is inspect.Parameter.empty:
        return Any

    def holder() -> None: ...

    # The payload's annotation alone: the context's often exists for type checkers only.
    holder.__annotations__ = {"payload": parameter.annotation}
    scope = inspect.unwrap(function)
    try:
        return typing.get_type_hints(holder, getattr(scope, "__globals__", {}), include_extras=True)["payload"]
    except Exception as error:
        raise HandlerInvalid(
            f"{where}: the payload's annotation {parameter.annotation!r} cannot be resolved when the module "
            f"is imported ({error}); define it at the module's top level, not under TYPE_CHECKING"
        ) from error


def _decoder(annotation: Any, where: str) -> Callable[[bytes], Any]:
    if annotation is bytes:
        return bytes
    try:
        # Refuses, at any depth, classes that msgspec could never make from JSON.
        msgspec.json.schema_components([annotation], schema_hook=_schema_of_object)
        return msgspec.json.Decoder(annotation, dec_hook=_decode_object).decode
    except (TypeError, NameError, AttributeError) as error:
        raise HandlerInvalid(
            f"{where}: JSON cannot be decoded into the payload's annotation {annotation!r}; use a dataclass, "
            "a msgspec Struct, a TypedDict or a plain type, or take dict and convert it yourself"
        ) from error


def _schema_of_object(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _decode_object(kind: type, value: Any) -> Any:
    """Leave what is annotated with `object`, which msgspec does not know, as JSON has it."""
    if kind is object:
        return value
    raise NotImplementedError


def _identity(function: Callable[..., Any]) -> tuple[object, ...]:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    # Functions made in a function, and lambdas, share a name without being the same.
    return (function,) if name is None or "<" in name else (module, name)


def _where(function: object) -> str:
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)


def _place(declared: Handler) -> str:
    return f"{getattr(declared.function, '__module__', '?')} ({declared.where})"


def _trace(error: BaseException) -> str:
    """Format an error without the frames of the import machinery above the user's module."""
    ours = (__file__, importlib.__file__)
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(("<frozen importlib", *ours)):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
