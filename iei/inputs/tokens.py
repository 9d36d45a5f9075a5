"""Tokenizes texts in the worker, with the checkpoint's own `tokenizer.json`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer, normalizers

from iei.errors import EmptyInput, InvalidField, InvalidInput
from iei.models.spec import TextTower
from iei.requests import Token

Direction = Literal["left", "right"]


def configure_tokenizers() -> None:
    """Makes tokenizers run in the calling thread. Call it once, before anything is tokenized.

    Inputs are prepared in IEI's own threads; a second thread pool in each worker would compete for the same cores.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def encode(
    source: str | tuple[int, ...],
    tower: TextTower,
    *,
    truncate: bool = False,
    direction: Direction = "right",
    prompt_name: str | None = None,
) -> npt.NDArray[np.int32]:
    """Token ids int32[L], special tokens included.

    Args:
        source: a text, or the ids of its tokens; special tokens at their ends are completed, not doubled.
        tower: the text part of the model.
        truncate: cut a text of more than `tower.max_tokens` tokens, instead of rejecting it.
        direction: the end at which it is cut.
        prompt_name: one of `tower.prompts`, put before the text. None: the tower's default prompt.

    Raises:
        EmptyInput: `source` is empty, or has no tokens.
        InvalidInput: it is too long, or has an id that is not in the vocabulary.
        InvalidField: there is no such prompt.
    """
    if not source:
        raise EmptyInput("is empty")
    encoder = _encoder(tower.tokenizer, tower.lowercase)
    prompt = _prompt(tower, prompt_name)
    content = encoder.content(prompt + source) if isinstance(source, str) else encoder.checked(source, prompt)
    room = tower.max_tokens - len(encoder.prefix) - len(encoder.suffix)
    if len(content) > room:
        if not truncate:
            count = len(content) + tower.max_tokens - room
            raise InvalidInput(
                f"has {count} tokens, over the model's limit of {tower.max_tokens}: shorten it, or set truncate to true"
            )
        content = content[:room] if direction == "right" else content[len(content) - room :]
    ids = encoder.prefix + content + encoder.suffix
    if not ids:
        raise EmptyInput("has nothing in it that the model's tokenizer knows")
    return np.array(ids, np.int32)


def tokenize(
    text: str, tower: TextTower, *, add_special_tokens: bool = True, prompt_name: str | None = None
) -> list[Token]:
    """The tokens of a text of any length, in order.

    Raises:
        EmptyInput: `text` is empty.
        InvalidField: there is no such prompt.
    """
    if not text:
        raise EmptyInput("is empty")
    text = _prompt(tower, prompt_name) + text
    encoding = _encoder(tower.tokenizer, tower.lowercase).encoding(text, add_special_tokens)
    places = list(accumulate((len(character.encode()) for character in text), initial=0))
    return [
        Token(id, name, True, None, None)
        if special
        else Token(id, text[start:stop], False, places[start], places[stop])
        for id, name, special, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        )
    ]


def decode(ids: Sequence[int], tower: TextTower, *, skip_special_tokens: bool = True) -> str:
    """The text of token ids.

    Raises:
        EmptyInput: `ids` is empty.
        InvalidInput: an id is not in the vocabulary.
    """
    if not ids:
        raise EmptyInput("is empty")
    return _encoder(tower.tokenizer, tower.lowercase).decode(ids, skip_special_tokens)


def keep_tokenizer(tower: TextTower) -> None:
    """Reads the tower's tokenizer now, instead of at its first text."""
    _encoder(tower.tokenizer, tower.lowercase)


class _Encoder:
    """A `tokenizer.json` in memory. Safe to use from many threads: nothing in it is changed after `__init__`."""

    def __init__(self, path: str, lowercase: bool) -> None:
        self._tokenizer = Tokenizer.from_file(path)
        # The file contains the settings with which it was saved: all-MiniLM-L6-v2 would pad all texts to 128 tokens.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if lowercase:
            own = self._tokenizer.normalizer
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own else [])])
        probe = self.encoding("a", True)
        is_content = [sequence is not None for sequence in probe.sequence_ids]
        start = is_content.index(True) if True in is_content else len(probe)
        self.prefix: list[int] = probe.ids[:start]
        """Special tokens that come before every text."""
        self.suffix: list[int] = probe.ids[start + sum(is_content) :]
        """Special tokens that come after every text."""

    def content(self, text: str) -> list[int]:
        """Ids of a text without the special tokens around it."""
        # `encode` holds the GIL, which blocks the event loop; `encode_batch_fast` releases it.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def encoding(self, text: str, add_special_tokens: bool) -> Encoding:
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        return encoding

    def checked(self, ids: Sequence[int], prompt: str) -> list[int]:
        """A client's ids without the special tokens around them, after those of the prompt."""
        self._check(ids)
        content = list(ids)
        if content[: len(self.prefix)] == self.prefix:
            content = content[len(self.prefix) :]
        if self.suffix and content[-len(self.suffix) :] == self.suffix:
            content = content[: -len(self.suffix)]
        return (self.content(prompt) if prompt else []) + content

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        self._check(ids)
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        # CLIP's decoder does not remove the suffix that marks the end of a word.
        ending = getattr(self._tokenizer.model, "end_of_word_suffix", None)
        return text.replace(ending, " ").strip() if ending else text

    def _check(self, ids: Sequence[int]) -> None:
        for id in ids:
            if not 0 <= id < 2**32 or self._tokenizer.id_to_token(id) is None:
                raise InvalidInput(
                    f"has the token id {id}, which is not in this model's vocabulary of "
                    f"{self._tokenizer.get_vocab_size()}: send text, or ids from this model's own tokenizer"
                )


@lru_cache(maxsize=16)
def _encoder(path: str, lowercase: bool) -> _Encoder:
    return _Encoder(path, lowercase)


def _prompt(tower: TextTower, name: str | None) -> str:
    name = name if name is not None else tower.default_prompt
    if name is None:
        return ""
    if name not in tower.prompts:
        known = f"its prompts: {', '.join(tower.prompts)}" if tower.prompts else "it has none"
        raise InvalidField(f"prompt_name: this model has no prompt {name!r}; {known}")
    return tower.prompts[name]
