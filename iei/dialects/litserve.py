"""`/predict`, compatible with a LitServe service for DINOv3: class tokens and patch tokens of images.

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
from iei.dialects.partial import OnErrorField, on_error
from iei.dialects.plain_errors import DetailSentence, as_detail
from iei.dialects.registry import Dialect
from iei.dialects.wire import json_list, json_response, model_of, parsed, result_headers
from iei.errors import FixedSize
from iei.models.spec import ModelSpec
from iei.requests import Embeddings, ImageInput, Options
from iei.service import EmbeddingService
from iei.settings import DialectSettings

EmbeddingType = Literal["cls_token", "patch_features"]

_OUTPUTS: dict[EmbeddingType, str] = {"cls_token": "cls", "patch_features": "patches"}
"""Name of an output in this dialect → its name in IEI."""


class PredictRequest(BaseModel):
    """The body of a request to `/predict`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    image_data: OneOrMore
    """An image as base64, a data URI or a URL, or a list of images."""
    embedding_types: Annotated[
        ListOf[EmbeddingType],
        BeforeValidator(one_or_more, json_schema_input_type=EmbeddingType | list[EmbeddingType]),
        OrNull,
    ] = ["cls_token"]
    """The outputs to return: one name, or a list."""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vectors only."""


class Prediction(BaseModel):
    """The requested outputs of one image."""

    cls_token: list[float] | None = None
    patch_features: list[list[float]] | None = None


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's route, `/predict`."""
    routes = APIRouter(responses=errors_as(DetailSentence))
    default = service.default
    to_multiple = settings.predict_resize == "multiple"

    async def embedded(images: list[str], options: Options) -> Embeddings:
        try:
            return await service.embed([ImageInput(image) for image in images], options, field="image_data")
        except FixedSize as error:
            raise FixedSize(f"{error}: unset IEI_PREDICT_RESIZE") from None

    @routes.post(
        "/predict",
        summary="Embed images as LitServe's DINOv3 service does",
        openapi_extra=documented(PredictRequest, _examples(default)),
        response_model=Prediction | list[Prediction],
        include_in_schema=default.image is not None,
    )
    async def predict(request: Request) -> Response:
        """The requested outputs: an object for one image, a list of objects for a list. Vectors are not normalised."""
        body = await parsed(request, PredictRequest)
        one = isinstance(body.image_data, str)
        images = [body.image_data] if isinstance(body.image_data, str) else body.image_data
        wanted = list(dict.fromkeys(body.embedding_types))  # duplicates would be computed and sent again
        options = Options(
            model=model_of(request),
            outputs=tuple(_OUTPUTS[name] for name in wanted) or ("default",),
            normalize=False,
            resize_to_multiple=to_multiple,
            on_error=on_error(request, body.on_error),
        )
        embeddings = await embedded(images, options)
        results = [
            {name: item and orjson.Fragment(await json_list(item.outputs[_OUTPUTS[name]])) for name in wanted}
            for item in embeddings.items
        ]
        return json_response(orjson.dumps(results[0] if one else results), headers=result_headers(embeddings))

    return Dialect(
        "LitServe",
        as_detail,
        routes,
        prefix="/predict",
        about="Class tokens and patch features, as a LitServe service for DINOv3.",
    )


def _examples(spec: ModelSpec) -> dict[str, object]:
    offered = [name for name, output in _OUTPUTS.items() if spec.image and output in spec.image.outputs]
    return {
        "one image": {"image_data": SAMPLES["image"][0], "embedding_types": offered[:1]},
        "two images": {"image_data": SAMPLES["image"], "embedding_types": offered},
    }
