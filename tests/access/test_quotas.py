"""Limits of keys: one count for all workers, also when some of them die."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Any

import pytest

from iei.access.keys import Key, parse_keys
from iei.access.quotas import Quotas
from iei.errors import InvalidField, QuotaExceeded


def key(text: str, secret: str = "key") -> Key:
    (parsed,) = parse_keys([f"{secret} {text}"], "X")
    return parsed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock) -> Quotas:
    return Quotas(clock)


def send(quotas: Quotas, key: Key, count: int = 1) -> None:
    """A request that is answered at once."""
    quota = quotas.of(key)
    assert quota
    with quota.taken(count, "inputs"):
        pass


def refusal(quotas: Quotas, key: Key, count: int = 1) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as refused:
        send(quotas, key, count)
    assert refused.value.status == 429
    return refused.value


def test_a_key_without_limits_is_not_counted(quotas: Quotas) -> None:
    assert quotas.of(key("")) is None


def test_a_second_has_as_many_inputs_as_the_limit_says(quotas: Quotas, clock: Clock) -> None:
    ten = key("inputs_per_s=10")
    send(quotas, ten, 6)
    send(quotas, ten, 4)
    refused = refusal(quotas, ten)
    assert refused.retry_after_s == 1
    assert "10 inputs a second (inputs_per_s)" in refused.message
    clock.now += 0.5
    refusal(quotas, ten, 6)
    send(quotas, ten, 5)
    clock.now += 100
    send(quotas, ten, 10)
    refusal(quotas, ten)


def test_less_than_one_a_second_is_one_at_a_time(quotas: Quotas, clock: Clock) -> None:
    slow = key("inputs_per_s=0.1")
    send(quotas, slow)
    clock.now += 2.5
    assert refusal(quotas, slow).retry_after_s == 8
    clock.now += 7.4
    assert refusal(quotas, slow).retry_after_s == 1
    clock.now += 0.2
    send(quotas, slow)


def test_who_waits_as_long_as_told_is_served(quotas: Quotas, clock: Clock) -> None:
    seven = key("inputs_per_s=7")
    for _ in range(500):
        send(quotas, seven, 7)
        told = refusal(quotas, seven, 3).retry_after_s
        assert told
        clock.now += told


@pytest.mark.parametrize(
    ("limits", "count", "name"),
    [
        ("inputs_per_s=10", 11, "10 in one request (inputs_per_s)"),
        ("inputs_per_s=0.1", 2, "1 in one request (inputs_per_s)"),
        ("inputs_per_s=2.5", 3, "2 in one request (inputs_per_s)"),
        ("inputs_at_once=4", 5, "4 in one request (inputs_at_once)"),
        ("inputs_at_once=4 inputs_per_s=10", 5, "4 in one request (inputs_at_once)"),
        ("inputs_at_once=40 inputs_per_s=10", 11, "10 in one request (inputs_per_s)"),
    ],
)
def test_what_can_never_be_sent_is_not_told_to_try_again(quotas: Quotas, limits: str, count: int, name: str) -> None:
    with pytest.raises(InvalidField) as refused:
        send(quotas, key(limits), count)
    assert refused.value.message.startswith(f"inputs has {count} items")
    assert name in refused.value.message
    send(quotas, key(limits), count - 1)


def test_inputs_in_work_are_given_back_when_they_are_answered_or_fail(quotas: Quotas) -> None:
    four = key("inputs_at_once=4")
    quota = quotas.of(four)
    assert quota
    with quota.taken(3, "inputs"):
        send(quotas, four)
        assert "has 3 already" in refusal(quotas, four, 2).message
    with pytest.raises(ZeroDivisionError), quota.taken(4, "inputs"):
        raise ZeroDivisionError
    send(quotas, four, 4)


def test_what_is_refused_does_not_count(quotas: Quotas, clock: Clock) -> None:
    both = key("inputs_at_once=2 inputs_per_s=2")
    quota = quotas.of(both)
    assert quota
    with quota.taken(1, "inputs"):
        for _ in range(5):
            assert "inputs_at_once" in refusal(quotas, both, 2).message
        send(quotas, both)
    for _ in range(5):
        assert "inputs_per_s" in refusal(quotas, both, 2).message
    clock.now += 1
    send(quotas, both, 2)


def test_keys_are_counted_apart_and_a_renamed_one_is_the_same(quotas: Quotas) -> None:
    one, other = key("inputs_per_s=1", "one"), key("inputs_per_s=1", "other")
    send(quotas, one)
    send(quotas, other)
    refusal(quotas, key("inputs_per_s=1", "name=one"))


def test_more_keys_than_slots_take_those_of_keys_that_rest(
    quotas: Quotas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a server's life there may be any number of keys."""
    busy = key("inputs_at_once=1", "busy")
    quota = quotas.of(busy)
    assert quota
    with quota.taken(1, "inputs"):
        for number in range(5000):
            clock.now += 1
            send(quotas, key("inputs_per_s=1", f"key-{number}"))
        refusal(quotas, busy)
        refusal(quotas, key("inputs_per_s=1", "key-4999"))
    send(quotas, busy)


