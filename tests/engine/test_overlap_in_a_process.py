"""A model that is brought a batch while it computes another, in an engine process with several workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from iei.engine.api import Result
from iei.engine.client import EngineClient
from iei.models.spec import ModelSpec
from tests.engine.known_engine import SLOW
from tests.engine.known_engines import KnownEngines, ask, assert_answered, connected
from tests.engine.runtimes_for_tests import picture, shapes
from tests.engine.waiting import until

pytestmark = pytest.mark.server


@pytest.fixture
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnownEngines]:
    engines = KnownEngines(tmp_path_factory.mktemp("overlap") / "engine.sock")
    yield engines
    engines.stop()


async def _overlapping(client: EngineClient) -> ModelSpec:
    return await client.describe("third", deadline=time.monotonic() + 60)


def _ask(client: EngineClient, spec: ModelSpec, value: int) -> Coroutine[Any, Any, Result]:
    return client.run(spec, "image", picture(value), shapes("mean"), deadline=time.monotonic() + 60)


def test_all_workers_get_their_own_answers_from_models_of_both_kinds(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as one, connected(engines) as other:
            spec = await _overlapping(one)
            asked = [
                work
                for value in range(30)
                for work in (_ask(one, spec, value), _ask(other, spec, 200 + value), ask(one, 100 + value))
            ]
            answers = await asyncio.gather(*asked)
            for value in range(30):
                assert_answered(value, answers[3 * value])
                assert_answered(200 + value, answers[3 * value + 1])
                assert_answered(100 + value, answers[3 * value + 2])
        assert engines.started == 1

    asyncio.run(scenario())


def test_a_worker_that_goes_while_its_batch_is_computed_takes_nobody_with_it(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as staying:
            spec = await _overlapping(staying)
            async with connected(engines) as going:
                gone = [asyncio.ensure_future(_ask(going, spec, value)) for value in (SLOW, *range(20))]
                kept = [asyncio.ensure_future(_ask(staying, spec, 200 + value)) for value in range(20)]
                await until(lambda: engines.runs(SLOW))
            for value, answer in enumerate(await asyncio.gather(*kept)):
                assert_answered(200 + value, answer)
            for each in gone:  # nobody will answer them: they would wait for their deadline
                each.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        assert engines.started == 1

    asyncio.run(scenario())
