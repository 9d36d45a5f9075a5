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

from iei.dialects.wire import SAMPLE, as_list, documented, json_list, json_response, parsed, timing_headers
from iei.errors import IEIError
from iei.service import Embedder, ImageInput, Options

EmbeddingType = Literal["cls_token", "patch_features"]

_OUTPUTS: dict[EmbeddingType, str] = {"cls_token": "cls", "patch_features": "patches"}
"""What this dialect calls an output → what it is."""


class PredictRequest(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    image_data: str | list[str]
    """An image as base64, a data URI or a URL; or a list of them."""
    embedding_types: Annotated[
        list[EmbeddingType], BeforeValidator(as_list, json_schema_input_type=EmbeddingType | list[EmbeddingType])
    ] = ["cls_token"]
    """What is wanted; one name may come without a list."""


def error_body(error: IEIError) -> bytes:
    return orjson.dumps({"detail": error.message})


def router(embedder: Embedder) -> APIRouter:
    routes = APIRouter(tags=["LitServe"])

    @routes.post("/predict", openapi_extra=documented(PredictRequest, _EXAMPLES))
    async def predict(request: Request) -> Response:
        """One object with what is wanted of an image, or a list of them for a list. Nothing is ever normalised."""
        body = await parsed(request, PredictRequest)
        one = isinstance(body.image_data, str)
        images = [body.image_data] if isinstance(body.image_data, str) else body.image_data
        if not body.embedding_types:
            return json_response(orjson.dumps({} if one else [{}] * len(images)))
        options = Options(
            outputs=tuple(_OUTPUTS[name] for name in body.embedding_types),
            normalize=False,
            resize_to_multiple=embedder.settings.predict_resize == "multiple",
        )
        embeddings = await embedder.embed([ImageInput(image) for image in images], options, field="image_data")
        results = [
            {name: orjson.Fragment(await json_list(item.outputs[_OUTPUTS[name]])) for name in body.embedding_types}
            for item in embeddings.items
        ]
        return json_response(orjson.dumps(results[0] if one else results), headers=timing_headers(embeddings))

    return routes


_EXAMPLES = {
    "the class token of an image": {"image_data": SAMPLE},
    "class token and patches of two images": {
        "image_data": [SAMPLE, SAMPLE],
        "embedding_types": ["cls_token", "patch_features"],
    },
}
