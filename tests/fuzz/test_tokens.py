"""Texts of any characters, and any numbers as token ids, with small tokenizers of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from iei.errors import EmptyInput, InvalidInput
from iei.inputs.tokens import decode, encode, tokenize
from iei.models.spec import TextTower
from tests.checkpoints.fake_tokenizers import KINDS, write_tokenizer
from tests.fuzz.effort import examples
from tests.fuzz.refusals import or_refused

MAX_TOKENS = 16
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(("a cat", " ", "[SEP]", "</s>", "<|endoftext|>", "##s", "İ", "ﬁ", "é", "e\u0301", "🦊", "\0"))
    ).map("".join),
)
IDS = st.lists(st.integers(0, 600) | st.integers(-(2**70), 2**70), max_size=20)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {kind: str(write_tokenizer(kind, folder / kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def vocabularies(files: dict[str, str]) -> dict[str, set[int]]:
    return {kind: set(Tokenizer.from_file(file).get_vocab().values()) for kind, file in files.items()}


@examples(200)
@given(kind=st.sampled_from(KINDS), lowercase=st.booleans(), source=TEXTS | IDS.map(tuple), truncate=st.booleans())
def test_any_input_is_tokens_or_refused(
    files: dict[str, str], kind: str, lowercase: bool, source: str | tuple[int, ...], truncate: bool
) -> None:
    tower = TextTower(files[kind], {"mean": 32}, MAX_TOKENS, pooling="mean", lowercase=lowercase)
    with or_refused(EmptyInput, InvalidInput):
        ids = encode(source, tower, truncate=truncate)
        assert ids.dtype == np.int32
        assert 0 < len(ids) <= MAX_TOKENS
        assert encode(tuple(ids.tolist()), tower).tolist() == ids.tolist()
        assert isinstance(decode(ids.tolist(), tower), str)


@examples(200)
@given(kind=st.sampled_from(KINDS), lowercase=st.booleans(), text=TEXTS, special=st.booleans())
def test_tokens_are_where_they_say_they_are(
    files: dict[str, str], kind: str, lowercase: bool, text: str, special: bool
) -> None:
    tower = TextTower(files[kind], {"mean": 32}, MAX_TOKENS, pooling="mean", lowercase=lowercase)
    if not text:
        return
    tokens = [token for token in tokenize(text, tower, add_special_tokens=special) if not token.special]
    for token in tokens:
        assert text.encode()[token.start : token.stop].decode() == token.text
    starts = [token.start or 0 for token in tokens]
    assert starts == sorted(starts)


@examples(200)
@given(kind=st.sampled_from(KINDS), ids=IDS, skip=st.booleans())
def test_any_numbers_are_a_text_or_refused(
    files: dict[str, str], vocabularies: dict[str, set[int]], kind: str, ids: list[int], skip: bool
) -> None:
    tower = TextTower(files[kind], {"mean": 32}, MAX_TOKENS, pooling="mean")
    try:
        assert isinstance(decode(ids, tower, skip_special_tokens=skip), str)
    except (EmptyInput, InvalidInput):
        assert not ids or not vocabularies[kind].issuperset(ids)
