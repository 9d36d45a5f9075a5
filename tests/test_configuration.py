"""The documentation of the settings is what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iei.configuration import BEGIN, END, markdown, readme_table, with_table
from iei.settings import SETTINGS

ROOT = Path(__file__).parents[1]
REGENERATE = "run `python -m iei.configuration --write`"


def test_the_page_is_the_one_that_is_generated() -> None:
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == markdown(), REGENERATE


def test_the_readmes_table_is_the_one_that_is_generated() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(readme) == readme, REGENERATE


def test_every_setting_has_one_row_with_all_its_variables() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    for name, setting in SETTINGS.items():
        assert f"IEI_{name.upper()}" in setting.variables, "the page says that flags are named so"
        variables = " or ".join(f"`{variable}`" for variable in setting.variables)
        assert len([row for row in rows if row.startswith(f"| {variables} |")]) == 1, name


def test_every_row_has_a_meaning_and_all_its_columns() -> None:
    for line in (*markdown().splitlines(), *readme_table().splitlines()):
        if line.startswith("| `IEI_"):
            columns = [column.strip() for column in line.strip("|").split("|")]
            assert len(columns) == 4, line
            assert columns[3].endswith((".", ")")), line


@pytest.mark.parametrize(
    "cells",
    [
        "| `IEI_MAX_BODY_BYTES` | `67108864` (64 MiB) | ≥ 1 |",
        "| `IEI_NORMALIZE` or `NORMALIZE_EMBEDDINGS` | none | `true`, `false` |",
        "| `IEI_DTYPE` | `auto` | `auto`, `float32`, `bfloat16`, `float16`, `int8` |",
        "`POOLING_STRATEGY` | `auto` | `auto`, `cls`, `mean`, `patch_mean`, `max`, `last`, `pooler` |",
        "| `IEI_MAX_BATCH` | `0` | ≥ 0, ≤ 4096 |",
        "| `IEI_REVISION` | none |  |",
        "| `IEI_ENGINE_TIMEOUT_S` | `300` | > 0 |",
        "| `IEI_ARENA_BYTES` | `67108864` (64 MiB) | ≥ 1048576 |",
    ],
)
def test_defaults_and_values_read_as_they_are_set(cells: str) -> None:
    assert cells in markdown()


def test_the_rest_of_a_readme_is_left_alone() -> None:
    readme = f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert with_table(readme) == f"# Title\n\n{BEGIN}\n{readme_table()}\n{END}\n\nafter\n"
    assert with_table(with_table(readme)) == with_table(readme)
    with pytest.raises(ValueError, match="has no <!-- settings -->"):
        with_table("# Title\n")


@pytest.mark.server
def test_write_updates_the_page_and_the_readme(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "iei.configuration", "--write"], cwd=tmp_path, check=True)
    assert (tmp_path / "docs/configuration.md").read_text(encoding="utf-8") == markdown()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == f"{BEGIN}\n{readme_table()}\n{END}\n"


@pytest.mark.server
def test_write_outside_a_checkout_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iei.configuration", "--write"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("run this in a checkout of IEI.\n")
    assert "Traceback" not in done.stderr
