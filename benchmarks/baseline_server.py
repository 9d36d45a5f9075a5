"""The usual way to serve an image model, to compare with: every gunicorn worker has its own model.

    IMAGE_EMBEDDING_MODEL=… gunicorn benchmarks.baseline_server:app --workers 4 \
        --worker-class uvicorn_worker.UvicornWorker --bind 127.0.0.1:8000

The same `POST /embed` as IEI's (mean pooling, no normalisation), written as the documentation of FastAPI and
transformers suggests: AutoModel, AutoImageProcessor, and one forward for each picture. It is not made slow on purpose:
the processor is transformers' faster one where torchvision is installed, responses skip FastAPI's validation, and torch
uses as many threads in each worker as it does by itself, unless BASELINE_THREADS says how many.
"""

from __future__ import annotations

import base64
import io
import os

import torch
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel
from transformers import AutoImageProcessor, AutoModel


class Request(BaseModel):
    """The body of `POST /embed`."""

    inputs: str | list[str]


MODEL = os.environ["IMAGE_EMBEDDING_MODEL"]
DEVICE = os.environ.get("BASELINE_DEVICE", "cpu")

if "BASELINE_THREADS" in os.environ:
    torch.set_num_threads(int(os.environ["BASELINE_THREADS"]))
processor = AutoImageProcessor.from_pretrained(MODEL)
model = AutoModel.from_pretrained(MODEL, dtype=torch.float32).eval().to(DEVICE)
app = FastAPI()


@app.get("/health")
def health() -> dict[str, str]:
    """200 once the model is loaded: the app is imported after that."""
    return {"message": "OK"}


@app.post("/embed")
def embed(request: Request) -> JSONResponse:
    """One vector for each picture, in order."""
    inputs = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    return JSONResponse([embed_one(picture) for picture in inputs])


@torch.inference_mode()
def embed_one(picture: str) -> list[float]:
    """The mean over all tokens of one picture, in base64."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        inputs = processor(images=image.convert("RGB"), return_tensors="pt").to(DEVICE)
    tokens = model(**inputs).last_hidden_state[0]
    vector: list[float] = tokens.mean(dim=0).tolist()
    return vector
