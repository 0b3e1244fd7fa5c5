"""Connection strings: what every connection of ours asks of libpq.

A half-open connection (a host that vanished, a firewall that forgot) must be
noticed within seconds: measured, keep-alives alone left a query hanging for more
than 40 s, because they do not count while sent data waits for its
acknowledgement. `tcp_user_timeout` ends that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from howdah.core.errors import SettingInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

# An operator's own value in the URL wins over these. Three probes, begun after 5 s and
# a second apart, find an idle connection dead within the 8 s that a busy one is given.
_DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": "5",
    "tcp_user_timeout": "8000",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "1",
    "keepalives_count": "3",
}


def connection_string(url: str, process: str, server_settings: Mapping[str, str] | None = None) -> str:
    """Return a libpq connection string with everything that our connections ask for.

    Args:
        url: A URL, or libpq's `key=value` form. What it sets is kept, the
            application name and the encoding excepted.
        process: Shown to DBAs as the application name `howdah-<process>`.
        server_settings: Settings of the session (`-c name=value`). They come
            after those in the URL and win over them.

    Returns:
        A `key=value` string. It may hold a password: never log it.

    Raises:
        SettingInvalid: libpq does not understand the URL. The message does not
            repeat it.
    """
    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        raise SettingInvalid("HOWDAH_DATABASE_URL", "is no connection string that libpq understands") from None
    parameters: dict[str, Any] = {
        **_DEFAULTS,
        **given,
        "application_name": f"howdah-{process}",
        "client_encoding": "UTF8",
    }
    if server_settings:
        options = [str(given["options"])] if given.get("options") else []
        options += [f"-c {name}={_escaped(value)}" for name, value in server_settings.items()]
        parameters["options"] = " ".join(options)
    return make_conninfo(**parameters)


def _escaped(value: str) -> str:
    """Write a value so that the server's option parser, which splits at white space, keeps it whole."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
