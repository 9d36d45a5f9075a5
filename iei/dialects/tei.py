"""IEI's own routes, which are text-embeddings-inference's too: `/embed`, `/embed_all`, `/info`, `/health`.

Wire format: docs/api/iei.md.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from iei import __version__
from iei.dialects.fields import AnyCase, ListOf, Strings
from iei.dialects.items import TextOptions, input_of
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.wire import json_list, json_response, parsed, timing_headers, vectors_response
from iei.errors import EmptyInput, IEIError, InvalidInputs, Unhealthy
from iei.inputs import tokens
from iei.models.catalog import served_name
from iei.models.spec import POOLED, ROWS, Modality, ModelSpec, Pooling, TextTower
from iei.service import Embedder


class EmbedRequest(TextOptions):
    inputs: Strings
    """Images (base64, data URIs or URLs) or texts; one, or a list."""
    normalize: bool | None = None
    """Divide each vector by its L2 norm. Default: IEI_NORMALIZE, and for texts what the model's own pipeline does."""
    pooling: Annotated[Pooling, AnyCase] | None = None
    """How tokens become one vector. Default: IEI_POOLING, or else `mean` for images and a text model's own."""
    dimensions: int | None = Field(None, ge=1)
    """Keep this many leading values (before normalising)."""
    modality: Annotated[Modality, AnyCase] | None = None
    """What the inputs are, for a model that takes both. Default: data URIs of images are images, the rest is text."""


class Sentences(BaseModel):
    source_sentence: str
    sentences: ListOf[str]


class SimilarityRequest(BaseModel):
    inputs: Sentences
    parameters: TextOptions | None = None


