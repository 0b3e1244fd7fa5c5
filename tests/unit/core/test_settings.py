"""Settings from the environment, and their reference page."""

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from howdah.core.errors import SettingInvalid
from howdah.core.settings import Settings, redact_url, specs

URL = "postgresql://howdah@127.0.0.1:5432/howdah"
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def read(**environ: str) -> Settings:
    """Read settings from these variables and a database URL."""
    return Settings.from_env({"HOWDAH_DATABASE_URL": URL, **environ})


def test_settings_from_the_url_alone_take_defaults() -> None:
    """Only the database URL is required."""
    settings = read()

    assert settings == Settings(database_url=URL)
    assert (settings.lease_s, settings.queues, settings.handlers) == (15.0, ("*",), ())


def test_settings_cannot_be_changed() -> None:
    """A value that was read stays."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().lease_s = 5.0  # type: ignore[misc]


def test_settings_without_a_url_are_refused() -> None:
    """The error of a missing variable names it."""
    with pytest.raises(SettingInvalid, match=r"^HOWDAH_DATABASE_URL: is required") as caught:
        Settings.from_env({})
    assert caught.value.variable == "HOWDAH_DATABASE_URL"


def test_settings_with_a_server_of_our_own_need_no_url() -> None:
    """The URL that the caller brings counts only where the variable is unset."""
    ours = "postgresql:///howdah?host=/tmp/pg"

    assert Settings.from_env({}, database_url=ours).database_url == ours
    assert Settings.from_env({"HOWDAH_DATABASE_URL": URL}, database_url=ours).database_url == URL


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("HOWDAH_DIRECT_URL", "postgres://h/d", "direct_url", "postgres://h/d"),
        ("HOWDAH_SCHEMA", "cell_7", "schema", "cell_7"),
        ("HOWDAH_ALLOW_LOSSY_COMMIT", "1", "allow_lossy_commit", True),
        ("HOWDAH_LOG_LEVEL", "debug", "log_level", "debug"),
        ("HOWDAH_LOG_FORMAT", "text", "log_format", "text"),
        ("HOWDAH_METRICS_PORT", "0", "metrics_port", 0),
        ("HOWDAH_API_PORT", " 80 ", "api_port", 80),
        ("HOWDAH_API_SOCKET", "/run/howdah.sock", "api_socket", "/run/howdah.sock"),
        ("HOWDAH_PAYLOAD_BYTES_MAX", "512KiB", "payload_bytes_max", 524_288),
        ("HOWDAH_BATCH_BYTES_MAX", "16 MiB", "batch_bytes_max", 16_777_216),
        ("HOWDAH_QUEUES", "emails, reports.*,,emails", "queues", ("emails", "reports.*")),
        ("HOWDAH_QUEUES", "critical.*=5,emails=2,*", "queues", ("critical.*=5", "emails=2", "*")),
        ("HOWDAH_HANDLERS", "shop.jobs,reports", "handlers", ("shop.jobs", "reports")),
        ("HOWDAH_LEASE_S", "3", "lease_s", 3.0),
        ("HOWDAH_LEASE_S", "1h", "lease_s", 3_600.0),
        ("HOWDAH_DRAIN_S", "0.5", "drain_s", 0.5),
        ("HOWDAH_CALLBACKS", "No", "callbacks", False),
        ("HOWDAH_CALLBACK_ALLOW_CIDRS", "10.0.0.0/8,::1/128", "callback_allow_cidrs",
         (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        ("HOWDAH_RETENTION_S", "90d", "retention_s", 7_776_000.0),
    ],
)  # fmt: skip
def test_setting_is_read(variable: str, text: str, field: str, value: object) -> None:
    """Each kind of value is read from its text."""
    assert getattr(read(**{variable: text}), field) == value


@pytest.mark.parametrize("variable", [variable for _, variable, _ in specs()])
def test_setting_that_is_empty_counts_as_unset(variable: str) -> None:
    """An empty variable, as Compose files leave them, changes nothing."""
    assert Settings.from_env({"HOWDAH_DATABASE_URL": URL} | {variable: " "}, database_url=URL) == read()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HOWDAH_DATABASE_URL", "mysql://u:secret@h/d"),
        ("HOWDAH_DATABASE_URL", "host=h password=secret"),
        ("HOWDAH_SCHEMA", "Howdah"),
        ("HOWDAH_SCHEMA", "a" * 32),
        ("HOWDAH_SCHEMA", 'x";drop'),
        ("HOWDAH_ALLOW_LOSSY_COMMIT", "maybe"),
        ("HOWDAH_LOG_LEVEL", "INFO"),
        ("HOWDAH_METRICS_PORT", "65536"),
        ("HOWDAH_API_PORT", "-1"),
        ("HOWDAH_API_PORT", "8_080"),
        ("HOWDAH_API_PORT", "٨٠"),
        ("HOWDAH_API_POOL", "0"),
        ("HOWDAH_API_SOCKET", "x" * 101),
        ("HOWDAH_PAYLOAD_BYTES_MAX", "1GB"),
        ("HOWDAH_PAYLOAD_BYTES_MAX", "1023"),
        ("HOWDAH_QUEUES", "emails,Reports"),
        ("HOWDAH_QUEUES", "a/b"),
        ("HOWDAH_QUEUES", "a=0"),
        ("HOWDAH_QUEUES", "a=-1"),
        ("HOWDAH_QUEUES", "a=+1"),
        ("HOWDAH_QUEUES", "a=1.5"),
        ("HOWDAH_QUEUES", "a=NaN"),
        ("HOWDAH_QUEUES", "a=1001"),
        ("HOWDAH_QUEUES", "a=99999999999999999999"),
        ("HOWDAH_QUEUES", "a=1_0"),
        ("HOWDAH_QUEUES", "a=٣"),
        ("HOWDAH_QUEUES", "a="),
        ("HOWDAH_QUEUES", "=5"),
        ("HOWDAH_QUEUES", "a=5,a=6"),
        ("HOWDAH_QUEUES", "a=5,a"),
        ("HOWDAH_QUEUES", "!slow.*"),
        ("HOWDAH_HANDLERS", "shop.jobs,shop-jobs"),
        ("HOWDAH_HANDLERS", "shop..jobs"),
        ("HOWDAH_CONCURRENCY", "10001"),
        ("HOWDAH_LEASE_S", "2.9"),
        ("HOWDAH_LEASE_S", "inf"),
        ("HOWDAH_LEASE_S", "nan"),
        ("HOWDAH_LEASE_S", "1e1"),
        ("HOWDAH_LEASE_S", "-15"),
        ("HOWDAH_LEASE_S", "15x"),
        ("HOWDAH_CALLBACK_ALLOW_CIDRS", "10.0.0.1/8"),
        ("HOWDAH_RETENTION_S", "23h"),
        ("HOWDAH_PARTITION_DAYS_AHEAD", "1"),
    ],
)
def test_setting_that_is_not_allowed_is_refused(variable: str, text: str) -> None:
    """The error names the variable and says what is allowed; of a secret it shows nothing."""
    spec = next(spec for _, name, spec in specs() if name == variable)

    with pytest.raises(SettingInvalid) as caught:
        Settings.from_env({"HOWDAH_DATABASE_URL": URL} | {variable: text})
    assert str(caught.value).startswith(f"{variable}: must be {spec.allowed}")
    assert "secret" not in str(caught.value)


def test_setting_that_is_unknown_is_refused_with_a_hint() -> None:
    """A misspelt variable stops the start and the error names the nearest one."""
    with pytest.raises(SettingInvalid, match=r"HOWDAH_LEASES: .*did you mean HOWDAH_LEASE_S"):
        read(HOWDAH_LEASES="20")
    with pytest.raises(SettingInvalid, match=r"HOWDAH_CONCURENCY: .*did you mean HOWDAH_CONCURRENCY"):
        read(HOWDAH_CONCURENCY="20")


@pytest.mark.parametrize("variable", ["HOWDAH_ZZZZZZ", "HOWDAH_WORKERS", "HOWDAH_SCHEDULES", "HOWDAH_PG_USER"])
def test_setting_that_is_unknown_and_like_no_other_gets_no_hint(variable: str) -> None:
    """A wrong hint sends an operator astray, so a name that is near no other is only refused."""
    with pytest.raises(SettingInvalid, match=rf"{variable}: is not a setting.*settings\.md") as caught:
        read(**{variable: "20"})
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HOWDAH_PG_BIN", "/usr/lib/postgresql/16/bin"),
        ("HOWDAH_TEST_DATABASE_URL", "x"),
        ("HOWDAH_API_SERVICE_HOST", "10.0.0.1"),
        ("HOWDAH_API_SERVICE_PORT_HTTP", "80"),
        ("HOWDAH_API_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HOWDAH_API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HOWDAH_PORT", "tcp://10.0.0.1:8080"),
        ("LEASE_S", "20"),
    ],
)
def test_variable_of_others_is_passed_by(variable: str, text: str) -> None:
    """Known variables of other parts, and those that Kubernetes makes for a Service named howdah, do no harm."""
    assert read(**{variable: text}) == read()


def test_port_overwritten_by_kubernetes_is_explained() -> None:
    """A Service named howdah-api sets HOWDAH_API_PORT to a URL; the error says what to do about it."""
    with pytest.raises(SettingInvalid, match=r"HOWDAH_API_PORT: .*enableServiceLinks"):
        read(HOWDAH_API_PORT="tcp://10.0.0.1:8080")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://howdah:canary@db/howdah",
        "postgresql://howdah:can%40canary@db:5432/howdah?sslmode=require",
        "postgresql://howdah:x@canary@db/howdah",
        "postgresql://howdah:x/canary@db/howdah",
        "postgresql://:canary@db/howdah",
        "postgresql://db/howdah?user=howdah&password=canary",
        "postgresql://db/howdah?PASSWORD=canary&sslpassword=canary",
        "postgresql://a:canary@db1,db2/howdah?application_name=x@y",
    ],
)
def test_repr_shows_no_password(url: str) -> None:
    """Whatever place a password has in a URL, neither repr nor str of the settings shows it."""
    settings = read(HOWDAH_DATABASE_URL=url, HOWDAH_DIRECT_URL=url)

    assert "canary" not in repr(settings) + str(settings)
    assert "***" in redact_url(url)


def test_repr_shows_everything_else() -> None:
    """An operator finds each setting in the start-up log."""
    shown = repr(read(HOWDAH_SCHEMA="cell_7"))

    assert "schema='cell_7'" in shown
    assert f"database_url='{URL}'" in shown
    assert all(f"{field.name}=" in shown for field in dataclasses.fields(Settings))


def test_reference_page_says_what_the_code_says() -> None:
    """docs/reference/settings.md has one row per setting, in order, with exactly what the declaration says."""
    rows = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `HOWDAH_")]
    expected = [
        f"| `{variable}` | {spec.default_text} | {spec.allowed} | {spec.processes} | {spec.meaning} |"
        for _, variable, spec in specs()
    ]

    assert rows == expected
