from __future__ import annotations

import os
import re

import pytest

from iei.errors import StartupError
from iei.load_options import LoadOptions
from iei.setting import choices
from iei.settings import SETTINGS, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS.values():
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)
    for variable in list(os.environ):
        if variable.startswith("IEI_"):
            monkeypatch.delenv(variable)


def test_a_flag_wins_over_a_variable_and_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEI_WORKERS", "3")
    monkeypatch.setenv("IEI_BIND", "")
    assert (read_settings().server.workers, read_settings().server.bind) == (3, "0.0.0.0:8000")
    assert read_settings(workers=5).server.workers == 5


@pytest.mark.parametrize("env", ["IMAGE_EMBEDDING_MODEL", "IEI_MODEL"])
def test_a_setting_may_have_two_names(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(env, "someone/model")
    assert read_settings().models.model == "someone/model"
    assert read_settings().models.is_set("model")


def test_two_variables_of_one_setting_may_not_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_EMBEDDING_MODEL", "one")
    monkeypatch.setenv("IEI_MODEL", "one")
    assert read_settings().models.model == "one"
    monkeypatch.setenv("IEI_MODEL", "two")
    with pytest.raises(StartupError, match=r"IMAGE_EMBEDDING_MODEL='one' and IEI_MODEL='two' .* unset all but one"):
        read_settings()
    assert read_settings(model="three").models.model == "three"


def test_a_wrong_value_is_named_by_who_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match=r"^--max-batch='x': "):
        read_settings(max_batch="x")
    monkeypatch.setenv("POOLING_STRATEGY", "sum")
    monkeypatch.setenv("IEI_WORKERS", "0")
    with pytest.raises(StartupError) as refused:
        read_settings()
    assert "POOLING_STRATEGY='sum': " in str(refused.value)
    assert "IEI_WORKERS='0': " in str(refused.value)


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if choices(setting.field)])
def test_words_are_read_in_any_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = SETTINGS[name]
    for word in choices(setting.field):
        monkeypatch.setenv(setting.variables[0], word)
        expected = read_settings()
        monkeypatch.setenv(setting.variables[0], word.upper())
        assert read_settings() == expected


@pytest.mark.parametrize("device", ["CPU", "Auto", "CUDA:0,cuda:1"])
def test_devices_are_read_in_any_case(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEI_DEVICE", device)
    assert read_settings().engine.device == device.lower()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_wrong_with_a_value_is_said_in_words(name: str) -> None:
    try:
        _ = read_settings(**{name: " ^?"})
    except StartupError as refused:
        message = str(refused)
        assert message.startswith(f"{SETTINGS[name].flag}=' ^?': must be ") or "must have" in message
        assert not re.search(r"\\|\[\^|pattern|parse|Input", message), message


def test_the_words_that_are_allowed_are_named() -> None:
    with pytest.raises(StartupError, match=r"^--log-level='loud': must be debug, info, warning or error$"):
        read_settings(log_level="loud")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("IEI_WORKER", "did you mean IEI_WORKERS?"),
        ("IEI_MODEl", "did you mean IEI_MODEL?"),
        ("IEI_X", "lists the settings"),
    ],
)
def test_a_name_that_is_no_setting_is_told_with_the_nearest_one(
    variable: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "2")
    (sentence,) = unknown_variables()
    assert sentence.startswith(f"{variable} is not a setting, and is ignored: ")
    assert nearest in sentence


def test_what_kubernetes_says_of_a_service_named_iei_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "tcp://10.0.0.1:8000"
    links = {
        "IEI_PORT": address,
        "IEI_SERVICE_HOST": "10.0.0.1",
        "IEI_SERVICE_PORT": "8000",
        "IEI_SERVICE_PORT_HTTP": "8000",
        "IEI_PORT_8000_TCP": address,
        "IEI_PORT_8000_TCP_PORT": "8000",
        "IEI_PORT_8000_TCP_ADDR": "10.0.0.1",
        "IEI_GPU_PORT": address,
        "IEI_GPU_SERVICE_HOST": "10.0.0.1",
    }
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert not list(unknown_variables())
    assert read_settings().server.address == "0.0.0.0:8000"


def test_a_setting_that_does_not_exist_is_a_mistake_in_the_program() -> None:
    with pytest.raises(TypeError, match="there are no settings max_bath"):
        read_settings(max_bath=3)


def test_groups_travel_to_other_processes_whole_and_read_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    options = read_settings(max_batch=7, pooling="cls").load
    monkeypatch.setenv("IEI_MAX_BATCH", "9")
    assert LoadOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("0.0.0.0:8001", "0.0.0.0:8001"),
        ("[::]:8001", "[::]:8001"),
        ("[::1]", "[::1]:8000"),
        ("127.0.0.1", "127.0.0.1:8000"),
        (":0", "0.0.0.0:0"),
        ("8123", "0.0.0.0:8123"),
    ],
)
def test_an_address_has_a_host_and_a_port(bind: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(bind=bind).server.address == address
    host, _, _ = address.rpartition(":")
    for variable in ("IEI_PORT", "PORT", "IEI_VERTEX_PORT", "AIP_HTTP_PORT"):
        with monkeypatch.context() as environment:
            environment.setenv(variable, "8080")
            assert read_settings(bind=bind).server.address == f"{host}:8080"
            assert read_settings(bind=bind, host="::1").server.address == "[::1]:8080"


def test_two_ports_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("AIP_HTTP_PORT", "8081")
    with pytest.raises(StartupError, match="unset all but one"):
        read_settings()
    assert read_settings(port=8082).server.address == "0.0.0.0:8082"


def test_a_unix_socket_has_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "8080")
    with pytest.raises(StartupError, match=r"AIP_HTTP_PORT=8080 .* IEI_BIND=unix:/run/iei.sock: unset one"):
        _ = read_settings(bind="unix:/run/iei.sock").server.address
    with pytest.raises(StartupError, match="IEI_HOST=::1 has no meaning"):
        _ = read_settings(bind="unix:/run/iei.sock", host="::1", port=None).server.address


@pytest.mark.parametrize("route", ["predict", "/a?b", "/{model}", "/a b"])
def test_routes_of_vertex_ai_are_paths(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_PREDICT_ROUTE", route)
    with pytest.raises(StartupError, match="AIP_PREDICT_ROUTE="):
        read_settings()
