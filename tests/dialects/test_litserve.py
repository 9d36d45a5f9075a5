"""`/predict`, with requests as the LitServe service documents them."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from tests.pictures import base64_of, encode, jpeg, photo, png
from tests.servers import Server

DIM = 192
IMAGES = [base64_of(jpeg(name="chelsea")), base64_of(jpeg(name="coffee"))]


def predict(server: Server, body: object) -> httpx.Response:
    return httpx.post(f"{server.url}/predict", json=body, timeout=60)


def embedded(server: Server, path: str, **fields: object) -> np.ndarray:
    return np.array(httpx.post(server.url + path, json={"inputs": IMAGES, **fields}, timeout=60).json())


def test_one_image_gives_one_object(demo_server: Server) -> None:
    answer = predict(demo_server, {"image_data": IMAGES[0]}).json()
    assert list(answer) == ["cls_token"]
    assert np.allclose(answer["cls_token"], embedded(demo_server, "/embed", pooling="cls")[0], atol=1e-5)


def test_a_list_gives_a_list(demo_server: Server) -> None:
    answer = predict(demo_server, {"image_data": IMAGES, "embedding_types": ["cls_token", "patch_features"]}).json()
    tokens = embedded(demo_server, "/embed_all")
    assert np.allclose([item["cls_token"] for item in answer], tokens[:, 0], atol=1e-5)
    assert np.allclose([item["patch_features"] for item in answer], tokens[:, 1:], atol=1e-5)
    assert isinstance(predict(demo_server, {"image_data": IMAGES[:1]}).json(), list)


def test_a_bare_type_and_none_at_all(demo_server: Server) -> None:
    patches = predict(demo_server, {"image_data": IMAGES[0], "embedding_types": "patch_features"}).json()
    assert list(patches) == ["patch_features"]
    assert np.shape(patches["patch_features"]) == (196, DIM)
    assert predict(demo_server, {"image_data": IMAGES[0], "embedding_types": None}).json().keys() == {"cls_token"}
    assert predict(demo_server, {"image_data": IMAGES[0], "embedding_types": []}).json() == {}
    assert predict(demo_server, {"image_data": IMAGES, "embedding_types": []}).json() == [{}, {}]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "image_data"),
        ({"image_data": 7}, 422, "image_data: must be a string or a list of strings"),
        ({"image_data": [IMAGES[0], 7]}, 422, "image_data[1]: Input should be a valid string"),
        ({"image_data": ""}, 400, "empty"),
        ({"image_data": []}, 400, "empty"),
        ({"image_data": "bm90IGFuIGltYWdl"}, 400, "not an image"),
        ({"image_data": [IMAGES[0], "AAAA"]}, 400, "image_data[1]"),
        ({"image_data": IMAGES[0], "embedding_types": ["mean"]}, 422, "cls_token"),
        (
            {"image_data": IMAGES[0], "embedding_types": 7},
            422,
            "embedding_types: must be a string or a list of strings",
        ),
        ({"image_data": "####", "embedding_types": []}, 400, "not base64"),
        ({"image_data": [IMAGES[0]] * 1025, "embedding_types": []}, 422, "IEI_MAX_INPUTS"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_errors_have_a_detail(demo_server: Server, body: object, status: int, words: str) -> None:
    response = predict(demo_server, body)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert words in response.json()["detail"]


def test_pictures_may_keep_their_size(zoo_server: Server) -> None:
    """IEI_PREDICT_RESIZE=multiple: sides are rounded up to whole patches, of 16 pixels here."""
    sizes = {(256, 256): 256, (250, 256): 256, (224, 224): 196, (16, 33): 3, (1, 1): 1}
    body = {
        "image_data": [base64_of(png(*size)) for size in sizes],
        "embedding_types": ["patch_features", "cls_token"],
    }
    answer = predict(zoo_server, body).json()
    assert [len(item["patch_features"]) for item in answer] == list(sizes.values())
    as_is = base64_of(encode(photo(224, 224), "PNG"))
    kept = predict(zoo_server, {"image_data": as_is}).json()["cls_token"]
    processed = httpx.post(f"{zoo_server.url}/embed", json={"inputs": as_is, "pooling": "cls"}, timeout=60).json()[0]
    assert np.allclose(kept, processed, atol=1e-5)


def test_pictures_of_too_many_patches_are_refused(zoo_server: Server) -> None:
    response = predict(zoo_server, {"image_data": base64_of(png(1040, 1024))})
    assert response.status_code == 400
    assert "4160 patches, over the limit of 4096 (IEI_MAX_PATCHES)" in response.json()["detail"]
