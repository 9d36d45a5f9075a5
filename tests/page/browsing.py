"""Pages in a real browser: Chromium's own, headless."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.servers import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytest.importorskip("playwright", reason="needs Playwright: uv sync --group clients")
from playwright.sync_api import (  # noqa: E402
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

__all__ = ["MARKS", "Browser", "Locator", "Page", "chromium", "expect", "visit"]

MARKS = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
"""Of every module that uses `browser`."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, with a camera that is none."""
    fakes = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *fakes])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, server: Server, path: str = "/", *, fails: bool = False, **options: Any) -> Iterator[Page]:
    """A page, opened; at the end, that it had no errors and called no other host.

    Args:
        browser: shows it.
        server: has it.
        path: where.
        fails: whether requests may be refused, which browsers report on the console, too.
        **options: of the browser: its window, its colour scheme.
    """
    context = browser.new_context(base_url=server.url, **options)
    context.set_default_timeout(15_000)
    errors: list[str] = []
    hosts: set[str] = set()

    def on_console(message: ConsoleMessage) -> None:
        is_refusal = message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not (fails and is_refusal):
            errors.append(message.text)

    def on_request(request: Request) -> None:
        if not request.url.startswith("data:"):
            hosts.add(request.url.removeprefix("blob:").split("/")[2])

    page = context.new_page()
    page.on("console", on_console)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", on_request)
    page.goto(path)
    yield page
    context.close()
    assert not errors, errors
    assert hosts == {server.url.removeprefix("http://")}, hosts
