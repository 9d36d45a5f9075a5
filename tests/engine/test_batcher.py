"""The batching policy, alone: no sockets, no torch, no clock."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from iei.encoded import Encoded
from iei.engine.batcher import MAX_DECODED_PIXELS, Batcher, Job, Turn, batch_key, decoded_pixels, most_together
from iei.line import PATIENCE
from iei.priority import Priority
from tests.engine.runtimes_for_tests import SPEC

FOREVER = 1e9
BULK = Priority.BULK


def job(number: int, key: str = "a", *, owner: str = "w", deadline: float = FOREVER, **kwargs: Any) -> Job[None]:
    return Job(owner=owner, id=number, key=key, deadline=deadline, payload=None, **kwargs)


def filled(batcher: Batcher[None], *jobs: Job[None]) -> Batcher[None]:
    for each in jobs:
        batcher.add(each, now=0.0)
    return batcher


def ids(jobs: list[Job[None]]) -> list[int]:
    return [each.id for each in jobs]


def test_a_lone_job_runs_at_once() -> None:
    assert ids(filled(Batcher(8), job(1)).next(0.0).batch) == [1]


def test_nothing_waits_nothing_happens() -> None:
    assert not Batcher[None](8).next(0.0)


def test_a_batch_takes_the_oldest_first_and_no_more_than_fits() -> None:
    batcher = filled(Batcher(2), job(1), job(2), job(3))
    assert ids(batcher.next(0.0).batch) == [1, 2]
    assert ids(batcher.next(0.0).batch) == [3]
    assert not batcher


def test_a_batch_is_filled_by_interactive_jobs_that_wait_for_it() -> None:
    batcher = filled(Batcher(2), job(1), job(2, priority=BULK))
    assert not batcher.fills_a_batch
    batcher.add(job(3), now=0.0)
    assert batcher.fills_a_batch
    batcher.cancel("w", 3)
    assert not batcher.fills_a_batch


def test_nothing_fills_a_batch_that_bulk_leads() -> None:
    assert not Batcher[None](2).fills_a_batch
    batcher = filled(Batcher(2), job(0, "b", priority=BULK))
    for number in range(1, 2 * PATIENCE + 1, 2):
        assert ids(filled(batcher, job(number), job(number + 1)).next(0.0).batch) == [number, number + 1]
    filled(batcher, job(100), job(101))
    assert not batcher.fills_a_batch
    assert ids(batcher.next(0.0).batch) == [0]
    assert batcher.fills_a_batch


def test_shapes_do_not_mix_and_the_oldest_job_decides_whose_turn_it_is() -> None:
    batcher = filled(Batcher(8), job(1, "small"), job(2, "large"), job(3, "small"))
    assert ids(batcher.next(0.0).batch) == [1, 3]
    assert ids(batcher.next(0.0).batch) == [2]


def test_a_busy_shape_does_not_starve_a_rare_one() -> None:
    batcher = filled(Batcher(1), job(1, "busy"), job(2, "rare"))
    order = []
    for number in range(3, 6):
        order += ids(batcher.next(0.0).batch)
        batcher.add(job(number, "busy"), now=0.0)
    assert order == [1, 2, 3]


def test_an_expired_job_is_not_run() -> None:
    turn = filled(Batcher(8), job(1, deadline=5.0), job(2)).next(now=6.0)
    assert ids(turn.batch) == [2]
    assert ids(turn.expired) == [1]


def test_a_cancelled_job_is_not_run_and_is_told() -> None:
    batcher = filled(Batcher(8), job(1), job(2))
    batcher.cancel("w", 1)
    turn = batcher.next(0.0)
    assert ids(turn.batch) == [2]
    assert ids(turn.cancelled) == [1]


def test_dropped_jobs_do_not_take_places_in_a_batch() -> None:
    batcher = filled(Batcher(2), job(1), job(2), job(3))
    batcher.cancel("w", 1)
    assert ids(batcher.next(0.0).batch) == [2, 3]


def test_cancelling_what_is_not_there_is_no_error() -> None:
    batcher = filled(Batcher(8), job(1))
    batcher.cancel("w", 99)
    batcher.cancel("somebody else", 1)
    assert ids(batcher.next(0.0).batch) == [1]
    batcher.cancel("w", 1)
    assert not batcher.next(0.0)


def test_a_dead_worker_takes_its_jobs_along_and_nobody_elses() -> None:
    batcher = filled(Batcher(8), job(1, owner="dead"), job(1, owner="alive"), job(2, "b", owner="dead"))
    batcher.forget("dead")
    turn = batcher.next(0.0)
    assert [each.owner for each in turn.batch] == ["alive"]
    assert not batcher


def test_a_suspect_runs_alone() -> None:
    batcher = filled(Batcher(8), job(1), job(2, alone=True), job(3), job(4, alone=True))
    assert [ids(batcher.next(0.0).batch) for _ in range(3)] == [[1, 3], [2], [4]]


def test_texts_are_batched_with_those_of_similar_length() -> None:
    lengths = {1: 10, 2: 500, 3: 11, 4: 490, 5: 9}
    batcher = filled(Batcher(3), *(job(number, length=length) for number, length in lengths.items()))
    assert sorted(ids(batcher.next(0.0).batch)) == [1, 3, 5]
    assert sorted(ids(batcher.next(0.0).batch)) == [2, 4]


def test_padding_counts_towards_the_most_tokens_of_a_batch() -> None:
    batcher = filled(Batcher(8, max_tokens=100), *(job(number, length=40) for number in range(5)))
    assert [len(batcher.next(0.0).batch) for _ in range(3)] == [2, 2, 1]


def test_one_text_longer_than_the_most_tokens_still_runs() -> None:
    assert ids(filled(Batcher(8, max_tokens=100), job(1, length=400)).next(0.0).batch) == [1]


def test_large_pictures_make_smaller_batches() -> None:
    def most(height: int, width: int) -> int:
        return most_together(SPEC, "image", np.zeros((height, width, 3), np.uint8))

    assert SPEC.max_batch == 4
    assert (most(8, 8), most(16, 8), most(16, 16), most(80, 80)) == (4, 2, 1, 1)
    assert most_together(SPEC, "text", np.zeros(1000, np.int32)) == 4
    batcher = filled(Batcher(8), *(job(number, most=2) for number in range(5)))
    assert [len(batcher.next(0.0).batch) for _ in range(3)] == [2, 2, 1]
    assert len(filled(Batcher(3), *(job(number, most=5) for number in range(5))).next(0.0).batch) == 3


def test_the_oldest_job_is_known() -> None:
    batcher: Batcher[None] = Batcher(1)
    assert batcher.oldest == math.inf
    for number, key in enumerate("aba"):
        batcher.add(job(number, key), now=float(number))
    for oldest in (0.0, 1.0, 2.0, math.inf):
        assert batcher.oldest == oldest
        batcher.next(0.0)


def test_one_picture_goes_before_all_of_a_bulk_queue_and_bulk_fills_its_batch() -> None:
    batcher = filled(Batcher(4), *(job(number, priority=BULK) for number in range(9)), job(99))
    assert [ids(batcher.next(0.0).batch) for _ in range(3)] == [[99, 0, 1, 2], [3, 4, 5, 6], [7, 8]]


def test_a_bulk_queue_of_another_model_is_overtaken_too() -> None:
    batcher = filled(Batcher(4), *(job(number, "theirs", priority=BULK) for number in range(5)), job(99, "ours"))
    assert [ids(batcher.next(0.0).batch) for _ in range(3)] == [[99], [0, 1, 2, 3], [4]]


def test_bulk_leads_a_batch_when_it_has_been_passed_over_often_enough() -> None:
    batcher = filled(Batcher(2), *(job(number, "theirs", priority=BULK) for number in range(4)))
    led = []
    for number in range(100, 100 + 2 * (PATIENCE + 1)):
        filled(batcher, job(number, "ours"))
        led.append(ids(batcher.next(0.0).batch))
    assert [batch for batch in led if batch[0] < 100] == [[0, 1], [2, 3]]
    assert led[PATIENCE] == [0, 1]
    assert led[2 * PATIENCE + 1] == [2, 3]


def test_an_interactive_job_that_was_dropped_does_not_put_bulk_before_the_next_one() -> None:
    batcher = filled(Batcher(4), job(1, "a", deadline=5.0), job(2, "a", priority=BULK), job(3, "b"))
    turn = batcher.next(now=6.0)
    assert (ids(turn.expired), ids(turn.batch)) == ([1], [3])
    assert ids(batcher.next(now=6.0).batch) == [2]


def test_texts_of_bulk_that_fill_a_batch_are_near_to_its_longest() -> None:
    bulk = [job(number, length=length, priority=BULK) for number, length in enumerate((10, 200, 190, 11))]
    batcher = filled(Batcher(4), *bulk, job(98, length=10), job(99, length=200))
    assert ids(batcher.next(0.0).batch) == [98, 99, 1, 2]
    assert ids(batcher.next(0.0).batch) == [0, 3]


def test_who_can_share_a_forward() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    text = np.zeros(5, np.int32)
    assert batch_key(0, "image", picture) == batch_key(0, "image", picture.copy())
    assert batch_key(0, "text", text) == batch_key(0, "text", text[:2])
    keys = [
        batch_key(0, "image", picture),
        batch_key(1, "image", picture),
        batch_key(0, "image", picture[:4]),
        batch_key(0, "image", picture.astype(np.float32)),
        batch_key(0, "text", text),
        batch_key(1, "text", text),
    ]
    assert len(set(keys)) == len(keys)


@given(
    keys=st.lists(st.sampled_from("abc"), max_size=50),
    max_batch=st.integers(1, 9),
)
def test_every_job_runs_once_in_order_within_its_key(keys: list[str], max_batch: int) -> None:
    batcher = filled(Batcher(max_batch), *(job(number, key) for number, key in enumerate(keys)))
    ran: list[Job[None]] = []
    while turn := batcher.next(0.0):
        assert len({each.key for each in turn.batch}) == 1
        assert len(turn.batch) <= max_batch
        ran += turn.batch
    assert sorted(ids(ran)) == list(range(len(keys)))
    for key in "abc":
        assert ids([each for each in ran if each.key == key]) == sorted(ids([each for each in ran if each.key == key]))


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: every job comes out exactly once, unless its owner has gone.

    Of those that wait, the oldest interactive job goes first, but for one turn after `PATIENCE` others, and the oldest
    bulk job waits for no more turns than that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[None] = Batcher(3, max_tokens=64)
        self.waiting: dict[tuple[str, int], Job[None]] = {}
        self.now = 0.0
        self.numbers = 0
        self.in_a_row = 0
        """Last turns of the oldest interactive job each."""
        self.passed_over = 0
        """Last turns without the oldest bulk job, while there was one."""

    @rule(
        key=st.sampled_from("ab"),
        owner=st.sampled_from("xyz"),
        lasts=st.floats(0, 5),
        alone=st.booleans(),
        length=st.sampled_from([0, 5, 30, 100]),
        priority=st.sampled_from(Priority),
    )
    def add(self, key: str, owner: str, lasts: float, alone: bool, length: int, priority: Priority) -> None:
        self.numbers += 1
        added = Job(owner, self.numbers, (key, length > 0), self.now + lasts, None, length, alone=alone)
        added.priority = priority
        self.waiting[owner, self.numbers] = added
        self.batcher.add(added, self.now)

    @rule(passed=st.floats(0, 3))
    def wait(self, passed: float) -> None:
        self.now += passed

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        owner, number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.batcher.cancel(owner, number)

    @rule(owner=st.sampled_from("xyz"))
    def forget(self, owner: str) -> None:
        self.batcher.forget(owner)
        self.waiting = {mark: each for mark, each in self.waiting.items() if mark[0] != owner}

    @rule(turns=st.integers(1, 2 * PATIENCE), arrives=st.booleans())
    def run(self, turns: int, arrives: bool) -> None:
        for _ in range(turns):
            if arrives:
                self.add("a", "x", 5.0, alone=False, length=0, priority=Priority.INTERACTIVE)
            self.turn()

    def turn(self) -> None:
        interactive, bulk = (self.oldest(priority) for priority in Priority)
        turn: Turn[None] = self.batcher.next(self.now)
        assert bool(turn) == bool(self.waiting)
        assert len(turn.batch) <= 3
        assert len({(each.key, each.alone) for each in turn.batch}) <= 1
        assert len(turn.batch) == 1 or not any(each.alone for each in turn.batch)
        assert not any(each.cancelled or each.deadline < self.now for each in turn.batch)
        for each in (*turn.batch, *turn.cancelled, *turn.expired):
            assert self.waiting.pop((str(each.owner), each.id)) is each
        self.check_whose_turn_it_was(interactive, bulk)
        self.check_that_the_batch_is_full(turn.batch)

    def oldest(self, priority: Priority) -> Job[None] | None:
        return next((each for each in self.waiting.values() if each.priority == priority), None)

    def check_whose_turn_it_was(self, interactive: Job[None] | None, bulk: Job[None] | None) -> None:
        still = list(self.waiting.values())
        if interactive in still:
            assert self.in_a_row >= PATIENCE
            assert bulk not in still
        self.in_a_row = self.in_a_row + 1 if interactive and interactive not in still else 0
        self.passed_over = self.passed_over + 1 if bulk in still else 0
        assert self.passed_over <= PATIENCE

    def check_that_the_batch_is_full(self, batch: list[Job[None]]) -> None:
        """But for texts, which are too many tokens together, and suspects."""
        if 0 < len(batch) < 3 and not batch[0].alone and not batch[0].length:
            assert not any(each.key == batch[0].key and not each.alone for each in self.waiting.values())

    @invariant()
    def counts(self) -> None:
        assert len(self.batcher) == len(self.waiting)


TestAnyHistory = AnyHistory.TestCase


def test_a_batch_decodes_no_more_pixels_than_fit_on_a_device() -> None:
    most = MAX_DECODED_PIXELS
    batcher = filled(Batcher(8), job(1, pixels=most // 2), job(2, pixels=most // 2), job(3, pixels=1))
    assert ids(batcher.next(0.0).batch) == [1, 2]
    assert ids(batcher.next(0.0).batch) == [3]
    filled(batcher, job(4, pixels=2 * most), job(5, pixels=1), job(6, pixels=1, priority=BULK))
    assert ids(batcher.next(0.0).batch) == [4]  # a lone one always may
    assert ids(batcher.next(0.0).batch) == [5, 6]


def test_jpegs_of_a_model_share_a_batch_with_each_other_only() -> None:
    small, large = (Encoded(side, 2 * side, 1, np.zeros(side, np.uint8)).pack() for side in (10, 200))
    assert batch_key(0, "image", small) == batch_key(0, "image", large)
    assert batch_key(0, "image", small) != batch_key(1, "image", small)
    assert batch_key(0, "image", small) != batch_key(0, "image", np.zeros((8, 8, 3), np.uint8))
    assert most_together(SPEC, "image", large) == SPEC.max_batch
    assert decoded_pixels("image", large) == 80_000
    assert decoded_pixels("image", np.zeros((8, 8, 3), np.uint8)) == 0
    assert decoded_pixels("text", np.zeros(8, np.int32)) == 0
