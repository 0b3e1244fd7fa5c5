"""The table of moves."""

from pathlib import Path

import pytest

from howdah.core.state import MOVES, BlockedBy, Move, Outcome, Priority, Stage, TaskState, parse_move

SQL = Path(__file__).parents[3] / "sql"
FINAL = {Stage.SUCCEEDED, Stage.FAILED, Stage.CANCELLED, Stage.EXPIRED}
# Only a dead letter is ever taken up again.
REPLAY = Move(Stage.FAILED, Stage.WAITING, "replay")


def test_moves_reach_every_stage_from_new() -> None:
    """No stage is unreachable."""
    reached = {Stage.NEW}
    while more := {move.target for move in MOVES if move.source in reached} - reached:
        reached |= more

    assert reached == set(Stage)


def test_moves_leave_every_stage_that_is_not_final() -> None:
    """A task that has not ended can always go on to an end."""
    ends = set(FINAL)
    while more := {move.source for move in MOVES if move.target in ends} - ends:
        ends |= more

    assert ends == set(Stage)
    assert {move for move in MOVES if move.source in FINAL} == {REPLAY}


def test_moves_spend_no_lease_without_a_claim() -> None:
    """Only a claim starts a run: nothing else leads into running from another stage."""
    assert [move.reason for move in MOVES if move.target is Stage.RUNNING and move.source is not Stage.RUNNING] == [
        "claim"
    ]


def test_parse_move_reads_back_every_move() -> None:
    """Each move is read as it prints."""
    assert {parse_move(str(move)) for move in MOVES} == MOVES
    assert parse_move(" running -> waiting (retry)") == Move(Stage.RUNNING, Stage.WAITING, "retry")


def test_sql_headers_name_exactly_these_moves() -> None:
    """What the SQL files say they do to a task is the table, no more and no less."""
    found = {
        parse_move(line.removeprefix("-- moves:"))
        for path in SQL.rglob("*.sql")
        for line in path.read_text().splitlines()
        if line.startswith("-- moves:")
    }

    assert sorted(map(str, found)) == sorted(map(str, MOVES))


@pytest.mark.parametrize(
    "line", ["", "running waiting", "running -> waiting", "running -> asleep (nap)", "running -> waiting retry"]
)
def test_parse_move_with_another_text_is_refused(line: str) -> None:
    """A header that is not understood fails rather than count as no move."""
    with pytest.raises(ValueError, match=r"not a (move|valid)"):
        parse_move(line)


def test_final_states_are_the_final_stages() -> None:
    """What clients see as final is what the database does not move from."""
    assert {state.value for state in TaskState if state.is_final} == {stage.value for stage in FINAL}


def test_numbers_in_the_database_do_not_change() -> None:
    """Priorities and bits are stored, so their numbers are fixed."""
    assert {each.name: each.value for each in Priority} == {
        "LOW": 0, "NORMAL": 1, "HIGH": 2, "CRITICAL": 3, "GRANTED": 4,
    }  # fmt: skip
    assert {each.name: each.value for each in BlockedBy} == {"STEPS": 1, "APPROVAL": 2, "FLOW_KEY": 4, "NO_WORKER": 8}
    assert {each.value for each in Outcome} == {
        "succeeded", "failed", "released", "lost", "timed_out", "cancelled", "expired",
    }  # fmt: skip
