from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from iei.engine.inprocess import InProcessEngine
from iei.errors import BackendFailed, Overloaded, Unhealthy
from iei.runtimes.api import DeviceLost
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime, picture
from tests.engine.test_execute import CULPRIT, fails_on_the_culprit


def in_a(minute: float = 60.0) -> float:
    return time.monotonic() + minute


def test_what_waits_while_the_model_is_busy_becomes_a_batch() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        engine = InProcessEngine(runtime)
        await engine.start()
        runtime.go.clear()
        first = asyncio.create_task(engine.run(SPEC, "image", picture(0), ("mean",), deadline=in_a()))
        await asyncio.to_thread(runtime.busy.wait)
        others = [
            asyncio.create_task(engine.run(SPEC, "image", picture(value), ("mean",), deadline=in_a()))
            for value in range(1, 5)
        ]
        await asyncio.sleep(0.05)
        runtime.go.set()
        results = await asyncio.gather(first, *others)
        for value, result in enumerate(results):
            np.testing.assert_array_equal(result.outputs["mean"], [value] * 3)
        assert runtime.batches == [1, 4]
        await engine.stop()

    asyncio.run(scenario())


def test_errors_reach_the_caller_that_they_belong_to() -> None:
    async def scenario() -> None:
        engine = InProcessEngine(KnownRuntime(fails_on_the_culprit))
        await engine.start()
        bad, good = await asyncio.gather(
            engine.run(SPEC, "image", picture(CULPRIT), ("mean",), deadline=in_a()),
            engine.run(SPEC, "image", picture(5), ("mean",), deadline=in_a()),
            return_exceptions=True,
        )
        assert isinstance(bad, BackendFailed)
        assert not isinstance(good, BaseException)
        with pytest.raises(Overloaded):
            await engine.run(SPEC, "image", picture(5), ("mean",), deadline=in_a(-1))
        await engine.stop()
        with pytest.raises(Unhealthy):
            await engine.run(SPEC, "image", picture(5), ("mean",), deadline=in_a())

    asyncio.run(scenario())


def test_a_lost_device_is_told_to_whoever_asks() -> None:
    def lose(batch: object) -> None:
        raise DeviceLost("the context is gone")

    async def scenario() -> None:
        engine = InProcessEngine(KnownRuntime(lose))
        await engine.start()
        for _ in range(2):
            with pytest.raises(Unhealthy, match="restarted"):
                await engine.run(SPEC, "image", picture(5), ("mean",), deadline=in_a())
        await engine.stop()

    asyncio.run(scenario())
