"""`/predict`, as a LitServe service for DINOv3 has it: class tokens and patch tokens of images.

Wire format: docs/api/litserve.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import ListOf, OneOrMore, OrNull, one_or_more
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.wire import json_list, json_response, parsed, timing_headers
from iei.errors import IEIError
from iei.models.spec import ModelSpec
from iei.service import Embedder, ImageInput, Options

EmbeddingType = Literal["cls_token", "patch_features"]

_OUTPUTS: dict[EmbeddingType, str] = {"cls_token": "cls", "patch_features": "patches"}
"""What this dialect calls an output → what it is."""


class PredictRequest(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    image_data: OneOrMore
    """An image as base64, a data URI or a URL; or a list of them."""
    embedding_types: Annotated[
        ListOf[EmbeddingType],
        BeforeValidator(one_or_more, json_schema_input_type=EmbeddingType | list[EmbeddingType]),
        OrNull,
    ] = ["cls_token"]
    """What is wanted; one name may come without a list."""


class Prediction(BaseModel):
    """What was wanted of an image."""

    cls_token: list[float] | None = None
    patch_features: list[list[float]] | None = None


class PredictError(BaseModel):
    detail: str


def error_body(error: IEIError) -> bytes:
    return orjson.dumps({"detail": error.message})


def router(embedder: Embedder) -> APIRouter:
    routes = APIRouter(tags=["LitServe"], responses=errors_as(PredictError))
    default = embedder.engine.default

    @routes.post(
        "/predict",
        openapi_extra=documented(PredictRequest, _examples(default)),
        response_model=Prediction | list[Prediction],
        include_in_schema=default.image is not None,
    )
    async def predict(request: Request) -> Response:
        """One object with what is wanted of an image, or a list of them for a list. Nothing is ever normalised."""
        body = await parsed(request, PredictRequest)
        one = isinstance(body.image_data, str)
        images = [body.image_data] if isinstance(body.image_data, str) else body.image_data
        wanted = list(dict.fromkeys(body.embedding_types))  # a name said a thousand times is one
        options = Options(
            outputs=tuple(_OUTPUTS[name] for name in wanted) or ("default",),
            normalize=False,
            resize_to_multiple=embedder.settings.predict_resize == "multiple",
        )
        embeddings = await embedder.embed([ImageInput(image) for image in images], options, field="image_data")
        results = [
            {name: orjson.Fragment(await json_list(item.outputs[_OUTPUTS[name]])) for name in wanted}
            for item in embeddings.items
        ]
        return json_response(orjson.dumps(results[0] if one else results), headers=timing_headers(embeddings))

    return routes


def _examples(spec: ModelSpec) -> dict[str, object]:
    offered = [name for name, output in _OUTPUTS.items() if spec.image and output in spec.image.outputs]
    return {
        "one image": {"image_data": SAMPLES["image"][0], "embedding_types": offered[:1]},
        "two images": {"image_data": SAMPLES["image"], "embedding_types": offered},
    }
