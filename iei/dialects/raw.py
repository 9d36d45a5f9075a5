"""Image files as they are, on the routes of IEI: one as the body, or several in a form.

Wire format: docs/api/raw.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from iei.dialects.accept import accepted, vectors_response
from iei.dialects.items import VectorOptions
from iei.dialects.media import IMAGES, MULTIPART, takes
from iei.dialects.multipart import File, form_of
from iei.dialects.partial import on_error
from iei.dialects.registry import Dialect
from iei.dialects.tei_errors import error_body
from iei.dialects.wire import media_type, model_of, validated_strings
from iei.errors import EmptyInput
from iei.requests import ImageInput, Options
from iei.service import EmbeddingService
from iei.settings import DialectSettings

BODY = "the body"
"""What errors call an image that is the whole body."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """Routes for bodies that are image files. `/docs` shows these bodies with the routes of iei.dialects.tei."""
    routes = APIRouter(route_class=takes(*IMAGES, MULTIPART), include_in_schema=False)

    async def embedded(request: Request, row_output: str | None = None) -> Response:
        form = accepted(request)
        files, fields = await _files(request, service.max_inputs)
        wanted = validated_strings({**request.query_params, **fields}, VectorOptions)
        options = Options(
            model=model_of(request),
            outputs=(row_output or wanted.pooling or "default",),
            normalize=wanted.normalize,
            dimensions=wanted.dimensions,
            on_error=on_error(request, wanted.on_error),
        )
        inputs = [ImageInput(file.data) for file in files]
        return await vectors_response(service, inputs, options, form, field="files", names=_names(files))

    @routes.post("/embed")
    @routes.post("/")
    @routes.post("/invocations")
    async def embed(request: Request) -> Response:
        """One vector per file, in their order."""
        return await embedded(request)

    @routes.post("/embed_all")
    async def embed_all(request: Request) -> Response:
        """One vector for each patch of each file."""
        return await embedded(request, "tokens")

    return Dialect(
        "Image files", error_body, routes, about="Image files as bodies or in forms, without JSON and base64."
    )


async def _files(request: Request, max_files: int) -> tuple[list[File], Mapping[str, str]]:
    """The files of a request, and the fields of a form."""
    if media_type(request) != MULTIPART:
        data = await request.body()
        if not data:
            raise EmptyInput("the body is empty: send an image file")
        return [File(BODY, "", data)], {}
    form = await form_of(request, max_files=max_files)
    if not form.files:
        raise EmptyInput("the form has no file: send each image as a part with a filename (curl -F image=@cat.jpg)")
    return form.files, form.fields


def _names(files: Sequence[File]) -> list[str]:
    """What errors call each file: its field, numbered where several have one, and its filename."""
    seen: Counter[str] = Counter()
    several = Counter(file.field for file in files)
    names = []
    for file in files:
        name = f"{file.field}[{seen[file.field]}]" if several[file.field] > 1 else file.field
        seen[file.field] += 1
        names.append(f"{name} ({file.filename[:60]})" if file.filename else name)
    return names
