"""How fast worker processes drain a backlog, against bare SQL in the same sitting.

For each kind of target: `noop` is an async handler that does nothing, `plain` a
function that runs in threads, `isolated` one that runs in child processes, `callback` an
HTTP request to a local receiver, which answers after `--delay` seconds.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bare_sql import best
from meter import LOOK_S, Meter
from rig import BENCH, open_rig, parser, report, rss_mb, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig import Rig

# The others are slower: so many times fewer tasks take about as long.
FEWER = {"noop": 1, "plain": 5, "isolated": 20, "callback": 10}


def drain(rig: Rig, count: int, *, workers: int = 1, **environment: str) -> dict[str, float]:
    """Let workers finish `count` of the tasks that wait, and return their rate, costs and memory.

    The time runs from the first finish seen to the last. What was finished before
    the first look does not count, so that neither the start of a process nor its
    imports are measured.
    """
    with rig.connect() as conn, contextlib.ExitStack() as running:
        before = Meter(conn).finished()
        pids = [running.enter_context(rig.worker(**environment)).pid for _ in range(workers)]
        meter = Meter(conn, pids)
        until(lambda: meter.finished() > before, 60, "the worker starts", LOOK_S)
        first = meter.read()
        until(lambda: meter.finished() >= before + count, 900, "the tasks are done", LOOK_S)
        costs = {**meter.read().since(first), "rss_mb": max(map(rss_mb, pids))}
        row = conn.execute(
            "SELECT count(*) FROM howdah.finished_runs WHERE outcome NOT IN ('succeeded', 'released')"
        ).fetchone()
        assert row == (0,), f"{row} tasks did not succeed"
    return costs


def series(
    rig: Rig, count: int, label: str, values: list[int], fill: Callable[[int], object]
) -> tuple[dict[str, float], float]:
    """Drain `count` tasks once for each value, after `fill(value)` has stored the tasks.

    Returns:
        Figures of all, named by label and value, with ratios to bare SQL; and the last rate through the first.
    """
    result = {"bare_sql_per_s": best(rig, count)}
    rates: list[float] = []
    for value in values:
        fill(value)
        costs = drain(rig, count)
        rig.clear()
        rates.append(costs["per_s"])
        result |= {f"{label}_{value}_{name}": figure for name, figure in costs.items()}
        result[f"{label}_{value}_ratio"] = costs["per_s"] / result["bare_sql_per_s"]
    return result, rates[-1] / rates[0]


def measure(
    rig: Rig, kind: str, count: int, *, workers: int = 1, concurrency: int = 100, delay_s: float = 0.0
) -> dict[str, float]:
    """Drain `count` tasks of a kind; callbacks are answered after a delay."""
    with contextlib.ExitStack() as held:
        url = f"http://127.0.0.1:{held.enter_context(receiver(delay_s))}/hook" if kind == "callback" else None
        rig.fill(count, handler=f"bench.{kind}", url=url)
        costs = drain(
            rig,
            count,
            workers=workers,
            HOWDAH_CONCURRENCY=str(concurrency),
            # A worker that has isolated handlers starts a child at once.
            HOWDAH_HANDLERS="isolated_handlers" if kind == "isolated" else "handlers",
            HOWDAH_CALLBACK_ALLOW_CIDRS="127.0.0.0/8",
        )
    rig.clear()
    return costs


@contextlib.contextmanager
def receiver(delay_s: float = 0.0) -> Iterator[int]:
    """Run a receiver of callbacks and give its port."""
    command = [sys.executable, str(BENCH / "sink.py"), "--delay", str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def compare(rig: Rig, kinds: list[str], count: int, reps: int, **how: Any) -> dict[str, Any]:
    """Measure each kind in turn with bare SQL, `reps` times; the round of the middle ratio counts."""
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(reps):
        bare = best(rig, count)
        for kind, made in rounds.items():
            costs = measure(rig, kind, count // FEWER[kind], **how)
            made.append({"bare_sql_per_s": bare, **costs, "ratio": costs["per_s"] / bare})
    result: dict[str, Any] = {}
    for kind, made in rounds.items():
        counted = sorted(made, key=lambda each: each["ratio"])[len(made) // 2]
        result |= {f"{kind}_{name}": figure for name, figure in counted.items()}
    return result


if __name__ == "__main__":
    arguments = parser(
        __doc__ or "", n=100_000, reps=3, kinds="noop,plain,callback", workers=1, concurrency=100, delay=0.0
    )
    given = arguments.parse_args()
    with open_rig(given.url) as opened:
        figures = compare(
            opened,
            given.kinds.split(","),
            given.n,
            given.reps,
            workers=given.workers,
            concurrency=given.concurrency,
            delay_s=given.delay,
        )
    report(figures, as_json=given.json)
