"""The browser of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.page.browsing import chromium  # needs Playwright, which the other tests here do not

    with chromium() as browser:
        yield browser
