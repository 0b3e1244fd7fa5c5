"""Connection strings."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from howdah.core.db.dsn import connection_string
from howdah.core.errors import SettingInvalid

URL = "postgresql://ann:s3cret@db.example:5433/jobs"


@pytest.mark.parametrize("url", [URL, "host=db.example port=5433 user=ann password=s3cret dbname=jobs"])
def test_connection_string_always_guards_against_dead_connections(url: str) -> None:
    """Whatever the form, a connection that died is noticed within seconds, and its owner has a name."""
    assert conninfo_to_dict(connection_string(url, "worker")) == {
        "host": "db.example",
        "port": "5433",
        "user": "ann",
        "password": "s3cret",
        "dbname": "jobs",
        "connect_timeout": "5",
        "tcp_user_timeout": "8000",
        "keepalives": "1",
        "keepalives_idle": "5",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "application_name": "howdah-worker",
        "client_encoding": "UTF8",
    }


def test_connection_string_keeps_what_the_operator_set() -> None:
    """Limits and TLS in the URL win; the application name stays ours, for DBAs look for it."""
    given = f"{URL}?sslmode=verify-full&connect_timeout=20&tcp_user_timeout=3000&application_name=shop"
    parameters = conninfo_to_dict(connection_string(given, "api"))

    assert parameters["sslmode"] == "verify-full"
    assert parameters["connect_timeout"] == "20"
    assert parameters["tcp_user_timeout"] == "3000"
    assert parameters["application_name"] == "howdah-api"


def test_connection_string_adds_our_session_settings_after_the_operators() -> None:
    """The server takes the last of two, so ours count; spaces and backslashes do not split a value."""
    given = f"{URL}?options=-c%20work_mem%3D8MB%20-c%20jit%3Don"
    parameters = conninfo_to_dict(connection_string(given, "api", {"jit": "off", "a.b": r"read \committed"}))

    assert parameters["options"] == r"-c work_mem=8MB -c jit=on -c jit=off -c a.b=read\ \\committed"


def test_connection_string_keeps_options_where_we_set_nothing() -> None:
    """Without session settings of ours, those in the URL are untouched."""
    parameters = conninfo_to_dict(connection_string(f"{URL}?options=-c%20work_mem%3D8MB", "api"))

    assert parameters["options"] == "-c work_mem=8MB"


def test_connection_string_refuses_nonsense_without_repeating_it() -> None:
    """The error names the variable; a password in the URL does not reach a log."""
    with pytest.raises(SettingInvalid) as refusal:
        connection_string("postgresql://ann:s3cret@db/jobs?no_such_parameter=1", "api")

    assert refusal.value.variable == "HOWDAH_DATABASE_URL"
    assert "s3cret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
