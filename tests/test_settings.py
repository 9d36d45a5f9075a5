from __future__ import annotations

import pytest

from iei.errors import StartupError
from iei.settings import SETTINGS, LoadOptions, read_settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS.values():
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)


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


def test_poolings_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLING_STRATEGY", "CLS")
    assert read_settings().load.pooling == "cls"


def test_a_setting_that_does_not_exist_is_a_mistake_in_the_program() -> None:
    with pytest.raises(TypeError, match="there are no settings max_bath"):
        read_settings(max_bath=3)


def test_groups_travel_to_other_processes_whole_and_read_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    options = read_settings(max_batch=7, pooling="cls").load
    monkeypatch.setenv("IEI_MAX_BATCH", "9")
    assert LoadOptions.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize("bind", ["0.0.0.0:8000", "[::]:8000", "127.0.0.1"])
def test_vertex_ais_port_takes_the_place_of_the_port(bind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(bind=bind).server.address == bind
    monkeypatch.setenv("AIP_HTTP_PORT", "8080")
    assert read_settings(bind=bind).server.address == f"{bind.removesuffix(':8000')}:8080"


def test_a_unix_socket_has_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "8080")
    with pytest.raises(StartupError, match=r"AIP_HTTP_PORT=8080 .* IEI_BIND=unix:/run/iei.sock: unset one"):
        _ = read_settings(bind="unix:/run/iei.sock").server.address


@pytest.mark.parametrize("route", ["predict", "/a?b", "/{model}", "/a b"])
def test_routes_of_vertex_ai_are_paths(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_PREDICT_ROUTE", route)
    with pytest.raises(StartupError, match="AIP_PREDICT_ROUTE="):
        read_settings()
