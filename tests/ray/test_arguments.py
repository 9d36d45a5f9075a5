from __future__ import annotations

import pytest

from iei.errors import StartupError
from iei.ray.arguments import read_arguments


def test_settings_and_placement_as_serve_run_sends_them() -> None:
    placement, settings = read_arguments({"model": "demo", "max_replicas": "3", "num_cpus": "2", "max_queue": "10"})
    assert (settings.models.model, settings.requests.max_queue, placement.most) == ("demo", 10, 3)
    assert (settings.server.workers, settings.load.threads, settings.inputs.decode_threads) == (1, 2, 2)
    assert settings.engine.device == "cpu"


@pytest.mark.parametrize(("gpus", "device"), [("0.25", "cuda"), ("1", "cuda"), ("2", "cuda:0,cuda:1")])
def test_the_device_is_what_ray_gives(gpus: str, device: str) -> None:
    assert read_arguments({"num_gpus": gpus})[1].engine.device == device


def test_what_is_said_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEI_THREADS", "3")
    monkeypatch.setenv("IEI_MODELS", "a,b")
    _, settings = read_arguments({"model": "demo", "num_gpus": 1, "device": "cpu", "decode_threads": 4})
    assert (settings.engine.device, settings.load.threads, settings.inputs.decode_threads) == ("cpu", 3, 4)
    assert settings.models.models == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modle": "demo"}, r"modle is no argument: did you mean model\?"),
        ({"num_gpu": 1}, r"num_gpu is no argument: did you mean num_gpus\?"),
        ({"zzz": 1}, "zzz is no argument: docs/ray.md and docs/configuration.md list them"),
        ({"workers": 4}, "workers: each replica is one worker: set min_replicas and max_replicas"),
        ({"port": 80}, "port: Ray Serve's proxy listens"),
        ({"max_replicas": "many"}, "max_replicas='many': .*integer"),
        ({"min_replicas": 2, "max_replicas": 1}, "max_replicas=1: must be at least min_replicas=2"),
        ({"max_queue": "many"}, "'many': must be a whole number"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        read_arguments(arguments)


def test_tls_is_not_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEI_TLS_CERT", "cert.pem")
    with pytest.raises(StartupError, match="put TLS before it"):
        read_arguments({})
