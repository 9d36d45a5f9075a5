"""The commands in docs/api run as they stand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pictures import jpeg
from tests.servers import ROOT, Server

PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
COMMANDS = [
    (page.name, command)
    for page in PAGES
    for command in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S)
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages show curl, and it is not installed")
@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(COMMANDS)])
def test_commands_run(text_server: Server, tmp_path: Path, page: str, command: str) -> None:
    (tmp_path / "cat.jpg").write_bytes(jpeg())
    command = command.replace("http://localhost:8000", text_server.url)
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_every_page_but_that_of_grpc_has_a_command() -> None:
    assert {page for page, _ in COMMANDS} == {page.name for page in PAGES} - {"grpc.md"}
