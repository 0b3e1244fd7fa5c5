"""The settings of every process: read once from `HOWDAH_*` variables, then frozen.

A field `lease_s` is read from `HOWDAH_LEASE_S` and from nowhere else. Its
declaration carries everything that is said about it (default, what is allowed,
which processes use it, one sentence), and `docs/reference/settings.md` is tested
against that. A variable that is empty counts as unset.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from howdah.core import reader
from howdah.core.errors import SettingInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX: Final = "HOWDAH_"
# Read elsewhere: by the embedded server, and by the test suite.
KNOWN_OTHERS: Final = frozenset({"HOWDAH_PG_BIN"})
KNOWN_OTHER_PREFIXES: Final = ("HOWDAH_TEST_",)
# Of the names without their prefix, which all share. Chosen: a letter wrong, missing or too many passes,
# and so do words in another order; names that only have a word in common do not.
_NEAR: Final = 0.7

Network: TypeAlias = IPv4Network | IPv6Network

# Kubernetes puts variables like HOWDAH_API_SERVICE_HOST and HOWDAH_PORT_80_TCP
# into every pod beside a Service called howdah or howdah-api. They are not ours.
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$")
_SERVICE_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known about a setting besides its name, type and default.

    Attributes:
        read: Turns the variable's text into the value; raises ValueError saying what is allowed.
        allowed: The values that are allowed, in words.
        processes: Which processes use it.
        meaning: One sentence.
        default_text: The default as an operator would write it.
        is_secret: The value must not be shown, neither in errors nor in logs.
    """

    read: Callable[[str], Any]
    allowed: str
    processes: str
    meaning: str
    default_text: str
    is_secret: bool = False


