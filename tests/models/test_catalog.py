from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iei.errors import ModelNotFound, StartupError
from iei.load_options import LoadOptions
from iei.models.catalog import Catalog, CatalogEntry, read_catalog
from iei.settings import read_settings


def catalog(mounted: Path = Path("/nothing/is/mounted"), **settings: Any) -> Catalog:
    return read_catalog(read_settings(**settings).models, mounted)


def ids(served: Catalog) -> tuple[str, ...]:
    return tuple(entry.id for entry in served.entries)


@pytest.fixture
def allow_list(tmp_path: Path) -> Path:
    file = tmp_path / "supported_models.txt"
    file.write_text("# what we pay for\n\norg/small\n  org/large   # slow\nnick=org/third\n")
    return file


def test_one_model_goes_by_its_id() -> None:
    assert catalog(model="org/vit") == Catalog((CatalogEntry("org/vit", "org/vit"),))


def test_a_folder_goes_by_its_last_part_and_its_path_stays_private(tmp_path: Path) -> None:
    (tmp_path / "my-vit").mkdir()
    assert catalog(model=str(tmp_path / "my-vit")).names == ("my-vit",)


def test_one_model_may_be_given_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", "custom-model")
    monkeypatch.setenv("MODEL_ID", "org/vit")
    assert catalog() == Catalog((CatalogEntry("custom-model", "org/vit"),))


def test_several_models_with_and_without_names() -> None:
    served = catalog(models="a=org/one, org/two ,b = ./three")
    assert [(entry.name, entry.id) for entry in served.entries] == [
        ("a", "org/one"),
        ("org/two", "org/two"),
        ("b", "./three"),
    ]


def test_the_allow_list_adds_to_a_chosen_model_and_its_first_is_the_default_otherwise(allow_list: Path) -> None:
    assert catalog(supported_models=allow_list).names == ("org/small", "org/large", "nick")
    assert catalog(supported_models=allow_list, model="org/large").names == (
        "org/large",
        "org/small",
        "nick",
    )


def test_each_of_several_models_has_its_own_revision(tmp_path: Path, allow_list: Path) -> None:
    (tmp_path / "mine@home").mkdir()
    served = catalog(models=f"a=org/one@v1,org/two@main,org/three,{tmp_path / 'mine@home'}")
    assert served.names == ("a", "org/two", "org/three", "mine@home")
    assert ids(served) == ("org/one", "org/two", "org/three", str(tmp_path / "mine@home"))
    assert tuple(entry.revision for entry in served.entries) == ("v1", "main", None, None)
    served = catalog(model="org/large", revision="v2", supported_models=allow_list)
    assert served.names == ("org/large", "org/small", "nick")
    assert tuple(entry.revision for entry in served.entries) == ("v2", None, None)


def test_one_revision_for_several_models_stops_the_start() -> None:
    with pytest.raises(StartupError, match="IEI_REVISION is for one model: where several are listed"):
        catalog(models="a=org/one,b=org/two", revision="v1")


def test_a_list_that_somebody_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"there is no file .*typo"):
        catalog(model="org/vit", supported_models=tmp_path / "typo.txt")


def test_a_mounted_model_comes_before_kserves_name_and_after_ieis_own(tmp_path: Path, allow_list: Path) -> None:
    mounted = tmp_path / "models"
    assert ids(catalog(fallback_model="org/vit", mounted=mounted)) == ("org/vit",)
    assert catalog(fallback_model="org/vit", supported_models=allow_list, mounted=mounted).names[0] == "org/vit"
    assert ids(catalog(mounted=mounted)) == ("google/vit-base-patch16-224",)
    mounted.mkdir()
    (mounted / "config.json").write_text("{}")
    assert ids(catalog(mounted=mounted)) == (str(mounted),)
    assert ids(catalog(fallback_model="org/vit", mounted=mounted)) == (str(mounted),)
    assert ids(catalog(supported_models=allow_list, mounted=mounted))[0] == str(mounted)
    assert catalog(model_name="m", mounted=mounted).names == ("m",)
    assert ids(catalog(model="org/vit", mounted=mounted)) == ("org/vit",)


@pytest.mark.parametrize(
    ("models", "fault"), [("a=x,a=y", "called a"), ("=x", "'=x'"), ("a=", "'a='"), ("a=@v1", "'a=@v1'")]
)
def test_a_catalog_that_makes_no_sense_stops_the_start(models: str, fault: str) -> None:
    with pytest.raises(StartupError, match=fault):
        catalog(models=models)


def test_clients_may_use_the_name_or_the_id_and_are_told_what_there_is() -> None:
    served = Catalog((CatalogEntry("a", "org/one"), CatalogEntry("b", "org/two")))
    assert [served.resolve(name).name for name in (None, "b", "org/two")] == ["a", "b", "b"]
    with pytest.raises(ModelNotFound, match="'c' is not served here; served: a, b"):
        served.resolve("c")


def test_a_name_wins_over_an_id() -> None:
    served = Catalog((CatalogEntry("a", "b"), CatalogEntry("b", "c")))
    assert served.resolve("b") is served.entries[1]


def test_only_the_default_model_must_have_the_servers_pooling() -> None:
    requests = catalog(models="a=org/one,b=org/two").load_requests("cpu", LoadOptions(pooling="cls"))
    assert [(each.options.pooling, each.pooling_optional) for each in requests] == [("cls", False), ("cls", True)]


def test_engines_are_told_the_models_in_the_same_order() -> None:
    served, options = catalog(models="a=org/one,b=org/two@v1"), LoadOptions(dtype="float32")
    requests = served.load_requests("cuda:1", options)
    assert tuple(each.entry for each in requests) == served.entries
    assert {(each.device, each.options) for each in requests} == {("cuda:1", options)}


def test_the_operator_may_say_that_a_model_was_trained_for_shorter_vectors() -> None:
    entries = catalog(models="first=org/one,org/two", matryoshka="org/two").entries
    assert [entry.matryoshka for entry in entries] == [False, True]
    with pytest.raises(StartupError, match=r"IEI_MATRYOSHKA names org/one; there are: first, org/two\."):
        catalog(models="first=org/one,org/two", matryoshka="org/one")


def test_a_folder_of_vertex_ai_is_served_where_no_model_is_set(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert ids(catalog(artifacts=str(tmp_path))) == (str(tmp_path),)
    assert ids(catalog(artifacts=str(tmp_path), model="org/vit")) == ("org/vit",)


def test_cloud_storage_is_refused_unless_a_model_is_set(allow_list: Path) -> None:
    with pytest.raises(StartupError, match=r"AIP_STORAGE_URI='gs://bucket/model' .* set IMAGE_EMBEDDING_MODEL"):
        catalog(artifacts="gs://bucket/model")
    assert ids(catalog(artifacts="gs://bucket/model", model="org/vit")) == ("org/vit",)
    assert ids(catalog(artifacts="gs://bucket/model", models="a=org/vit")) == ("org/vit",)
    assert catalog(artifacts="gs://bucket/model", supported_models=allow_list).names


@pytest.mark.parametrize(
    "settings", [{"model": "a" * 300}, {"models": f"a={'b' * 300}"}, {"supported_models": "c" * 300}]
)
def test_a_path_that_cannot_be_looked_at_stops_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(StartupError, match=r"can't be read: File name too long\.$"):
        catalog(**settings)
