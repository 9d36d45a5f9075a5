"""immich's machine-learning service, as immich's server calls it: with Node's own fetch, FormData and Blob."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from iei.dialects.immich import cleaned, served_name
from iei.engine.inprocess import InProcessEngine
from iei.errors import ModelNotFound, StartupError
from iei.models.catalog import Catalog, CatalogEntry, read_catalog
from iei.models.immich import IMMICH_MODELS
from iei.settings import read_settings
from tests.apps import app_around
from tests.engine.runtimes_for_tests import KnownRuntime
from tests.pictures import data_uri, jpeg, png
from tests.servers import Server, serve

MODEL = "ViT-B-32__openai"
TOO_SHORT = "ViT-L-14__openai"
"""Served, but with vectors of 24 values."""

PREDICT = """
const { readFile } = require('node:fs/promises');
const [url, entries, kind, value] = process.argv.slice(1);
async function main() {
  const formData = new FormData();
  formData.append('entries', entries);
  if (kind === 'image') {
    const fileBuffer = await readFile(value);
    formData.append('image', new Blob([new Uint8Array(fileBuffer)]));
  } else if (kind === 'text') {
    formData.append('text', value);
  }
  const response = await fetch(new URL('/predict', url), { method: 'POST', body: formData });
  console.log(JSON.stringify({ ok: response.ok, status: response.status, body: await response.json() }));
}
main();
"""
"""What `predict` and `getFormData` of immich's machine-learning.repository.ts do."""


class Upstream(NamedTuple):
    """A stand-in for immich's own service."""

    url: str
    received: list[tuple[str, str, bytes]]
    """Path, Content-Type and body of each request."""
    answers: list[tuple[int, object]]
    """Status and JSON of the answers to come; when there are none, 200 and `{"faces": []}`."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    received: list[tuple[str, str, bytes]] = []
    answers: list[tuple[int, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, self.headers["content-type"], body))
            status, answer = answers.pop() if answers else (200, {"facial-recognition": []})
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Upstream(f"http://127.0.0.1:{server.server_port}", received, answers)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`IEI_MODELS`: a CLIP with immich's name and length, one with a name of immich's and another length, a SigLIP."""
    from tests.checkpoints import vision_checkpoints
    from tests.checkpoints.text_checkpoints import write_text_checkpoint

    folder = tmp_path_factory.mktemp("immich")
    clip = vision_checkpoints.FAMILIES["clip"]
    with pytest.MonkeyPatch.context() as patch:
        long = dataclasses.replace(clip, options={**clip.options, "projection_dim": 512})
        patch.setitem(vision_checkpoints.FAMILIES, "clip", long)
        write_text_checkpoint("clip", folder / "long")
    write_text_checkpoint("clip", folder / "short")
    write_text_checkpoint("siglip", folder / "siglip")
    return f"{MODEL}={folder}/long,{TOO_SHORT}={folder}/short,siglip={folder}/siglip"


@pytest.fixture(scope="module")
def server(models: str, upstream: Upstream) -> Iterator[Server]:
    settings = {"IEI_MODELS": models, "IEI_MAX_LOADED_MODELS": "3", "IEI_IMMICH_UPSTREAM": upstream.url + "/"}
    with serve(settings, workers=1) as server:
        yield server


def clip(side: str, model: str = MODEL, **options: Any) -> dict[str, Any]:
    return {"clip": {side: {"modelName": model, **({"options": options} if options else {})}}}


FACES = {
    "facial-recognition": {
        "detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}},
        "recognition": {"modelName": "buffalo_l"},
    }
}


