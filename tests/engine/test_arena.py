from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iei.engine.arena import Allocator, Arena
from iei.engine.memory import Memory
from iei.priority import Priority

BULK = Priority.BULK


def test_what_one_side_writes_the_other_reads() -> None:
    ours = Memory.create(4096)
    theirs = Memory(os.dup(ours.fd), 4096)
    ours.view(64, 3)[:] = [1, 2, 3]
    assert theirs.view(64, 3).tolist() == [1, 2, 3]
    ours.close()
    theirs.close()
    assert theirs.view(64, 3).tolist() == [1, 2, 3]  # a mapping outlives its descriptor


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 2), (4095, 2), (0, 4097), (5000, 0), (0, -1)])
def test_a_range_outside_the_memory_is_refused(offset: int, nbytes: int) -> None:
    memory = Memory.create(4096)
    with pytest.raises(ValueError, match="outside"):
        memory.view(offset, nbytes)
    memory.close()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=80))
def test_ranges_never_overlap_and_all_comes_back(steps: list[tuple[bool, int]]) -> None:
    allocator = Allocator(1000)
    taken: dict[int, int] = {}
    for release, number in steps:
        if release and taken:
            offset = sorted(taken)[number % len(taken)]
            del taken[offset]
            allocator.release(offset)
        elif (found := allocator.allocate(number)) is not None:
            taken[found] = number
        used = np.zeros(1000, int)
        for offset, nbytes in taken.items():
            used[offset : offset + nbytes] += 1
        assert used.max() <= 1
    for offset in taken:
        allocator.release(offset)
    assert allocator.allocate(1000) == 0


def test_low_addresses_are_used_again_first() -> None:
    allocator = Allocator(1000)
    first, second, _ = (allocator.allocate(100) for _ in range(3))
    assert (first, second) == (0, 100)
    allocator.release(0)
    assert allocator.allocate(50) == 0


async def full_arena() -> tuple[Arena, int]:
    arena = Arena(4096)
    return arena, await arena.reserve(4096)


def test_a_full_arena_makes_callers_wait_their_turn() -> None:
    async def scenario() -> None:
        arena, everything = await full_arena()
        large = asyncio.create_task(arena.reserve(4000))
        small = asyncio.create_task(arena.reserve(10))
        await asyncio.sleep(0)
        arena.release(everything)
        await asyncio.sleep(0)
        assert large.done()
        assert small.done()
        arena.close()

    asyncio.run(scenario())


def test_a_small_one_does_not_overtake_a_large_one_for_ever() -> None:
    async def scenario() -> None:
        arena = Arena(4096)
        held = await arena.reserve(64)
        large = asyncio.create_task(arena.reserve(4096))
        await asyncio.sleep(0)
        small = asyncio.create_task(arena.reserve(64))  # there is room for it, but it came later
        await asyncio.sleep(0)
        assert not small.done()
        arena.release(held)
        arena.release(await large)
        await small
        arena.close()

    asyncio.run(scenario())


def test_a_caller_that_gives_up_leaves_its_place_to_the_next() -> None:
    async def scenario() -> None:
        arena, everything = await full_arena()
        first = asyncio.create_task(arena.reserve(4096))
        second = asyncio.create_task(arena.reserve(4096))
        await asyncio.sleep(0)
        arena.release(everything)  # `first` has it now, but does not know yet
        first.cancel()
        arena.release(await second)
        assert await arena.reserve(4096) == 0
        arena.close()

    asyncio.run(scenario())


def test_what_can_never_fit_is_refused_with_the_setting_to_change() -> None:
    async def scenario() -> None:
        arena = Arena(4096)
        with pytest.raises(ValueError, match="IEI_ARENA_BYTES"):
            await arena.reserve(4097)
        arena.close()

    asyncio.run(scenario())


async def arena_full_of_bulk() -> tuple[Arena, list[int], list[asyncio.Task[int]]]:
    """An arena with all that bulk may have in it, and with more of it that waits."""
    arena = Arena(4096)
    held = [await arena.reserve(1024, BULK) for _ in range(3)]
    waiting = [asyncio.create_task(arena.reserve(1024, BULK)) for _ in range(3)]
    await asyncio.sleep(0)
    return arena, held, waiting


def test_bulk_leaves_a_quarter_of_the_arena_to_what_is_urgent() -> None:
    async def scenario() -> None:
        arena, held, waiting = await arena_full_of_bulk()
        assert not any(task.done() for task in waiting)
        async with asyncio.timeout(20):
            urgent = [await arena.reserve(512), await arena.reserve(512)]
        arena.release(urgent[0])
        arena.release(urgent[1])
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)  # what urgent ones leave is not bulk's either
        for offset in held:
            arena.release(offset)
        assert len(await asyncio.gather(*waiting)) == 3
        arena.close()

    asyncio.run(scenario())


def test_what_is_urgent_has_the_next_place_and_bulk_the_one_after() -> None:
    async def scenario() -> None:
        arena, held, waiting = await arena_full_of_bulk()
        await arena.reserve(1024)
        urgent = asyncio.create_task(arena.reserve(1024))
        await asyncio.sleep(0)
        for offset in held[:2]:
            assert not urgent.done() or not waiting[0].done()
            arena.release(offset)
            await asyncio.sleep(0)
            assert urgent.done()
        assert [task.done() for task in waiting] == [True, False, False]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        arena.close()

    asyncio.run(scenario())


def test_bulk_larger_than_its_share_has_its_place_too() -> None:
    async def scenario() -> None:
        arena = Arena(4096)
        arena.release(await arena.reserve(4096, BULK))
        assert await arena.reserve(4096) == 0
        arena.close()

    asyncio.run(scenario())
