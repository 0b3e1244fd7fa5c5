"""Places that ended runs have left, until they are given to those that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from howdah.core.errors import DatabaseUnavailable
from howdah.core.model import ClaimedRun
from howdah.handlers import Registry
from howdah_worker.catalogue import Catalogue
from howdah_worker.run import Run
from howdah_worker.vacancies import Vacancies
from tests.unit.worker.test_run import ROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from howdah.core.db.connect import Connection
    from howdah.core.store.runs import Runs

NO_CONNECTION = cast("Connection", None)


class Settling:
    """Statements that remember what they were asked for, and let something happen meanwhile."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.asked: list[tuple[set[int], set[int]]] = []
        self.meanwhile = meanwhile

    async def settle(self, conn: Connection, queue_ids: set[int], flow_key_ids: set[int]) -> list[Any]:
        """Take note."""
        self.asked.append((set(queue_ids), set(flow_key_ids)))
        self.meanwhile()
        return []


class Limited(Catalogue):
    """A catalogue in which the queue of `ROW` has limits."""

    def limited(self) -> frozenset[int]:
        """Return that queue."""
        return frozenset({5})


def made(settling: Settling) -> tuple[Vacancies, Run]:
    """Vacancies, and a run that leaves one."""
    catalogue = Limited("howdah", ["*"], Registry(), serves_http=False)
    run = Run(ClaimedRun._make(ROW)._replace(flow_key_id=9), b"l" * 16, 0.0, catalogue)
    return Vacancies(cast("Runs", settling), catalogue), run


async def test_place_that_is_left_while_others_are_given_is_given_next() -> None:
    """Of the same key, too: the statement under way may have counted before the run ended."""
    settling = Settling()
    vacancies, run = made(settling)
    vacancies.leave([run])
    settling.meanwhile = lambda: vacancies.leave([run])
    await vacancies.give(NO_CONNECTION)
    is_left = bool(vacancies)
    settling.meanwhile = lambda: None
    await vacancies.give(NO_CONNECTION)

    assert is_left
    assert settling.asked == [({5}, {9})] * 2
    assert not vacancies


async def test_places_are_kept_when_the_connection_is_lost() -> None:
    """They are given by a later call, with those that came meanwhile."""

    def lose() -> None:
        raise DatabaseUnavailable("gone")

    settling = Settling(lose)
    vacancies, run = made(settling)
    vacancies.leave([run])
    with pytest.raises(DatabaseUnavailable):
        await vacancies.give(NO_CONNECTION)

    assert vacancies
