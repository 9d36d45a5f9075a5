"""What a runtime needs to know about a checkpoint's tokenizer. Workers tokenize (iei/inputs/tokens.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from iei.checkpoints.files import read_json
from iei.errors import StartupError

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

_NO_LIMIT = 10**9
"""A limit from here on is none: transformers writes 10³⁰ where it knows none."""


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A checkpoint's `tokenizer.json`."""

    path: Path
    pad_id: int | None
    """Id of its padding token."""
    max_tokens: int | None
    """Longest input that the tokenizer was made for, special tokens included."""


def read_tokenizer(folder: Path) -> TokenizerFile:
    """Describes the `tokenizer.json` in `folder`.

    Raises:
        StartupError: there is none, or it can't be read.
    """
    file = (folder / TOKENIZER_FILE).absolute()
    if not file.is_file():
        raise StartupError(
            f"{folder} has no {TOKENIZER_FILE}: make one of its other files, with transformers' "
            f"AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise StartupError(f"{file} can't be read ({error}): download or copy it again.") from error
    config = read_json(folder / TOKENIZER_CONFIG_FILE) or {}
    max_tokens = config.get("model_max_length")
    return TokenizerFile(
        file, _pad_id(tokenizer, config), int(max_tokens) if max_tokens and max_tokens < _NO_LIMIT else None
    )


def _pad_id(tokenizer: Tokenizer, config: dict[str, Any]) -> int | None:
    """Returns the id of the padding token that the config names, or else that the tokenizer was saved with."""
    token = config.get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    pad_id: int | None = tokenizer.token_to_id(token) if token else None
    return pad_id if pad_id is not None else (tokenizer.padding or {}).get("pad_id")
