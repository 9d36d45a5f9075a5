"""Every form of input, and every field, that clients of `/v1/embeddings` write."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from iei.dialects.openai_request import Asked, EmbeddingsRequest
from iei.dialects.prompts import prompts_for
from iei.dialects.token_ids import of_model, refused
from iei.errors import IEIError, InvalidField, InvalidInput, InvalidInputs
from iei.requests import ImageInput, Input, Options, TextInput, Unreadable, UntypedInput
from tests.dialects.reading import read_json


def read(**body: Any) -> EmbeddingsRequest:
    return read_json(json.dumps(body).encode(), EmbeddingsRequest)


def asked(**body: Any) -> Asked:
    return read(**body).asked(refused)


def check(found: Asked) -> None:
    """Raises what the service would say of items that are unreadable."""
    if errors := {index: item.error for index, item in enumerate(found.inputs) if isinstance(item, Unreadable)}:
        raise InvalidInputs(errors, found.field, found.names)


TEXT, IMAGE = TextInput("a cat"), ImageInput("AAAA")


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


TEXT_PART = {"type": "text", "text": "a cat"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "AAAA", "detail": "low"}}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("a cat", UntypedInput("a cat")),
        ({"text": "a cat"}, TEXT),
        ({"text": "a cat", "image": None}, TEXT),
        ({"image": "AAAA"}, IMAGE),
        ({"url": "AAAA"}, IMAGE),
        ({"bytes": "AAAA"}, IMAGE),
        (TEXT_PART, TEXT),
        (IMAGE_PART, IMAGE),
        ({"type": "image_url", "image_url": "AAAA"}, IMAGE),
        ({"type": "image_base64", "image_base64": {"base64": "AAAA", "mime_type": "image/png"}}, IMAGE),
        ({"type": "image", "image_base64": "AAAA"}, IMAGE),
        ({"image_url": "AAAA"}, IMAGE),
        ({"prompt_string": "a cat"}, TEXT),
        ({"prompt_string": "a cat", "multimodal_data": []}, TEXT),
        ({"prompt_string": "a cat", "multimodal_data": None}, TEXT),
        ({"prompt_string": "<__media__>\n", "multimodal_data": ["AAAA"]}, IMAGE),
        ({"content": [TEXT_PART]}, TEXT),
        (user("a cat"), UntypedInput("a cat")),
        ([user([IMAGE_PART])], IMAGE),
    ],
    ids=lambda value: str(value)[:60],
)
def test_items_of_all_dialects(item: object, expected: Input) -> None:
    """Alone, and as the second of two. A list that begins with a message is one conversation."""
    assert asked(input=item).inputs == [expected]
    two = asked(input=["first", item])
    assert two.inputs == [UntypedInput("first"), expected]
    assert two.names == ["input[0]", "input[1]"]


def test_strings_are_what_the_request_says() -> None:
    assert asked(input=["AAAA"], modality="IMAGE").inputs == [IMAGE]
    assert asked(input="a cat", modality="text").inputs == [TEXT]
    assert asked(input=[{"text": "a cat"}], modality="image").inputs == [TEXT]  # the item says more


@pytest.mark.parametrize("field", ["messages", "input"])
def test_a_conversation_is_one_input(field: str) -> None:
    """System messages and blank texts don't count."""
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": "Represent the user's input."}]},
        user([IMAGE_PART, {"type": "text", "text": " \n"}]),
        {"role": "assistant", "content": [{"type": "text", "text": ""}]},
        {"role": "assistant", "content": None},
    ]
    assert asked(**{field: conversation}) == Asked(field, [IMAGE], [field])
    batch = asked(**{field: [conversation, [user("a cat")], [user(["a cat"])]]})
    assert batch.inputs == [IMAGE, UntypedInput("a cat"), UntypedInput("a cat")]
    assert batch.names == [f"{field}[{index}]" for index in range(3)]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"messages": [user([IMAGE_PART, TEXT_PART])]}, "messages: has 1 images and 1 texts, besides system messages"),
        ({"messages": [user("a"), user("b")]}, "messages: has 0 images and 2 texts"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages: has 0 images and 0 texts"),
        ({"messages": [[user("a")], [user([IMAGE_PART, IMAGE_PART])]]}, "messages[1]: has 2 images and 0 texts"),
        ({"input": ["a", [user("a"), user("b")]]}, "input[1]: has 0 images and 2 texts"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [user([{"type": "input_audio", "input_audio": {}}])]}, "messages[0].content[0].type: "),
        ({"messages": [user(1)]}, "messages[0].content: must be a string or a list of parts"),
        ({"messages": "a"}, "messages: must be a list of messages"),
        ({"input": [user("a"), "b"]}, "input[1]: "),
        ({"input": [{"text": "a", "image": "b"}]}, "input[0]: must have exactly one of text, image"),
        ({"input": [{"prompt_string": "a", "multimodal_data": ["b", "c"]}]}, "input[0]: has 2 images"),
        ({"input": [{"prompt_string": "a cat", "multimodal_data": ["b"]}]}, "input[0]: has a text beside its image"),
        ({"input": [{"image_url": "a"}, {"image": "b"}]}, "input: objects of image_url or image_base64 alone"),
        ({"input": "a", "messages": [user("a")]}, "must have exactly one of input, messages and content"),
        ({"input": "a", "content": "a"}, "must have exactly one of input, messages and content"),
        ({"input": "a", "late_chunking": True}, "late_chunking: is not offered here"),
        ({"input": "a", "return_multivector": True}, "return_multivector: is not offered here"),
        ({"input": "a", "encoding_format": "bytes"}, "encoding_format: Input should be 'float' or 'base64'"),
        ({"input": "a", "embedding_type": ["float", "binary"]}, "embedding_type: Input should be "),
        ({"input": "a", "embedding_type": "binary", "output_dtype": "int8"}, "binary and int8 can't both be"),
        ({"input": "a", "endianness": "big"}, "endianness: "),
        ({"input": "a", "embed_dtype": "bfloat16"}, "embed_dtype: "),
        ({"input": "a", "dimensions": 8, "output_dimension": 16}, "dimensions and output_dimension differ"),
        ({"input": "a", "truncate_prompt_tokens": 8}, "truncate_prompt_tokens: Input should be -1"),
        ({"input": "a", "embd_normalize": 1}, "embd_normalize: Input should be -1 or 2"),
        ({"input": "a", "modality": "audio"}, "modality: Input should be 'image' or 'text'"),
        ({"input": "a", "token_ids": "yours"}, "token_ids: Input should be 'model'"),
        ({"input": [1, 2]}, "input has token ids, and nothing says which tokenizer made them"),
        ({"input": ["a", [1, 2]]}, "input has token ids, and nothing says which tokenizer made them"),
    ],
    ids=lambda value: str(value)[:70],
)
def test_what_is_refused_is_named(body: dict[str, Any], fault: str) -> None:
    def answer() -> None:
        request = read(**body)
        _ = request.is_imbeddings
        check(request.asked(refused))
        request.options()
        _ = request.written

    with pytest.raises((InvalidField, InvalidInput)) as found:
        answer()
    assert found.value.message.startswith(fault)


