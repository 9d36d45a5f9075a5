"""Small tokenizers of every kind, as the `tokenizer.json` and `tokenizer_config.json` of a checkpoint.

Made as the real ones are, with fewer words: all ids are below 512.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = (
    "a",
    "an",
    "and",
    "cat",
    "cats",
    "dog",
    "fox",
    "in",
    "is",
    "jump",
    "##s",
    "jumps",
    "lazy",
    "of",
    "on",
    "over",
    "photo",
    "quick",
    "red",
    "rocket",
    "sat",
    "the",
    "two",
)
ASCII = [chr(code) for code in range(33, 127)]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def write_tokenizer(kind: str, folder: Path, **config: Any) -> Path:
    """Writes both files into `folder` and returns that of the tokenizer. `config`: more for tokenizer_config.json."""
    tokenizer, pad = _KINDS[kind]()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n")
    return file


def _wordpiece() -> tuple[Tokenizer, str]:
    """BERT's: lowercased words and their pieces between [CLS] and [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *WORDS])
    tokenizer = Tokenizer(models.WordPiece({word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer, "[PAD]"


def _bytes() -> tuple[Tokenizer, str]:
    """RoBERTa's: bytes between <s> and </s>; its padding is 1."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = _byte_level([*special, *BYTES], special)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer, "<pad>"


def _qwen() -> tuple[Tokenizer, str]:
    """Qwen3-Embedding's: nothing before a text, <|endoftext|> after it."""
    tokenizer = _byte_level([*BYTES, "<|endoftext|>"], ["<|endoftext|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A <|endoftext|>", special_tokens=[("<|endoftext|>", 256)]
    )
    return tokenizer, "<|endoftext|>"


def _byte_level(vocabulary: list[str], special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({piece: id for id, piece in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _clip() -> tuple[Tokenizer, str]:
    """CLIP's: lowercased bytes with `</w>` at the ends of words, between 510 and 511, which also pads."""
    special = {"<|startoftext|>": 510, "<|endoftext|>": 511}
    pieces = [*BYTES, *(f"{letter}</w>" for letter in ASCII)]
    vocabulary = {piece: id for id, piece in enumerate(pieces)} | special
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [], unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", 511), ("<|startoftext|>", 510), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer, "<|endoftext|>"


def _unigram() -> tuple[Tokenizer, str]:
    """XLM-RoBERTa's: letters of a Unigram model between <s> and </s>; its padding is 1."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = _letters(special, unknown=3)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer, "<pad>"


def _siglip() -> tuple[Tokenizer, str]:
    """SigLIP's: nothing before a text, </s> after it and as its padding. Case is left to whoever uses it."""
    tokenizer = _letters(["<pad>", "</s>", "<unk>"], unknown=2)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer, "</s>"


def _letters(special: list[str], unknown: int) -> Tokenizer:
    pieces = [(piece, 0.0) for piece in special] + [(letter, -3.0) for letter in ("▁", *ASCII)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    return tokenizer


_KINDS: dict[str, Callable[[], tuple[Tokenizer, str]]] = {
    "wordpiece": _wordpiece,
    "bytes": _bytes,
    "qwen": _qwen,
    "clip": _clip,
    "unigram": _unigram,
    "siglip": _siglip,
}
KINDS = tuple(_KINDS)
