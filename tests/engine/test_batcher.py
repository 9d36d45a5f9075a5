"""The batching policy, alone: no sockets, no torch, no clock."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from iei.engine.batcher import Batcher, Job, Turn, batch_key, most_together
from tests.engine.runtimes_for_tests import SPEC

FOREVER = 1e9


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
    """Whatever happens in whatever order: every job comes out exactly once, unless its owner has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[None] = Batcher(3, max_tokens=64)
        self.waiting: dict[tuple[str, int], Job[None]] = {}
        self.now = 0.0
        self.numbers = 0

    @rule(
        key=st.sampled_from("ab"),
        owner=st.sampled_from("xyz"),
        lasts=st.floats(0, 5),
        alone=st.booleans(),
        length=st.sampled_from([0, 5, 30, 100]),
    )
    def add(self, key: str, owner: str, lasts: float, alone: bool, length: int) -> None:
        self.numbers += 1
        added = Job(owner, self.numbers, (key, length > 0), self.now + lasts, None, length=length, alone=alone)
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

    @rule()
    def run(self) -> None:
        turn: Turn[None] = self.batcher.next(self.now)
        assert bool(turn) == bool(self.waiting)
        assert len(turn.batch) <= 3
        assert len({(each.key, each.alone) for each in turn.batch}) <= 1
        assert len(turn.batch) == 1 or not any(each.alone for each in turn.batch)
        assert not any(each.cancelled or each.deadline < self.now for each in turn.batch)
        for each in (*turn.batch, *turn.cancelled, *turn.expired):
            assert self.waiting.pop((str(each.owner), each.id)) is each

    @invariant()
    def counts(self) -> None:
        assert len(self.batcher) == len(self.waiting)


TestAnyHistory = AnyHistory.TestCase
