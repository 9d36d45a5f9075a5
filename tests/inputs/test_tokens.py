"""Texts as the checkpoint's own tokenizer cuts them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from iei.errors import EmptyInput, InvalidField, InvalidInput
from iei.inputs.tokens import decode, encode, tokenize
from iei.models.spec import TextTower
from iei.requests import Token
from tests.checkpoints.fake_tokenizers import KINDS, write_tokenizer

TEXTS = (
    "The quick red fox jumps over the lazy dog.",
    "a",
    "  two\tspaces \n and a line  ",
    "Ünïcödé, 漢字 and 🦊!",
    "   ",
    "a [SEP] in a text, and </s> too",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        write_tokenizer(kind, folder / kind)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tower(kind: str, folders: dict[str, Path]) -> TextTower:
    return _tower(folders[kind])


@pytest.fixture
def bert(folders: dict[str, Path]) -> TextTower:
    return _tower(folders["wordpiece"])


def _tower(folder: Path) -> TextTower:
    return TextTower(str(folder / "tokenizer.json"), {"mean": 32}, max_tokens=64, pooling="mean")


@pytest.mark.parametrize("text", TEXTS)
def test_equals_transformers(text: str, kind: str, tower: TextTower, folders: dict[str, Path]) -> None:
    reference = transformers.AutoTokenizer.from_pretrained(folders[kind])
    ids = encode(text, tower)
    assert ids.tolist() == reference(text)["input_ids"]
    assert ids.dtype == np.int32


@pytest.mark.parametrize("direction", ["left", "right"])
@pytest.mark.parametrize("limit", [2, 3, 7])
def test_truncation_equals_transformers(
    limit: int, direction: Literal["left", "right"], kind: str, tower: TextTower, folders: dict[str, Path]
) -> None:
    reference = transformers.AutoTokenizer.from_pretrained(folders[kind], truncation_side=direction)
    expected = reference(TEXTS[0], truncation=True, max_length=limit)["input_ids"]
    ids = encode(TEXTS[0], replace(tower, max_tokens=limit), truncate=True, direction=direction)
    assert ids.tolist() == expected
    assert len(ids) == limit


def test_what_is_too_long_is_refused_with_both_numbers(bert: TextTower) -> None:
    assert len(encode("a " * 62, bert)) == 64
    with pytest.raises(InvalidInput, match="has 65 tokens, over the model's limit of 64") as caught:
        encode("a " * 63, bert)
    assert caught.value.status == 400
    with pytest.raises(InvalidInput, match="has 65 tokens"):
        encode(tuple([5] * 63), bert)


def test_the_files_own_truncation_and_padding_are_left_aside(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2's tokenizer.json would cut at 128 tokens, and pad everything to as many."""
    file = write_tokenizer("wordpiece", tmp_path)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(file))
    assert len(encode("a", _tower(tmp_path))) == 3
    assert len(encode("a " * 20, _tower(tmp_path))) == 22


@pytest.mark.parametrize("source", ["", ()])
def test_nothing_is_refused(source: str | tuple[int, ...], bert: TextTower) -> None:
    with pytest.raises(EmptyInput):
        encode(source, bert)


