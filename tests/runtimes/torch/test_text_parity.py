"""Every family of texts, every output: the same vectors as transformers gives, from the words to the pooling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from iei.inputs.tokens import encode
from iei.models.spec import TextTower
from iei.runtimes.api import Model
from iei.runtimes.torch.weights import quiet
from tests.checkpoints.text_checkpoints import TEXT_FAMILIES, write_text_checkpoint
from tests.runtimes.torch.parity import (
    Case,
    Outputs,
    assert_all_equal,
    assert_described,
    cases,
    cosine,
    load_case,
)

pytestmark = pytest.mark.server

TEXTS = (
    "the quick red fox jumps over the lazy dog",
    "a cat",
    "two photos of a rocket, and of a dog in it!",
)

CAUSAL = {"qwen3", "qwen3-causal-lm"}
NO_CLASS_TOKEN = {*CAUSAL, "gemma3_text"}
OFFERS_POOLER = {"bert", "roberta", "xlm-roberta", "mpnet", "albert"}


@pytest.fixture(scope="module", params=cases(TEXT_FAMILIES, "bert", "xlm-roberta"))
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@pytest.fixture(scope="module")
def family(case: Case) -> str:
    return case.family


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_checkpoint(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def runtime(case: Case, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_case(case, checkpoint, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tower(runtime: Model) -> TextTower:
    assert runtime.spec.text is not None
    return runtime.spec.text


@pytest.fixture(scope="module")
def vectors(runtime: Model, tower: TextTower) -> list[Outputs]:
    return runtime.run("text", [encode(text, tower) for text in TEXTS], list(tower.outputs))


@pytest.fixture(scope="module")
def expected(family: str, checkpoint: Path) -> list[Outputs]:
    """transformers' tokenizer and model, one text at a time; poolings spelled out in numpy."""
    row = TEXT_FAMILIES[family]
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    with quiet():
        model = getattr(transformers, row.reference).from_pretrained(checkpoint, **row.reference_options).eval()
    answers = []
    for text in TEXTS:
        with torch.no_grad():
            result = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]))
        pooled = result.get("pooler_output")
        answers.append(_poolings(family, result.last_hidden_state[0].numpy(), None if pooled is None else pooled[0]))
    return answers


def _poolings(family: str, tokens: NDArray[np.float32], pooled: torch.Tensor | None) -> Outputs:
    outputs = {"mean": tokens.mean(0), "max": tokens.max(0), "last": tokens[-1], "tokens": tokens}
    if family not in NO_CLASS_TOKEN:
        outputs["cls"] = tokens[0]
    if pooled is not None:
        outputs["pooler"] = pooled.numpy()
    return outputs


def test_offers_exactly_what_the_checkpoint_can_give(family: str, tower: TextTower, expected: list[Outputs]) -> None:
    assert set(tower.outputs) == set(expected[0])
    assert ("pooler" in tower.outputs) == (family in OFFERS_POOLER)
    assert tower.pooling == "mean"
    assert tower.normalize


def test_equals_transformers(vectors: list[Outputs], expected: list[Outputs]) -> None:
    assert_all_equal(vectors, expected)


def test_texts_differ(vectors: list[Outputs]) -> None:
    """Else parity would say nothing."""
    assert cosine(vectors[0]["mean"], vectors[1]["mean"]) < 0.999


def test_company_makes_no_difference(runtime: Model, tower: TextTower, vectors: list[Outputs]) -> None:
    """Neither its size nor the padding that it brings."""
    rng = np.random.default_rng(0)
    text = encode(TEXTS[1], tower)
    others = [rng.integers(3, 160, length, np.int32) for length in (1, 2, 5, 17, 33, tower.max_tokens, 9)]
    (alone,) = runtime.run("text", [text], list(tower.outputs))
    for position in (0, 4, 7):
        batch = [*others[:position], text, *others[position:]]
        among = runtime.run("text", batch, list(tower.outputs))[position]
        for name, array in alone.items():
            assert array.shape == among[name].shape == vectors[1][name].shape
            assert np.abs(array - among[name]).max() <= 1e-5, name


def test_describes_what_it_gives(tower: TextTower, vectors: list[Outputs]) -> None:
    assert_described(tower, vectors[0], encode(TEXTS[0], tower).shape)


def test_the_longest_text_is_computed(runtime: Model, tower: TextTower) -> None:
    ids = encode("the fox " * 100, tower, truncate=True)
    assert len(ids) == tower.max_tokens == 64
    assert np.isfinite(runtime.run("text", [ids], ["mean"])[0]["mean"]).all()
