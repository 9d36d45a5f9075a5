"""`POST /predict` as immich's server calls its machine-learning service: CLIP for smart search, in forms.

Requests in JSON on the same path are LitServe's. Wire format: docs/api/immich.md.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import suppress

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.json_size import JsonLimits
from iei.dialects.media import MULTIPART, takes
from iei.dialects.multipart import Form, form_of
from iei.dialects.partial import ONE_INPUT, check_whole
from iei.dialects.plain_errors import as_detail
from iei.dialects.registry import Dialect
from iei.dialects.upstream import Upstream
from iei.dialects.wire import json_limits, json_response, result_headers, validated
from iei.errors import EmptyInput, InvalidField, InvalidInput, MalformedBody, ModelNotFound
from iei.models.immich import IMMICH_MODELS, clean_name
from iei.models.spec import ModelSpec
from iei.requests import Embedding, ImageInput, Options, TextInput
from iei.service import EmbeddingService
from iei.settings import DialectSettings

OUTPUT = "pooler"
"""The vector of a model with two sides that lies in the space that they share."""

CANONICAL = ("siglip",)
"""Types of models whose texts immich lower-cases and strips of ASCII punctuation: in open_clip's configurations of
SigLIP and SigLIP 2, `tokenizer_kwargs` has `"clean": "canonicalize"`."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Model(BaseModel):
    """Which model a task is for. immich's `options` of CLIP have only a language, for models that IEI does not load."""

    name: str = Field(alias="modelName", min_length=1)


class Clip(BaseModel):
    """The two sides of CLIP. immich asks for one of them."""

    visual: Model | None = None
    textual: Model | None = None


class Entries(BaseModel):
    """The form's field `entries`. Tasks other than CLIP are extra fields."""

    model_config = ConfigDict(extra="allow")

    clip: Clip | None = None


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's route: forms at `/predict`."""
    routes = APIRouter(route_class=takes(MULTIPART), include_in_schema=False)
    url = settings.immich_upstream
    upstream = Upstream(url, "IEI_IMMICH_UPSTREAM") if url else None

    async def embedded(request: Request, model: Model, item: ImageInput | TextInput, field: str) -> Response:
        check_whole(request, ONE_INPUT)
        name = served_name(model.name, service.resolve)
        spec = await service.describe(name)
        _check_length(spec, model.name, item)
        if isinstance(item, TextInput):
            item = TextInput(cleaned(str(item.source), spec.model_type))
        options = Options(model=name, outputs=(OUTPUT,), normalize=True, truncate=True)
        embeddings = await service.embed([item], options, names=(field,))
        return json_response(_answer(embeddings.done[0]), headers=result_headers(embeddings))

    @routes.post("/predict")
    async def predict(request: Request) -> Response:
        """The vector of an image or a text. What is not CLIP is answered by immich's own service, if there is one."""
        await request.body()  # kept, so that it can be sent on as it came
        form = await form_of(request, max_files=1)
        entries = await _entries(form, json_limits(request))
        if entries.model_extra:
            if upstream:
                return await upstream.answer(request)
            raise InvalidField(
                f"this server computes no {', '.join(sorted(entries.model_extra))[:100]}: name immich's own "
                "machine-learning service in IEI_IMMICH_UPSTREAM, or turn these jobs off in immich",
                "entries",
            )
        clip = entries.clip or Clip()
        if not (clip.visual or clip.textual):
            raise InvalidField("entries: no model task requested", "entries")
        text = form.fields.get("text")
        if form.files:
            if not form.files[0].data:
                raise EmptyInput("image: is empty", "image")
            return await embedded(
                request, _asked(clip.visual, "visual", "image"), ImageInput(form.files[0].data), "image"
            )
        if text:
            return await embedded(request, _asked(clip.textual, "textual", "text"), TextInput(text), "text")
        raise InvalidInput("either image or text must be provided")

    return Dialect("immich", as_detail, routes, about="Smart search of immich: its machine-learning service.")


def served_name(name: str, resolve: Callable[[str], str]) -> str:
    """The served name of the model that immich calls `name`: that very name, or else that of the same model of the hub.

    Args:
        name: the model's name in immich's settings.
        resolve: a name or hub id → the served name. Raises ModelNotFound.

    Raises:
        ModelNotFound: it is not served here. The message says which setting would serve it.
    """
    known_as = clean_name(name)
    known = IMMICH_MODELS.get(known_as)
    for candidate in filter(None, (known_as, known and known.hub_id)):
        with suppress(ModelNotFound):
            return resolve(candidate)
    if known is None:
        return resolve(name)
    if known.hub_id:
        raise ModelNotFound(f"model {known_as!r} is not served here: set IEI_MODELS={known_as}={known.hub_id}")
    raise ModelNotFound(
        f"model {known_as!r} is not served here, and IEI can't load it from the hub: choose another one in immich "
        "(docs/api/immich.md has the list)"
    )


def cleaned(text: str, model_type: str) -> str:
    """`text` as immich's service gives it to the tokenizer of a model of this type.

    A text of nothing but punctuation stays as it is: IEI embeds no empty texts.
    """
    text = " ".join(text.split())
    if model_type in CANONICAL:
        return text.translate(_PUNCTUATION).lower() or text
    return text


async def _entries(form: Form, limits: JsonLimits) -> Entries:
    try:
        return await validated(form.fields.get("entries", "").encode(), Entries, limits)
    except MalformedBody:
        raise InvalidField("entries: is missing, or is not JSON", "entries") from None


def _asked(model: Model | None, side: str, part: str) -> Model:
    if model is None:
        raise InvalidInput(f"the form has the part {part}, but its entries have no clip.{side}", "entries")
    return model


def _check_length(spec: ModelSpec, name: str, item: ImageInput | TextInput) -> None:
    """Refuses vectors that would not fit in immich's database."""
    known = IMMICH_MODELS.get(clean_name(name))
    tower = spec.tower_for("image" if isinstance(item, ImageInput) else "text")
    length = tower.outputs.get(OUTPUT) if tower else None
    if known and length is not None and length != known.dim:
        raise InvalidField(
            f"immich has a column of {known.dim} values for {name!r}, but the model that is served for it "
            f"({spec.name}) gives {length}: serve the model that immich means by that name",
            "entries",
        )


def _answer(embedding: Embedding) -> bytes:
    """The vector as a string of JSON, as immich's server passes it on to its database."""
    vector = orjson.dumps(embedding.vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    size = embedding.picture
    sizes = {"imageHeight": size.height, "imageWidth": size.width} if size else {}
    return orjson.dumps({"clip": vector, **sizes})
