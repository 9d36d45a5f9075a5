"""What the command line makes of flags and variables."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator

import pytest

from iei.commands.main import main
from iei.models.catalog import Catalog
from iei.settings import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[list[Catalog]]:
    """The catalogs of servers that would be running now."""
    served: list[Catalog] = []

    class Server:
        def __init__(self, catalog: Catalog) -> None:
            served.append(catalog)

        def run(self) -> None: ...

    monkeypatch.setattr("iei.commands.serve.begin", lambda settings, catalog: catalog)
    monkeypatch.setattr("iei.commands.master.Server", Server)
    monkeypatch.setattr("iei.commands.serve.configure", lambda settings: None)
    caplog.set_level("INFO", "iei")
    yield served
    gc.enable()  # which a server does once it has its app


@pytest.mark.parametrize(
    ("flags", "ids"), [(["--demo"], ("demo",)), (["--model", "org/vit"], ("org/vit",)), ([], ("org/one", "demo"))]
)
def test_a_flag_for_one_model_wins_over_a_variable_for_several(
    flags: list[str],
    ids: tuple[str, ...],
    served: list[Catalog],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("IEI_MODELS", "a=org/one,b=demo")
    main(["serve", *flags])
    assert tuple(entry.id for entry in served[0].entries) == ids
    assert f" loads {ids[0]} …" in caplog.text


def test_all_that_is_loaded_is_named(
    served: list[Catalog], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IEI_MODELS", "a=org/one,b=org/two,c=org/three")
    main(["serve", "--load-at-start", "all", "--max-loaded-models", "2"])
    assert " loads org/one, org/two …" in caplog.text


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ([], "0.0.0.0:8080"),
        (["--bind", "127.0.0.1:9000"], "127.0.0.1:9000"),
        (["--bind", "127.0.0.1"], "127.0.0.1:8000"),
        (["--port", "9000"], "0.0.0.0:9000"),
        (["--host", "127.0.0.1"], "127.0.0.1:8080"),
        (["--bind", "127.0.0.1:9000", "--port", "9001"], "127.0.0.1:9001"),
    ],
)
def test_a_flag_for_the_address_wins_over_a_variable_for_a_part_of_it(
    flags: list[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "8080")
    addresses: list[str] = []
    monkeypatch.setattr("iei.commands.serve.run", lambda settings: addresses.append(settings.server.address))
    main(["serve", *flags])
    assert addresses == [address]


def test_help_names_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for flag in ("--log-level debug|info|warning|error", "--fast-decode true|false", "--port VALUE", "--host VALUE"):
        assert flag in text


def test_a_variable_that_is_no_setting_is_told(
    served: list[Catalog], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IEI_WORKER", "2")
    main(["serve", "--demo"])
    assert "IEI_WORKER is not a setting, and is ignored: did you mean IEI_WORKERS?" in caplog.text


def test_a_fault_of_the_machine_is_a_sentence_and_a_mistake_in_the_program_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(error: OSError) -> None:
        def run(settings: Settings) -> None:
            raise error

        monkeypatch.setattr("iei.commands.serve.run", run)

    fails(OSError(errno.ENOSPC, "No space left on device", "/tmp/x"))
    with pytest.raises(SystemExit, match=r"^iei: No space left on device: /tmp/x\. Free some space, or move "):
        main(["serve"])
    fails(OSError(errno.EBADF, "Bad file descriptor"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["serve"])


def test_flags_for_one_model_and_for_several_exclude_each_other(served: list[Catalog]) -> None:
    with pytest.raises(SystemExit, match="--models takes the place of --model"):
        main(["serve", "--demo", "--models", "a=org/one"])
    assert not served
