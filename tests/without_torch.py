"""Programs that find neither torch nor transformers, as in the image that is built without them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers import ROOT

_MISSING = (
    "torch",
    "transformers",
    # What only these two need, and the image does not have either (`uv export --prune torch --prune transformers`).
    "jinja2",
    "markdown_it",
    "markupsafe",
    "mdurl",
    "mpmath",
    "networkx",
    "pygments",
    "regex",
    "rich",
    "setuptools",
    "shellingham",
    "sympy",
    "triton",
    "typer",
)


def without_torch(folder: Path) -> dict[str, str]:
    """The environment of such a program and of all that it starts; `folder` is for the file that sees to it."""
    # None is what Python calls not importable; `find_spec` finds no such module either.
    (folder / "sitecustomize.py").write_text(f"import sys\n\nsys.modules.update(dict.fromkeys({_MISSING}))\n")
    paths = (str(folder), str(ROOT), os.environ.get("PYTHONPATH"))
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
