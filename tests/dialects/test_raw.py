"""Image files sent as they are: as the whole body, or in a form."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, data_uri, encoded, jpeg, png
from tests.servers import Server

DIM = 192
CHELSEA, COFFEE = jpeg(name="chelsea"), jpeg(name="coffee")
ROUTES = ["/embed", "/", "/invocations"]


def as_json(server: Server, *pictures: bytes, path: str = "/embed", **options: Any) -> np.ndarray[Any, Any]:
    """What the JSON request for the same pictures gets."""
    body = {"inputs": [base64_of(picture) for picture in pictures], **options}
    return np.array(httpx.post(server.url + path, json=body, timeout=60).json())


def raw(server: Server, path: str, data: bytes, media_type: str = "image/jpeg", **options: Any) -> httpx.Response:
    return httpx.post(server.url + path, content=data, headers={"content-type": media_type}, params=options, timeout=60)


def form(server: Server, files: list[Any], path: str = "/embed", **options: Any) -> httpx.Response:
    return httpx.post(server.url + path, files=files, timeout=60, **options)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "media_type", ["image/jpeg", "IMAGE/JPEG; q=1", "image/*", "application/x-image", "application/octet-stream"]
)
def test_a_file_as_the_body_gets_the_vector_of_the_same_file_as_base64(
    demo_server: Server, path: str, media_type: str
) -> None:
    response = raw(demo_server, path, CHELSEA, media_type)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert {"x-inference-time", "x-queue-time", "x-total-time"} <= response.headers.keys()
    assert np.allclose(response.json(), as_json(demo_server, CHELSEA), atol=1e-5)


@pytest.mark.parametrize("name", ["png alpha", "webp", "tiff", "gif", "avif"])
def test_the_file_says_which_format_it_has_and_not_the_media_type(demo_server: Server, name: str) -> None:
    picture = encoded()[name]
    assert np.allclose(raw(demo_server, "/embed", picture).json(), as_json(demo_server, picture), atol=1e-5)


def test_options_are_in_the_query(demo_server: Server) -> None:
    options = {"normalize": "true", "pooling": "CLS", "dimensions": "10"}
    expected = as_json(demo_server, CHELSEA, normalize=True, pooling="cls", dimensions=10)
    assert expected.shape == (1, 10)
    assert np.allclose(raw(demo_server, "/embed", CHELSEA, **options).json(), expected, atol=1e-5)


def test_all_tokens_of_a_file(demo_server: Server) -> None:
    tokens = np.array(raw(demo_server, "/embed_all", png(), "image/png").json())
    assert tokens.shape == (1, 197, DIM)
    assert np.allclose(tokens, as_json(demo_server, png(), path="/embed_all"), atol=1e-5)


def test_the_model_is_in_the_path(text_server: Server) -> None:
    clip = httpx.post(f"{text_server.url}/embed", json={"inputs": data_uri(png()), "modality": "image"}).json()
    assert np.allclose(raw(text_server, "/m/clip/embed", png()).json(), clip, atol=1e-5)
    assert raw(text_server, "/m/none/embed", png()).status_code == 404
    assert raw(text_server, "/m/minilm/embed", png()).status_code == 422  # it takes no pictures


@pytest.mark.parametrize("path", ROUTES)
def test_files_of_a_form_are_embedded_in_their_order(demo_server: Server, path: str) -> None:
    files = [("image", ("a.jpg", CHELSEA)), ("other", ("b.jpg", COFFEE)), ("image", ("c.jpg", CHELSEA))]
    vectors = form(demo_server, files, path).json()
    assert np.allclose(vectors, as_json(demo_server, CHELSEA, COFFEE, CHELSEA), atol=1e-5)


def test_options_are_fields_of_the_form_or_in_the_query(demo_server: Server) -> None:
    expected = as_json(demo_server, CHELSEA, normalize=True, dimensions=10)
    response = form(
        demo_server, [("file", ("a.jpg", CHELSEA))], data={"normalize": "true"}, params={"dimensions": "10"}
    )
    assert np.allclose(response.json(), expected, atol=1e-5)


def test_a_file_may_come_in_many_pieces(demo_server: Server) -> None:
    picture = CHELSEA + bytes(5_000_000)  # decoders stop at the end of the image
    vectors = form(demo_server, [("image", ("big.jpg", picture))]).json()
    assert np.allclose(vectors, as_json(demo_server, CHELSEA), atol=1e-5)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no image at all", "the body: "), (CHELSEA[:2000], "the body: "), (b"", "the body is empty")],
    ids=["text", "cut off", "empty"],
)
def test_a_bad_body_is_refused(demo_server: Server, content: bytes, said: str) -> None:
    response = raw(demo_server, "/embed", content)
    assert response.status_code == 400
    assert response.json().keys() == {"error", "error_type", "detail"}
    assert response.json()["error"].startswith(said)


def test_errors_name_the_part(demo_server: Server) -> None:
    files = [("image", ("a.jpg", CHELSEA)), ("image", ("b.jpg", b"no image")), ("mask", ("c.png", b""))]
    response = form(demo_server, files)
    assert response.status_code == 400
    first, second = response.json()["error"].split("; ")
    assert first.startswith("image[1] (b.jpg): ")
    assert second.startswith("mask (c.png): ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dimensions": "0"}, "dimensions: "),
        ({"dimensions": "many"}, "dimensions: "),
        ({"normalize": "perhaps"}, "normalize: "),
        ({"pooling": "median"}, "pooling: "),
    ],
)
def test_options_are_checked(demo_server: Server, options: dict[str, str], said: str) -> None:
    for response in (
        raw(demo_server, "/embed", CHELSEA, **options),
        form(demo_server, [("file", ("a.jpg", CHELSEA))], data=options),
    ):
        assert response.status_code == 422
        assert response.json()["error"].startswith(said)


FORM = "multipart/form-data; boundary=x"
END = b"--x--\r\n"


def part(data: bytes, disposition: str = 'form-data; name="image"; filename="a.jpg"') -> bytes:
    return f"--x\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        pytest.param(part(CHELSEA) + END, "multipart/form-data", id="no boundary"),
        pytest.param(b"no form at all", FORM, id="no form"),
        pytest.param(part(CHELSEA), FORM, id="no end"),
        pytest.param(b"", FORM, id="empty"),
        pytest.param(part(b"1", "form-data") + END, FORM, id="no name"),
        pytest.param(part(b"1", "form-data; name=" + "n" * 100_000) + END, FORM, id="long header"),
        pytest.param(part(b"1") * 2000 + END, FORM, id="many files"),
        pytest.param(part(b"1", "form-data; name=f") * 100 + END, FORM, id="many fields"),
        pytest.param(part(bytes(3_000_000), "form-data; name=f") + END, FORM, id="long field"),
        pytest.param(part(b"1", "form-data; name=image") + END, FORM, id="no file"),
    ],
)
def test_a_bad_form_is_refused(demo_server: Server, content: bytes, media_type: str) -> None:
    response = raw(demo_server, "/embed", content, media_type)
    assert response.status_code == 400, response.text
    assert response.json().keys() == {"error", "error_type", "detail"}


def test_a_form_that_is_too_large_is_refused_by_its_length(demo_server: Server) -> None:
    host, port = demo_server.url.removeprefix("http://").split(":")
    head = (
        "POST /embed HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 9999999999\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(head.encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]).keys() == {"error", "error_type", "detail"}


def test_other_media_types_and_methods_are_as_before(demo_server: Server) -> None:
    url = demo_server.url
    assert httpx.post(f"{url}/embed", content=b"a: b", headers={"content-type": "text/yaml"}).status_code == 415
    assert httpx.post(f"{url}/similarity", content=b"x", headers={"content-type": "image/png"}).status_code == 415
    for method in ("GET", "PUT", "OPTIONS"):
        response = httpx.request(method, f"{url}/embed", headers={"content-type": "image/png"})
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert response.json().keys() == {"error", "error_type", "detail"}


def test_a_body_without_a_media_type_is_json(demo_server: Server) -> None:
    body = json.dumps({"inputs": base64_of(png())}).encode()
    response = httpx.post(f"{demo_server.url}/embed", content=body)
    assert "content-type" not in response.request.headers
    assert np.allclose(response.json(), as_json(demo_server, png()), atol=1e-5)
