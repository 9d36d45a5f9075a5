"""IEI's own routes, compatible with text-embeddings-inference: `/embed`, `/embed_all`, `/similarity` and more.

Wire format: docs/api/iei.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.accept import accepted, documented_formats, vectors_response
from iei.dialects.fields import ListOf, OneOrMore, Strings
from iei.dialects.items import ComparisonOptions, EmbedOptions, TextOptions, input_of
from iei.dialects.labels import Label, LabelParameters, classified
from iei.dialects.media import IMAGES
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import COMPARED, check_whole, on_error
from iei.dialects.registry import Dialect
from iei.dialects.tei_errors import EmbedError, error_body
from iei.dialects.wire import json_list, json_response, model_of, parsed, result_headers
from iei.errors import EmptyInput
from iei.models.spec import ModelSpec
from iei.requests import Token
from iei.service import EmbeddingService
from iei.settings import DialectSettings


class EmbedRequest(EmbedOptions):
    """The body of a request for embeddings."""

    inputs: Strings
    """An image (base64, data URI or URL) or a text, or a list of these."""


class Sentences(BaseModel):
    """The source sentence and the sentences to compare it with. Both may also be images."""

    source_sentence: str
    sentences: ListOf[str]


class SimilarityRequest(BaseModel):
    """The body of a request to `/similarity`."""

    inputs: Sentences
    parameters: ComparisonOptions | None = None


class RootRequest(EmbedOptions):
    """The body of a request to `/`, to which clients of Hugging Face's Inference API send every task."""

    inputs: Annotated[
        Annotated[OneOrMore, Tag("<embed>")] | Annotated[Sentences, Tag("<similarity>")],
        Discriminator(lambda inputs: "<similarity>" if isinstance(inputs, dict) else "<embed>"),
    ]
    """What to embed, as at `/embed`; or a source sentence and the sentences to compare it with, as at `/similarity`."""
    parameters: LabelParameters | None = None
    """With `candidate_labels`, inputs are images that get scores for these labels, as at `/classify`."""


RootAnswer = list[list[float] | None] | list[float] | list[Label] | list[list[Label]]
"""What the task's own route answers."""


class TokenizeRequest(BaseModel):
    """The body of a request to `/tokenize`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    inputs: Strings
    add_special_tokens: bool = True
    prompt_name: str | None = None
    """Name of one of the model's prompts, which is prepended to each text."""


