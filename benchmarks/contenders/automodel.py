"""The usual way to serve an image model: FastAPI under gunicorn, and every worker has its own model.

    BENCHMARK_MODEL=… gunicorn benchmarks.contenders.automodel:app --workers 2 \
        --worker-class uvicorn_worker.UvicornWorker --bind 127.0.0.1:8000

Written as the documentation of FastAPI and transformers suggests; responses skip FastAPI's validation.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from benchmarks.contenders.embedder import Decoder, Model


class Request(BaseModel):
    """The body of `POST /embed`."""

    inputs: str | list[str]


decode, model = Decoder(), Model()
app = FastAPI()


@app.post("/embed")
def embed(request: Request) -> JSONResponse:
    """One vector for each picture, in order."""
    return JSONResponse(model(decode(request.inputs)).tolist())
