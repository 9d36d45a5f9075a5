"""Voyage's multimodal embeddings with Voyage's own client."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, encode, photo
from tests.servers import Server

if TYPE_CHECKING:
    import voyageai

TEXTS = ["A cat sits on a mat", "Shares fell sharply on Monday"]
PHOTOS = [photo(500, 375), photo(64, 48, "coffee")]
URIS = [data_uri(encode(picture, "PNG"), "image/png") for picture in PHOTOS]
PIXELS = 500 * 375 + 64 * 48


@pytest.fixture(scope="module", autouse=True)
def _package() -> None:
    pytest.importorskip("voyageai", reason="needs the clients group: uv sync --group clients")


@pytest.fixture
def client(text_server: Server) -> voyageai.Client:
    return _client(text_server)


def _client(server: Server, **fields: Any) -> voyageai.Client:
    import voyageai

    return voyageai.Client(**{"api_key": "none", "base_url": f"{server.url}/v1", **fields})


def post(server: Server, path: str, body: object, key: str = "none") -> Any:
    answer = httpx.post(server.url + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)
    answer.raise_for_status()
    return answer.json()


def embedded(server: Server, model: str, inputs: list[str], key: str = "none", **fields: Any) -> np.ndarray:
    """Vectors of `/embed`."""
    body = {"inputs": inputs, "normalize": True, **fields}
    return np.array(post(server, f"/m/{model}/embed", body, key), np.float32)


def assert_close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(found, np.float32), expected, atol=1e-5)


def test_pictures_and_texts_in_one_request(text_server: Server, client: voyageai.Client) -> None:
    """The client writes pictures as lossless WebP, and asks for base64."""
    answer = client.multimodal_embed([[PHOTOS[0]], [TEXTS[0]], ["", PHOTOS[1]]], model="clip")
    assert_close(answer.embeddings, embedded(text_server, "clip", [URIS[0], TEXTS[0], URIS[1]]))
    tokens = len(post(text_server, "/m/clip/tokenize", {"inputs": TEXTS[0]})[0])
    assert (answer.text_tokens, answer.image_pixels, answer.video_pixels) == (tokens, PIXELS, 0)
    patches = post(text_server, "/v1/embeddings", {"model": "clip", "input": URIS})["usage"]["total_tokens"]
    assert answer.total_tokens == tokens + patches


def test_inputs_as_objects(text_server: Server, client: voyageai.Client) -> None:
    parts: list[dict[str, str]] = [
        {"type": "image_url", "image_url": URIS[1]},
        {"type": "image_base64", "image_base64": base64_of(encode(PHOTOS[0], "JPEG", quality=95))},
        {"type": "text", "text": TEXTS[1]},
    ]
    answer = client.multimodal_embed([{"content": [part]} for part in parts], model="clip", input_type="document")
    expected = embedded(text_server, "clip", [URIS[1], parts[1]["image_base64"]], modality="image")
    assert_close(answer.embeddings[:2], expected)
    assert_close(answer.embeddings[2:], embedded(text_server, "clip", TEXTS[1:]))


def test_async_client(text_server: Server) -> None:
    import voyageai

    async def embed() -> tuple[Any, Any]:
        client = voyageai.AsyncClient(api_key="none", base_url=f"{text_server.url}/v1")
        return await asyncio.gather(
            client.multimodal_embed([[picture] for picture in PHOTOS], model="clip"),
            client.multimodal_embed([[text] for text in TEXTS], model="minilm", input_type="query"),
        )

    pictures, texts = asyncio.run(embed())
    assert_close(pictures.embeddings, embedded(text_server, "clip", URIS))
    assert_close(texts.embeddings, embedded(text_server, "minilm", TEXTS))
    assert (texts.image_pixels, texts.text_tokens) == (0, texts.total_tokens)


@pytest.mark.parametrize("dtype", ["float", "int8", "uint8", "binary", "ubinary"])
def test_dtypes(text_server: Server, client: voyageai.Client, dtype: str) -> None:
    """Numbers in JSON are the same as those that the client gets out of base64."""
    found = np.array(
        client.multimodal_embed(
            [[text] for text in TEXTS], model="minilm", output_dtype=dtype, output_dimension=64
        ).embeddings
    )
    body = {
        "inputs": [{"content": [{"type": "text", "text": text}]} for text in TEXTS],
        "model": "minilm",
        "output_dtype": dtype,
        "output_dimension": 64,
    }
    assert np.allclose(
        found, [item["embedding"] for item in post(text_server, "/v1/multimodalembeddings", body)["data"]], atol=1e-5
    )
    expected = embedded(text_server, "minilm", TEXTS, dimensions=64)
    if dtype == "float":
        assert_close(found, expected)
    elif dtype in ("int8", "uint8"):
        levels = np.rint(expected / np.abs(expected).max(axis=1, keepdims=True) * 127) + 128 * (dtype == "uint8")
        assert np.abs(found - levels).max() <= 1
    else:
        bits = (found + 128 * (dtype == "binary")).astype(np.uint8)
        assert (np.unpackbits(bits, axis=1) == (expected >= 0)).all()


def test_truncation(text_server: Server, client: voyageai.Client) -> None:
    import voyageai

    long = "one two three four " * 200
    answer = client.multimodal_embed([[long]], model="minilm")
    assert_close(answer.embeddings, embedded(text_server, "minilm", [long], truncate=True))
    with pytest.raises(
        voyageai.error.InvalidRequestError, match=r"inputs\[1\]: has \d+ tokens, over the model's limit"
    ):
        client.multimodal_embed([["short"], [long]], model="minilm", truncation=False)


def test_errors_are_what_users_catch(client: voyageai.Client) -> None:
    import voyageai

    wrong: list[tuple[list[Any], dict[str, Any], str]] = [
        (
            [TEXTS[:1]],
            {"model": "voyage-multimodal-3"},
            "'voyage-multimodal-3' is not served here; served: clip, minilm",
        ),
        ([[PHOTOS[0]]], {"model": "minilm"}, "model 'minilm' takes no images"),
        (
            [TEXTS[:1], [TEXTS[0], PHOTOS[0]]],
            {"model": "clip"},
            r"inputs\[1\]: content: has 2 parts \(text, image_base64",
        ),
        ([TEXTS[:1]], {"model": "minilm", "output_dimension": 1024}, "dimensions must be from 1 to 384"),
        ([TEXTS[:1]], {"model": "minilm", "output_dtype": "int4"}, "output_dtype: "),
        (
            [{"content": [{"type": "image_base64", "image_base64": base64.b64encode(b"nothing").decode()}]}],
            {"model": "clip"},
            r"inputs\[0\]: .*not an image",
        ),
        (
            [{"content": [{"type": "video_url", "video_url": "https://a.example/b.mp4"}]}],
            {"model": "clip"},
            r"inputs\[0\]\.content\[0\]: must be an object whose type is one of text, image_url, image_base64",
        ),
    ]
    for inputs, fields, message in wrong:
        with pytest.raises(voyageai.error.InvalidRequestError, match=message):
            client.multimodal_embed(inputs, **fields)


def test_keys(keyed_server: Server) -> None:
    import voyageai

    found = _client(keyed_server, api_key="secret").multimodal_embed([TEXTS[:1]], model="minilm").embeddings
    assert_close(found, embedded(keyed_server, "minilm", TEXTS[:1], key="secret"))
    with pytest.raises(voyageai.error.AuthenticationError, match="the API key is not one of this server's"):
        _client(keyed_server, api_key="wrong").multimodal_embed([TEXTS[:1]], model="minilm")


def test_who_is_too_fast_is_tried_again(keyed_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as `max_retries` says. The client has a pace of its own; the test does not sleep."""
    import voyageai

    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    client = _client(keyed_server, api_key="slow", max_retries=3)
    with pytest.raises(voyageai.error.RateLimitError, match="inputs_per_s") as refused:
        _embed_twice(client)
    assert len(naps) >= 2
    assert int(refused.value.headers["retry-after"]) >= 1


def _embed_twice(client: voyageai.Client) -> None:
    for _ in range(2):
        client.multimodal_embed([TEXTS[:1]], model="minilm")


def test_text_embeddings(text_server: Server, client: voyageai.Client) -> None:
    """`/v1/embeddings`, which speaks OpenAI's dialect."""
    answer = client.embed(TEXTS, model="minilm", input_type="query")
    assert_close(answer.embeddings, embedded(text_server, "minilm", TEXTS))
    assert answer.total_tokens > 0
