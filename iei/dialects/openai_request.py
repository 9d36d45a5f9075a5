"""The body of a request to `/v1/embeddings`: the fields of OpenAI's API, and those of other servers with this route.

Most of these fields mean the same under several names. Fields that mean nothing to IEI are ignored, as are unknown
ones; those that would change the answer and are not offered are refused. Wire format: docs/api/openai.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from iei.dialects.fields import AnyCase
from iei.dialects.items import TextOptions
from iei.dialects.openai_items import (
    Item,
    ObjectItem,
    OneOrMoreConversations,
    OneOrMoreItems,
    input_of_item,
)
from iei.dialects.partial import OnErrorField
from iei.dialects.prompts import prompts_for
from iei.dialects.token_ids import ReadIds, of_model
from iei.dialects.vectors import Encoding, encoded
from iei.errors import EmptyInput, InvalidField, InvalidInput
from iei.models.spec import Modality
from iei.requests import Input, Options, Unreadable, Vectors
from iei.vectors import Quantized, VectorDtype, quantized

T = TypeVar("T")


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


Form = Annotated[Literal[VectorDtype, "base64"], BeforeValidator(_first)]
"""A format of vectors: a type of numbers, or `base64`. Jina's clients also write it as a list of one."""


def _refused(value: bool | None) -> bool | None:
    if value:
        raise ValueError("is not offered here")
    return value


NotOffered = Annotated[bool | None, AfterValidator(_refused)]
"""A switch that must be off."""


class Written(NamedTuple):
    """How a response has its vectors."""

    dtype: VectorDtype
    encoding: Encoding

    def __call__(self, vectors: Vectors) -> Quantized | str:
        """The vectors as they are written. Raises InvalidInput: their length does not suit the type."""
        return encoded(quantized(vectors, self.dtype), self.encoding)


class Asked(NamedTuple):
    """The inputs of a request, and where they are in its body."""

    field: str
    inputs: list[Input]
    names: list[str]


