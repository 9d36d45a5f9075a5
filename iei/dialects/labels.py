"""Zero-shot classification of pictures, as Hugging Face's inference API has it: for the routes that offer it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from starlette.responses import Response

from iei.dialects.fields import ListOf, OrNull
from iei.dialects.items import ComparisonOptions
from iei.dialects.wire import json_list, json_response, result_headers
from iei.errors import EmptyInput, InvalidField
from iei.requests import ImageInput, TextInput, Vectors
from iei.service import EmbeddingService

TEMPLATE = "This is a photo of {}."
"""The sentence that transformers puts labels in."""


def _split(value: object) -> object:
    """`"a cat, a dog"` → `["a cat", "a dog"]`."""
    if not isinstance(value, str | list):
        raise ValueError("must be a list of strings, or one string with commas between the labels")
    return [label for part in value.split(",") if (label := part.strip())] if isinstance(value, str) else value


def _with_one_place(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("must have {} once, where the label goes")
    return template


class LabelParameters(ComparisonOptions):
    """The labels, and how they become texts."""

    candidate_labels: Annotated[ListOf[str], BeforeValidator(_split, json_schema_input_type=str | list[str])] | None = (
        None
    )
    """What the picture may show: a list, or one string with commas between the labels."""
    hypothesis_template: Annotated[
        # Short, because it is repeated for each label: a long one could fill the worker's memory.
        str, Field(max_length=1000), AfterValidator(_with_one_place), OrNull
    ] = TEMPLATE
    """The text for a label, which stands for `{}` in it."""


class Label(BaseModel):
    """One label of a picture."""

    label: str
    score: float


async def classified(
    service: EmbeddingService, pictures: str | Sequence[str], parameters: LabelParameters, model: str | None = None
) -> Response:
    """The answer to a request for labels: `Label`s, the best one first; for several pictures, a list of such lists.

    Args:
        service: computes the scores.
        pictures: base64, a data URI or a URL; or a list of these.
        parameters: as they were sent.
        model: the model that the request means; None for the default one.

    Raises:
        IEIError: as `EmbeddingService.compare` does; bad items have their names in the request.
    """
    labels = parameters.candidate_labels
    if not labels:
        raise InvalidField("parameters.candidate_labels: name at least one label", "parameters")
    one = isinstance(pictures, str)
    images = [pictures] if isinstance(pictures, str) else pictures
    if not images:
        raise EmptyInput("inputs is empty: send at least one image", "inputs")
    texts = [parameters.hypothesis_template.replace("{}", label) for label in labels]
    names = ["inputs"] if one else [f"inputs[{index}]" for index in range(len(images))]
    names += [f"parameters.candidate_labels[{index}]" for index in range(len(labels))]
    comparison = await service.compare(
        [ImageInput(image) for image in images],
        [TextInput(text) for text in texts],
        parameters.options(model=model),
        trained=True,
        field="inputs with parameters.candidate_labels",
        names=names,
    )
    assert comparison.probabilities is not None
    rows = _sorted(comparison.probabilities, labels)
    content = orjson.dumps(next(rows)) if one else await json_list(rows)
    return json_response(content, headers=result_headers(comparison.embeddings))


def _sorted(scores: Vectors, labels: Sequence[str]) -> Iterator[list[dict[str, object]]]:
    """For each row, what `Label` describes: the highest score first, and of equal ones the label that came first."""
    for row in scores:
        yield [{"label": labels[index], "score": float(row[index])} for index in np.argsort(-row, kind="stable")]
