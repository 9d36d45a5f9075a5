"""The website of the documentation, made by Sphinx: `sphinx-build --fail-on-warning --nitpicky -c docs/site . FOLDER`.

Its sources are the repository's own Markdown files at their places, so that a link between two of them is the same on
GitHub and here. They hold no navigation: `NAVIGATION` has it, and Sphinx refuses a page that is missing in it. Nothing
that a page shows comes from another host.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.addnodes import pending_xref

sys.path.insert(0, str(Path(__file__).parent))
from sequence import draw

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

NAVIGATION = {
    "Start": ["Overview <self>", "/docs/README", "/docs/coming-from"],
    "Use it": ["/docs/page", "/docs/api/README", "/docs/client", "/docs/integrations", "/docs/vector-databases"],
    "Embed many": ["/docs/bulk", "/docs/bulk-inputs", "/docs/reading-vectors"],
    "Choose a model": ["/docs/which-model", "/docs/models"],
    "Run it": [
        *("/docs/operations", "/docs/configuration", "/docs/runtimes", "/docs/kubernetes", "/docs/ray", "/docs/scale"),
        *("/docs/reliability", "/docs/benchmarks", "/SECURITY"),
    ],
    "Understand it": ["/docs/architecture", "/docs/decisions/README"],
    "Take part": ["/CONTRIBUTING", "/CHANGELOG"],
}
"""Captions of the sidebar → the pages below them."""

SECTIONS = {"docs/api/README": "/docs/api/[!R]*", "docs/decisions/README": "/docs/decisions/2*"}
"""A page that introduces a folder → the pages below it."""

project = "IEI"
html_title = "Image Embedding Inference"
author = "the authors of IEI"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "README"
include_patterns = ["*.md", "docs/**.md"]
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "docs"]
myst_heading_anchors = 4  # as GitHub makes them
myst_enable_extensions = ["html_image"]  # <img> with a width, which Markdown has no form for
suppress_warnings = ["misc.highlighting_failure"]  # JSON with … for what is left out

html_theme = "furo"
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": ""}
html_copy_source = False
html_show_sourcelink = False
html_use_index = False


def navigate(app: Sphinx, page: str, content: list[str]) -> None:
    """Appends to the source of `page` what the sidebar lists below it."""
    if page == root_doc:
        content[0] += "".join(_toctree(pages, f":caption: {caption}") for caption, pages in NAVIGATION.items())
    elif page in SECTIONS:
        content[0] += _toctree([SECTIONS[page]])


def _toctree(pages: list[str], *options: str) -> str:
    lines = ["", "```{toctree}", ":hidden:", ":glob:", *options, "", *pages, "```", ""]
    return "\n".join(lines)


def link_folders(app: Sphinx, page: nodes.document) -> None:
    """Links to a folder, which GitHub shows and a website has no page for, go to the repository."""
    for link in page.findall(pending_xref):
        folder = (app.srcdir / link["refdoc"] / ".." / link["reftarget"]).resolve()
        if folder.is_dir():
            address = f"{REPOSITORY}/tree/main/{folder.relative_to(app.srcdir)}"
            link.replace_self(nodes.reference("", "", *link.children, refuri=address))


def draw_diagrams(app: Sphinx, page: nodes.document) -> None:
    """Puts drawings in place of the sources of diagrams."""
    for block in page.findall(nodes.literal_block):
        if block.get("language") == "mermaid" and (drawing := draw(block.astext())):
            block.replace_self(nodes.raw("", drawing, format="html"))


def first_page(app: Sphinx, exception: Exception | None) -> None:
    """The README is the first page of the site, too."""
    if exception is None:
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", navigate)
    app.connect("doctree-read", link_folders)
    app.connect("doctree-read", draw_diagrams)
    app.connect("build-finished", first_page)