def predict(server: Server, entries: Any, kind: str, value: str | Path) -> dict[str, Any]:
    """As immich does it. Returns `ok`, `status` and `body` of the response."""
    if shutil.which("node") is None:
        pytest.skip("immich's server runs on node, which is missing")
    text = entries if isinstance(entries, str) else json.dumps(entries)
    done = subprocess.run(
        ["node", "-e", PREDICT, server.url, text, kind, str(value)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def expected(server: Server, item: str, modality: str, model: str = MODEL) -> np.ndarray[Any, Any]:
    """The unit vector that `/embed` gives for the same input."""
    body = {"inputs": item, "modality": modality, "pooling": "pooler", "normalize": True}
    response = httpx.post(f"{server.url}/m/{model}/embed", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return np.array(response.json()[0])


def vector_of(answer: dict[str, Any]) -> np.ndarray[Any, Any]:
    assert answer["ok"], answer
    text = answer["body"]["clip"]
    assert isinstance(text, str)  # immich hands it to its database as it is
    vector = np.array(json.loads(text))
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)
    return vector


def test_an_image_gets_its_vector_as_a_string_and_its_size(server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "preview.jpeg"
    picture.write_bytes(jpeg(320, 200))
    answer = predict(server, clip("visual"), "image", picture)
    vector = vector_of(answer)
    assert answer["body"].keys() == {"clip", "imageHeight", "imageWidth"}
    assert (answer["body"]["imageWidth"], answer["body"]["imageHeight"]) == (320, 200)
    assert vector.shape == (512,)
    assert np.allclose(vector, expected(server, data_uri(jpeg(320, 200)), "image"), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"language": "de"}])
def test_a_text_gets_its_vector(server: Server, options: dict[str, str]) -> None:
    answer = predict(server, clip("textual", **options), "text", "  a cat\n on a   mat ")
    assert answer["body"].keys() == {"clip"}
    assert np.allclose(vector_of(answer), expected(server, "a cat on a mat", "text"), atol=1e-5)


def test_a_long_text_is_cut(server: Server) -> None:
    answer = predict(server, clip("textual"), "text", "a cat " * 200)
    assert vector_of(answer).shape == (512,)


def test_punctuation_and_case_do_not_count_for_siglip(server: Server) -> None:
    vector = vector_of(predict(server, clip("textual", "siglip"), "text", "A cat, on a mat!"))
    assert np.allclose(vector, expected(server, "a cat on a mat", "text", "siglip"), atol=1e-5)
    assert not np.allclose(vector, expected(server, "A cat, on a mat!", "text", "siglip"), atol=1e-3)


def test_a_model_is_found_by_the_name_that_immich_cleans(server: Server) -> None:
    answer = predict(server, clip("textual", f"immich-app/{MODEL}"), "text", "a cat")
    assert np.allclose(vector_of(answer), expected(server, "a cat", "text"), atol=1e-5)


def test_other_tasks_are_answered_by_the_upstream_as_they_came(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    picture = tmp_path / "preview.jpeg"
    picture.write_bytes(png())
    for entries in (FACES, {"ocr": {"detection": {"modelName": "m"}}}, {**FACES, **clip("visual")}):
        upstream.answers.append((200, {"facial-recognition": [{"score": 0.9}], "imageHeight": 48, "imageWidth": 64}))
        answer = predict(server, entries, "image", picture)
        assert (answer["status"], answer["body"]["imageHeight"]) == (200, 48)
        path, content_type, body = upstream.received[-1]
        assert path == "/predict"
        boundary = content_type.partition("boundary=")[2].encode()
        assert body.startswith(b"--" + boundary + b"\r\n")
        assert body.rstrip().endswith(b"--" + boundary + b"--")
        assert json.dumps(entries).encode() in body
        assert png() in body


def test_the_upstreams_errors_are_passed_on(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    picture = tmp_path / "broken.jpeg"
    picture.write_bytes(b"no picture")
    upstream.answers.append((500, {"detail": "Internal"}))
    answer = predict(server, FACES, "image", picture)
    assert (answer["ok"], answer["status"], answer["body"]) == (False, 500, {"detail": "Internal"})


def test_clip_is_never_forwarded(server: Server, upstream: Upstream) -> None:
    before = len(upstream.received)
    predict(server, clip("textual"), "text", "a cat")
    predict(server, clip("textual", "no such model"), "text", "a cat")
    assert len(upstream.received) == before


@pytest.mark.parametrize(
    ("entries", "kind", "value", "status", "said"),
    [
        ("{", "text", "a cat", 422, "entries: "),
        ("[]", "text", "a cat", 422, "body: "),
        ({}, "text", "a cat", 422, "no model task requested"),
        ({"clip": {}}, "text", "a cat", 422, "no model task requested"),
        ({"clip": {"textual": {}}}, "text", "a cat", 422, "clip.textual.modelName: "),
        ({"clip": {"textual": {"modelName": ""}}}, "text", "a cat", 422, "clip.textual.modelName: "),
        (clip("textual"), "none", "", 400, "either image or text must be provided"),
        (clip("textual"), "text", "", 400, "either image or text must be provided"),
        (clip("textual"), "text", "   ", 400, "text: is empty"),
        (clip("visual"), "text", "a cat", 400, "no clip.textual"),
        (clip("textual"), "image", "/dev/null", 400, "image: is empty"),
        (clip("visual"), "image", __file__, 400, "image: "),
        (clip("visual", TOO_SHORT), "text", "a cat", 400, "no clip.textual"),
        (clip("textual", TOO_SHORT), "text", "a cat", 422, "768 values"),
        (clip("textual", "ViT-B-16__openai"), "text", "a", 404, "IEI_MODELS=ViT-B-16__openai=openai/clip-vit-base-p"),
        (clip("textual", "RN50__openai"), "text", "a cat", 404, "choose another one in immich"),
        (clip("textual", "mine"), "text", "a cat", 404, "served: "),
    ],
)
def test_errors_have_immichs_statuses_and_say_what_is_wrong(
    server: Server, entries: Any, kind: str, value: str, status: int, said: str
) -> None:
    answer = predict(server, entries, kind, value)
    assert (answer["ok"], answer["status"]) == (False, status)
    assert answer["body"].keys() == {"detail"}
    assert said in answer["body"]["detail"]


def test_litserves_clients_keep_the_path(server: Server) -> None:
    response = httpx.post(f"{server.url}/predict", json={"image_data": "no base64"}, timeout=60)
    assert response.status_code == 400
    assert response.json()["detail"].startswith("image_data[0]: ")
    assert httpx.get(f"{server.url}/predict").status_code == 405


def test_health_checks_get_an_answer(server: Server) -> None:
    for path in ("/ping", "/"):
        assert httpx.get(server.url + path).is_success
        assert httpx.head(server.url + path).is_success
    assert httpx.get(server.url).json().items() >= {"status": "alive", "message": "IEI"}.items()


@pytest.mark.parametrize(("setting", "status"), [(None, 422), ("http://127.0.0.1:9", 502)], ids=["none", "dead"])
def test_without_an_upstream_that_answers_the_setting_is_named(setting: str | None, status: int) -> None:
    with TestClient(app_around(InProcessEngine(KnownRuntime()), immich_upstream=setting)) as client:
        files: dict[str, Any] = {"entries": (None, json.dumps(FACES)), "image": ("blob", png())}
        response = client.post("/predict", files=files)
    assert response.status_code == status
    assert response.json().keys() == {"detail"}
    assert "IEI_IMMICH_UPSTREAM" in response.json()["detail"]


@pytest.mark.parametrize("url", ["immich-ml:3003", "ftp://immich-ml", "http://", "http://immich-ml:port"])
def test_an_upstream_that_is_no_url_is_refused_at_the_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEI_IMMICH_UPSTREAM", url)
    with pytest.raises(StartupError, match="IEI_IMMICH_UPSTREAM"):
        read_settings()


def _resolve(*entries: CatalogEntry) -> Any:
    catalog = Catalog(entries)
    return lambda name: catalog.resolve(name).name


def test_a_model_is_found_under_immichs_name_or_by_its_hub_id() -> None:
    hub_id = "openai/clip-vit-base-patch32"
    assert served_name(MODEL, _resolve(CatalogEntry("clip", hub_id))) == "clip"
    own = CatalogEntry(MODEL, "/some/folder")
    assert served_name(MODEL, _resolve(CatalogEntry("clip", hub_id), own)) == MODEL
    assert served_name(f"org/{MODEL}", _resolve(own)) == MODEL
    assert served_name("mine", _resolve(CatalogEntry("mine", "/some/folder"))) == "mine"
    with pytest.raises(ModelNotFound, match=f"IEI_MODELS={MODEL}={hub_id}"):
        served_name(MODEL, _resolve(CatalogEntry("demo", "demo")))


def test_a_name_of_immichs_stands_for_its_model_in_the_catalog() -> None:
    catalog = read_catalog(read_settings(models=f"{MODEL},text={TOO_SHORT}@v1,nllb-clip-base-siglip__v1").models)
    assert catalog.entries[:3] == (
        CatalogEntry(MODEL, "openai/clip-vit-base-patch32"),
        CatalogEntry("text", "openai/clip-vit-large-patch14", "v1"),
        CatalogEntry("nllb-clip-base-siglip__v1", "nllb-clip-base-siglip__v1"),  # IEI has no such model
    )
    assert read_catalog(read_settings(model=MODEL).models).entries[0].id == "openai/clip-vit-base-patch32"


def test_every_model_of_the_table_has_an_id_of_its_own() -> None:
    ids = [model.hub_id for model in IMMICH_MODELS.values() if model.hub_id]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("text", "clip_text", "siglip_text"),
    [
        (" A  cat,\n on a mat! ", "A cat, on a mat!", "a cat on a mat"),
        ("well-known", "well-known", "wellknown"),
        ("…", "…", "…"),  # only ASCII's punctuation goes
        ("?!", "?!", "?!"),
    ],
)
def test_texts_are_cleaned_as_immich_cleans_them(text: str, clip_text: str, siglip_text: str) -> None:
    assert cleaned(text, "clip") == clip_text
    assert cleaned(text, "siglip") == siglip_text
