"""Responses of `/v1/embeddings`: in OpenAI's format, in Imbeddings', and in llama.cpp's.

Wire format: docs/api/openai.md and docs/api/llama-cpp.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.lines import Fields, Lines, accepts_lines
from iei.dialects.openai_errors import EmbeddingsError, error_body
from iei.dialects.openai_request import EmbeddingsRequest
from iei.dialects.partial import errors_of, on_error
from iei.dialects.token_ids import ReadIds
from iei.dialects.wire import json_list, json_response, model_of, one_kind_of_fault, result_headers
from iei.requests import Embedding, Embeddings
from iei.service import EmbeddingService

Numbers = list[float] | str
"""A vector in the format that the request names."""


class Vector(BaseModel):
    """One input's vector."""

    object: Literal["embedding"]
    index: int
    embedding: Numbers | None


class NamedVectors(BaseModel):
    """The vectors of an image object: its class token, and the mean of its patch tokens."""

    object: Literal["embedding"]
    index: int
    embeddings: dict[Literal["cls", "mean"], Numbers] | None


class Tokens(BaseModel):
    """Usage of a request, as in OpenAI's API."""

    prompt_tokens: int
    total_tokens: int


class Images(BaseModel):
    """Usage of a request, as in Imbeddings' API."""

    input_images: int
    embedding_dim: int


class BadInput(EmbeddingsError):
    """What is wrong with an input."""

    index: int


class EmbeddingsResponse(BaseModel):
    """The body of a response."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    object: Literal["list"]
    data: list[Vector] | list[NamedVectors]
    model: str
    usage: Tokens | Images
    errors: list[BadInput] | None = None
    """Inputs without a vector, where the request has `on_error: null`."""


class IndexedVectors(BaseModel):
    """One input's vector, as llama.cpp has it: in a list of one."""

    index: int
    embedding: list[Numbers] | None


IMBEDDINGS = {"cls": "cls", "mean": "patch_mean"}
"""Imbeddings' name of a vector → IEI's. By Imbeddings' README, `mean` is the mean of the patch tokens only."""


class Answers:
    """Computes what requests ask for.

    Args:
        service: computes embeddings.
        read_ids: reads token ids of which the request says nothing.
    """

    def __init__(self, service: EmbeddingService, read_ids: ReadIds) -> None:
        self._service = service
        self._read_ids = read_ids

    async def __call__(self, request: Request, body: EmbeddingsRequest) -> Response:
        """The response in the format that belongs to the form of the inputs."""
        if body.content is not None:
            return await self.indexed_vectors(request, body)
        if body.is_imbeddings:
            return await self.named_vectors(request, body)
        return await self.one_vector(request, body)

    async def one_vector(self, request: Request, body: EmbeddingsRequest) -> Response:
        """A response in OpenAI's format."""

        def fields(item: Embedding | None) -> dict[str, Any]:
            return {"object": "embedding", "embedding": item and body.written(item.vector)}

        return await self._answered(request, body, fields, _listed_with(_tokens))

    async def named_vectors(self, request: Request, body: EmbeddingsRequest) -> Response:
        """A response in Imbeddings' format."""

        def fields(item: Embedding | None) -> dict[str, Any]:
            named = item and {name: body.written(item.outputs[output]) for name, output in IMBEDDINGS.items()}
            return {"object": "embedding", "embeddings": named}

        outputs = tuple(IMBEDDINGS.values())
        return await self._answered(request, body, fields, _listed_with(_images), outputs=outputs)

    async def indexed_vectors(self, request: Request, body: EmbeddingsRequest) -> Response:
        """A response in llama.cpp's format."""

        def fields(item: Embedding | None) -> dict[str, Any]:
            return {"embedding": item and [body.written(item.vector)]}

        return await self._answered(request, body, fields, _as_it_is)

    async def _answered(
        self, request: Request, body: EmbeddingsRequest, fields: Fields, whole: Whole, **options: Any
    ) -> Response:
        """Line by line, if the client accepts that; or else as `whole` has it. `fields` are those of one input."""
        asked = body.asked(self._read_ids)
        wanted = body.options(model=model_of(request, body.model), on_error=on_error(request, body.on_error), **options)
        if accepts_lines(request):
            lines = self._service.stream(asked.inputs, wanted, field=asked.field, names=asked.names)
            return Lines(lines, fields, error_body, one_kind_of_fault)
        embeddings = await self._service.embed(asked.inputs, wanted, field=asked.field, names=asked.names)
        items = await json_list({"index": index, **fields(item)} for index, item in enumerate(embeddings.items))
        return json_response(whole(items, embeddings), headers=result_headers(embeddings))


Whole = Callable[[bytes, Embeddings], bytes]
"""The list of all inputs' fields → the body of the response."""


def _as_it_is(items: bytes, embeddings: Embeddings) -> bytes:
    return items


def _listed_with(usage: Callable[[Embeddings], Mapping[str, int]]) -> Whole:
    def listed(items: bytes, embeddings: Embeddings) -> bytes:
        fields = {"object": "list", "data": orjson.Fragment(items), "model": embeddings.spec.name}
        return orjson.dumps({**fields, "usage": usage(embeddings), **errors_of(embeddings.errors.items(), error_body)})

    return listed


def _tokens(embeddings: Embeddings) -> Mapping[str, int]:
    tokens = sum(item.tokens for item in embeddings.done)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _images(embeddings: Embeddings) -> Mapping[str, int]:
    done = embeddings.done
    return {"input_images": len(done), "embedding_dim": done[0].outputs["cls"].size if done else 0}
