"""What the token ids in a request are: ids of the model's own tokenizer, or of one of OpenAI's.

A list of ids does not say which tokenizer made it, and almost any ids are valid in almost any vocabulary: read with the
wrong one, they give vectors of other texts, without an error. docs/decisions/2026-11-21-token-ids-must-be-declared.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iei.errors import EmptyInput, InvalidField, InvalidInput, StartupError
from iei.requests import TextInput

ReadIds = Callable[[Sequence[int]], TextInput]
"""The text that token ids stand for. Raises EmptyInput or InvalidInput of these ids, InvalidField of any ids."""

REFUSE, MODEL = "refuse", "model"
"""Values of `IEI_TOKEN_IDS` that are no names of encodings."""


def reader(setting: str) -> ReadIds:
    """How ids are read of which the request says nothing.

    Args:
        setting: the value of `IEI_TOKEN_IDS`: `refuse`, `model` or the name of an encoding of tiktoken.

    Raises:
        StartupError: tiktoken is not installed, has no such encoding, or can't get its data.
    """
    if setting == REFUSE:
        return refused
    return of_model if setting == MODEL else _decoder(setting)


def refused(ids: Sequence[int]) -> TextInput:
    """Raises InvalidField: nothing says what `ids` are."""
    raise InvalidField(
        "input has token ids, and nothing says which tokenizer made them: send the texts (LangChain's OpenAIEmbeddings "
        "does with check_embedding_ctx_length=False), or, if the ids are of this model's own tokenizer, add "
        '"token_ids": "model" to the request, or set IEI_TOKEN_IDS on the server',
        "input",
    )


def of_model(ids: Sequence[int]) -> TextInput:
    """`ids` as the model's own."""
    return TextInput(tuple(ids))


def _decoder(name: str) -> ReadIds:
    try:
        import tiktoken
    except ImportError:
        raise StartupError(
            f"IEI_TOKEN_IDS={name!r} is neither {REFUSE!r} nor {MODEL!r}; encodings of tiktoken need that package."
        ) from None
    try:
        encoding = tiktoken.get_encoding(name)
    # Its names are checked by a ValueError; its data is downloaded at its first use, with whatever that raises.
    except Exception as error:
        raise StartupError(
            f"IEI_TOKEN_IDS={name!r}: tiktoken can't load this encoding: {error}. Its data is downloaded once; without "
            "internet access, set TIKTOKEN_CACHE_DIR to a folder that has it."
        ) from None

    def decoded(ids: Sequence[int]) -> TextInput:
        if not ids:
            raise EmptyInput("is empty")
        try:
            return TextInput(encoding.decode(ids))
        except KeyError:
            raise InvalidInput(f"has a token id that is not in {name} (IEI_TOKEN_IDS)") from None

    return decoded
