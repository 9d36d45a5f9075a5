"""What the Dockerfile, docker-compose.yaml and the pages about them promise.

The image itself is built and run by build-image.sh, which takes minutes and gigabytes.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from iei.settings import SETTINGS

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ARGUMENTS = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))


def test_the_image_and_compose_choose_no_model() -> None:
    """Or MODEL_ID and the folder that KServe mounts would count for nothing."""
    compose = (ROOT / "docker-compose.yaml").read_text()
    for setting in ("model", "models", "fallback_model"):
        for name in SETTINGS[setting].variables:
            assert f"{name}=" not in DOCKERFILE
            assert f"{name}:" not in compose or f"{name}: ${{{name}:-}}" in compose


def test_the_image_sets_settings_that_there_are() -> None:
    variables = set(re.findall(r"\b(IEI_\w+)=", DOCKERFILE))
    assert {"IEI_BIND", "IEI_WORKERS"} <= variables
    assert variables <= {name for setting in SETTINGS.values() for name in setting.variables}


def test_every_argument_is_documented() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().split("\n## The image\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == ARGUMENTS


@pytest.mark.parametrize(
    "page", ["Dockerfile", "README.md", "docs/operations.md", "docker-compose.yaml", "tests/deploy/build-image.sh"]
)
def test_arguments_that_are_given_exist(page: str) -> None:
    given = set(re.findall(r"(?:--build-arg[ =]\"?|args:\n +)([A-Z_]+)[=:]", (ROOT / page).read_text()))
    assert given
    assert given <= ARGUMENTS


@pytest.mark.parametrize(
    ("version", "line"), [("", "torch==2.15.0 ; a"), ("2.13.0", "torch==2.13.0")], ids=["locked", "chosen"]
)
def test_the_lock_leaves_cuda_packages_to_the_chosen_torch(version: str, line: str) -> None:
    """The sed command, as the shell of the build runs it."""
    command = re.search(r"sed .*?locked\.txt", DOCKERFILE, re.DOTALL)
    assert command
    script = command[0].replace("\\\n", "").replace("--in-place", "").replace("locked.txt", "-")
    locked = "nvidia-cublas==13.0\ntorch==2.15.0 ; a\ntorchgen==1.0\ntriton==3.0\n"
    left = subprocess.run(
        ["sh", "-c", script], input=locked, env={"TORCH_VERSION": version}, capture_output=True, text=True, check=True
    )
    assert left.stdout == f"{line}\ntorchgen==1.0\n"


@pytest.mark.parametrize(
    ("backend", "chosen"),
    [
        ("cpu", "--torch-backend=cpu "),
        ("cu132", "--torch-backend=cu132 "),
        ("", ""),
        ("none", "--excludes=excluded.txt "),
    ],
)
def test_the_backend_decides_what_uv_is_asked_for(backend: str, chosen: str, tmp_path: Path) -> None:
    """The shell of the build, with a uv that prints its arguments."""
    commands = re.search(r'case "\$TORCH_BACKEND".*?--extra=grpc', DOCKERFILE, re.DOTALL)
    assert commands
    ran = subprocess.run(
        ["sh", "-ec", f'uv() {{ echo "$@"; }}\n{commands[0]}'],
        cwd=tmp_path,
        env={"TORCH_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"pip install {chosen}--constraints=locked.txt --requirements=pyproject.toml --extra=grpc\n"
    excluded = [file.read_text().split() for file in tmp_path.iterdir()]
    assert excluded == ([["torch", "transformers"]] if backend == "none" else [])