class TokenizeRequest(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    inputs: Strings
    add_special_tokens: bool = True
    prompt_name: str | None = None
    """One of the model's prompts, put before each text."""


def _as_list_of_lists(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("the ids of one text are wanted, or a list of such lists")
    return [value] if value and not isinstance(value[0], list) else value


class DecodeRequest(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    ids: Annotated[
        ListOf[ListOf[int]], BeforeValidator(_as_list_of_lists, json_schema_input_type=list[int] | list[list[int]])
    ]
    """Ids of the tokens of one text, or of many."""
    skip_special_tokens: bool = True


class EmbedError(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    error: str
    error_type: str
    """`Empty`, `Validation`, `Overloaded`, `Unhealthy` or `Backend`."""
    detail: str
    """The message once more, for clients of the original IEI."""


def error_body(error: IEIError) -> bytes:
    return orjson.dumps({"error": error.message, "error_type": error.error_type, "detail": error.message})


def router(embedder: Embedder) -> APIRouter:
    routes = APIRouter(tags=["IEI and text-embeddings-inference"], responses=errors_as(EmbedError))
    default = embedder.engine.default
    embed_body = documented(EmbedRequest, _examples(default))

    async def embedded(body: EmbedRequest, outputs: tuple[str, ...]) -> Response:
        spec = await embedder.describe()
        inputs = [input_of(item, spec, body.modality) for item in body.inputs]
        options = body.options(outputs=outputs, normalize=body.normalize, dimensions=body.dimensions)
        embeddings = await embedder.embed(inputs, options)
        return await vectors_response([item.vector for item in embeddings.items], embeddings)

    @routes.post("/embed", openapi_extra=embed_body, response_model=list[list[float]])
    @routes.post("/", openapi_extra=embed_body, response_model=list[list[float]])
    @routes.post("/invocations", openapi_extra=embed_body, response_model=list[list[float]])
    async def embed(request: Request) -> Response:
        """One vector per input, in the order of the inputs."""
        body = await parsed(request, EmbedRequest)
        return await embedded(body, (body.pooling or "default",))

    @routes.post("/embed_all", openapi_extra=embed_body, response_model=list[list[list[float]]])
    async def embed_all(request: Request) -> Response:
        """One vector per token of each input: class, register and patch tokens, or positions, or tokens of a text."""
        return await embedded(await parsed(request, EmbedRequest), ("tokens",))

    @routes.post(
        "/similarity",
        openapi_extra=documented(SimilarityRequest, _comparisons(default)),
        response_model=list[float],
    )
    async def similarity(request: Request) -> Response:
        """Cosine similarity of each sentence to the source sentence, in the order of the sentences."""
        body = await parsed(request, SimilarityRequest)
        if not body.inputs.sentences:
            raise EmptyInput("inputs.sentences is empty: send at least one", "inputs")
        spec = await embedder.describe()
        inputs = [input_of(item, spec) for item in (body.inputs.source_sentence, *body.inputs.sentences)]
        options = (body.parameters or TextOptions()).options(normalize=True)
        try:
            embeddings = await embedder.embed(inputs, options)
        except InvalidInputs as error:
            sentences = (f"inputs.sentences[{index}]" for index in range(len(body.inputs.sentences)))
            raise InvalidInputs(error.errors, names=("inputs.source_sentence", *sentences)) from None
        source, *others = (item.vector for item in embeddings.items)
        return json_response(await json_list(np.stack(others) @ source), headers=timing_headers(embeddings))

    @routes.post(
        "/tokenize",
        openapi_extra=documented(TokenizeRequest, {"a text": {"inputs": "A cat on a mat"}}),
        response_model=list[list[tokens.Token]],
        include_in_schema=default.text is not None,
    )
    async def tokenize(request: Request) -> Response:
        """The tokens of each text."""
        body = await parsed(request, TokenizeRequest)

        def work(text: str, tower: TextTower) -> list[tokens.Token]:
            return tokens.tokenize(
                text, tower, add_special_tokens=body.add_special_tokens, prompt_name=body.prompt_name
            )

        return json_response(await json_list(await embedder.of_texts(body.inputs, work, field="inputs")))

    @routes.post(
        "/decode",
        openapi_extra=documented(DecodeRequest, {"the tokens of a text": {"ids": [1, 2, 3]}}),
        response_model=list[str],
        include_in_schema=default.text is not None,
    )
    async def decode(request: Request) -> Response:
        """The text of each list of token ids."""
        body = await parsed(request, DecodeRequest)

        def work(ids: list[int], tower: TextTower) -> str:
            return tokens.decode(ids, tower, skip_special_tokens=body.skip_special_tokens)

        return json_response(await json_list(await embedder.of_texts(body.ids, work, field="ids")))

    @routes.get("/info", response_model=dict[str, Any])
    async def info() -> Response:
        """The model that is served, and the limits in force."""
        spec = await embedder.describe()
        tower = spec.tower
        return json_response(
            orjson.dumps(
                {
                    "model_id": served_name(spec.id),
                    "model_name": spec.name,
                    "revision": spec.revision,
                    "model_type": spec.model_type,
                    "modalities": spec.modalities,
                    "dim": tower.outputs[tower.pooling],
                    "pooling": tower.pooling,
                    "poolings": {name: dim for name, dim in tower.outputs.items() if name in POOLED},
                    "rows": {name: dim for name, dim in tower.outputs.items() if name in ROWS},
                    "max_input_length": spec.text.max_tokens if spec.text else None,
                    "prompts": spec.text.prompts if spec.text else {},
                    "dtype": spec.dtype,
                    "device": spec.device,
                    "runtime": spec.runtime,
                    "max_batch": spec.max_batch,
                    **{name: getattr(embedder.settings, name) for name in _LIMITS},
                    "version": __version__,
                }
            )
        )

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", response_model=dict[str, str])
    async def health() -> Response:
        """Ready: the engine is there and has its model. 503 while it is not."""
        if not embedder.engine.ready:
            raise Unhealthy("the engine is not there (yet)")
        return json_response(b'{"message":"OK"}')

    @routes.head("/ping", include_in_schema=False)
    @routes.get("/ping", response_model=dict[str, str])
    async def ping() -> Response:
        """Alive: this worker's event loop answers."""
        return json_response(b'{"message":"pong"}')

    return routes


_LIMITS = (
    "max_inputs",
    "max_output_values",
    "max_queue",
    "concurrency_level",
    "request_timeout_s",
    "max_body_bytes",
    "body_timeout_s",
    "max_image_bytes",
    "max_image_pixels",
    "max_patches",
    "url_inputs",
    "url_timeout_s",
)
"""Settings that clients meet."""


def _examples(spec: ModelSpec) -> dict[str, object]:
    examples: dict[str, object] = {}
    for modality in spec.modalities:
        items = SAMPLES[modality]
        examples[f"one {modality}"] = {"inputs": items[0]}
        examples[f"two {modality}s, each vector of length 1"] = {"inputs": items, "normalize": True}
    return examples


def _comparisons(spec: ModelSpec) -> dict[str, object]:
    return {
        f"two {modality}s compared with another": {
            "inputs": {"source_sentence": SAMPLES[modality][0], "sentences": SAMPLES[modality]}
        }
        for modality in spec.modalities
    }
