"""Every metric of every process, defined once; docs/reference/metrics.md is tested to list them.

A process exposes all of them, those of other processes at zero. Labels have few
values: no tenant, queue or task, whose numbers grow without bound (what belongs
to those is a query over tables). Hot code counts once per batch, not per run.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, PlatformCollector
from prometheus_client import ProcessCollector as _ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from howdah.core import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REGISTRY: Final = CollectorRegistry()

# Chosen: 0.25 ms to 10 s covers a commit on a fast disk up to a hanging server.
_SECONDS_SHORT: Final = (0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# Chosen: runs last from under a millisecond to hours.
_SECONDS_LONG: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600)
_COUNTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class BatchHistogram(Collector):
    """A histogram without labels that takes many observations in one call.

    Measured: 0.1 us an observation of many, where prometheus_client's own takes 0.94;
    at 40,000 runs a second that is 3 % of a process.
    """

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        """Register under `name`; `buckets` are upper bounds, rising, infinity added by us."""
        self._name = name
        self._documentation = documentation
        self._bounds = (*buckets, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def observe_many(self, values: Iterable[float]) -> None:
        """Add all values; those that are negative or no number count as zero."""
        bounds, counts = self._bounds, self._counts
        ordered = sorted([value if value > 0 else 0.0 for value in values])
        with self._lock:
            self._sum += sum(ordered)
            at = 0
            while at < len(ordered):
                bucket = bisect_left(bounds, ordered[at])
                after = bisect_right(ordered, bounds[bucket], at)
                counts[bucket] += after - at
                at = after

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Give the cumulative buckets to the registry."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        cumulated, buckets = 0, []
        for bound, count in zip(self._bounds, counts, strict=True):
            cumulated += count
            buckets.append(("+Inf" if bound == math.inf else str(float(bound)), cumulated))
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], buckets, total)
        yield family


class _LogCollector(Collector):
    """Reads the count of dropped log lines where it is kept."""

    def collect(self) -> Iterable[CounterMetricFamily]:
        yield CounterMetricFamily(
            "howdah_log_lines_dropped", "Log lines that could not be written.", value=log.lines_dropped()
        )


def _counter(name: str, documentation: str, *labels: str) -> Counter:
    return Counter(name, documentation, labels, registry=REGISTRY)


def _gauge(name: str, documentation: str, *labels: str) -> Gauge:
    return Gauge(name, documentation, labels, registry=REGISTRY)


def _histogram(name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, documentation, labels, buckets=buckets, registry=REGISTRY)


TASKS_ENQUEUED: Final = _counter(
    "howdah_tasks_enqueued_total", "Tasks stored through the API, by the kind of request (single, batch).", "source"
)
ENQUEUE_BATCH_TASKS: Final = BatchHistogram(
    "howdah_enqueue_batch_tasks", "Single creates that were committed together.", _COUNTS
)
ENQUEUE_SECONDS: Final = BatchHistogram(
    "howdah_enqueue_seconds", "Time of the statement that stores tasks, with its commit.", _SECONDS_SHORT
)
HTTP_REQUESTS: Final = _counter(
    "howdah_http_requests_total", "Requests answered by the API.", "route", "method", "status"
)
HTTP_REQUEST_SECONDS: Final = _histogram(
    "howdah_http_request_duration_seconds", "Time to answer a request.", _SECONDS_SHORT, "route"
)

RUNS_CLAIMED: Final = _counter("howdah_runs_claimed_total", "Runs that this worker claimed.")
RUNS_FINISHED: Final = _counter("howdah_runs_finished_total", "Runs whose outcome was recorded.", "outcome")
RUNS_RUNNING: Final = _gauge("howdah_runs_running", "Runs under way in this worker.")
RUN_SECONDS: Final = BatchHistogram(
    "howdah_run_duration_seconds", "Time that handlers and callbacks took.", _SECONDS_LONG
)
RUN_WAIT_SECONDS: Final = BatchHistogram(
    "howdah_run_wait_seconds", "Time between the instant a run was due and its claim.", _SECONDS_LONG
)
CLAIM_SECONDS: Final = BatchHistogram(
    "howdah_claim_seconds", "Time of the statement that claims runs, with its commit.", _SECONDS_SHORT
)
FINISH_BATCH_RUNS: Final = BatchHistogram("howdah_finish_batch_runs", "Outcomes recorded together.", _COUNTS)
FINISH_SECONDS: Final = BatchHistogram(
    "howdah_finish_seconds", "Time of the statement that records outcomes, with its commit.", _SECONDS_SHORT
)
LEASES_LOST: Final = _counter(
    "howdah_lease_lost_total", "Leases that a heartbeat found lost while the run was under way."
)
RUNS_ALONE: Final = _counter(
    "howdah_runs_alone_total",
    "Runs that were executed with nothing beside them because two workers were lost with them.",
)
STALE_REPORTS: Final = _counter(
    "howdah_stale_reports_total", "Outcomes that were refused because their lease was no longer held."
)
HEARTBEAT_FAILURES: Final = _counter("howdah_heartbeat_failures_total", "Heartbeats that got no answer.")
SLOTS_OVERDUE: Final = _gauge(
    "howdah_slots_overdue", "Slots held by handlers that run on after their outcome was recorded."
)
CALLBACKS: Final = _counter(
    "howdah_callbacks_total", "HTTP callbacks, by result (2xx, 3xx, 4xx, 5xx, timeout, network, refused).", "result"
)
LOG_ENTRIES_DROPPED: Final = _counter(
    "howdah_log_entries_dropped_total",
    "Entries of tasks' logs that were not stored, by reason (limit, backlog, late, refused).",
    "reason",
)

RUNS_RESCUED: Final = _counter(
    "howdah_runs_rescued_total", "Expired leases that were taken back, by result (retry, dead_letter).", "result"
)
TASKS_EXPIRED: Final = _counter("howdah_tasks_expired_total", "Tasks that were not started before their expires_at.")
CHORE_SECONDS: Final = _histogram("howdah_chore_seconds", "Time of one run of a chore.", _SECONDS_LONG, "chore")
CHORE_FAILURES: Final = _counter("howdah_chore_failures_total", "Runs of a chore that failed.", "chore")

CLOCK_SKEW_SECONDS: Final = _gauge(
    "howdah_clock_skew_seconds", "The database's time minus this machine's wall clock, when last sampled."
)
DURABILITY_DEGRADED: Final = _gauge(
    "howdah_durability_degraded", "1 while the server may lose acknowledged tasks in a crash, because that was allowed."
)
DATABASE_RETRIES: Final = _counter(
    "howdah_database_retries_total", "Operations repeated because PostgreSQL was away or asked for it.", "operation"
)
LISTENER_RECONNECTS: Final = _counter(
    "howdah_listener_reconnects_total", "Times that the listener for wake-ups connected again."
)
WAKEUPS: Final = _counter("howdah_wakeups_total", "Wake-ups, by direction (sent, received).", "direction")
LOOP_RESTARTS: Final = _counter("howdah_loop_restarts_total", "Background loops restarted after a crash.", "loop")

REGISTRY.register(_LogCollector())
_ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def render(accept: str = "") -> tuple[bytes, str]:
    """Write all metrics in the format that an `Accept` header asks for.

    Returns:
        The text and its content type.
    """
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type
