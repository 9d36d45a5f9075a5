"""Cohere's embed API with Cohere's own client, and with clients of others that are built on it or speak as it does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, jpeg, photo, png
from tests.servers import ROOT, Server

if TYPE_CHECKING:
    import cohere

TEXTS = ["A cat sits on a mat", "A kitten is lying on a rug", "Shares fell sharply on Monday"]
FILES = [jpeg(name="chelsea"), png(name="coffee")]
IMAGES = [data_uri(FILES[0]), data_uri(FILES[1], "image/png")]
SIZES = [(500, 375), (64, 48)]
DIM = 384
"""Of minilm."""


@pytest.fixture(scope="module", autouse=True)
def _package() -> None:
    pytest.importorskip("cohere", reason="needs the clients group: uv sync --group clients")


@pytest.fixture(scope="module")
def v2(text_server: Server) -> Iterator[cohere.ClientV2]:
    import cohere

    with cohere.ClientV2(api_key="none", base_url=text_server.url, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def v1(text_server: Server) -> Iterator[cohere.Client]:
    import cohere

    with cohere.Client(api_key="none", base_url=text_server.url, max_retries=0) as client:
        yield client


def embedded(server: Server, model: str, inputs: list[str], **fields: Any) -> np.ndarray:
    """Vectors of `/embed`."""
    url = f"{server.url}/m/{model}/embed"
    answer = httpx.post(url, json={"inputs": inputs, "normalize": True, **fields}, timeout=60)
    answer.raise_for_status()
    return np.array(answer.json(), np.float32)


def assert_close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(found, np.float32), expected, atol=1e-5)


def test_texts(text_server: Server, v2: cohere.ClientV2) -> None:
    answer = v2.embed(model="minilm", input_type="search_document", texts=TEXTS)
    assert answer.embeddings.float_ is not None
    assert_close(answer.embeddings.float_, embedded(text_server, "minilm", TEXTS))
    assert answer.embeddings.int8 is None
    assert (answer.texts, answer.images, answer.response_type) == (TEXTS, None, "embeddings_by_type")
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.input_tokens == sum(
        len(tokens) for tokens in httpx.post(f"{text_server.url}/m/minilm/tokenize", json={"inputs": TEXTS}).json()
    )
    assert answer.meta.billed_units.images is None
    cosines = np.array(answer.embeddings.float_) @ np.array(answer.embeddings.float_[0])
    assert cosines[1] > cosines[2] + 0.2


def test_images_as_data_uris_and_as_base64(text_server: Server, v2: cohere.ClientV2) -> None:
    answer = v2.embed(model="clip", input_type="image", images=[*IMAGES, base64_of(FILES[0])])
    expected = embedded(text_server, "clip", IMAGES)
    assert_close(answer.embeddings.float_, expected[[0, 1, 0]])
    assert answer.texts == []
    assert answer.images is not None
    assert [(image.width, image.height) for image in answer.images] == [*SIZES, SIZES[0]]
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert (answer.meta.billed_units.images, answer.meta.billed_units.input_tokens) == (3, None)


def test_inputs_of_both_kinds(text_server: Server, v2: cohere.ClientV2) -> None:
    import cohere

    def text(text: str) -> cohere.TextEmbedContent:
        return cohere.TextEmbedContent(text=text)

    def image(url: str) -> cohere.ImageUrlEmbedContent:
        return cohere.ImageUrlEmbedContent(image_url=cohere.EmbedImageUrl(url=url))

    inputs = [
        cohere.EmbedInput(content=[image(IMAGES[1])]),
        cohere.EmbedInput(content=[text(TEXTS[0])]),
        cohere.EmbedInput(content=[text(""), image(IMAGES[0])]),
    ]
    answer = v2.embed(model="clip", input_type="search_document", inputs=inputs, embedding_types=["float"])
    assert_close(answer.embeddings.float_, embedded(text_server, "clip", [IMAGES[1], TEXTS[0], IMAGES[0]]))
    assert answer.texts == [TEXTS[0]]
    assert answer.images is not None
    assert [image.width for image in answer.images] == [64, 500]
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.images == 2
    mixed = cohere.EmbedInput(content=[text(TEXTS[0]), image(IMAGES[0])])
    with pytest.raises(cohere.BadRequestError, match=r"inputs\[1\]: content: has 2 parts"):
        v2.embed(model="clip", input_type="search_document", inputs=[inputs[0], mixed])


def test_all_types_at_once(text_server: Server, v2: cohere.ClientV2) -> None:
    types: list[cohere.EmbeddingType] = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    found = v2.embed(model="minilm", input_type="search_query", texts=TEXTS, embedding_types=types).embeddings
    expected = embedded(text_server, "minilm", TEXTS)
    assert_close(found.float_, expected)
    assert found.base64 is not None
    assert_close([np.frombuffer(base64.b64decode(vector), "<f4") for vector in found.base64], expected)
    levels = np.rint(expected / np.abs(expected).max(axis=1, keepdims=True) * 127)
    assert np.abs(np.array(found.int8) - levels).max() <= 1  # which may have been between two levels
    assert (np.array(found.uint8) == np.array(found.int8) + 128).all()
    signs = np.unpackbits(np.array(found.ubinary, np.uint8), axis=1)
    assert (signs == (expected >= 0)).all()
    assert (np.array(found.binary) == np.array(found.ubinary) - 128).all()
    assert np.array(found.binary).shape == (len(TEXTS), DIM // 8)


def test_dimensions_are_cut_before_normalising(text_server: Server, v2: cohere.ClientV2) -> None:
    answer = v2.embed(model="minilm", input_type="clustering", texts=TEXTS, output_dimension=64, max_tokens=9)
    assert_close(answer.embeddings.float_, embedded(text_server, "minilm", TEXTS, dimensions=64))


def test_long_texts_are_truncated_unless_told_otherwise(text_server: Server, v2: cohere.ClientV2) -> None:
    import cohere

    long = "one two three four " * 200
    for truncate, direction in (("END", "right"), ("START", "left")):
        found = v2.embed(model="minilm", input_type="search_query", texts=[long], truncate=truncate).embeddings
        assert_close(
            found.float_,
            embedded(text_server, "minilm", [long], truncate=True, truncation_direction=direction),
        )
    default = v2.embed(model="minilm", input_type="search_query", texts=[long]).embeddings
    assert_close(default.float_, embedded(text_server, "minilm", [long], truncate=True))
    with pytest.raises(cohere.BadRequestError, match=r"texts\[1\]: has \d+ tokens, over the model's limit"):
        v2.embed(model="minilm", input_type="search_query", texts=["short", long], truncate="NONE")


def test_version_1_without_types(text_server: Server, v1: cohere.Client) -> None:
    """Without a model, too: the first one."""
    answer = v1.embed(texts=TEXTS)
    assert answer.response_type == "embeddings_floats"
    assert_close(answer.embeddings, embedded(text_server, "clip", TEXTS))
    assert answer.texts == TEXTS
    images = v1.embed(model="clip", images=IMAGES, input_type="image")
    assert images.response_type == "embeddings_floats"
    assert_close(images.embeddings, embedded(text_server, "clip", IMAGES))
    assert images.texts == []


def test_version_1_with_types(text_server: Server, v1: cohere.Client) -> None:
    answer = v1.embed(model="minilm", texts=TEXTS, input_type="search_query", embedding_types=["int8", "float"])
    assert answer.response_type == "embeddings_by_type"
    assert_close(answer.embeddings.float_, embedded(text_server, "minilm", TEXTS))
    assert np.abs(np.array(answer.embeddings.int8)).max(axis=1).tolist() == [127] * 3
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "1"


@pytest.mark.parametrize("types", [None, ["float", "ubinary"]])
def test_97_texts_are_sent_in_two_requests_and_merged(
    text_server: Server, v1: cohere.Client, types: list[cohere.EmbeddingType] | None
) -> None:
    texts = [f"text number {number}" for number in range(97)]
    answer = v1.embed(model="minilm", texts=texts, input_type="search_document", **_only(embedding_types=types))
    found: Any = answer.embeddings.float_ if answer.response_type == "embeddings_by_type" else answer.embeddings
    assert_close(found, embedded(text_server, "minilm", texts))
    assert answer.texts == texts
    assert len(answer.id.split(", ")) == 2
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.input_tokens is not None
    assert answer.meta.billed_units.input_tokens >= 97 * 5


def _only(**fields: Any) -> dict[str, Any]:
    """Those that are not None: the client would send null."""
    return {name: value for name, value in fields.items() if value is not None}


def test_async_clients(text_server: Server) -> None:
    import cohere

    async def embed() -> None:
        settings: dict[str, Any] = {"api_key": "none", "base_url": text_server.url, "max_retries": 0}
        async with cohere.AsyncClientV2(**settings) as v2, cohere.AsyncClient(**settings) as v1:
            answers = await asyncio.gather(
                v2.embed(model="clip", input_type="image", images=IMAGES),
                v2.embed(model="clip", input_type="search_query", texts=TEXTS),
            )
            assert_close(answers[0].embeddings.float_, embedded(text_server, "clip", IMAGES))
            assert_close(answers[1].embeddings.float_, embedded(text_server, "clip", TEXTS))
            merged = await v1.embed(model="minilm", texts=TEXTS * 33, input_type="clustering")
            assert merged.response_type == "embeddings_floats"
            assert_close(merged.embeddings, np.tile(embedded(text_server, "minilm", TEXTS), (33, 1)))

    asyncio.run(embed())


def test_errors_are_what_users_catch(v1: cohere.Client, v2: cohere.ClientV2) -> None:
    import cohere

    with pytest.raises(cohere.NotFoundError, match=r"embed-v4\.0.* is not served here; served: clip, minilm"):
        v2.embed(model="embed-v4.0", input_type="search_query", texts=TEXTS)
    with pytest.raises(cohere.NotFoundError, match="is not served here"):
        v1.embed(model="embed-english-v3.0", texts=TEXTS)
    for client in (v1, v2):
        with pytest.raises(cohere.BadRequestError, match=r"images\[1\]: .*not an image") as refused:
            client.embed(model="clip", input_type="image", images=[IMAGES[0], base64_of(b"not an image")])
        assert refused.value.body["id"]
        with pytest.raises(cohere.BadRequestError, match="model 'minilm' takes no images"):
            client.embed(model="minilm", input_type="image", images=IMAGES)
    with pytest.raises(cohere.BadRequestError, match="dimensions must be from 1 to 384"):
        v2.embed(model="minilm", input_type="clustering", texts=TEXTS, output_dimension=1024)
    with pytest.raises(cohere.BadRequestError, match=r"exactly one of texts, images, inputs .*: texts and images"):
        v2.embed(model="clip", input_type="clustering", texts=TEXTS, images=IMAGES)
    with pytest.raises(cohere.BadRequestError, match=r"exactly one of texts, images, inputs .*: none"):
        v2.embed(model="clip", input_type="clustering")


def test_keys(keyed_server: Server) -> None:
    import cohere

    with cohere.ClientV2(api_key="secret", base_url=keyed_server.url) as client:
        answer = client.embed(model="minilm", input_type="search_query", texts=TEXTS)
        assert_close(answer.embeddings.float_, _embedded_with_key(keyed_server))
    with (
        cohere.Client(api_key="wrong", base_url=keyed_server.url) as stranger,
        pytest.raises(cohere.UnauthorizedError, match="the API key is not one of this server's"),
    ):
        stranger.embed(model="minilm", texts=TEXTS)


def _embedded_with_key(server: Server) -> np.ndarray:
    headers = {"authorization": "Bearer secret"}
    body = {"inputs": TEXTS, "normalize": True}
    return np.array(httpx.post(f"{server.url}/m/minilm/embed", json=body, headers=headers, timeout=60).json())


def test_who_is_too_fast_is_tried_again_when_the_server_says(
    keyed_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sleeps as long as Retry-After says; the test does not."""
    import cohere

    naps: list[float] = []
    waits: list[float] = []

    def note(response: httpx.Response) -> None:
        if response.status_code == 429:
            waits.append(float(response.headers["retry-after"]))

    monkeypatch.setattr(time, "sleep", naps.append)
    http = httpx.Client(event_hooks={"response": [note]}, timeout=60)
    with (
        cohere.ClientV2(api_key="slow", base_url=keyed_server.url, httpx_client=http) as client,
        pytest.raises(cohere.TooManyRequestsError, match="inputs_per_s"),
    ):
        _embed_twice(client)
    assert len(naps) >= 2
    assert naps == waits[:-1]