def _as_list_of_lists(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("must be the token ids of one text, or a list of such lists")
    return [value] if value and not isinstance(value[0], list) else value


class DecodeRequest(BaseModel):
    """The body of a request to `/decode`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    ids: Annotated[
        ListOf[ListOf[int]], BeforeValidator(_as_list_of_lists, json_schema_input_type=list[int] | list[list[int]])
    ]
    """Token ids of one text, or a list of such lists."""
    skip_special_tokens: bool = True


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(responses=errors_as(EmbedError))
    default = service.default
    images = IMAGES if default.image else None
    root_body = documented(RootRequest, {**_examples(default), **_comparisons(default)}, binary=images)
    embed_body = documented(EmbedRequest, _examples(default), binary=images)
    formats = documented_formats()

    async def embedded(
        request: Request, items: Sequence[str], body: EmbedOptions, outputs: tuple[str, ...] | None = None
    ) -> Response:
        form = accepted(request)
        inputs = [input_of(item, body.modality) for item in items]
        options = body.options(
            model=model_of(request),
            outputs=outputs or (body.pooling or "default",),
            normalize=body.normalize,
            dimensions=body.dimensions,
            on_error=on_error(request, body.on_error),
        )
        return await vectors_response(service, inputs, options, form)

    async def compared(request: Request, sentences: Sentences, parameters: TextOptions) -> Response:
        if not sentences.sentences:
            raise EmptyInput("inputs.sentences is empty: send at least one", "inputs")
        inputs = [input_of(item) for item in (sentences.source_sentence, *sentences.sentences)]
        options = parameters.options(model=model_of(request), normalize=True)
        names = (f"inputs.sentences[{index}]" for index in range(len(sentences.sentences)))
        embeddings = await service.embed(inputs, options, names=("inputs.source_sentence", *names))
        source, *others = (item.vector for item in embeddings.done)
        return json_response(await json_list(np.stack(others) @ source), headers=result_headers(embeddings))

    @routes.post(
        "/embed",
        summary="Embed images and texts as TEI does",
        openapi_extra=embed_body,
        responses=formats,
        response_model=list[list[float] | None],
    )
    async def embed(request: Request) -> Response:
        """One vector per input, in the order of the inputs."""
        body = await parsed(request, EmbedRequest)
        return await embedded(request, body.inputs, body)

    @routes.post(
        "/",
        summary="Any of TEI's tasks, as Hugging Face's Inference API",
        openapi_extra=root_body,
        responses=formats,
        response_model=RootAnswer,
    )
    @routes.post(
        "/invocations",
        summary="Any of TEI's tasks, as Amazon SageMaker",
        openapi_extra=root_body,
        responses=formats,
        response_model=RootAnswer,
    )
    async def root(request: Request) -> Response:
        """As `/embed`; as `/similarity` if `inputs` has a source sentence, and as `/classify` if there are labels."""
        body = await parsed(request, RootRequest)
        if isinstance(body.inputs, Sentences):
            check_whole(request, COMPARED, body.on_error)
            return await compared(request, body.inputs, body)
        if body.parameters and body.parameters.candidate_labels is not None:
            check_whole(request, COMPARED, body.on_error)
            return await classified(service, body.inputs, body.parameters, model_of(request))
        items = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        return await embedded(request, items, body)

    @routes.post(
        "/embed_all",
        summary="Embed every patch of an image and every token of a text",
        openapi_extra=embed_body,
        responses=formats,
        response_model=list[list[list[float]] | None],
    )
    async def embed_all(request: Request) -> Response:
        """One vector for each token of each input: class, register and patch tokens of an image, tokens of a text."""
        body = await parsed(request, EmbedRequest)
        return await embedded(request, body.inputs, body, ("tokens",))

    @routes.post(
        "/similarity",
        summary="Compare images or texts with one of them",
        openapi_extra=documented(SimilarityRequest, _comparisons(default)),
        response_model=list[float],
    )
    async def similarity(request: Request) -> Response:
        """Cosine similarity of each sentence to the source sentence, in the order of the sentences."""
        check_whole(request, COMPARED)
        body = await parsed(request, SimilarityRequest)
        return await compared(request, body.inputs, body.parameters or ComparisonOptions())

    @routes.post(
        "/tokenize",
        summary="Split texts into the model's tokens",
        openapi_extra=documented(TokenizeRequest, {"a text": {"inputs": "A cat on a mat"}}),
        response_model=list[list[Token]],
        include_in_schema=default.text is not None,
    )
    async def tokenize(request: Request) -> Response:
        """The tokens of each text."""
        body = await parsed(request, TokenizeRequest)
        tokens = await service.tokenize(
            body.inputs,
            model=model_of(request),
            add_special_tokens=body.add_special_tokens,
            prompt_name=body.prompt_name,
        )
        return json_response(await json_list(tokens))

    @routes.post(
        "/decode",
        summary="Make texts of token ids",
        openapi_extra=documented(DecodeRequest, {"the tokens of a text": {"ids": [1, 2, 3]}}),
        response_model=list[str],
        include_in_schema=default.text is not None,
    )
    async def decode(request: Request) -> Response:
        """The text of each list of token ids."""
        body = await parsed(request, DecodeRequest)
        texts = await service.detokenize(
            body.ids, model=model_of(request), skip_special_tokens=body.skip_special_tokens
        )
        return json_response(await json_list(texts))

    return Dialect(
        "IEI and text-embeddings-inference",
        error_body,
        routes,
        about="Images and texts → vectors: IEI's own routes, which TEI's clients can call, too.",
    )


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
