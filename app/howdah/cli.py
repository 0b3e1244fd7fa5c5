"""The command `howdah`.

Each command imports what it needs when it runs, so that `howdah --help` answers
at once. What a command refuses is one line on standard error and an exit code
(docs/reference/exit-codes.md); a traceback is a fault of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from howdah.core.credentials import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from howdah.core.service import ExitCode
    from howdah.core.settings import Settings

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_HELP)
def main() -> None:
    """Howdah, a job queue service that rides on PostgreSQL.

    Settings come from HOWDAH_* variables. `howdah up` needs none of them.
    """


@main.command()
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port of the API; 0 takes a free one.",
)
@click.option(
    "--data",
    default=".howdah",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of PostgreSQL's data, the API key and the logs.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
@click.option("--demo", is_flag=True, help="Run a mixed load and show what becomes of it.")
def up(port: int, data: Path, workers: int, demo: bool) -> None:
    """Run all of Howdah on this machine: PostgreSQL, API, workers and a scheduler.

    PostgreSQL is an embedded one, unless HOWDAH_DATABASE_URL names another.
    """
    from howdah.up.up import run

    with _refusals():
        sys.exit(run(port=port, directory=data, worker_count=workers, is_demo=demo))


@main.command()
def api() -> None:
    """Serve the HTTP API."""
    from howdah.api.main import main as serve

    _be(serve)


@main.command()
def worker() -> None:
    """Run tasks: HTTP callbacks, and the handlers of HOWDAH_HANDLERS."""
    from howdah_worker.worker import main as work

    _be(work)


@main.command()
def scheduler() -> None:
    """Look after the queue: lost runs, partitions, retention."""
    from howdah_scheduler.scheduler import main as schedule

    _be(schedule)


@main.command()
@click.option("--pre", "phase", flag_value="pre", type=str, help="Only what the release before can live with.")
@click.option(
    "--post", "phase", flag_value="post", type=str, help="Only what waits until the release before has stopped."
)
def migrate(phase: Literal["pre", "post"] | None) -> None:
    """Bring the schema to this release."""
    from howdah.core.db.migrate import migrate as bring

    with _refusals():
        settings = _settings()
        applied = bring(settings.direct_url or settings.database_url, settings.schema, phase)
    for file in applied:
        click.echo(f"applied {file}")
    click.echo(f"{len(applied)} files applied" if applied else "nothing to apply")


@main.command()
def doctor() -> None:
    """Examine the server, the schema, the partitions, the chores, the workers, and tasks that nobody takes.

    Exit code 0: all is well. 1: something needs attention. 69: processes would refuse to start.
    """
    from howdah.doctor import diagnose

    with _refusals():
        diagnosis = asyncio.run(diagnose(_settings()))
    for each in diagnosis.observations:
        click.echo(f"{each.mark:<8} {each.subject:<16} {each.text}")
    sys.exit(diagnosis.exit_code)


@main.command()
@click.option("--count", default=20_000, show_default=True, type=click.IntRange(1_000, 1_000_000), help="Tasks to run.")
@click.option("--disturb", is_flag=True, help="Measure although tasks are run here now.")
def bench(count: int, disturb: bool) -> None:
    """Measure how fast tasks are stored, run and started here.

    Everything happens in a tenant of its own, which is removed afterwards.
    """
    from howdah.benchmark import SESSIONS, measure

    with _refusals():
        figures = asyncio.run(measure(_settings(), count=count, may_disturb=disturb))
    click.echo(f"stored one by one   {figures.single_per_s:>10,.0f} tasks/s, {SESSIONS} sessions")
    click.echo(f"stored in batches   {figures.batch_per_s:>10,.0f} tasks/s, one session")
    click.echo(f"run                 {figures.run_per_s:>10,.0f} tasks/s, one worker process")
    waits = f"{figures.wait_p50_s * 1e3:>10,.1f} ms (median), {figures.wait_p99_s * 1e3:,.1f} ms (p99)"
    click.echo(f"waited, worker idle {waits}")


@main.command()
def version() -> None:
    """Print the version."""
    import howdah

    click.echo(howdah.__version__)


@main.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.option("--name", required=True, help="What people call the key.")
@click.option("--tenant", default="default", show_default=True, help="Whose requests are made with it.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="May be repeated; all if left out.")
def key_create(name: str, tenant: str, scopes: tuple[str, ...]) -> None:
    """Make a key and print it, this once."""
    from howdah.access import create_key

    with _refusals():
        click.echo(asyncio.run(create_key(_settings(), name=name, tenant=tenant, scopes=scopes or SCOPES)))


@key.command("revoke")
@click.argument("key_id", metavar="KEY")
def key_revoke(key_id: str) -> None:
    """Refuse a key from now on. KEY is the key, or its id: the part after hwd_."""
    from howdah.access import revoke_key
    from howdah.api.auth import CACHE_S

    with _refusals():
        revoked = asyncio.run(revoke_key(_settings(), key_id))
    click.echo(f"revoked {revoked}; API processes that used it lately refuse it within {CACHE_S:g} s")


@main.group()
def tenant() -> None:
    """Tenants."""


@tenant.command("create")
@click.argument("name")
def tenant_create(name: str) -> None:
    """Make a tenant, unless it exists."""
    from howdah.access import create_tenant as create

    with _refusals():
        is_new = asyncio.run(create(_settings(), name))
    click.echo(f"made the tenant {name}" if is_new else f"the tenant {name} exists")


def _be(process: Callable[[Settings], ExitCode]) -> NoReturn:
    """Be a process of the service until it ends, and end with its exit code."""
    from howdah.core.service import leave

    with _refusals():
        settings = _settings()
    leave(process(settings))


def _settings() -> Settings:
    from howdah.core.settings import Settings

    return Settings.from_env(os.environ)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """End the process with a line that says what is wrong, and the exit code that fits."""
    from howdah.core.errors import HandlerImportFailed, HowdahError, SettingInvalid, StartRefused, UpRefused
    from howdah.core.service import ExitCode

    try:
        yield
    except HowdahError as refusal:
        click.echo(f"howdah: {refusal}", err=True)
        if isinstance(refusal, UpRefused):
            sys.exit(refusal.exit_code)
        if isinstance(refusal, (SettingInvalid, HandlerImportFailed)):
            sys.exit(ExitCode.SETTING_INVALID)
        sys.exit(ExitCode.SCHEMA_REFUSED if isinstance(refusal, StartRefused) else ExitCode.FAILED)