def _setting(
    kind: reader.Reader,
    default: Any,
    meaning: str,
    *,
    processes: str = "all",
    default_text: str | None = None,
    is_secret: bool = False,
) -> Any:
    """Declare one field; `MISSING` as the default makes the variable required."""
    shown = default_text if default_text is not None else str(default)
    spec = Spec(kind.read, kind.allowed, processes, meaning, shown, is_secret)
    return field(default=default, metadata={"spec": spec})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """All settings of a process. Durations are seconds, sizes bytes."""

    database_url: str = _setting(
        reader.postgres_url(),
        MISSING,
        "Where PostgreSQL is; may be a transaction pooler. `howdah up` starts a server of its own if unset.",
        default_text="required",
        is_secret=True,
    )
    direct_url: str | None = _setting(
        reader.postgres_url(),
        None,
        "PostgreSQL without a pooler between, for LISTEN and migrations; unset, the database URL is used.",
        default_text="unset",
        is_secret=True,
    )
    schema: str = _setting(
        reader.pattern(r"[a-z][a-z0-9_]{0,30}", "a lower-case SQL name of at most 31 characters"),
        "howdah",
        "The PostgreSQL schema that holds every table of this installation.",
    )
    allow_lossy_commit: bool = _setting(
        reader.boolean(),
        False,
        "Start although synchronous_commit is off: a crash of PostgreSQL may then lose acknowledged tasks.",
        default_text="false",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        reader.choice("debug", "info", "warning", "error"), "info", "The least severe records that are logged."
    )
    log_format: Literal["json", "text"] = _setting(
        reader.choice("json", "text"), "json", "One JSON object a line, or text for people at a terminal."
    )
    metrics_port: int | None = _setting(
        reader.integer(0, 65_535),
        None,
        "Port of /healthz, /readyz and /metrics; 0 takes a free one, unset opens none. The API serves them itself.",
        processes="worker, scheduler",
        default_text="unset",
    )
    metrics_host: str = _setting(
        reader.text(255), "127.0.0.1", "Address that the metrics port listens on.", processes="worker, scheduler"
    )
    api_host: str = _setting(reader.text(255), "127.0.0.1", "Address that the API listens on.", processes="api")
    api_port: int = _setting(
        reader.integer(0, 65_535), 8080, "Port that the API listens on; 0 takes a free one.", processes="api"
    )
    api_socket: str | None = _setting(
        reader.text(100),
        None,
        "Path of a Unix socket to listen on instead of host and port.",
        processes="api",
        default_text="unset",
    )
    api_pool: int = _setting(
        reader.integer(1, 100), 4, "PostgreSQL connections for everything but creating tasks.", processes="api"
    )
    payload_bytes_max: int = _setting(
        reader.size(1_024, 16 * 1_024 * 1_024), 262_144, "Largest payload of a task.", processes="api"
    )
    body_bytes_max: int = _setting(
        reader.size(1_024, 64 * 1_024 * 1_024),
        1_048_576,
        "Largest body of a request, batches excepted.",
        processes="api",
    )
    batch_bytes_max: int = _setting(
        reader.size(1_024, 256 * 1_024 * 1_024), 8_388_608, "Largest body of a batch of tasks.", processes="api"
    )
    queues: tuple[str, ...] = _setting(
        reader.queue_patterns(),
        ("*",),
        "Queues to take runs from, by name or pattern, of every tenant; with weights maybe (`emails=5,reports.*`).",
        processes="worker",
        default_text="*",
    )
    handlers: tuple[str, ...] = _setting(
        reader.modules(),
        (),
        "Modules to import; the handlers they declare are served.",
        processes="worker",
        default_text="none",
    )
    concurrency: int = _setting(
        reader.integer(1, 10_000),
        100,
        "Runs that one worker process has under way at once.",
        processes="worker",
    )
    threads: int = _setting(
        reader.integer(1, 1_000),
        16,
        "How many of them may be plain (not async) functions, each in a thread.",
        processes="worker",
    )
    processes: int = _setting(
        reader.integer(1, 1_000),
        4,
        "How many of them may be isolated handlers, each in a child process; started when they are first needed.",
        processes="worker",
    )
    lease_s: float = _setting(
        reader.seconds(3, 3_600),
        15.0,
        "How long a run stays with a worker that is not heard of; renewed while it works.",
        processes="worker",
        default_text="15",
    )
    drain_s: float = _setting(
        reader.seconds(0, 86_400),
        30.0,
        "How long a stop waits for runs under way before it hands them back.",
        processes="worker, scheduler",
        default_text="30",
    )
    handler_pool: int = _setting(
        reader.integer(1, 1_000),
        4,
        "Most PostgreSQL connections that handlers hold through `ctx.transaction()`; opened on first use.",
        processes="worker",
    )
    callbacks: bool = _setting(
        reader.boolean(), True, "Whether this worker delivers HTTP callbacks.", processes="worker", default_text="true"
    )
    callback_allow_cidrs: tuple[Network, ...] = _setting(
        reader.networks(),
        (),
        "Private or special address ranges that callbacks may reach all the same.",
        processes="api, worker",
        default_text="none",
    )
    callback_response_bytes_max: int = _setting(
        reader.size(0, 1_048_576),
        4_096,
        "How much of a callback's answer is kept with the run.",
        processes="worker",
    )
    public_url: str | None = _setting(
        reader.base_url(),
        None,
        "Where receivers of callbacks reach the API, for `Howdah-Callback-Url`; unset, they get a token only.",
        processes="worker",
        default_text="unset",
    )
    retention_s: float = _setting(
        reader.seconds(86_400, 3_660 * 86_400),
        30 * 86_400.0,
        "How long tasks and their history are kept after the day of their creation, or their end if they outlive that.",
        processes="scheduler",
        default_text="30d",
    )
    partition_days_ahead: int = _setting(
        reader.integer(2, 366),
        14,
        "For how many days to come partitions are made in advance.",
        processes="scheduler",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, database_url: str | None = None) -> Settings:
        """Read all settings from environment variables.

        Args:
            environ: For example `os.environ`; variables without the prefix are passed by.
            database_url: Used where `HOWDAH_DATABASE_URL` is unset, for a server that we start ourselves.

        Raises:
            SettingInvalid: A variable is missing, not allowed, or unknown.
        """
        _refuse_unknown(environ)
        values: dict[str, Any] = {}
        for name, variable, spec in specs():
            text = environ.get(variable, "").strip()
            if text:
                values[name] = _read(variable, spec, text)
        if "database_url" not in values:
            if database_url is None:
                raise SettingInvalid(
                    "HOWDAH_DATABASE_URL", "is required, for example postgresql://howdah@127.0.0.1:5432/howdah"
                )
            values["database_url"] = database_url
        return cls(**values)

    def __repr__(self) -> str:
        """Show every field; of secret ones only what is safe to log."""
        shown = []
        for name, _, spec in specs():
            value = getattr(self, name)
            if spec.is_secret and value is not None:
                value = redact_url(value)
            shown.append(f"{name}={value!r}")
        return f"Settings({', '.join(shown)})"


def specs() -> list[tuple[str, str, Spec]]:
    """Return (field, variable, what is known about it) of every setting, in order of declaration."""
    return [(each.name, PREFIX + each.name.upper(), cast("Spec", each.metadata["spec"])) for each in fields(Settings)]


def redact_url(url: str) -> str:
    """Return a PostgreSQL URL without its passwords, wherever they stand in it.

    Rather hides too much of an odd URL than too little.
    """
    url = re.sub(r"://([^:/@?]*):.*@", r"://\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


def _read(variable: str, spec: Spec, text: str) -> Any:
    if variable.endswith("_PORT") and _SERVICE_LINK_VALUE.match(text):
        raise SettingInvalid(
            variable, "was set by Kubernetes for a Service of that name; set enableServiceLinks: false on the pod"
        )
    try:
        return spec.read(text)
    except ValueError as error:
        found = "" if spec.is_secret else f", not {text[:100]!r}"
        detail = f" ({error})" if str(error) else ""
        raise SettingInvalid(variable, f"must be {spec.allowed}{found}{detail}") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {variable for _, variable, _ in specs()} | KNOWN_OTHERS
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in known or variable.startswith(KNOWN_OTHER_PREFIXES):
            continue
        if _SERVICE_LINK.search(variable) or _SERVICE_LINK_VALUE.match(environ[variable]):
            continue
        names = [each.removeprefix(PREFIX) for each in known]
        near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1, cutoff=_NEAR)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else "; docs/reference/settings.md lists all of them"
        raise SettingInvalid(variable, f"is not a setting of Howdah{hint}")
