"""`{"instances": […]}` → `{"predictions": […]}`: KServe V1, TensorFlow Serving's REST API and Vertex AI.

Wire format: docs/api/instances.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.fields import ListOf, OrNull, Strings
from iei.dialects.items import EmbedOptions, input_of
from iei.dialects.openapi import SAMPLES, documented, errors_as, in_path
from iei.dialects.partial import error_headers, errors_of, on_error
from iei.dialects.plain_errors import BadSentence, ErrorSentence, as_error
from iei.dialects.registry import Dialect
from iei.dialects.wire import json_list, json_response, model_of, one_kind_of_fault, parsed, result_headers
from iei.errors import EmptyInput, IEIError, InvalidInput, ModelNotFound, Unhealthy
from iei.models.spec import ModelSpec
from iei.requests import ImageInput, Input, Options, TextInput, Vectors
from iei.service import EmbeddingService
from iei.settings import DialectSettings

T = TypeVar("T")

VERSION = "1"
"""The version of every model. TensorFlow Serving has versions in its paths; here a model's revision is a setting."""


class Parameters(EmbedOptions):
    """Options of all instances of a request."""

    dimension: int | None = Field(default=None, ge=1)
    """Google's name of `dimensions`. A request with it is answered as Google's multimodal embeddings are."""


class EncodedImage(BaseModel):
    """An image: `b64` as in TensorFlow Serving, or `bytesBase64Encoded` as in Google's multimodal embeddings."""

    b64: str | None = None
    google: str | None = Field(default=None, alias="bytesBase64Encoded")

    @model_validator(mode="after")
    def _has_one_source(self) -> EncodedImage:
        if (self.b64 is None) == (self.google is None):
            raise ValueError("must have exactly one of b64 and bytesBase64Encoded (Cloud Storage is not read)")
        return self

    @property
    def source(self) -> str:
        """The value of the field that is set."""
        return self.b64 or self.google or ""


def _as_object(value: object) -> object:
    return {"b64": value} if isinstance(value, str) else value


Image = Annotated[EncodedImage, BeforeValidator(_as_object, json_schema_input_type=str | EncodedImage)]
"""An image as an object, or as a string: base64, a data URI or a URL."""


class ObjectInstance(BaseModel):
    """An image or a text under one of the names that clients use; or both, as in Google's multimodal embeddings."""

    b64: str | None = None
    image: Image | None = None
    image_bytes: Image | None = None
    data: Image | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> ObjectInstance:
        given = [name for name in ObjectInstance.model_fields if getattr(self, name) is not None]
        if len(given) != 1 and not (given == ["image", "text"] and self.is_google):
            raise ValueError(
                "must have exactly one of b64, image, image_bytes, data, text and inputs; or a text and an image with "
                "bytesBase64Encoded"
            )
        return self

    @property
    def is_google(self) -> bool:
        """Whether only Google's multimodal embeddings have such instances."""
        return self.image is not None and self.image.google is not None

    @property
    def picture(self) -> ImageInput | None:
        """The image, if the instance has one."""
        if self.b64 is not None:
            return ImageInput(self.b64)
        image = self.image or self.image_bytes or self.data
        return ImageInput(image.source) if image else None


class EmbedInstance(EmbedOptions):
    """The body of a request to `/embed`, as text-embeddings-inference takes it on Vertex AI."""

    inputs: Strings
    """An image (base64, data URI or URL) or a text, or a list of these."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> EmbedInstance:
        if not self.inputs:
            raise ValueError("inputs is empty: send at least one item")
        return self


def _tag(value: object) -> str | None:
    if isinstance(value, dict):
        return "<embed>" if "inputs" in value else "<object>"
    return "<string>" if isinstance(value, str) else None


Instance = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[ObjectInstance, Tag("<object>")]
    | Annotated[EmbedInstance, Tag("<embed>")],
    Discriminator(
        _tag,
        custom_error_type="instance",
        custom_error_message="must be a string or an object; images are sent as encoded files, not as pixels",
    ),
]


class PredictRequest(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    instances: ListOf[Instance]
    """Images and texts: strings (as at `/embed`), or objects."""
    parameters: Annotated[Parameters, OrNull] = Parameters()
    """Options of all instances. An instance with `inputs` may have its own, which count before these."""


class MultimodalPrediction(BaseModel):
    """The vectors of an instance of Google's multimodal embeddings."""

    textEmbedding: list[float] | None = None
    imageEmbedding: list[float] | None = None


