"""`/classify` and `/rank`: pictures and texts scored against each other.

Wire format: docs/api/zero-shot.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import AnyCase, ListOf, OneOrMore
from iei.dialects.items import ComparisonOptions, input_of
from iei.dialects.labels import Label, LabelParameters, classified
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.partial import COMPARED, check_whole
from iei.dialects.registry import Dialect
from iei.dialects.tei_errors import EmbedError, error_body
from iei.dialects.wire import json_list, json_response, model_of, parsed, result_headers
from iei.errors import EmptyInput
from iei.models.spec import Modality, ModelSpec
from iei.service import EmbeddingService
from iei.settings import DialectSettings


class ClassifyRequest(BaseModel):
    """The body of a request to `/classify`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    inputs: OneOrMore
    """An image as base64, a data URI or a URL, or a list of images."""
    parameters: LabelParameters
    model: str | None = None
    """A served model. Default: the first."""


class RankRequest(ComparisonOptions):
    """The body of a request to `/rank`."""

    query: str
    """A text or an image: what the candidates are compared with."""
    candidates: ListOf[str] = Field(validation_alias=AliasChoices("candidates", "texts"))
    """Texts or images (base64, data URI or URL). Also called `texts`."""
    query_modality: Annotated[Modality, AnyCase] | None = None
    """What the query is. Default: data URIs of images are images, other strings are texts."""
    candidates_modality: Annotated[Modality, AnyCase] | None = None
    """What the candidates are. Default: as for the query, each by itself."""
    raw_scores: bool = False
    """The checkpoint's own scores of images and texts, scale · cosine + bias, instead of cosines."""
    return_text: bool = False
    """Repeat each candidate as `text` in the answer."""
    model: str | None = None
    """A served model. Default: the first."""


class Rank(BaseModel):
    """A candidate's place."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    index: int
    """Of the candidate in the request, from 0."""
    score: float
    text: str | None = None
    """The candidate, if the request wants it repeated."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(responses=errors_as(EmbedError))
    default = service.default

    @routes.post(
        "/classify",
        summary="Label images without training, by texts",
        openapi_extra=documented(ClassifyRequest, _labelled()),
        response_model=list[Label] | list[list[Label]],
        include_in_schema=default.contrast is not None,
    )
    async def classify(request: Request) -> Response:
        """How well each label fits an image, the best one first; for a list of images, a list of such lists."""
        check_whole(request, COMPARED)
        body = await parsed(request, ClassifyRequest)
        return await classified(service, body.inputs, body.parameters, model_of(request, body.model))

    @routes.post(
        "/rank",
        summary="Sort images by a text, or texts by an image",
        openapi_extra=documented(RankRequest, _ranked(default)),
        response_model=list[Rank],
    )
    async def rank(request: Request) -> Response:
        """The candidates by their similarity to a query, the most similar one first."""
        check_whole(request, COMPARED)
        body = await parsed(request, RankRequest)
        if not body.candidates:
            raise EmptyInput("candidates is empty: send at least one", "candidates")
        comparison = await service.compare(
            [input_of(body.query, body.query_modality)],
            [input_of(item, body.candidates_modality) for item in body.candidates],
            body.options(model=model_of(request, body.model)),
            trained=body.raw_scores,
            field="query with candidates",
            names=["query", *(f"candidates[{index}]" for index in range(len(body.candidates)))],
        )
        (scores,) = comparison.cosines
        if body.raw_scores:
            assert comparison.logits is not None
            (scores,) = comparison.logits
        ranks: Iterator[dict[str, object]] = (
            {
                "index": int(index),
                "score": float(scores[index]),
                **({"text": body.candidates[index]} if body.return_text else {}),
            }
            for index in np.argsort(-scores, kind="stable")
        )
        return json_response(await json_list(ranks), headers=result_headers(comparison.embeddings))

    return Dialect(
        "Zero-shot",
        error_body,
        routes,
        about="Scores of images against texts, with the scale of the checkpoint: CLIP, SigLIP.",
    )


def _labelled() -> dict[str, object]:
    labels = {"candidate_labels": ["a cat", "a dog", "a car"]}
    return {
        "one image": {"inputs": SAMPLES["image"][0], "parameters": labels},
        "two images": {
            "inputs": SAMPLES["image"],
            "parameters": {**labels, "hypothesis_template": "a drawing of {}"},
        },
    }


def _ranked(spec: ModelSpec) -> dict[str, object]:
    examples: dict[str, object] = {
        f"two {modality}s by their similarity to another": {
            "query": SAMPLES[modality][0],
            "candidates": SAMPLES[modality],
        }
        for modality in spec.modalities
    }
    if spec.contrast:
        examples["two images by a text, with the checkpoint's own scores"] = {
            "query": SAMPLES["text"][0],
            "candidates": SAMPLES["image"],
            "raw_scores": True,
        }
    return examples
