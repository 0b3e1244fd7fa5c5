"""Metrics and their reference page."""

import math
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from howdah.core import metrics
from howdah.core.metrics import REGISTRY, BatchHistogram

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference" / "metrics.md"
KINDS = (BatchHistogram, Counter, Gauge, Histogram)
BOUNDS = (0.5, 1.0, 2.0)


@pytest.fixture
def histogram() -> BatchHistogram:
    """Give a histogram that is not registered: its registry is process-wide."""
    made = BatchHistogram("howdah_of_a_test", "Only here.", BOUNDS)
    REGISTRY.unregister(made)
    return made


def buckets(histogram: BatchHistogram) -> dict[str, float]:
    """Read the cumulative buckets, the count and the sum."""
    [family] = histogram.collect()
    return {sample.labels.get("le", sample.name.rsplit("_", 1)[1]): sample.value for sample in family.samples}


def test_observe_many_counts_cumulatively(histogram: BatchHistogram) -> None:
    """Each bucket counts all values up to its bound, as Prometheus expects."""
    histogram.observe_many([0.1, 0.5, 0.6, 2.0, 99.0])

    assert buckets(histogram) == {"0.5": 2, "1.0": 3, "2.0": 4, "+Inf": 5, "count": 5, "sum": pytest.approx(102.2)}


@given(st.lists(st.floats()))
def test_observe_many_of_any_floats_stays_consistent(values: list[float]) -> None:
    """Whatever is observed, buckets never fall and the last one equals the count."""
    histogram = BatchHistogram("howdah_of_a_test", "Only here.", BOUNDS)
    REGISTRY.unregister(histogram)
    histogram.observe_many(values)
    read = buckets(histogram)
    rising = [read["0.5"], read["1.0"], read["2.0"], read["+Inf"]]

    assert rising == sorted(rising)
    assert read["+Inf"] == read["count"] == len(values)
    assert not math.isnan(read["sum"])


def test_observe_many_from_threads_loses_nothing(histogram: BatchHistogram) -> None:
    """The keeper's thread and the event loop may observe at once."""
    threads = [threading.Thread(target=histogram.observe_many, args=([0.1] * 20_000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert buckets(histogram)["count"] == 80_000


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_render_writes_every_metric_in_the_format_asked_for(accept: str) -> None:
    """Both formats that Prometheus asks for carry our metrics."""
    metrics.CLAIM_SECONDS.observe_many([0.001])
    body, content_type = metrics.render(accept)

    assert b"howdah_claim_seconds_bucket" in body
    assert b"howdah_log_lines_dropped_total 0.0" in body
    assert ("openmetrics" in content_type) == bool(accept)


def test_render_is_understood_by_prometheus_own_parser() -> None:
    """The histogram of ours is valid in the text format."""
    metrics.FINISH_BATCH_RUNS.observe_many([1, 500])
    families = {family.name: family for family in text_string_to_metric_families(metrics.render()[0].decode())}

    assert families["howdah_finish_batch_runs"].type == "histogram"


def test_reference_page_lists_every_metric() -> None:
    """docs/reference/metrics.md has one row per metric, in order, with its type, labels and meaning."""
    rows = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `howdah_")]
    expected = []
    for collector in dict.fromkeys(REGISTRY._collector_to_names):
        labels = ", ".join(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            if family.name.startswith("howdah_"):
                name = family.name + ("_total" if family.type == "counter" else "")
                expected.append(
                    f"| `{name}` | {family.type} | {labels + ' ' if labels else ''}| {family.documentation} |"
                )

    assert rows == expected


def test_every_metric_is_set_somewhere() -> None:
    """A metric that no code sets would be read as zero, and as good news."""
    files = [path for name in ("app", "worker", "scheduler") for path in (ROOT / name).rglob("*.py")]
    code = "".join(path.read_text() for path in files)
    kept = [name for name, value in vars(metrics).items() if name.isupper() and isinstance(value, KINDS)]
    setting = r"metrics\.{}(\.labels\([^()]*(\([^()]*\)[^()]*)*\))?\.(inc|dec|set|observe|observe_many)\b"

    assert len(kept) > 20
    assert [name for name in kept if not re.search(setting.format(name), code)] == []


def test_labels_have_few_values() -> None:
    """No metric has a label whose values grow with tenants, queues, tasks or handlers."""
    labels = {name for collector in REGISTRY._collector_to_names for name in getattr(collector, "_labelnames", ())}

    assert labels == {
        "source",
        "route",
        "method",
        "status",
        "outcome",
        "result",
        "chore",
        "operation",
        "direction",
        "loop",
        "reason",
    }