class EmbeddingsRequest(TextOptions):
    """The body of a request to `/v1/embeddings`."""

    input: OneOrMoreItems | None = None
    """A text, the token ids of a text, or an image; or a list of these."""
    messages: OneOrMoreConversations | None = None
    """Instead of `input`, as vLLM: a conversation, which has one text or one image; or a list of conversations."""
    content: OneOrMoreItems | None = None
    """Instead of `input`, as llama.cpp. The response is a list in its format, and token ids are the model's own."""
    model: str | None = None
    """One of the names that /v1/models lists. Default: the first."""
    encoding_format: Encoding | None = None
    """Format of the vectors: numbers (the default), or base64 of little-endian numbers."""
    embedding_type: Form | None = None
    """Type or format of the numbers, as Jina: `float`, `int8`, `uint8`, `binary`, `ubinary`, `float16`, `base64`."""
    encoding_type: Form | None = None
    """The same as `embedding_type`."""
    output_dtype: Form | None = None
    """The same as `embedding_type`, as Voyage."""
    embed_dtype: Literal["float32", "float16"] | None = None
    """Type of the numbers, as vLLM."""
    endianness: Literal["native", "little"] | None = None
    """Order of the bytes in base64, as vLLM: always little-endian."""
    dimensions: int | None = Field(None, ge=0)
    """Truncate each vector to this many leading values, before it is normalised. 0: keep all."""
    output_dimension: int | None = Field(None, ge=0)
    """The same as `dimensions`, as Voyage."""
    normalized: bool | None = None
    """Whether vectors have length 1, as Jina. Default: true."""
    embd_normalize: Literal[-1, 2] | None = None
    """Whether vectors have length 1, as llama.cpp: 2, the default, is yes, -1 is no."""
    modality: Annotated[Modality, AnyCase] | None = None
    """How a model for both reads strings. Default: data URIs of images are images, other strings are texts."""
    truncation: bool | None = None
    """The same as `truncate`, as Voyage."""
    truncate_prompt_tokens: Literal[-1] | None = None
    """-1, as vLLM: truncate texts to the longest that the model accepts."""
    truncation_side: Annotated[Literal["left", "right"], AnyCase] | None = None
    """The same as `truncation_direction`, as vLLM."""
    input_type: str | None = None
    """`query`, `passage` or `document`: the model's prompt of that name is used, if it has one."""
    task: str | None = None
    """As `input_type`, in the words of Jina: `retrieval.query`, `retrieval.passage`, …"""
    on_error: OnErrorField = None
    """What a bad input costs: `fail`, the whole request (the default); `null`, its own vector only."""
    token_ids: Literal["model"] | None = None
    """`model`: token ids in `input` are of the model's own tokenizer. Default: IEI_TOKEN_IDS."""
    late_chunking: NotOffered = None
    return_multivector: NotOffered = None
    return_tokenized_input: NotOffered = None

    @property
    def is_imbeddings(self) -> bool:
        """Whether the inputs are image objects of Imbeddings.

        Raises:
            InvalidField: some are, and others are not.
        """
        if self.content is not None:
            return False
        found = {isinstance(item, ObjectItem) and item.is_imbeddings for _, item in self.items}
        if len(found) > 1:
            raise InvalidField(
                "input: objects of image_url or image_base64 alone are answered with two vectors each, so they can't "
                'be mixed with other items: write them as {"image": …}',
                "input",
            )
        return found == {True}

    @property
    def written(self) -> Written:
        """How the response has its vectors.

        Raises:
            InvalidField: two fields name different types of numbers.
        """
        forms = (self.encoding_format, self.embedding_type, self.encoding_type, self.output_dtype)
        dtypes: set[Any] = {*forms, _DTYPES.get(self.embed_dtype)} - {None, "float", "base64"}
        if len(dtypes) > 1:
            raise InvalidField(
                f"{' and '.join(sorted(dtypes))} can't both be the type of the vectors", "embedding_type"
            )
        return Written(dtypes.pop() if dtypes else "float", "base64" if "base64" in forms else "float")

    def asked(self, read_ids: ReadIds) -> Asked:
        """The inputs.

        Args:
            read_ids: reads token ids, unless the request says what they are.

        Raises:
            InvalidField: there is none of `input`, `messages` and `content`, or several; or token ids are not accepted.
        """
        field = self._field
        if self.token_ids == "model" or field == "content":
            read_ids = of_model
        inputs: list[Input] = []
        for _, item in self.items:
            try:
                inputs.append(input_of_item(item, self.modality, read_ids))
            except (EmptyInput, InvalidInput) as error:
                inputs.append(Unreadable(error))
        return Asked(field, inputs, [name for name, _ in self.items])

    def options(self, **others: Any) -> Options:
        """What the request says of its inputs, besides its model.

        Args:
            **others: further fields of `Options`.

        Raises:
            InvalidField: two fields contradict each other.
        """
        dimensions = {self.dimensions, self.output_dimension} - {None, 0}
        if len(dimensions) > 1:
            raise InvalidField("dimensions and output_dimension differ", "dimensions")
        texts = TextOptions(
            truncate=_given(self.truncate, self.truncation, self.truncate_prompt_tokens and True),
            truncation_direction=self.truncation_direction or self.truncation_side,
            prompt_name=self.prompt_name,
        )
        return texts.options(
            normalize=self.normalized is not False and self.embd_normalize != -1,
            dimensions=dimensions.pop() if dimensions else None,
            prompt_hints=prompts_for(self.input_type or self.task),
            **others,
        )

    @property
    def _field(self) -> str:
        """The field that has the inputs."""
        given = [name for name in ("input", "messages", "content") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidField("must have exactly one of input, messages and content", "input")
        return given[0]

    @cached_property
    def items(self) -> list[tuple[str, Item]]:
        """The inputs in the forms in which they were sent, each with its place in the body.

        Raises:
            InvalidField: there is none of `input`, `messages` and `content`, or several.
        """
        field = self._field
        value = getattr(self, field)
        if isinstance(value, list) and not (value and isinstance(value[0], int)):
            return [(f"{field}[{index}]", item) for index, item in enumerate(value)]
        return [(field, value)]


def _given(*values: T | None) -> T | None:
    """The first of `values` that is not None."""
    return next((value for value in values if value is not None), None)


_DTYPES: Mapping[str | None, VectorDtype] = {"float16": "float16"}
"""vLLM's name of a type → IEI's, of types other than float32."""
