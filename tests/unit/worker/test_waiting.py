"""Runs that wait for a slot: in order within a tenant, tenants in turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from howdah_worker.waiting import Waiting

if TYPE_CHECKING:
    from howdah_worker.run import Run


@dataclass
class _Run:
    tenant_id: int
    claimed_at: float


def waiting_of(*runs: tuple[int, float]) -> Waiting:
    """Runs of (tenant, claimed at), added in this order."""
    waiting = Waiting()
    for tenant_id, claimed_at in runs:
        waiting.extend([cast("Run", _Run(tenant_id, claimed_at))])
    return waiting


def drained(waiting: Waiting) -> list[tuple[int, float]]:
    """Take all, in turn."""
    return [(run.tenant_id, run.claimed_at) for run in waiting.pop_all()]


def test_runs_of_one_tenant_keep_their_order() -> None:
    """First claimed, first started."""
    waiting = waiting_of((1, 1.0), (1, 2.0), (1, 3.0))

    assert drained(waiting) == [(1, 1.0), (1, 2.0), (1, 3.0)]


def test_newcomer_goes_before_what_another_tenant_has_waiting() -> None:
    """Its first run is next, then the two take turns."""
    waiting = waiting_of(*[(1, float(number)) for number in range(1_000)])
    waiting.pop()
    waiting.extend([cast("Run", _Run(2, 2_000.0)), cast("Run", _Run(2, 2_001.0))])

    assert [waiting.pop().tenant_id for _ in range(5)] == [2, 1, 2, 1, 1]


def test_old_runs_are_taken_out_of_every_tenant() -> None:
    """What waited too long is handed back, whoever's turn it is."""
    waiting = waiting_of((1, 1.0), (1, 5.0), (2, 2.0), (3, 6.0))

    old = [(run.tenant_id, run.claimed_at) for run in waiting.pop_older(4.0)]

    assert sorted(old) == [(1, 1.0), (2, 2.0)]
    assert sorted(drained(waiting)) == [(1, 5.0), (3, 6.0)]


def test_instant_of_the_next_is_that_of_the_run_that_is_taken() -> None:
    """None waits: infinity."""
    waiting = waiting_of((1, 7.0))

    assert waiting.next_at() == waiting.pop().claimed_at
    assert waiting.next_at() == math.inf


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=60))
def test_nothing_is_lost_or_doubled(steps: list[tuple[int, bool]]) -> None:
    """Whatever is added and taken in between, each run comes out once, in its tenant's order."""
    waiting, added, taken = Waiting(), [], []
    for number, (tenant_id, takes) in enumerate(steps):
        if takes and waiting.count:
            taken.append(waiting.pop())
        else:
            run = cast("Run", _Run(tenant_id, float(number)))
            waiting.extend([run])
            added.append(run)
            assert waiting.has_tenant(tenant_id)
    taken += waiting.pop_all()

    assert waiting.count == 0
    assert sorted(id(run) for run in taken) == sorted(id(run) for run in added)
    for tenant_id in range(1, 5):
        instants = [run.claimed_at for run in taken if run.tenant_id == tenant_id]
        assert instants == sorted(instants)
