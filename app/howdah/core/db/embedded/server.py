"""The life of an embedded server: found or made, started, shared, stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self
from urllib.parse import quote

from howdah.core.db.embedded import launch
from howdah.core.db.embedded.account import ACCOUNT_NAME, Account, choose_account, server_environment
from howdah.core.db.embedded.binaries import find_binaries, make_reachable
from howdah.core.db.embedded.lockfile import Postmaster, find_postmaster, read_lock_file
from howdah.core.db.embedded.places import choose_home, choose_socket_directory, recorded_home, to_start_anew
from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

PORT_DEFAULT: Final = 5432

# A start takes 30-50 ms after a clean stop; a finer look would only cost.
_LOOK_S: Final = 0.02
_LOG_TAIL_BYTES: Final = 2000


class EmbeddedPostgres:
    """A PostgreSQL server that lives in a data directory and ends with this process.

    Several processes may start the same data directory at once: one becomes
    the owner of the server, the others share it. If the owner is killed, the
    server shuts down by itself. Commits are as durable as PostgreSQL's
    defaults make them.

    The server listens on a socket in a directory that only its own account
    (and root) can enter; there, the superuser `howdah` needs no password. With
    a `port` it also listens on 127.0.0.1, where a password is always needed.

    Attributes:
        data_dir: The real path of the data directory.
        bin_dir: Where the server's programs are. Set by `start`.
        pid: The server's first process. Set by `start`.
        is_owner: True if `stop` will stop the server. Set by `start`.
        notices: One line for each thing done that its user should hear of,
            such as a system user created. To be printed before all else.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        options: Mapping[str, str] | None = None,
        port: int | None = None,
        bin_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Describe the server; nothing is touched before `start`.

        Args:
            data_dir: Made by `start` if need be; its parents too.
            options: Settings of the server (`-c name=value`). They count only
                if this process becomes the owner.
            port: TCP port on 127.0.0.1; None for the socket alone.
            bin_dir: Holds `postgres`. Default: HOWDAH_PG_BIN, else what is
                found (see `find_binaries`).
        """
        chosen = bin_dir or os.environ.get("HOWDAH_PG_BIN")
        self.data_dir = Path(data_dir).resolve()
        self.bin_dir: Path | None = None
        self.pid: int | None = None
        self.is_owner = False
        self.notices: list[str] = []
        self._chosen_bin_dir = Path(chosen).absolute() if chosen else None
        self._options = dict(options or {})
        self._tcp_port = port
        self._host = ""
        self._port = port or PORT_DEFAULT
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, if it is ours."""
        self.stop()

    def start(self, timeout_s: float = 120.0) -> Self:
        """Make the cluster if there is none, and start its server or share the running one.

        Args:
            timeout_s: Seconds until the server must accept connections. Crash
                recovery counts: 350 MB of log took 1.5 s.

        Raises:
            EmbeddedUnavailable: It cannot be started here, or in time; nothing
                was left running.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            with self._lock():
                self._start_or_share(deadline)
        except OSError as failure:
            raise EmbeddedUnavailable(f"PostgreSQL cannot be set up in {self.data_dir}: {failure}") from failure
        return self

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop the server if this process owns it; harmless otherwise, and when repeated.

        Asks for a fast shutdown, which ends connections and leaves a clean
        cluster; if that takes longer than `timeout_s`, for an immediate one,
        and in the end kills it, after which the next start recovers.
        """
        if self._process is None:
            return
        with contextlib.ExitStack() as held:
            # Nobody may come to share a server that is about to go. Who removed the data directory locks nothing.
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(self._lock())
            for sent in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                self._process.send_signal(sent)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout_s)
                    break
        self._process = None
        self.is_owner = False

    def is_running(self) -> bool:
        """Tell whether the server that this process owns is there; False if it owns none."""
        return self._process is not None and self._process.poll() is None

    def dsn(self, dbname: str) -> str:
        """Return a URL of a database of the started server, as its superuser, over the socket."""
        host = quote(self._host, safe="", errors="surrogateescape")
        return f"postgresql://{ACCOUNT_NAME}@/{quote(dbname, safe='')}?host={host}&port={self._port}"

    @property
    def log_file(self) -> Path:
        """Where the server logs; it survives restarts."""
        return self.data_dir / "pg.log"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.data_dir / "pg.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start_or_share(self, deadline: float) -> None:
        cluster = recorded_home(self.data_dir) / "pg"
        account = choose_account(cluster.stat() if cluster.is_dir() else None, self.notices)
        home = choose_home(self.data_dir, account, self.notices)
        cluster = home / "pg"
        try:
            binaries = find_binaries(cluster_major=_cluster_major(cluster), chosen=self._chosen_bin_dir)
        except EmbeddedUnavailable as refusal:
            if not cluster.is_dir():
                raise
            raise EmbeddedUnavailable(f"{refusal}; {to_start_anew(self.data_dir, home)}") from refusal
        self.bin_dir = binaries.bin_dir

        running = self._wait_for_others(cluster, deadline)
        if running is not None:
            self._adopt(running)
            return
        if self._process is not None:
            # Killed, or robbed of its lock file: it must be gone before another one starts.
            self._process.kill()
            self._process.wait()
        self.bin_dir = make_reachable(binaries, account, home).bin_dir
        if not cluster.is_dir():
            _initialise(self.bin_dir, account, cluster)
        socket_dir = choose_socket_directory(self.data_dir, home, account, self._tcp_port or PORT_DEFAULT)
        # No server of this cluster lives, and the directory is its own. A
        # socket's lock file is as trusting of a reused pid as the cluster's.
        for stale in socket_dir.glob(".s.PGSQL.*"):
            stale.unlink()
        # Failed statements are logged with their text, which is nobody else's business.
        with open(self.log_file, "ab", opener=lambda path, flags: os.open(path, flags, mode=0o600)) as log:
            self._process = self._spawn(cluster, socket_dir, account, log)
        try:
            self._adopt(self._wait_until_ready(cluster, deadline))
        except BaseException:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None
            raise

    def _adopt(self, postmaster: Postmaster) -> None:
        self.pid = postmaster.pid
        self.is_owner = self._process is not None and self._process.pid == postmaster.pid
        self._host, self._port = postmaster.socket_dir, postmaster.port

    def _wait_for_others(self, cluster: Path, deadline: float) -> Postmaster | None:
        """Return a running server as soon as it is ready, or None as soon as there is none."""
        while (postmaster := find_postmaster(cluster)) is not None:
            if postmaster.status == "ready":
                return postmaster
            if time.monotonic() > deadline:
                raise EmbeddedUnavailable(
                    f"PostgreSQL (pid {postmaster.pid}) in {cluster} is neither ready nor gone, or it was killed and "
                    "others of its processes live on; end them, or wait for the queries that they run"
                )
            time.sleep(_LOOK_S)
        return None

    def _spawn(self, cluster: Path, socket_dir: Path, account: Account, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # The value is a list to PostgreSQL: unquoted, a comma in a path would end the path.
        quoted = '"{}"'.format(str(socket_dir).replace('"', '""'))
        options = {
            "listen_addresses": "127.0.0.1" if self._tcp_port else "",
            "port": str(self._tcp_port or PORT_DEFAULT),
            "unix_socket_directories": quoted,
            **self._options,
        }
        argv = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        argv += [str(account.uid), str(account.gid)] if account.is_switched else ["-1", "-1"]
        argv += [f"{self.bin_dir}/postgres", "-D", str(cluster)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        return _keep(argv, log)

    def _wait_until_ready(self, cluster: Path, deadline: float) -> Postmaster:
        assert self._process is not None
        while True:
            postmaster = read_lock_file(cluster)
            if postmaster is not None and postmaster.pid == self._process.pid and postmaster.status == "ready":
                return postmaster
            if self._process.poll() is not None:
                raise EmbeddedUnavailable(
                    f"PostgreSQL ended with status {self._process.returncode}; the end of {self.log_file}:\n"
                    + _tail(self.log_file)
                )
            if time.monotonic() > deadline:
                raise EmbeddedUnavailable(
                    f"PostgreSQL is not ready in time; the end of {self.log_file}:\n{_tail(self.log_file)}"
                )
            time.sleep(_LOOK_S)


def _keep(argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server from a thread of its own, which stays until the server has ended.

    The kernel ends the server with the thread that started it, not with the
    process (see `launch`), and our caller's thread may be a passing one.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def keep() -> None:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=server_environment(),
                # Keeps the terminal's Ctrl-C away: the server's users must be stopped before it.
                start_new_session=True,
            )
        except BaseException as failure:
            started.set_exception(failure)
            return
        started.set_result(process)
        process.wait()

    threading.Thread(target=keep, name="embedded-postgres", daemon=True).start()
    return started.result()


def _cluster_major(cluster: Path) -> int | None:
    if not cluster.is_dir():
        return None
    try:
        return int((cluster / "PG_VERSION").read_text())
    except (FileNotFoundError, ValueError):
        raise EmbeddedUnavailable(f"{cluster} is not a PostgreSQL cluster: it has no PG_VERSION") from None


def _initialise(bin_dir: Path, account: Account, cluster: Path) -> None:
    """Make the cluster, whole or not at all: a crash leaves none that looks finished."""
    unfinished = cluster.with_name("pg.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    account.make_private_directory(unfinished)
    made = account.run(
        [
            *(bin_dir / "initdb", "-D", unfinished, "-U", ACCOUNT_NAME),
            *("-E", "UTF8", "--locale=C", "--data-checksums"),
            # The socket's directory is private, so trust means this account and root; TCP always asks.
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"),
        ]
    )
    if made.returncode != 0:
        raise EmbeddedUnavailable(f"initdb failed:\n{made.stderr[-_LOG_TAIL_BYTES:]}")
    unfinished.rename(cluster)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, os.path.getsize(log) - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
