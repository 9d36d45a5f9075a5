from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from iei.engine.inprocess import InProcessEngine
from iei.engine.loaded_models import LoadedModels
from iei.errors import BackendFailed, ModelNotFound, Overloaded, Unhealthy
from iei.models.catalog import LoadRequest
from iei.runtimes.api import DeviceLost
from tests.engine.runtimes_for_tests import SPEC, KnownRuntime, picture, shapes
from tests.engine.test_execute import CULPRIT, fails_on_the_culprit
from tests.load_requests import load_request


def in_a(minute: float = 60.0) -> float:
    return time.monotonic() + minute


def test_what_waits_while_the_model_is_busy_becomes_a_batch() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        engine = InProcessEngine(runtime)
        await engine.start()
        runtime.go.clear()
        first = asyncio.create_task(engine.run(SPEC, "image", picture(0), shapes("mean"), deadline=in_a()))
        await asyncio.to_thread(runtime.busy.wait)
        others = [
            asyncio.create_task(engine.run(SPEC, "image", picture(value), shapes("mean"), deadline=in_a()))
            for value in range(1, 5)
        ]
        await asyncio.sleep(0)  # all of them are submitted within this turn of the loop
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
            engine.run(SPEC, "image", picture(CULPRIT), shapes("mean"), deadline=in_a()),
            engine.run(SPEC, "image", picture(5), shapes("mean"), deadline=in_a()),
            return_exceptions=True,
        )
        assert isinstance(bad, BackendFailed)
        assert not isinstance(good, BaseException)
        with pytest.raises(Overloaded):
            await engine.run(SPEC, "image", picture(5), shapes("mean"), deadline=in_a(-1))
        await engine.stop()
        with pytest.raises(Unhealthy):
            await engine.run(SPEC, "image", picture(5), shapes("mean"), deadline=in_a())

    asyncio.run(scenario())


def test_a_lost_device_is_told_to_whoever_asks() -> None:
    def lose(batch: object) -> None:
        raise DeviceLost("the context is gone")

    async def scenario() -> None:
        engine = InProcessEngine(KnownRuntime(lose))
        await engine.start()
        for _ in range(2):
            with pytest.raises(Unhealthy, match="restarted"):
                await engine.run(SPEC, "image", picture(5), shapes("mean"), deadline=in_a())
        await engine.stop()

    asyncio.run(scenario())


def test_what_is_not_answered_when_the_engine_stops_fails() -> None:
    async def scenario() -> None:
        runtime = KnownRuntime()
        engine = InProcessEngine(runtime)
        await engine.start()
        runtime.go.clear()
        first = asyncio.create_task(engine.run(SPEC, "image", picture(1), shapes("mean"), deadline=in_a()))
        await asyncio.to_thread(runtime.busy.wait)
        second = asyncio.create_task(engine.run(SPEC, "image", picture(2), shapes("mean"), deadline=in_a()))
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        runtime.go.set()
        await stopping
        np.testing.assert_array_equal((await first).outputs["mean"], [1] * 3)
        with pytest.raises(Unhealthy, match="stopped"):
            await second

    asyncio.run(scenario())


def test_several_models_are_loaded_when_they_are_asked_for() -> None:
    class Loader:
        def fetch(self, request: LoadRequest) -> None: ...

        def load(self, request: LoadRequest) -> KnownRuntime:
            runtime = KnownRuntime()
            runtime.spec = replace(SPEC, name=request.entry.name)
            return runtime

    async def scenario() -> None:
        models = LoadedModels([load_request(name, name) for name in "ab"], 1, Loader(), bytearray(2))
        models.load_first(1)
        engine = InProcessEngine(models)
        await engine.start()
        for name in "bab":
            spec = await engine.describe(name, deadline=in_a())
            assert spec.name == name
            result = await engine.run(spec, "image", picture(7), shapes("mean"), deadline=in_a())
            np.testing.assert_array_equal(result.outputs["mean"], [7] * 3)
        with pytest.raises(ModelNotFound):
            await engine.describe("c", deadline=in_a())
        await engine.stop()

    asyncio.run(scenario())
