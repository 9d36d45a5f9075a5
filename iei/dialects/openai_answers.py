"""Responses of `/v1/embeddings`: in OpenAI's format, in Imbeddings', and in llama.cpp's.

Wire format: docs/api/openai.md and docs/api/llama-cpp.md.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.openai_request import EmbeddingsRequest
from iei.dialects.token_ids import ReadIds
from iei.dialects.wire import json_list, json_response, model_of, result_headers
from iei.requests import Embeddings
from iei.service import EmbeddingService

Numbers = list[float] | str
"""A vector in the format that the request names."""


class Vector(BaseModel):
    """One input's vector."""

    object: Literal["embedding"]
    index: int
    embedding: Numbers


class NamedVectors(BaseModel):
    """The vectors of an image object: its class token, and the mean of its patch tokens."""

    object: Literal["embedding"]
    index: int
    embeddings: dict[Literal["cls", "mean"], Numbers]


class Tokens(BaseModel):
    """Usage of a request, as in OpenAI's API."""

    prompt_tokens: int
    total_tokens: int


class Images(BaseModel):
    """Usage of a request, as in Imbeddings' API."""

    input_images: int
    embedding_dim: int


class EmbeddingsResponse(BaseModel):
    """The body of a response."""

    object: Literal["list"]
    data: list[Vector] | list[NamedVectors]
    model: str
    usage: Tokens | Images


class IndexedVectors(BaseModel):
    """One input's vector, as llama.cpp has it: in a list of one."""

    index: int
    embedding: list[Numbers]


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
        embeddings = await self._computed(request, body)
        tokens = sum(item.tokens for item in embeddings.items)
        return await _response(
            embeddings,
            [{"embedding": body.written(item.vector)} for item in embeddings.items],
            {"prompt_tokens": tokens, "total_tokens": tokens},
        )

    async def named_vectors(self, request: Request, body: EmbeddingsRequest) -> Response:
        """A response in Imbeddings' format."""
        embeddings = await self._computed(request, body, outputs=tuple(IMBEDDINGS.values()))
        return await _response(
            embeddings,
            [
                {"embeddings": {name: body.written(item.outputs[output]) for name, output in IMBEDDINGS.items()}}
                for item in embeddings.items
            ],
            {"input_images": len(embeddings.items), "embedding_dim": embeddings.items[0].outputs["cls"].size},
        )

    async def indexed_vectors(self, request: Request, body: EmbeddingsRequest) -> Response:
        """A response in llama.cpp's format."""
        embeddings = await self._computed(request, body)
        items = [
            {"index": index, "embedding": [body.written(item.vector)]} for index, item in enumerate(embeddings.items)
        ]
        return json_response(await json_list(items), headers=result_headers(embeddings))

    async def _computed(self, request: Request, body: EmbeddingsRequest, **options: Any) -> Embeddings:
        asked = body.asked(self._read_ids)
        wanted = body.options(model=model_of(request, body.model), **options)
        return await self._service.embed(asked.inputs, wanted, field=asked.field, names=asked.names)


async def _response(embeddings: Embeddings, data: list[dict[str, Any]], usage: dict[str, int]) -> Response:
    items = [{"object": "embedding", "index": index, **vectors} for index, vectors in enumerate(data)]
    content = orjson.dumps(
        {
            "object": "list",
            "data": orjson.Fragment(await json_list(items)),
            "model": embeddings.spec.name,
            "usage": usage,
        }
    )
    return json_response(content, headers=result_headers(embeddings))
