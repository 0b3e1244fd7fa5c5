"""The judge of a fault test: what clients were told and handlers saw, against what the database holds.

It looks only at outcomes that the promises name, and it also says how much the
faults bit: a run in which no report came late and no lease was lost proves
nothing and counts as inadequate.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_fleet import Fleet


@dataclass
class Producer:
    """What a client was told.

    Attributes:
        acknowledged: Idempotency key -> task id, for each answer of 2xx.
        unknown: Keys whose last request got no answer.
        unknown_count: Requests that got no answer or a 5xx and were repeated.
        ids_seen: Key -> all ids ever answered for it.
    """

    acknowledged: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    unknown_count: int = 0
    ids_seen: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class Verdict:
    """Violations of promises (there must be none), and how much the faults bit."""

    violations: list[str]
    counts: dict[str, int]


def judge(fleet: Fleet, producer: Producer) -> Verdict:
    """Check every invariant on a drained fleet."""
    violations: list[str] = []
    stored = {row[0] for row in fleet.query("SELECT id::text FROM howdah.tasks WHERE tags ->> 'key' IS NOT NULL")}
    by_key = Counter(row[0] for row in fleet.query("SELECT tags ->> 'key' FROM howdah.tasks"))

    def violated(name: str, found: object) -> None:
        if found:
            violations.append(f"{name}: {str(found)[:500]}")

    violated("I1 acknowledged but not stored", set(producer.acknowledged.values()) - stored)
    violated("I2 one key made several tasks", {key: n for key, n in by_key.items() if key and n > 1})
    violated(
        "I2 one key was answered with several ids", {k: ids for k, ids in producer.ids_seen.items() if len(ids) > 1}
    )
    known = set(producer.acknowledged) | producer.unknown
    violated("I3 stored but never asked for", {key for key in by_key if key and key not in known})
    violated(
        "I4 claim numbers of a task repeat or have gaps",
        fleet.query(
            "SELECT task_id, array_agg(claim_no ORDER BY claim_no) FROM howdah.finished_runs "
            "GROUP BY task_id HAVING count(*) <> max(claim_no)"
        ),
    )
    violated(
        "I5 a lease with more than one outcome",
        fleet.query(
            "SELECT task_id, lease_token, array_agg(outcome) FROM howdah.finished_runs "
            "GROUP BY task_id, lease_token HAVING count(*) > 1"
        ),
    )
    violated(
        "I7 a task with other than one final outcome",
        fleet.query(
            "SELECT t.id, count(f.*) FROM howdah.tasks t LEFT JOIN howdah.finished_runs f "
            "ON f.tenant_id = t.tenant_id AND f.task_id = t.id AND f.is_final GROUP BY t.id HAVING count(f.*) <> 1"
        ),
    )
    violated(
        "I8 effects in the handler's transaction other than one per success",
        fleet.query(
            "SELECT t.id, count(e.*) FROM howdah.tasks t JOIN howdah.targets g ON g.id = t.target_id "
            "JOIN howdah.finished_runs f ON f.task_id = t.id AND f.is_final LEFT JOIN effects e ON e.task_id = t.id "
            "WHERE g.handler = 'chaos.effect' GROUP BY t.id, f.outcome "
            "HAVING count(e.*) <> (f.outcome = 'succeeded')::int"
        ),
    )
    violated("I14 tasks that did not end", fleet.query("SELECT task_id, attempt, run_at FROM howdah.runs LIMIT 5"))
    starts = handler_starts(fleet.directory)
    claimed = {(str(task), claim) for task, claim in fleet.query("SELECT task_id, claim_no FROM howdah.finished_runs")}
    violated("I3 a handler started for a claim that history does not know", set(starts) - claimed)
    violated("a claim started its handler twice", {start: n for start, n in starts.items() if n > 1})
    outcomes = fleet.outcomes()
    return Verdict(
        violations,
        {
            "acknowledged": len(producer.acknowledged),
            "unknown": producer.unknown_count,
            "lost": outcomes.get("lost", 0),
            "released": outcomes.get("released", 0),
            "succeeded": outcomes.get("succeeded", 0),
            "zombies": zombie_count(fleet),
            "dead": fleet.query("SELECT count(*) FROM howdah.dead_letters")[0][0],
        },
    )


def zombie_count(fleet: Fleet) -> int:
    """How many runs a worker still had when it woke after their leases.

    It learns so by a refused report, by a heartbeat, or by its own clock.
    """
    return sum(
        len(process.events(event))
        for process in fleet.processes.values()
        for event in ("late_report_refused", "lease_lost", "lease_not_renewed")
    )


def handler_starts(directory: Path) -> Counter[tuple[str, int]]:
    """How often each claim started its handler; a line torn by a kill is left out."""
    starts: Counter[tuple[str, int]] = Counter()
    for journal in directory.glob("handler-*.jsonl"):
        for line in journal.read_bytes().split(b"\n"):
            if line.startswith(b"{") and line.endswith(b"}"):
                event = json.loads(line)
                if event["event"] == "start":
                    starts[event["task"], event["claim_no"]] += 1
    return starts