# several workers


Worker = Callable[[str, int], Any]


def _work(quotas: Quotas, limited: Key, orders: Connection) -> None:
    """A worker: does what it is told, and says what came of it."""
    with ExitStack() as held:
        while True:
            order, count = orders.recv()
            try:
                if order == "lock and die":
                    with quotas._rows.exclusive():
                        os.kill(os.getpid(), signal.SIGKILL)
                quota = quotas.of(limited)
                assert quota
                if order == "answer":
                    held.close()
                else:
                    held.enter_context(quota.taken(count, "inputs"))
                orders.send("taken")
            except QuotaExceeded:
                orders.send("refused")


class Workers:
    """Processes that share `quotas`, forked when they are first told something."""

    def __init__(self, quotas: Quotas, limited: Key) -> None:
        self._quotas, self._key = quotas, limited
        self._processes: dict[str, tuple[ForkProcess, Connection]] = {}

    def tell(self, worker: str, order: str, count: int = 0) -> None:
        if worker not in self._processes:
            ours, theirs = multiprocessing.Pipe()
            fork = multiprocessing.get_context("fork")
            process = fork.Process(target=_work, args=(self._quotas, self._key, theirs), daemon=True)
            process.start()
            self._processes[worker] = (process, ours)
        self._processes[worker][1].send((order, count))

    def ask(self, worker: str, order: str, count: int = 0) -> object:
        self.tell(worker, order, count)
        assert self._processes[worker][1].poll(20), f"{worker} does not answer"
        return self._processes[worker][1].recv()

    def kill(self, worker: str) -> None:
        process, connection = self._processes.pop(worker)
        process.kill()
        process.join()
        connection.close()

    def wait_for_death(self, worker: str) -> None:
        process, connection = self._processes.pop(worker)
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
        connection.close()

    def close(self) -> None:
        for worker in list(self._processes):
            self.kill(worker)


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(Quotas(), key("inputs_at_once=10 inputs_per_s=100000"))
    yield workers
    workers.close()


def test_workers_count_together(workers: Workers) -> None:
    assert workers.ask("a", "send", 4) == "taken"
    assert workers.ask("b", "send", 6) == "taken"
    assert workers.ask("a", "send", 1) == "refused"
    assert workers.ask("b", "send", 1) == "refused"
    assert workers.ask("a", "answer") == "taken"
    assert workers.ask("c", "send", 4) == "taken"
    assert workers.ask("b", "send", 1) == "refused"


def test_what_a_killed_worker_had_in_work_is_given_back(workers: Workers) -> None:
    assert workers.ask("a", "send", 4) == "taken"
    assert workers.ask("b", "send", 6) == "taken"
    workers.kill("b")
    assert workers.ask("a", "send", 7) == "refused"
    assert workers.ask("a", "send", 6) == "taken"
    assert workers.ask("a", "send", 1) == "refused"


def test_the_worker_in_a_killed_ones_place_starts_with_nothing_in_work(workers: Workers) -> None:
    assert workers.ask("a", "send", 4) == "taken"
    assert workers.ask("b", "send", 6) == "taken"
    workers.kill("b")
    assert workers.ask("c", "send", 6) == "taken"
    assert workers.ask("c", "answer") == "taken"
    assert workers.ask("a", "send", 6) == "taken"
    assert workers.ask("c", "send", 1) == "refused"


def test_a_worker_that_dies_while_it_counts_blocks_nobody(workers: Workers) -> None:
    assert workers.ask("a", "send", 4) == "taken"
    workers.tell("b", "lock and die")
    workers.wait_for_death("b")
    assert workers.ask("a", "send", 6) == "taken"


def test_the_rate_is_one_for_all_workers() -> None:
    workers = Workers(Quotas(), key("inputs_per_s=0.01"))
    try:
        answers = [workers.ask(worker, "send", 1) for worker in ("a", "b", "c", "a")]
        assert answers == ["taken", "refused", "refused", "refused"]
    finally:
        workers.close()


def test_many_at_the_same_time_get_exactly_the_limit(workers: Workers) -> None:
    names = [f"worker {number}" for number in range(8)]
    for _ in range(4):
        for name in names:
            workers.tell(name, "send", 1)
    answers = [workers._processes[name][1].recv() for name in names for _ in range(4)]
    assert (answers.count("taken"), answers.count("refused")) == (10, 22)
