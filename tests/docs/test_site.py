"""The website is built without a warning, and needs no other host to be read."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.servers import ROOT

PYTHON = os.environ.get("TEST_DOCS_PYTHON") or (sys.executable if importlib.util.find_spec("sphinx") else None)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not PYTHON:
        pytest.skip(
            "Sphinx needs an environment of its own: UV_PROJECT_ENVIRONMENT=.venv-docs uv sync --only-group docs, "
            "then TEST_DOCS_PYTHON=$PWD/.venv-docs/bin/python"
        )
    folder = tmp_path_factory.mktemp("site")
    command = [PYTHON, "-m", "sphinx", "--fail-on-warning", "--nitpicky", "--quiet", "-c", "docs/site"]
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


class Loads(HTMLParser):
    """Collects what a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        address = given.get("href" if tag == "link" else "src")  # that of an <a> is not loaded
        if address and not address.startswith("data:"):
            self.addresses.append(address)


def test_every_page_is_there(site: Path) -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert all((site / page.relative_to(ROOT)).with_suffix(".html").exists() for page in pages)
    assert (site / "index.html").read_text() == (site / "README.html").read_text()


def test_every_diagram_is_drawn(site: Path) -> None:
    for page in ROOT.glob("docs/**/*.md"):
        html = (site / page.relative_to(ROOT)).with_suffix(".html").read_text()
        assert html.count('<svg class="sequence"') == page.read_text().count("```mermaid"), page


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in site.glob("**/*.html"):
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.addresses, page
        for address in loads.addresses:
            assert not re.match(r"(https?:)?//", address), page
            assert (page.parent / re.split("[?#]", address)[0]).exists(), (page, address)
    for style in site.glob("**/*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style