def test_a_text_without_any_token_is_refused(tmp_path: Path) -> None:
    """Where no special tokens are added, blanks may be nothing at all."""
    tokenizer = Tokenizer(models.WordLevel({"fox": 0}, unk_token="fox"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert encode(" fox ", _tower(tmp_path)).tolist() == [0]
    with pytest.raises(EmptyInput):
        encode("   ", _tower(tmp_path))


def test_lowercase_where_the_checkpoint_says_so(folders: dict[str, Path]) -> None:
    tower = _tower(folders["siglip"])
    assert encode("CAT", tower).tolist() != encode("cat", tower).tolist()
    lower = replace(tower, lowercase=True)
    assert encode("CAT", lower).tolist() == encode("cat", lower).tolist() == encode("cat", tower).tolist()


class TestPrompts:
    @pytest.fixture
    def prompted(self, bert: TextTower) -> TextTower:
        return replace(bert, prompts={"query": "the cat: ", "passage": ""}, default_prompt="query")

    def test_are_put_before_the_text(self, prompted: TextTower, bert: TextTower) -> None:
        expected = encode("the cat: a fox", bert).tolist()
        assert encode("a fox", prompted, prompt_name="query").tolist() == expected
        assert encode("a fox", prompted).tolist() == expected, "the default one"
        assert encode("a fox", prompted, prompt_name="passage").tolist() == encode("a fox", bert).tolist()

    def test_are_put_before_token_ids(self, prompted: TextTower, bert: TextTower) -> None:
        ids = tuple(encode("a fox", bert).tolist())
        assert encode(ids, prompted).tolist() == encode("the cat: a fox", bert).tolist()

    def test_count(self, prompted: TextTower, bert: TextTower) -> None:
        limited = replace(prompted, max_tokens=6)
        assert encode("a fox", limited, truncate=True).tolist() == encode("the cat: a", bert).tolist()

    def test_of_an_empty_text_are_no_text(self, prompted: TextTower) -> None:
        with pytest.raises(EmptyInput):
            encode("", prompted)

    @pytest.mark.parametrize(
        ("prompts", "message"),
        [({"query": "q: "}, "no prompt 'passage'; its prompts: query"), ({}, "no prompt 'passage'; it has none")],
    )
    def test_that_are_unknown_are_refused(self, prompts: dict[str, str], message: str, bert: TextTower) -> None:
        with pytest.raises(InvalidField, match=message):
            encode("a fox", replace(bert, prompts=prompts), prompt_name="passage")


class TestTokenIds:
    def test_get_special_tokens_once(self, tower: TextTower) -> None:
        whole = encode("the fox", tower).tolist()
        bare = [token.id for token in tokenize("the fox", tower, add_special_tokens=False)]
        for ids in (whole, bare):
            assert encode(tuple(ids), tower).tolist() == whole

    def test_with_one_special_token_get_the_other(self, bert: TextTower) -> None:
        whole = encode("the fox", bert).tolist()
        assert encode(tuple(whole[1:]), bert).tolist() == whole
        assert encode(tuple(whole[:-1]), bert).tolist() == whole

    @pytest.mark.parametrize("id", [-1, 512, 2**31, 2**32, 2**70])
    def test_outside_the_vocabulary_are_refused(self, id: int, bert: TextTower) -> None:
        for call in (lambda: encode((5, id), bert), lambda: decode([5, id], bert)):
            with pytest.raises(InvalidInput, match=f"the token id {id}, which is not in .* vocabulary of 162"):
                call()


class TestTokenize:
    def test_says_where_each_token_is(self, bert: TextTower) -> None:
        assert tokenize("The Fox jumps", bert) == [
            Token(2, "[CLS]", True, None, None),
            Token(160, "The", False, 0, 3),
            Token(146, "Fox", False, 4, 7),
            Token(150, "jumps", False, 8, 13),
            Token(3, "[SEP]", True, None, None),
        ]

    def test_counts_bytes_as_text_embeddings_inference_does(self, tower: TextTower) -> None:
        text = "é漢 x"
        last = [token for token in tokenize(text, tower) if not token.special][-1]
        assert (last.text, last.start, last.stop) == ("x", 6, 7)
        assert text.encode()[last.start : last.stop] == b"x"

    def test_without_special_tokens(self, tower: TextTower) -> None:
        tokens = tokenize("the fox", tower, add_special_tokens=False)
        assert not any(token.special for token in tokens)
        assert len(tokens) < len(tokenize("the fox", tower))

    def test_has_no_limit(self, bert: TextTower) -> None:
        assert len(tokenize("a " * 100, bert)) == 102

    def test_puts_the_prompt_before_the_text(self, bert: TextTower) -> None:
        prompted = replace(bert, prompts={"query": "the "})
        assert tokenize("fox", prompted, prompt_name="query") == tokenize("the fox", bert)

    def test_refuses_nothing(self, bert: TextTower) -> None:
        with pytest.raises(EmptyInput):
            tokenize("", bert)


class TestDecode:
    def test_gives_the_text_back(self, tower: TextTower) -> None:
        ids = encode("the quick red fox", tower).tolist()
        assert decode(ids, tower) == "the quick red fox"

    def test_shows_special_tokens_on_request(self, bert: TextTower) -> None:
        ids = encode("the fox", bert).tolist()
        assert decode(ids, bert, skip_special_tokens=False) == "[CLS] the fox [SEP]"

    def test_refuses_nothing(self, bert: TextTower) -> None:
        with pytest.raises(EmptyInput):
            decode([], bert)


def test_many_threads_share_a_tokenizer(tower: TextTower) -> None:
    texts = [f"the fox {number} " * (number % 5 + 1) for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda text: encode(text, tower).tolist(), texts))
    assert together == [encode(text, tower).tolist() for text in texts]


FORKED = """
import os, sys, threading
from iei.inputs.tokens import encode
from iei.models.spec import TextTower
tower = TextTower(sys.argv[1], {}, 10**6, "mean")
encode("the fox " * 1000, tower)
if os.fork() == 0:
    threads = [threading.Thread(target=encode, args=("the fox " * 1000, tower)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]), {"torch", "transformers"} & set(sys.modules))
"""


@pytest.mark.server
def test_a_forked_worker_tokenizes_without_a_word_and_without_torch(folders: dict[str, Path]) -> None:
    """The tokenizers library warns, and can hang, where its own threads are met again after a fork."""
    file = folders["wordpiece"] / "tokenizer.json"
    command = [sys.executable, "-c", FORKED, str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "0 set()\n"
    assert ran.stderr == ""


def test_a_long_text_does_not_hold_up_the_event_loop(folders: dict[str, Path]) -> None:
    """`Tokenizer.encode` would keep the GIL for all of its time."""
    tower = replace(_tower(folders["wordpiece"]), max_tokens=10**7)
    encode("a", tower)
    turns = 0
    with ThreadPoolExecutor(1) as threads:
        ids = threads.submit(encode, "the quick red fox " * 50_000, tower)
        while not ids.done():
            time.sleep(0.001)
            turns += 1
    assert len(ids.result()) == 200_002
    assert turns > 10