class PredictResponse(BaseModel):
    """The body of a response."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    predictions: list[list[float] | list[list[float] | None] | MultimodalPrediction | None]
    """In the order of the instances: a vector, a list of vectors for one with `inputs`, or an object as Google's."""
    errors: list[BadSentence] | None = None
    """Inputs without a vector, by the index of their instance, where the request has `on_error: null`."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. With Vertex AI's settings there are two more."""
    health = _health_router(service, settings.vertex_health_route) if settings.vertex_health_route else None
    return Dialect(
        "KServe V1 and Vertex AI",
        as_error,
        _router(service, settings.vertex_predict_route),
        health,
        about="Instances → predictions: KServe V1, TensorFlow Serving and Vertex AI.",
    )


def _health_router(service: EmbeddingService, path: str) -> APIRouter:
    routes = APIRouter(responses=errors_as(ErrorSentence))

    @routes.get(path, include_in_schema=False)
    async def vertex_health() -> dict[str, bool]:
        """Readiness, where Vertex AI asks for it."""
        if not service.ready:
            raise Unhealthy("the engine is not ready (yet), or the server stops")
        return {"ready": True}

    return routes


def _router(service: EmbeddingService, vertex_route: str | None) -> APIRouter:
    routes = APIRouter(responses=errors_as(ErrorSentence))
    body = documented(PredictRequest, _examples(service.default))
    path = in_path(service.default.name)

    # `{model:path}` also matches slashes, so the longer paths must be tried first.
    @routes.post(
        "/v1/models/{model:path}/versions/{version}:predict",
        summary="Embed images and texts as TensorFlow Serving does, with a version",
        openapi_extra=body,
        response_model=PredictResponse,
    )
    async def predict_version(request: Request, model: str = path, version: str = in_path(VERSION)) -> Response:
        """As `/v1/models/{model}:predict`, for clients of TensorFlow Serving. Every model has the one version `1`."""
        if version != VERSION:
            raise ModelNotFound(f"model {model[:100]!r} has only version {VERSION}, not {version[:100]!r}")
        return await _predicted(service, model, request)

    @routes.post("/v1/models/{model:path}/labels/{label}:predict", include_in_schema=False)
    async def predict_label(request: Request, model: str, label: str) -> Response:
        """A label names a version, of which there is only one."""
        return await _predicted(service, model, request)

    @routes.post(
        "/v1/models/{model:path}:predict",
        summary="Embed images and texts as KServe V1 and TensorFlow Serving do",
        openapi_extra=body,
        response_model=PredictResponse,
    )
    async def predict(request: Request, model: str = path) -> Response:
        """One prediction for each instance: KServe V1, and TensorFlow Serving's row format."""
        return await _predicted(service, model, request)

    @routes.post(
        "/vertex",
        summary="Embed images and texts as Vertex AI asks",
        openapi_extra=body,
        response_model=PredictResponse,
    )
    async def vertex(request: Request) -> Response:
        """One prediction for each instance, by the first model: Vertex AI, as text-embeddings-inference serves it."""
        return await _predicted(service, model_of(request), request)

    if vertex_route:
        routes.add_api_route(vertex_route, vertex, methods=["POST"], include_in_schema=False)
    return routes


@dataclass(frozen=True)
class _Wanted:
    """What is to be computed for an instance, and how its vectors become a prediction."""

    options: Options
    inputs: Mapping[str, Input]
    """What to add to the name of the instance, to name the input in errors → the input."""
    prediction: Callable[[Sequence[Vectors | None]], object]


async def _predicted(service: EmbeddingService, model: str | None, request: Request) -> Response:
    with one_kind_of_fault():
        body = await parsed(request, PredictRequest)
        service.resolve(model)
        body.parameters.on_error = on_error(request, body.parameters.on_error)
        wanted = _read(body, model)
        if not wanted:
            raise EmptyInput("instances is empty: send at least one", "instances")
        count = sum(len(each.inputs) for each in wanted)
        if count > service.max_inputs:
            raise InvalidInput(
                f"instances have {count} inputs, over the limit of {service.max_inputs} (IEI_MAX_INPUTS)"
            )
        return await _computed(service, wanted)


