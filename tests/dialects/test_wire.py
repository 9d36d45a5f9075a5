"""What all dialects share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from iei.dialects.kserve_message import InferRequest
from iei.dialects.litserve import PredictRequest
from iei.dialects.openai_request import EmbeddingsRequest
from iei.dialects.tei import DecodeRequest, EmbedRequest, SimilarityRequest, TokenizeRequest
from iei.errors import InvalidField
from tests.dialects.reading import read_json

TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    ("model", "body", "fault"),
    [
        (EmbedRequest, {"inputs": ["a", 1, 1]}, "inputs[1]: "),
        (EmbedRequest, {"inputs": 7}, "inputs: must be a string or a list of strings"),
        (TokenizeRequest, {"inputs": [1, 1]}, "inputs[0]: "),
        (SimilarityRequest, {"inputs": {"source_sentence": "a", "sentences": [1, 1]}}, "inputs.sentences[0]: "),
        (DecodeRequest, {"ids": [["a", "b"], ["c"]]}, "ids[0][0]: "),
        (DecodeRequest, {"ids": [[1], 1, 1]}, "ids[1]: "),
        (DecodeRequest, {"ids": "a"}, "ids: must be the token ids of one text"),
        (EmbeddingsRequest, {"model": "m", "input": [None, None]}, "input[0]: must be "),
        (EmbeddingsRequest, {"model": "m", "input": [-1, -1]}, "input[0]: "),
        (EmbeddingsRequest, {"model": "m", "input": [{}, {}]}, "input[0]: must have exactly one of "),
        (EmbeddingsRequest, {"model": "m", "input": [{"type": "audio", "image_url": "a"}] * 2}, "input[0].type: "),
        (EmbeddingsRequest, {"model": "m", "input": 1.5}, "input: must be a text"),
        (PredictRequest, {"image_data": [1, 1]}, "image_data[0]: "),
        (PredictRequest, {"image_data": {}}, "image_data: must be a string or a list of strings"),
        (PredictRequest, {"image_data": "a", "embedding_types": [1, 1]}, "embedding_types[0]: "),
        (InferRequest, {"inputs": [1, 1]}, "inputs[0]: "),
        (InferRequest, {"inputs": [{**TENSOR, "shape": ["a", "b"]}]}, "inputs[0].shape[0]: "),
        (InferRequest, {"inputs": [], "outputs": [1, 1]}, "outputs[0]: "),
    ],
    ids=lambda value: str(value)[:60],
)
def test_one_wrong_type_is_named_where_the_client_wrote_it(model: type[BaseModel], body: Any, fault: str) -> None:
    """And only one: millions of them would take minutes and gigabytes to describe."""
    with pytest.raises(InvalidField) as refused:
        read_json(json.dumps(body).encode(), model)
    assert refused.value.message.startswith(fault)
    assert "; " not in refused.value.message


@pytest.mark.parametrize(
    "nulls",
    [
        {"parameters": None, "outputs": None},
        {"inputs": [{**TENSOR, "parameters": None}], "outputs": [{"name": "output", "parameters": None}]},
        {"parameters": {"binary_data_output": None}},
    ],
)
def test_null_is_as_good_as_nothing_in_kserves_optional_fields(nulls: dict[str, Any]) -> None:
    whole = {"inputs": [TENSOR], **nulls}
    without = json.loads(json.dumps(whole), object_hook=lambda part: {k: v for k, v in part.items() if v is not None})
    assert read_json(json.dumps(whole).encode(), InferRequest) == read_json(json.dumps(without).encode(), InferRequest)
