"""Starting real engines, with the demo model."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import psutil
import pytest

from iei.engine.client import EngineClient
from iei.engine.config import EngineConfig
from iei.engine.launch import launch
from iei.errors import StartupError
from iei.telemetry.counters import Counters
from iei.telemetry.logs import Form
from iei.telemetry.metrics import METRICS
from tests.engine.waiting import until
from tests.load_requests import load_request

pytestmark = pytest.mark.server


def demo(cache: str, *others: str) -> EngineConfig:
    """The configuration of an engine for the demo model and `others`, which are not there."""
    return EngineConfig(
        (
            load_request("demo", "demo", runtime="auto", cache_dir=cache, threads=1),
            *(load_request(id, id) for id in others),
        ),
        max_loaded=1,
        at_start=1,
        timeout_s=60.0,
        logs=Form("info", "human"),
    )


def test_more_models_than_arguments_can_name(demo_cache: str) -> None:
    config = demo(demo_cache, *(f"owner/model-{number}-{'x' * 500}" for number in range(600)))
    assert len(config.to_json()) > 128 * 1024  # Linux takes no longer argument
    engine = launch(config, Counters(METRICS))
    assert engine.address.default.id == "demo"
    engine.close()
    assert engine.supervisor.wait(20) == 0


def test_a_socket_whose_path_is_too_long_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(StartupError, match=r"can't be started .*too long.* TMPDIR"):
        launch(demo(str(tmp_path)), Counters(METRICS))
    assert list(folder.iterdir()) == []


def test_without_supervisor_and_engine_the_log_says_what_to_do(
    demo_cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        engine = launch(demo(demo_cache), Counters(METRICS))
        client = EngineClient([engine.address], ["demo"], 2**20, silent_s=60)
        await client.start()
        await until(lambda: client.ready)
        supervisor = psutil.Process(engine.supervisor.pid)
        (process,) = supervisor.children()
        supervisor.kill()
        engine.supervisor.wait()
        assert client.ready
        process.kill()
        await until(lambda: "restart the server" in caplog.text)
        assert not client.ready
        await client.stop()
        engine.close()

    asyncio.run(scenario())
