"""Tests that use other people's client packages, which the project's own environment does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import HAS_CLIENTS

collect_ignore_glob = [] if HAS_CLIENTS else ["test_*.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Their packages' own warnings are not errors here: they are not ours to mend."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
