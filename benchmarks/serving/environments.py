"""An environment for each contender, made by uv once: what one needs must not change what another gets."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.report import ROOT, progress
from benchmarks.serving.contenders import LOCKED, Contender

SHOWN = ("fastapi", "gunicorn", "infinity-emb", "litserve", "mosec", "openvino", "pillow", "torch", "transformers")
"""Packages whose versions the page has."""
_STAMP = "requirements.sha256"


class NotInstalled(Exception):
    """uv could not make an environment. The message has what it said."""


def environment(contender: Contender, folder: Path) -> Path:
    """The `bin` of the contender's environment in `folder`, which is made where it is missing or of other packages.

    Raises:
        NotInstalled: uv says no.
    """
    requirements = _locked() if LOCKED in contender.packages else "\n".join(contender.packages)
    digest = hashlib.sha256(requirements.encode()).hexdigest()
    place = folder / digest[:12]  # contenders of the same packages share one
    stamp = place / _STAMP
    if not stamp.exists():
        progress(f"{contender.name}: installing …")
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(place))
        _uv("pip", "install", "--quiet", "--python", str(place), "--requirement", "-", stdin=requirements)
        stamp.write_text(digest)
    return place / "bin"


def versions(programs: Path) -> dict[str, str]:
    """Package → version, of those that are shown."""
    listed = json.loads(_uv("pip", "list", "--format", "json", "--python", str(programs.parent)))
    return {package["name"]: package["version"] for package in listed if package["name"] in SHOWN}


def _locked() -> str:
    """What uv.lock has for IEI without its development, and this checkout itself, whose changes need no installing."""
    return _uv("export", "--frozen", "--no-dev", "--extra", "int8", "--no-hashes", "--no-header", "--quiet")


def _uv(*arguments: str, stdin: str | None = None) -> str:
    try:
        done = subprocess.run(["uv", *arguments], input=stdin, capture_output=True, text=True, check=True, cwd=ROOT)
    except FileNotFoundError:
        raise NotInstalled("there is no uv: https://docs.astral.sh/uv/") from None
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"uv {arguments[0]} failed: {error.stderr.strip()[-600:]}") from None
    return done.stdout
