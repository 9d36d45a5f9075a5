"""What the pages for newcomers name exists: settings, families of models, dimensions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from iei.checkpoints.families import FAMILIES
from iei.models.immich import IMMICH_MODELS
from iei.settings import SETTINGS
from tests.servers import ROOT

VARIABLES = {variable for setting in SETTINGS.values() for variable in setting.variables}
KINDS = {"pictures": ("image",), "texts": ("text",), "both": ("image", "text")}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str, *columns: str) -> Iterator[dict[str, str]]:
    """The rows of all tables of `text` that have these columns."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        head, _, *body = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines())
        if set(columns) <= set(head):
            yield from (dict(zip(head, cells, strict=True)) for cells in body)


@pytest.mark.parametrize("name", ["coming-from.md", "which-model.md", "integrations.md", "operations.md", "models.md"])
def test_variables_are_settings(name: str) -> None:
    assert set(re.findall(r"\bIEI_[A-Z_]*[A-Z]\b", page(name))) <= VARIABLES


def test_flags_of_iei_serve_are_settings() -> None:
    flags = {"--" + name.replace("_", "-") for name in SETTINGS} | {"--demo"}
    used = re.findall(r"iei serve ([^`\n]*)", page("coming-from.md") + page("which-model.md"))
    assert used
    assert set(re.findall(r"--[a-z-]+", " ".join(used))) <= flags


def test_models_are_of_families_that_are_served() -> None:
    models = list(rows(page("which-model.md"), "model", "model_type", "takes"))
    assert len(models) > 15
    for row in models:
        assert FAMILIES[row["model_type"].strip("`")] == KINDS[row["takes"]], row["model"]


def test_dimensions_are_those_that_immich_knows() -> None:
    known = {model.hub_id: model.dim for model in IMMICH_MODELS.values() if model.hub_id}
    stated = {row["model"].strip("`"): row["values"] for row in rows(page("which-model.md"), "model", "values")}
    both = known.keys() & stated.keys()
    assert len(both) > 5
    assert {model: stated[model] for model in both} == {model: str(known[model]) for model in both}


def test_every_recommended_model_is_described() -> None:
    """A model of the table of tasks has its row in a table of models."""
    text = page("which-model.md")
    described = {row["model"].strip("`") for row in rows(text, "model", "model_type")}
    recommended = {model for row in rows(text, "task", "take") for model in re.findall(r"`([^`]+/[^`]+)`", row["take"])}
    assert recommended
    assert recommended <= described
