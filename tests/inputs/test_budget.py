from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from iei.inputs.budget import PixelBudget


def hold_in_thread(
    budget: PixelBudget, pixels: int, order: list[int], name: int
) -> tuple[threading.Thread, threading.Event]:
    """A thread that takes its share, notes its name, and keeps the share until the event is set."""
    release = threading.Event()

    def hold() -> None:
        with budget.hold(pixels):
            order.append(name)
            assert release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    return thread, release


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_what_fits_is_held_together_and_given_back() -> None:
    budget = PixelBudget(10)
    with budget.hold(4), budget.hold(6):
        assert budget.held == 10
    assert budget.held == 0


def test_more_than_the_budget_is_never_held() -> None:
    budget, most, lock = PixelBudget(10), [0], threading.Lock()

    def work(pixels: int) -> None:
        for _ in range(50):
            with budget.hold(pixels), lock:
                most[0] = max(most[0], budget.held)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (1, 3, 4, 5, 7, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert 5 < most[0] <= 10
    assert budget.held == 0


def test_a_picture_larger_than_the_budget_waits_until_it_is_alone() -> None:
    budget, order = PixelBudget(10), list[int]()
    with budget.hold(1):
        large, release = hold_in_thread(budget, 25, order, 25)
        time.sleep(0.02)
        assert order == []
    assert eventually(lambda: order == [25])
    assert budget.held == 25
    release.set()
    large.join(10)
    assert budget.held == 0


def test_small_ones_do_not_overtake_a_large_one() -> None:
    budget, order = PixelBudget(10), list[int]()
    with ExitStack() as stack:
        stack.enter_context(budget.hold(5))
        large = hold_in_thread(budget, 8, order, 8)
        assert eventually(lambda: len(budget._line) == 1)
        small = hold_in_thread(budget, 3, order, 3)  # would fit at once
        assert eventually(lambda: len(budget._line) == 2)
        assert order == []
    for (thread, release), done in ((large, [8]), (small, [8, 3])):
        assert eventually(lambda: order == done)  # noqa: B023 - called in this turn
        release.set()
        thread.join(10)


def test_a_failure_gives_its_pixels_back() -> None:
    budget = PixelBudget(10)
    try:
        with budget.hold(10):
            raise ValueError("decoding failed")
    except ValueError:
        assert budget.held == 0


def test_what_is_held_of_a_share_is_held_of_the_whole_and_leaves_the_rest() -> None:
    whole = PixelBudget(10)
    share, order = PixelBudget(7, of=whole), list[int]()
    with share.hold(6):
        assert (share.held, whole.held) == (6, 6)
        waiting, release = hold_in_thread(share, 2, order, 2)
        with whole.hold(4):
            assert eventually(lambda: len(share._line) == 1)
            assert order == []
    assert eventually(lambda: order == [2])
    assert (share.held, whole.held) == (2, 2)
    release.set()
    waiting.join(10)
    assert (share.held, whole.held) == (0, 0)
