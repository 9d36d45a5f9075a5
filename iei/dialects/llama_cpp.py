"""What llama.cpp's server has besides OpenAI's routes: `/embedding`, in its own format, and `/props`.

`/embeddings` with `content` is also llama.cpp's. OpenAI's dialect serves it, as it has that route. Wire format:
docs/api/llama-cpp.md.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from iei import __version__
from iei.dialects.openai_answers import Answers, IndexedVectors
from iei.dialects.openai_errors import EmbeddingsError, error_body
from iei.dialects.openai_request import EmbeddingsRequest
from iei.dialects.openapi import SAMPLES, documented, errors_as
from iei.dialects.registry import Dialect
from iei.dialects.token_ids import of_model
from iei.dialects.wire import model_of, one_kind_of_fault, parsed
from iei.models.catalog import served_name
from iei.models.spec import ModelSpec
from iei.service import EmbeddingService
from iei.settings import DialectSettings

MEDIA_MARKER = "<__media__>"
"""What stands for an image in a `prompt_string`. llama.cpp's own default; its clients ask for it at `/props`."""


def dialect(service: EmbeddingService, settings: DialectSettings) -> Dialect:
    """The dialect's routes. It has no settings."""
    routes = APIRouter(responses=errors_as(EmbeddingsError))
    answers = Answers(service, of_model)

    @routes.post(
        "/embedding",
        summary="Embed texts as llama.cpp's server does",
        openapi_extra=documented(EmbeddingsRequest, _examples(service.default)),
        response_model=list[IndexedVectors],
    )
    async def embedding(request: Request) -> Response:
        """One vector for each input, in a list of one, as llama.cpp has it without OpenAI's API."""
        with one_kind_of_fault():
            return await answers.indexed_vectors(request, await parsed(request, EmbeddingsRequest))

    @routes.get("/props", summary="Describe the model as llama.cpp's server does")
    async def props(request: Request, model: str | None = None) -> dict[str, Any]:
        """What clients ask before they send images: the marker for them, and what the model accepts."""
        with one_kind_of_fault():
            spec = await service.describe(model_of(request, model))
        return {
            "media_marker": MEDIA_MARKER,
            "modalities": {"vision": spec.image is not None, "audio": False},
            "model_alias": spec.name,
            "model_path": served_name(spec.id),
            "default_generation_settings": {"n_ctx": spec.text.max_tokens if spec.text else 0},
            "chat_template": "",
            "build_info": f"iei-{__version__}",
        }

    return Dialect("llama.cpp", error_body, routes, about="Embeddings as llama.cpp's server, for Frigate and others.")


def _examples(spec: ModelSpec) -> dict[str, object]:
    forms: dict[str, object] = {
        "image": {"prompt_string": MEDIA_MARKER, "multimodal_data": [SAMPLES["image"][0].partition(",")[2]]},
        "text": {"prompt_string": SAMPLES["text"][0]},
    }
    return {f"one {modality}": {"model": spec.name, "content": [forms[modality]]} for modality in spec.modalities}