async def _computed(service: EmbeddingService, wanted: Sequence[_Wanted]) -> Response:
    """All predictions. Instances with equal options, mostly all of them, are computed together."""
    groups: dict[Options, list[int]] = {}
    for index, each in enumerate(wanted):
        groups.setdefault(each.options, []).append(index)
    predictions: dict[int, object] = {}
    errors: list[tuple[int, IEIError]] = []
    headers: Mapping[str, str] = {}
    for options, members in groups.items():
        inputs = {f"instances[{at}]{place}": one for at in members for place, one in wanted[at].inputs.items()}
        embeddings = await service.embed([*inputs.values()], options, field="instances", names=[*inputs])
        vectors = iter(embeddings.vectors)
        for at in members:
            prediction = wanted[at].prediction([next(vectors) for _ in wanted[at].inputs])
            predictions[at] = (
                orjson.Fragment(await json_list(prediction)) if isinstance(prediction, list) else prediction
            )
        places = [at for at in members for _ in wanted[at].inputs]
        errors += [(places[index], error) for index, error in embeddings.errors.items()]
        headers = result_headers(embeddings)
    errors.sort(key=itemgetter(0))
    written = await json_list(predictions[at] for at in range(len(wanted)))
    content = orjson.dumps({"predictions": orjson.Fragment(written), **errors_of(errors, as_error)})
    return json_response(content, headers={**(headers if len(groups) == 1 else {}), **error_headers(errors)})


def _read(body: PredictRequest, model: str | None) -> list[_Wanted]:
    """What the instances of a request stand for.

    One that is only a text is ambiguous: Google's, if anything else in the request is.
    """
    google = body.parameters.dimension is not None or any(
        isinstance(item, ObjectInstance) and item.is_google for item in body.instances
    )
    plain = _options(body.parameters, model)
    multimodal = _options(body.parameters, model, normalize=True)
    return [_of(item, body.parameters, plain, multimodal if google else None) for item in body.instances]


def _of(item: Any, parameters: Parameters, plain: Options, multimodal: Options | None) -> _Wanted:
    if isinstance(item, str):
        return _Wanted(plain, {"": input_of(item, parameters.modality)}, _alone)
    if isinstance(item, EmbedInstance):
        given = {name: value for name, value in item if value is not None and name != "inputs"}
        own = parameters.model_copy(update=given)
        inputs = {f".inputs[{at}]": input_of(one, own.modality) for at, one in enumerate(item.inputs)}
        return _Wanted(_options(own, plain.model), inputs, list)
    named: dict[str, Input] = {} if item.text is None else {".text": TextInput(item.text)}
    if picture := item.picture:
        named[".image"] = picture
    if multimodal is None:
        return _Wanted(plain, {"": _alone([*named.values()])}, _alone)
    names = [_GOOGLE[place] for place in named]
    return _Wanted(multimodal, named, lambda vectors: dict(zip(names, vectors, strict=True)))


_GOOGLE: Mapping[str, Literal["textEmbedding", "imageEmbedding"]] = {
    ".text": "textEmbedding",
    ".image": "imageEmbedding",
}


def _alone(items: Sequence[T]) -> T:
    (item,) = items
    return item


def _options(given: Parameters, model: str | None, normalize: bool | None = None) -> Options:
    """`given` as the options of a request. `normalize` counts where they don't say."""
    return given.options(
        model=model,
        outputs=(given.pooling or "default",),
        normalize=given.normalize if given.normalize is not None else normalize,
        dimensions=given.dimensions or given.dimension,
        on_error=given.on_error or "fail",
    )


def _examples(spec: ModelSpec) -> dict[str, object]:
    examples: dict[str, object] = {
        f"two {modality}s": {"instances": list(SAMPLES[modality])} for modality in spec.modalities
    }
    first = SAMPLES[spec.modalities[0]][0]
    examples["vectors of length 1, of 8 values"] = {
        "instances": [first],
        "parameters": {"normalize": True, "dimensions": 8},
    }
    examples["as text-embeddings-inference takes it on Vertex AI"] = {
        "instances": [{"inputs": list(SAMPLES[spec.modalities[0]]), "normalize": True}]
    }
    if spec.image:
        picture = SAMPLES["image"][0].partition(",")[2]
        examples["an image, as in TensorFlow Serving"] = {"instances": [{"b64": picture}]}
        instance = {"image": {"bytesBase64Encoded": picture}, **({"text": SAMPLES["text"][0]} if spec.text else {})}
        examples["as in Google's multimodal embeddings"] = {"instances": [instance]}
    return examples
