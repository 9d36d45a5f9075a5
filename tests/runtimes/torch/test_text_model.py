"""Batches of texts, and precisions other than float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from iei.checkpoints.checkpoint import read_checkpoint
from iei.engine.execute import Failure, Task, execute
from iei.models.catalog import LoadRequest
from iei.runtimes.loading import load
from iei.runtimes.torch.device import place
from iei.runtimes.torch.load import load_towers
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.load_requests import load_request

pytestmark = pytest.mark.server

TEXTS = [np.arange(5, 5 + length, dtype=np.int32) for length in (3, 7, 5)]


def _request(folder: Path, family: str = "bert", **options: Any) -> LoadRequest:
    return load_request("tiny", str(write_text_checkpoint(family, folder)), threads=1, **options)


@pytest.mark.parametrize(("family", "length", "pad_id"), [("bert", 7, 0), ("roberta", 7, 1), ("siglip", 64, 1)])
def test_batches_are_padded_behind_the_text(family: str, length: int, pad_id: int, tmp_path: Path) -> None:
    request = _request(tmp_path, family)
    model = load_towers(read_checkpoint(tmp_path), place(request), allow_pickle=False).text
    assert model is not None
    ids, mask = model.batch(TEXTS)
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.float32)
    assert ids.shape == mask.shape == (3, length)
    for row, text in enumerate(TEXTS):
        assert ids[row].tolist() == [*text.tolist(), *[pad_id] * (length - len(text))]
        assert mask[row].tolist() == [1.0] * len(text) + [0.0] * (length - len(text))


def test_padding_that_only_the_tokenizer_knows_is_not_computed(tmp_path: Path) -> None:
    """As where a pad token was added to a decoder's tokenizer for training, and its embeddings were not enlarged."""
    write_text_checkpoint("qwen3", tmp_path, pad_token="<pad>")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<{number}>" for number in range(300)] + ["<pad>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert (tokenizer.token_to_id("<pad>") or 0) > 512
    runtime = load(load_request("tiny", str(tmp_path), threads=1))
    together = runtime.run("text", TEXTS, ["last"])
    for text, row in zip(TEXTS, together, strict=True):
        assert np.abs(runtime.run("text", [text], ["last"])[0]["last"] - row["last"]).max() <= 1e-5


def test_an_id_without_an_embedding_fails_alone(tmp_path: Path) -> None:
    """On a GPU, looking it up would take the whole device down."""
    runtime = load(_request(tmp_path))
    with pytest.raises(ValueError, match="token id 512 is outside the model's vocabulary of 512"):
        runtime.run("text", [np.array([2, 512, 3], np.int32)], ["mean"])
    tasks = [Task("text", ids, ("mean",)) for ids in (TEXTS[0], np.array([512], np.int32), TEXTS[1])]
    good, bad, other = execute(runtime.run, tasks)
    assert isinstance(bad, Failure)
    assert "token id 512" in bad.message
    assert not isinstance(good, Failure)
    assert not isinstance(other, Failure)


@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3", "clip", "siglip"])
def test_half_precision_is_pooled_in_float32(family: str, tmp_path: Path) -> None:
    request = _request(tmp_path, family, dtype="bfloat16")
    half, exact = load(request), load(load_request("tiny", str(tmp_path), threads=1))
    assert half.spec.dtype == "bfloat16"
    assert exact.spec.text is not None
    outputs = list(exact.spec.text.outputs)
    for left, right in zip(half.run("text", TEXTS, outputs), exact.run("text", TEXTS, outputs), strict=True):
        for name in outputs:
            assert left[name].dtype == np.float32
            norms = np.linalg.norm(left[name], axis=-1) * np.linalg.norm(right[name], axis=-1)
            assert ((left[name] * right[name]).sum(-1) / norms).min() > 0.99


def test_parameters_of_both_towers_are_counted_once(tmp_path: Path) -> None:
    loaded = load(_request(tmp_path, "clip"))
    both = transformers.CLIPModel.from_pretrained(tmp_path)
    assert loaded.spec.parameters == sum(weight.numel() for weight in both.parameters())
