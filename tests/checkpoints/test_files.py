from __future__ import annotations

import pytest

from iei.checkpoints.files import weight_files
from iei.errors import StartupError

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (SHARDS, [SHARDS[2], *SHARDS[:2]]),
        (["pytorch_model.bin", "training_args.bin", "onnx/model.safetensors"], ["pytorch_model.bin"]),
    ],
)
def test_safetensors_come_before_pickles_and_the_file_that_tells_all_is_first(
    names: list[str], expected: list[str]
) -> None:
    assert weight_files(names, "a model", allow_pickle=True) == expected


def test_what_is_missing_is_said() -> None:
    with pytest.raises(StartupError, match=r"^a model has no model\.safetensors"):
        weight_files(["model.fp16.safetensors", "tf_model.h5"], "a model", allow_pickle=True)
    with pytest.raises(StartupError, match=r"a pickle only \(pytorch_model\.bin\): .* IEI_ALLOW_PICKLE=true"):
        weight_files(["pytorch_model.bin"], "a model", allow_pickle=False)