def test_only_inputs_of_image_objects_are_imbeddings() -> None:
    image = {"type": "image", "image_url": "AAAA"}
    assert read(input=image).is_imbeddings
    assert read(input=[image, {"image_base64": "AAAA"}]).is_imbeddings
    others: tuple[dict[str, Any], ...] = (
        {"input": [IMAGE_PART]},
        {"input": []},
        {"content": [image, "a"]},
        {"messages": [user([image])]},
    )
    assert not any(read(**body).is_imbeddings for body in others)


def test_all_bad_conversations_are_named() -> None:
    with pytest.raises(InvalidInputs, match=r"(?s)messages\[0\].*messages\[2\]") as found:
        check(asked(messages=[[user([])], [user("a")], [user("  ")]]))
    assert found.value.errors.keys() == {0, 2}


def test_token_ids_are_the_models_own_where_the_request_or_its_dialect_says_so() -> None:
    own = TextInput((1, 2))
    assert asked(input=[1, 2], token_ids="model").inputs == [own]
    assert asked(input=[[1, 2], "a"], token_ids="model").inputs == [own, UntypedInput("a")]
    assert asked(content=[1, 2]).inputs == [own]
    assert read(input=[1, 2]).asked(of_model).inputs == [own]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"truncate": None, "dimensions": None, "normalized": None, "task": None, "late_chunking": None}, {}),
        ({"truncate": "NONE"}, {"truncate": False}),
        ({"truncate": "START"}, {"truncate": True, "truncation_direction": "left"}),
        ({"truncate": "end"}, {"truncate": True}),
        ({"truncate": False, "normalized": True, "late_chunking": False}, {"truncate": False}),
        ({"truncation": True}, {"truncate": True}),
        ({"truncation": False}, {"truncate": False}),
        ({"truncate": "NONE", "truncation": True}, {"truncate": False}),
        (
            {"truncate_prompt_tokens": -1, "truncation_side": "left"},
            {"truncate": True, "truncation_direction": "left"},
        ),
        ({"dimensions": 0}, {}),
        ({"dimensions": 8}, {"dimensions": 8}),
        ({"output_dimension": 8}, {"dimensions": 8}),
        ({"dimensions": 0, "output_dimension": 8}, {"dimensions": 8}),
        ({"normalized": False}, {"normalize": False}),
        ({"embd_normalize": 2}, {}),
        ({"embd_normalize": -1}, {"normalize": False}),
        ({"prompt_name": "q"}, {"prompt_name": "q"}),
        ({"input_type": "query"}, {"prompt_hints": prompts_for("query")}),
        ({"input_type": "passage"}, {"prompt_hints": prompts_for("passage")}),
        ({"input_type": "document"}, {"prompt_hints": prompts_for("document")}),
        ({"task": "retrieval.query"}, {"prompt_hints": prompts_for("retrieval.query")}),
        ({"task": "text-matching"}, {"prompt_hints": ("text-matching",)}),
        ({"task": ""}, {}),
        ({"user": "me", "priority": 1, "request_id": "x", "add_special_tokens": True, "chat_template": "{{x}}"}, {}),
    ],
    ids=str,
)
def test_fields_of_all_dialects(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read(input="a", **fields).options(model="m") == Options(model="m", **{"normalize": True, **expected})


VECTOR = np.linspace(-1, 1, 16, dtype=np.float32)


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({}, ("float", "float")),
        ({"encoding_format": "float", "embed_dtype": "float32", "endianness": "native"}, ("float", "float")),
        ({"encoding_format": "base64"}, ("float", "base64")),
        ({"embedding_type": "base64"}, ("float", "base64")),
        ({"embedding_type": ["float"]}, ("float", "float")),
        ({"encoding_type": "ubinary"}, ("ubinary", "float")),
        ({"embedding_type": ["binary"]}, ("binary", "float")),
        ({"output_dtype": "uint8"}, ("uint8", "float")),
        ({"output_dtype": "int8", "encoding_format": "base64"}, ("int8", "base64")),
        ({"embed_dtype": "float16", "encoding_format": "base64"}, ("float16", "base64")),
        ({"embedding_type": "binary", "encoding_type": "binary"}, ("binary", "float")),
    ],
    ids=str,
)
def test_formats_of_vectors(fields: dict[str, Any], written: tuple[str, str]) -> None:
    form = read(input="a", **fields).written
    assert form == written
    assert isinstance(form(VECTOR), str) == (written[1] == "base64")


def test_bits_need_a_length_of_a_multiple_of_eight() -> None:
    with pytest.raises(IEIError, match="multiple of 8"):
        read(input="a", output_dtype="binary").written(VECTOR[:12])
