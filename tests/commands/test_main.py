"""What the command line makes of flags and variables."""

from __future__ import annotations

import pytest

from iei.commands.main import main
from iei.models.catalog import Catalog
from iei.settings import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[Catalog]:
    """The catalogs of servers that would be running now."""
    served: list[Catalog] = []

    class Server:
        def __init__(self, settings: Settings, catalog: Catalog) -> None:
            served.append(catalog)

        def run(self) -> None: ...

    monkeypatch.setattr("iei.commands.serve.Server", Server)
    monkeypatch.setattr("iei.commands.serve.configure", lambda settings: None)
    caplog.set_level("INFO", "iei")
    return served


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


def test_flags_for_one_model_and_for_several_exclude_each_other(served: list[Catalog]) -> None:
    with pytest.raises(SystemExit, match="--models takes the place of --model"):
        main(["serve", "--demo", "--models", "a=org/one"])
    assert not served
