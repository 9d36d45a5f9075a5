"""A worker's end and the engine's end of the wire, in two real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iei.engine.address import EngineAddress
from iei.engine.client import EngineClient
from iei.engine.frames import FRAME_BYTES, Describe, Hello, Slot
from iei.errors import BackendFailed, InvalidInput, Overloaded, Unhealthy
from iei.priority import PRIORITY, Priority
from tests.engine.known_engine import DEADLY, FAILING, MODELS, SLOW
from tests.engine.known_engines import (
    SUBMIT,
    KnownEngines,
    ask,
    ask_all,
    assert_answered,
    connected,
    in_flight,
)
from tests.engine.runtimes_for_tests import SPEC, picture, shapes
from tests.engine.waiting import in_time, until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def lasting_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnownEngines]:
    """One for tests that all expect it to live."""
    engines = KnownEngines(tmp_path_factory.mktemp("lasting") / "engine.sock")
    yield engines
    engines.stop()


def test_every_job_gets_its_own_answer(lasting_engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(lasting_engines) as client:
            values = [value for value in range(200) if value not in (DEADLY, FAILING, SLOW)]
            for value, result in zip(values, await asyncio.gather(*ask_all(client, values)), strict=True):
                assert_answered(value, result)

    asyncio.run(scenario())


def test_outputs_come_by_name_and_shape(lasting_engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(lasting_engines) as client:
            result = await ask(client, 9, ("tokens", "mean"))
            assert result.outputs["mean"].shape == (3,)
            assert result.outputs["tokens"].shape == (4, 3)
            assert result.outputs["tokens"].dtype == np.float32

    asyncio.run(scenario())


def test_more_jobs_than_the_arena_holds_wait_their_turn(lasting_engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(lasting_engines, arena_bytes=4096) as client:
            for value, result in enumerate(await asyncio.gather(*ask_all(client, range(60)))):
                assert_answered(value, result)

    asyncio.run(scenario())


def test_what_the_arena_can_not_hold_is_refused(lasting_engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(lasting_engines, arena_bytes=4096) as client:
            large = np.zeros((40, 40, 3), np.uint8)
            with pytest.raises(InvalidInput, match=r"4096 \(IEI_ARENA_BYTES\)"):
                await client.run(
                    SPEC, "image", large, shapes("mean", shape=large.shape), deadline=time.monotonic() + 30
                )
            assert_answered(1, await ask(client, 1))

    asyncio.run(scenario())


def test_a_failing_input_fails_alone(lasting_engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(lasting_engines) as client:
            results = await asyncio.gather(*ask_all(client, [SLOW, 1, FAILING, 2]), return_exceptions=True)
            assert isinstance(results[2], BackendFailed)
            assert_answered(1, results[1])
            assert_answered(2, results[3])

    asyncio.run(scenario())


def test_an_engine_that_is_killed_costs_no_answers(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            tasks = ask_all(client, [SLOW, *range(20)])
            await until(lambda: engines.runs(SLOW))
            engines.kill()
            for value, result in zip([SLOW, *range(20)], await asyncio.gather(*tasks), strict=True):
                assert_answered(value, result)
            assert engines.started == 2

    asyncio.run(scenario())


def test_priorities_outlive_an_engine(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            engines.process.send_signal(signal.SIGSTOP)
            before = PRIORITY.set(Priority.BULK)
            bulk = ask_all(client, [SLOW, *range(20)])
            PRIORITY.reset(before)
            urgent = ask_all(client, [99])
            await until(lambda: in_flight(client) == 22)
            engines.kill()
            for value, result in zip([SLOW, *range(20), 99], await asyncio.gather(*bulk, *urgent), strict=True):
                assert_answered(value, result)
            # The next engine gets SLOW first. While that runs, perhaps with three more, the others arrive.
            assert [value for value in engines.forwards if value != SLOW].index(99) < 2 * SPEC.max_batch

    asyncio.run(scenario())


def test_an_input_that_kills_engines_is_given_up_and_its_company_is_not(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            blocker, *tasks = ask_all(client, [SLOW, 1, 2, DEADLY, 3, *range(10, 20)])
            results = await asyncio.gather(blocker, *tasks, return_exceptions=True)
            deadly = results.pop(3)
            assert isinstance(deadly, Unhealthy)
            assert "2 engines died" in str(deadly)
            for value, result in zip([SLOW, 1, 2, 3, *range(10, 20)], results, strict=True):
                assert_answered(value, result)
            assert engines.started == 3
            assert_answered(5, await ask(client, 5))

    asyncio.run(scenario())


def test_an_input_with_which_engines_were_killed_gets_more_tries(tmp_path: Path) -> None:
    async def scenario(engines: KnownEngines) -> None:
        async with connected(engines) as client:
            slow, deadly = ask_all(client, [SLOW, DEADLY])
            with pytest.raises(Unhealthy, match="4 engines died"):
                await deadly
            assert_answered(SLOW, await slow)
            assert engines.started == 5

    engines = KnownEngines(tmp_path / "engine.sock", after_kill=True)
    try:
        asyncio.run(scenario(engines))
    finally:
        engines.stop()


def test_what_waited_too_long_is_not_run(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            slow = asyncio.ensure_future(ask(client, SLOW))
            await until(lambda: engines.runs(SLOW))
            engines.process.send_signal(signal.SIGSTOP)  # its deadline passes before it is come to
            deadly = asyncio.ensure_future(ask(client, DEADLY, within_s=0.1))
            await asyncio.sleep(0.2)
            engines.process.send_signal(signal.SIGCONT)
            with pytest.raises(Overloaded, match="IEI_REQUEST_TIMEOUT_S"):
                await deadly
            assert_answered(SLOW, await slow)
            assert engines.started == 1

    asyncio.run(scenario())


def test_a_job_that_nobody_waits_for_is_not_run_and_gives_its_slot_back(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines, arena_bytes=4096) as client:
            slow = asyncio.ensure_future(ask(client, SLOW))
            await until(lambda: engines.runs(SLOW))
            engines.process.send_signal(signal.SIGSTOP)
            unwanted = ask_all(client, [DEADLY] * 4)
            await until(lambda: in_flight(client) >= len(unwanted))
            for task in unwanted:
                task.cancel()
            await asyncio.gather(*unwanted, return_exceptions=True)
            engines.process.send_signal(signal.SIGCONT)
            assert_answered(SLOW, await slow)
            for value, result in enumerate(await asyncio.gather(*ask_all(client, range(30)))):
                assert_answered(value, result)
            assert engines.started == 1

    asyncio.run(scenario())


def test_without_an_engine_jobs_wait_and_readiness_says_so(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            os.kill(engines.process.pid, signal.SIGKILL)
            await until(lambda: not client.ready)
            assert_answered(3, await ask(client, 3))
            assert client.ready

    asyncio.run(scenario())


def test_a_dead_worker_is_forgotten_and_others_are_served(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            other = EngineClient([engines.address], MODELS, 2**20, silent_s=60)
            await other.start()
            await until(lambda: other.ready)
            lost = ask_all(other, [SLOW, 1, 2])
            await until(lambda: engines.runs(SLOW))
            await other.stop()
            assert_answered(7, await ask(client, 7))
            for task in lost:
                task.cancel()
            await asyncio.gather(*lost, return_exceptions=True)
            assert engines.started == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff" * FRAME_BYTES,
        SUBMIT._replace(model=99).pack(),
        SUBMIT._replace(slot=Slot(192, 64, offset=2**40)).pack(),
        SUBMIT._replace(slot=Slot(192, 2**40)).pack(),
        SUBMIT._replace(slot=Slot(1, 64)).pack(),
        SUBMIT._replace(shape=(2**32 - 1,) * 3).pack(),
        SUBMIT._replace(model=1, slot=Slot(192, 64, offset=2**40)).pack(),
        Describe(1, model=3, slot=Slot(0, 2**40)).pack(),
        Describe(1, model=99, slot=Slot(0, 64)).pack(),
        SUBMIT._replace(model=MODELS.index("stuck")).pack() * 2,
        Hello(4096, 1).pack(),
    ],
    ids=[
        "noise",
        "model",
        "slot",
        "output",
        "input",
        "shape",
        "slot of a cold model",
        "output of a broken model",
        "description of no model",
        "the same job twice",
        "a second HELLO",
    ],
)
def test_a_frame_that_makes_no_sense_closes_its_connection_only(lasting_engines: KnownEngines, frame: bytes) -> None:
    async def scenario() -> None:
        async with connected(lasting_engines) as client:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
                stranger.connect(str(lasting_engines.address.path))
                arena = os.memfd_create("arena")
                os.ftruncate(arena, 4096)
                socket.send_fds(stranger, [Hello(4096, os.getpid()).pack()], [arena])
                os.close(arena)
                stranger.settimeout(10)
                assert len(stranger.recv(FRAME_BYTES, socket.MSG_WAITALL)) == FRAME_BYTES
                stranger.sendall(frame)
                assert stranger.recv(FRAME_BYTES) == b""
            assert_answered(4, await ask(client, 4))
            assert lasting_engines.started == 1

    asyncio.run(scenario())


def test_a_second_model_is_loaded_when_it_is_asked_for_and_holds_up_nobody(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            deadline = in_time()
            awaited = asyncio.ensure_future(client.describe("awaited", deadline=deadline))
            await until(lambda: in_flight(client) == 1)
            assert_answered(1, await ask(client, 1))
            assert not awaited.done()
            engines.process.send_signal(signal.SIGUSR1)
            spec = await awaited
            assert spec.name == "awaited"
            assert_answered(2, await client.run(spec, "image", picture(2), shapes("mean"), deadline=deadline))

    asyncio.run(scenario())


def test_a_model_that_can_not_be_loaded_is_not_there_and_the_log_says_why(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            for _ in range(3):
                with pytest.raises(Unhealthy, match=r"^broken can't be loaded: the server's log says why$"):
                    await client.describe("broken", deadline=in_time())

    asyncio.run(scenario())
    (why,) = [line for line in engines.log.splitlines() if "IEI_SECRET" in line]
    assert "ERROR" in why


def test_a_model_whose_loading_ends_the_engine_ends_one_and_no_more(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client, connected(engines) as other:
            for asker in (client, other, client):
                with pytest.raises(Unhealthy, match="deadly can't be loaded"):
                    await asker.describe("deadly", deadline=in_time())
            assert_answered(3, await ask(client, 3))

    asyncio.run(scenario())
    assert engines.started == 2
    assert "an engine died while it loaded deadly" in engines.log


def test_a_download_that_hangs_holds_up_no_other_model(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            stuck = asyncio.ensure_future(client.describe("stuck", deadline=in_time()))
            second = await client.describe("second", deadline=in_time())
            result = await client.run(second, "image", picture(2), shapes("mean"), deadline=in_time())
            assert_answered(2, result)
            assert not stuck.done()
            stuck.cancel()

    asyncio.run(scenario())


def test_all_who_ask_for_a_model_share_one_question(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:  # its arena has room for 15 questions
            impatient = [asyncio.ensure_future(client.describe("awaited", deadline=in_time())) for _ in range(40)]
            patient = asyncio.ensure_future(client.describe("awaited", deadline=in_time()))
            assert_answered(1, await ask(client, 1))
            for asker in impatient:
                asker.cancel()
            with pytest.raises(Overloaded, match="awaited is still being loaded"):
                await client.describe("awaited", deadline=time.monotonic())
            engines.process.send_signal(signal.SIGUSR1)
            assert (await patient).name == "awaited"

    asyncio.run(scenario())


def test_a_job_that_waits_for_its_model_can_be_cancelled(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines, arena_bytes=4096) as client:
            stuck = replace(SPEC, name="stuck")
            unwanted = [
                asyncio.ensure_future(client.run(stuck, "image", picture(1), shapes("mean"), deadline=in_time()))
                for _ in range(10)
            ]
            await until(lambda: in_flight(client) == 5)  # the others wait for room in the arena
            for task in unwanted:
                task.cancel()
            assert_answered(5, await ask(client, 5))

    asyncio.run(scenario())


def test_an_engine_that_is_silent_over_its_inputs_is_not_ready(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines, silent_s=0.1) as client:
            engines.process.send_signal(signal.SIGSTOP)
            job = asyncio.ensure_future(ask(client, 1))
            await until(lambda: not client.ready)
            engines.process.send_signal(signal.SIGCONT)
            assert_answered(1, await job)
            assert client.ready

    asyncio.run(scenario())


def test_an_engine_that_loads_a_model_for_long_is_ready(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines, silent_s=0.0) as client:
            second = asyncio.ensure_future(client.describe("second", deadline=in_time()))
            while not second.done():
                assert client.ready
                await asyncio.sleep(0.01)
            await second

    asyncio.run(scenario())


def test_without_anybody_who_starts_engines_the_log_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        client = EngineClient([EngineAddress(tmp_path / "gone.sock", SPEC)], MODELS, 2**20, silent_s=60)
        await client.start()
        await until(lambda: bool(caplog.records))
        assert not client.ready
        with pytest.raises(Unhealthy, match="not there"):
            await client.describe("second", deadline=time.monotonic())
        await client.stop()

    asyncio.run(scenario())
    assert caplog.records[0].levelname == "ERROR"
    assert "restart the server" in caplog.text


def test_a_model_that_made_room_for_another_comes_back_when_needed(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            deadline = in_time()
            specs = [await client.describe(name, deadline=deadline) for name in ("known", "second", "third")]
            for spec in (*specs, *specs):  # two fit
                result = await client.run(spec, "image", picture(8), shapes("mean"), deadline=deadline)
                assert_answered(8, result)

    asyncio.run(scenario())


def test_more_models_in_demand_than_fit_take_turns(engines: KnownEngines) -> None:
    async def scenario() -> None:
        async with connected(engines) as client:
            specs = [replace(SPEC, name=name) for name in ("known", "second", "third")]
            jobs = [
                client.run(spec, "image", picture(value), shapes("mean"), deadline=in_time())
                for value in range(20)
                for spec in specs
            ]
            for number, result in enumerate(await asyncio.gather(*jobs)):
                assert_answered(number // len(specs), result)

    asyncio.run(scenario())