def _embed_twice(client: cohere.ClientV2) -> None:
    for _ in range(2):
        client.embed(model="minilm", input_type="search_query", texts=TEXTS[:1])


CHROMA = """
import json, sys
import numpy as np
from PIL import Image
from chromadb.utils.embedding_functions import CohereEmbeddingFunction

def embedded(model, inputs):
    return [vector.tolist() for vector in CohereEmbeddingFunction(api_key="none", model_name=model)(inputs)]

pictures = [np.asarray(Image.open(path)) for path in sys.argv[1:]]
json.dump([embedded("minilm", json.load(sys.stdin)), embedded("clip", pictures)], sys.stdout)
"""


def test_chroma_needs_one_variable(text_server: Server, tmp_path: Any) -> None:
    """It has no setting for the address; Cohere's client reads CO_API_URL when it is imported."""
    pytest.importorskip("chromadb", reason="needs the clients group: uv sync --group clients")
    texts = [f"text number {number}" for number in range(97)]
    for number, size in enumerate(SIZES):
        photo(*size).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    done = subprocess.run(
        [sys.executable, "-c", CHROMA, *map(str, paths)],
        cwd=ROOT,
        env={**os.environ, "CO_API_URL": text_server.url},
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found_texts, found_pictures = json.loads(done.stdout)
    assert_close(found_texts, embedded(text_server, "minilm", texts))
    uris = [data_uri(path.read_bytes(), "image/png") for path in paths]
    assert_close(found_pictures, embedded(text_server, "clip", uris))


def test_litellm(text_server: Server) -> None:
    """Its `api_base` is the whole URL."""
    litellm = pytest.importorskip("litellm", reason="needs the clients group: uv sync --group clients")
    base = f"{text_server.url}/v2/embed"
    answer = litellm.embedding("cohere/minilm", TEXTS, api_base=base, api_key="none", input_type="search_document")
    assert_close([item["embedding"] for item in answer.data], embedded(text_server, "minilm", TEXTS))
    answer = litellm.embedding("cohere/clip", IMAGES, api_base=base, api_key="none", input_type="image")
    assert_close([item["embedding"] for item in answer.data], embedded(text_server, "clip", IMAGES))
    with pytest.raises(litellm.BadRequestError, match="takes no images"):
        litellm.embedding("cohere/minilm", IMAGES, api_base=base, api_key="none", input_type="image")


def test_partial_answers(text_server: Server, v2: cohere.ClientV2) -> None:
    answer = v2.embed(
        model="clip",
        images=[IMAGES[0], "data:image/png;base64,AAAA"],
        input_type="image",
        embedding_types=["float", "int8"],
        request_options={"additional_headers": {"X-IEI-On-Error": "null"}},
    )
    assert answer.embeddings.float_ is not None
    vector, nothing = answer.embeddings.float_
    np.testing.assert_allclose([vector], embedded(text_server, "clip", IMAGES[:1]), atol=1e-5)
    assert nothing is None
    assert answer.images is not None
    assert [picture is None for picture in answer.images] == [False, True]
