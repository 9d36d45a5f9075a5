from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError

from iei.checkpoints.demo import VERSION
from iei.errors import StartupError
from iei.models.spec import ModelSpec
from iei.runtimes.loading import fetch, load
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request


def _load(folder: Path, **options: Any) -> ModelSpec:
    return load(load_request("tiny", str(folder), **options)).spec


def _configure(folder: Path, file: str = "config.json", **changes: Any) -> Path:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **changes}))
    return folder


def test_spec_says_what_was_loaded(tmp_path: Path) -> None:
    request = load_request("tiny", str(write_checkpoint("dinov2_with_registers", tmp_path)), device="cpu", threads=2)
    spec = load(replace(request, entry=replace(request.entry, revision="v2"))).spec
    model = transformers.AutoModel.from_pretrained(tmp_path)
    assert spec.parameters == sum(weight.numel() for weight in model.parameters())
    assert (spec.name, spec.id, spec.revision) == ("tiny", str(tmp_path), "v2")
    assert (spec.model_type, spec.device, spec.dtype) == ("dinov2_with_registers", "cpu", "float32")
    assert spec.runtime == f"torch {torch.__version__.partition('+')[0]} (sdpa, oneDNN)"
    assert spec.image is not None
    assert (spec.image.tokens, spec.image.patches, spec.image.stride) == (261, 256, 14)
    assert spec.max_batch == 8
    assert spec.text is None
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_what_is_no_pooling_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StartupError,
        match=r"can't give the pooling last \(only texts have .*\): set IEI_POOLING .* cls, mean, patch_mean, max\.",
    ):
        _load(write_checkpoint("vit", tmp_path), pooling="last")


@pytest.mark.parametrize(
    "unknown",
    [
        {"pooling": "patches"},
        {"pooling": "nothing"},
        {"dtype": "float8"},
        {"attention": "kernels-community/any"},
        {"quantization": "int3"},
    ],
)
def test_unknown_words_never_reach_a_runtime(unknown: dict[str, Any]) -> None:
    """Runtimes rely on it: they do not check them again."""
    with pytest.raises(ValidationError, match=next(iter(unknown))):
        load_request("tiny", "tiny", **unknown)


def test_fetching_makes_the_files_and_loads_nothing(tmp_path: Path) -> None:
    fetch(load_request("demo", "demo", cache_dir=tmp_path, dtype="float16"))
    assert (tmp_path / VERSION / "model.safetensors").is_file()


@pytest.mark.server
def test_choosing_a_runtime_imports_none(tmp_path: Path) -> None:
    """Fetching, describing and choosing are cheap; the libraries take seconds to import."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from iei.checkpoints.checkpoint import read_checkpoint\nfrom iei.runtimes.loading import fetch\n"
        "from iei.runtimes.select import RUNTIMES\nfrom tests.load_requests import load_request\n"
        "request = load_request('demo', 'demo', cache_dir=Path(sys.argv[1]))\nfetch(request)\n"
        "checkpoint = read_checkpoint(Path(sys.argv[1], sys.argv[2]))\n"
        "print([name for name, row in RUNTIMES.items() if not row.refuses(request, checkpoint)])\n"
        "print({'torch', 'transformers', 'openvino'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), VERSION], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["['openvino', 'torch']", "set()"]


def test_size_of_the_preprocessor_counts(tmp_path: Path) -> None:
    """Trained at 224, served at 256: positions are interpolated, as transformers' documentation shows."""
    write_checkpoint("vit", tmp_path)
    spec = _load(_configure(tmp_path, "preprocessor_config.json", size=256))
    assert spec.image is not None
    assert spec.image.patches == 16 * 16


def test_size_that_the_model_cannot_compute_is_refused(tmp_path: Path) -> None:
    write_checkpoint("pvt", tmp_path)
    _configure(tmp_path, "preprocessor_config.json", size={"height": 256, "width": 256})
    with pytest.raises(StartupError, match="can't compute a picture of 256×256 pixels"):
        _load(tmp_path)


def test_processor_in_the_new_file(tmp_path: Path) -> None:
    """transformers 5 nests it in processor_config.json."""
    write_checkpoint("vit", tmp_path)
    old = tmp_path / "preprocessor_config.json"
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"processor_class": "ViTProcessor", "image_processor": json.loads(old.read_text())})
    )
    expected = _load(tmp_path).image
    old.unlink()
    assert _load(tmp_path).image == expected


@pytest.mark.parametrize(
    ("file", "content", "advice"),
    [
        ("config.json", None, r"has no config\.json: it is not the folder of a transformers model"),
        ("config.json", "{", r"config\.json is not JSON"),
        ("config.json", "[]", "is not a JSON object"),
        ("config.json", '{"architectures": ["ViTModel"]}', "has no model_type"),
        ("config.json", '{"model_type": "gpt2"}', r"model_type 'gpt2' is not supported: .*dinov2.*vit.* for images"),
        (
            "config.json",
            '{"model_type": "vit", "hidden_size": "wide"}',
            r"can't be loaded as ViTModel \(.*expected int, got str",
        ),
        ("preprocessor_config.json", None, r"has no preprocessor_config\.json"),
        ("preprocessor_config.json", "{", "is not JSON"),
    ],
)
def test_a_folder_with_a_fault_is_explained(file: str, content: str | None, advice: str, tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(StartupError, match=advice) as caught:
        _load(tmp_path)
    assert str(caught.value).endswith(".")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"There is no folder .*missing: check the path"):
        _load(tmp_path / "missing")


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    """A config may name code beside it; its model_type decides alone."""
    write_checkpoint("vit", tmp_path)
    touched = tmp_path / "touched"
    (tmp_path / "evil.py").write_text(f"from pathlib import Path\nPath({str(touched)!r}).touch()\n")
    classes = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoImageProcessor": "evil.Processor"}
    _configure(tmp_path, auto_map=classes)
    _configure(tmp_path, "preprocessor_config.json", auto_map=classes)
    _load(tmp_path)
    assert not touched.exists()


@pytest.mark.server
def test_an_unknown_type_is_refused_before_torch_sees_it(tmp_path: Path) -> None:
    """The check is made by modules that import neither torch nor transformers."""
    write_checkpoint("vit", tmp_path)
    _configure(tmp_path, model_type="malware")
    script = (
        "import sys\nfrom iei.errors import StartupError\nfrom iei.checkpoints.folders import fetch_checkpoint\n"
        "try:\n    fetch_checkpoint(sys.argv[1], None)\nexcept StartupError as error:\n    print(error)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    message, modules = ran.stdout.splitlines()
    assert "model_type 'malware' is not supported" in message
    assert modules == "set()"
