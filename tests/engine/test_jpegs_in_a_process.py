"""JPEGs over HTTP to an engine in another process, which decodes them: the worker reads their heads alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from PIL import Image

from iei.engine.client import EngineClient
from tests.apps import client_around
from tests.engine.known_engine import MODELS
from tests.engine.known_engines import KnownEngines
from tests.engine.waiting import until
from tests.pictures import base64_of, encode

pytestmark = pytest.mark.server


def test_jpegs_reach_the_engine_as_they_are(engines: KnownEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    greys = range(0, 250, 10)
    inputs = [base64_of(encode(Image.new("RGB", (90, 1 + grey), (grey,) * 3), "JPEG")) for grey in greys]

    async def scenario() -> None:
        engine = EngineClient([engines.address], MODELS, 2**20, silent_s=60)
        async with client_around(engine, models=",".join(MODELS)) as client:
            await until(lambda: engine.ready)
            png = base64_of(encode(Image.new("RGB", (9, 9), (7, 7, 7)), "PNG"))
            monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", None)  # nothing is decoded in this process
            response = await client.post("/m/decoding/embed", json={"inputs": [*inputs, png]})
            assert response.status_code == 200, response.text
            np.testing.assert_allclose(response.json(), [[grey] * 3 for grey in (*greys, 7)], atol=1)
            assert (await client.get("/m/decoding/info")).json()["image"]["decode_on"] == "gpu"
            assert (await client.get("/info")).json()["image"]["decode_on"] == "cpu"

    asyncio.run(scenario())
