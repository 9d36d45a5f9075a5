from __future__ import annotations

from pathlib import Path

import pytest

from iei.errors import ModelNotFound, StartupError
from iei.models.catalog import Catalog, catalog, load_requests
from iei.settings import Settings


@pytest.fixture
def allow_list(tmp_path: Path) -> Path:
    file = tmp_path / "supported_models.txt"
    file.write_text("# what we pay for\n\norg/small\n  org/large   # slow\nnick=org/third\n")
    return file


def test_one_model_goes_by_its_id() -> None:
    assert catalog(Settings(model="org/vit")) == Catalog(("org/vit",), ("org/vit",), (None,))


def test_a_folder_goes_by_its_last_part_and_its_path_stays_private(tmp_path: Path) -> None:
    (tmp_path / "my-vit").mkdir()
    assert catalog(Settings(model=str(tmp_path / "my-vit"))).names == ("my-vit",)


def test_one_model_may_be_given_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "custom-model")
    monkeypatch.setenv("MODEL_ID", "org/vit")
    assert catalog(Settings()) == Catalog(("custom-model",), ("org/vit",), (None,))


def test_several_models_with_and_without_names() -> None:
    served = catalog(Settings(models="a=org/one, org/two ,b = ./three"))
    assert served == Catalog(("a", "org/two", "b"), ("org/one", "org/two", "./three"), (None, None, None))


def test_the_allow_list_adds_to_a_chosen_model_and_its_first_is_the_default_otherwise(allow_list: Path) -> None:
    assert catalog(Settings(supported_models=allow_list)).names == ("org/small", "org/large", "nick")
    assert catalog(Settings(supported_models=allow_list, model="org/large")).names == ("org/large", "org/small", "nick")


def test_each_of_several_models_has_its_own_revision(tmp_path: Path, allow_list: Path) -> None:
    (tmp_path / "mine@home").mkdir()
    served = catalog(Settings(models=f"a=org/one@v1,org/two@main,org/three,{tmp_path / 'mine@home'}"))
    assert served.names == ("a", "org/two", "org/three", "mine@home")
    assert served.ids == ("org/one", "org/two", "org/three", str(tmp_path / "mine@home"))
    assert served.revisions == ("v1", "main", None, None)
    served = catalog(Settings(model="org/large", revision="v2", supported_models=allow_list))
    assert served.names == ("org/large", "org/small", "nick")
    assert served.revisions == ("v2", None, None)


def test_one_revision_for_several_models_stops_the_start() -> None:
    with pytest.raises(StartupError, match="IEI_REVISION is for one model: where several are listed"):
        catalog(Settings(models="a=org/one,b=org/two", revision="v1"))


def test_a_list_that_somebody_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"there is no file .*typo"):
        catalog(Settings(model="org/vit", supported_models=tmp_path / "typo.txt"))


def test_a_mounted_model_comes_before_kserves_name_and_after_ieis_own(tmp_path: Path, allow_list: Path) -> None:
    mounted = tmp_path / "models"
    assert catalog(Settings(fallback_model="org/vit"), mounted).ids == ("org/vit",)
    assert catalog(Settings(fallback_model="org/vit", supported_models=allow_list), mounted).names[0] == "org/vit"
    assert catalog(Settings(), mounted).ids == ("google/vit-base-patch16-224",)
    mounted.mkdir()
    (mounted / "config.json").write_text("{}")
    assert catalog(Settings(), mounted).ids == (str(mounted),)
    assert catalog(Settings(fallback_model="org/vit"), mounted).ids == (str(mounted),)
    assert catalog(Settings(supported_models=allow_list), mounted).ids[0] == str(mounted)
    assert catalog(Settings(model_name="m"), mounted).names == ("m",)
    assert catalog(Settings(model="org/vit"), mounted).ids == ("org/vit",)


@pytest.mark.parametrize(
    ("models", "fault"), [("a=x,a=y", "called a"), ("=x", "'=x'"), ("a=", "'a='"), ("a=@v1", "'a=@v1'")]
)
def test_a_catalog_that_makes_no_sense_stops_the_start(models: str, fault: str) -> None:
    with pytest.raises(StartupError, match=fault):
        catalog(Settings(models=models))


def test_clients_may_use_the_name_or_the_id_and_are_told_what_there_is() -> None:
    served = Catalog(("a", "b"), ("org/one", "org/two"), (None, None))
    assert [served.resolve(name) for name in (None, "b", "org/two")] == ["a", "b", "b"]
    with pytest.raises(ModelNotFound, match="'c' is not served here; served: a, b"):
        served.resolve("c")


def test_only_the_default_model_must_have_the_servers_pooling() -> None:
    requests = load_requests(Settings(models="a=org/one,b=org/two", pooling="cls"), "cpu")
    assert [(each.pooling, each.pooling_optional) for each in requests] == [("cls", False), ("cls", True)]


def test_engines_are_told_the_models_in_the_same_order() -> None:
    settings = Settings(models="a=org/one,b=org/two@v1", dtype="float32")
    requests = load_requests(settings, "cuda:1")
    assert [(each.name, each.id, each.revision, each.dtype, each.device) for each in requests] == [
        ("a", "org/one", None, "float32", "cuda:1"),
        ("b", "org/two", "v1", "float32", "cuda:1"),
    ]
