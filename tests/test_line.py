"""Whose turn it is in a waiting line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iei.line import PATIENCE, Line
from iei.priority import Priority

INTERACTIVE, BULK = Priority


def line_of(interactive: str = "", bulk: str = "") -> Line[str]:
    line: Line[str] = Line()
    for letter in bulk:
        line.add(letter, BULK)
    for letter in interactive:
        line.add(letter, INTERACTIVE)
    return line


def taken(line: Line[str]) -> str:
    letters = ""
    while line:
        letters += line.take()
    return letters


def test_interactive_goes_before_bulk_and_each_in_its_order() -> None:
    line = line_of("ab", "xyz")
    assert (line.first(), taken(line), line.first()) == ("a", "abxyz", None)


def test_bulk_gets_one_turn_in_nine_however_many_others_wait() -> None:
    assert taken(line_of("i" * 2 * PATIENCE, "xyz")) == "iiiiiiiixiiiiiiiiyz"


def test_bulk_that_has_all_it_may_have_holds_up_nobody_and_loses_no_patience() -> None:
    line = line_of("i" * 2 * PATIENCE, "x")
    assert [line.take(bulk=False) for _ in range(PATIENCE)] == ["i"] * PATIENCE
    assert taken(line) == "iiiiiiiix"
    assert line_of(bulk="x").first(bulk=False) is None


@given(st.lists(st.sampled_from([INTERACTIVE, BULK, None]), max_size=100))
def test_everybody_is_served_once_and_nobody_starves(history: list[Priority | None]) -> None:
    line: Line[tuple[Priority, int]] = Line()
    waiting: dict[Priority, list[int]] = {INTERACTIVE: [], BULK: []}
    passed_over = in_a_row = 0
    for number, event in enumerate(history):
        if event is not None:
            line.add((event, number), event)
            waiting[event].append(number)
        elif line:
            both = all(waiting.values())
            shown = line.first()
            priority, served = line.take()
            assert (priority, served) == shown
            assert waiting[priority].pop(0) == served
            assert priority is INTERACTIVE or not both or in_a_row >= PATIENCE
            in_a_row = in_a_row + 1 if priority is INTERACTIVE else 0
            passed_over = passed_over + 1 if both and priority is INTERACTIVE else 0
            assert passed_over <= PATIENCE
        assert bool(line) == any(waiting.values())
