"""Who is compared: their packages, how they are started, and how one talks to them. To add one, add a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MODEL_PACKAGES = ("torch==2.15.0", "torchvision==0.29.2", "transformers==5.23.0", "pillow==13.0.0")
"""The same for all who use transformers, and those of uv.lock: the library is not what is compared."""
LOCKED = "uv.lock"
"""Instead of packages: what IEI's own lock says, and IEI itself from this checkout."""

LIMIT = "IEI's parts"
"""The contender whose CPU time says what IEI could serve at most."""
MEAN_MODELS = ("ViT-Tiny", "ViT-B", "Swin-T", "no size")
"""Models of `serving.inputs` whose vector is the mean over all tokens."""
LONGER = {"ViT-B": 3}
"""Models that are measured for so many times as long."""
ALL_MODELS = (*MEAN_MODELS, "CLIP-B/32")


@dataclass(frozen=True)
class Dialect:
    """How pictures are asked for."""

    path: str
    body: Callable[[Sequence[str]], str]
    """Pictures in base64 → JSON."""
    vectors: Callable[[Any], list[list[float]]]
    """The answer's JSON → vectors."""


EMBED = Dialect(  # IEI takes plain base64 for a text, if a model for both is not told what it is
    "/embed",
    lambda pictures: json.dumps({"inputs": list(pictures), "modality": "image"}),
    lambda answer: answer,
)
OPENAI = Dialect(
    "/embeddings",
    lambda pictures: json.dumps(
        {
            "model": "model",
            "modality": "image",
            "input": [f"data:image/jpeg;base64,{picture}" for picture in pictures],
        }
    ),
    lambda answer: [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])],
)


@dataclass(frozen=True)
class Setup:
    """One way to start a contender. Names in {} stand for what they say."""

    name: str
    command: str
    """Its first word is a program of the contender's environment."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """A server, and the ways to start it of which the best is shown."""

    name: str
    packages: tuple[str, ...]
    """For `uv pip install`, with exact versions; `LOCKED` for IEI."""
    setups: tuple[Setup, ...]
    what: str
    """A line for the page."""
    models: tuple[str, ...] = MEAN_MODELS
    dialect: Dialect = EMBED
    cosine: float = 0.999
    """The least that a vector may have with transformers' to be measured at all."""
    ours: bool = False
    bare: bool = False
    """Not a server but a loop, such as `benchmarks.bare_loop`, whose batch is at most what the connections would be."""

    @property
    def peer(self) -> bool:
        """Whether it is what somebody would use instead."""
        return not (self.ours or self.bare)


def _iei(name: str, what: str, cosine: float, **environment: str) -> Contender:
    setup = Setup(
        "as it comes",
        "python -m iei serve",
        {
            "IMAGE_EMBEDDING_MODEL": "{model}",
            "IEI_BIND": "127.0.0.1:{port}",
            "IEI_POOLING": "{pooling}",
            "IEI_CACHE_DIR": "{cache}",
            "IEI_DRAIN_S": "0",
            **environment,
        },
    )
    return Contender(name, (LOCKED,), (setup,), what, ALL_MODELS, cosine=cosine, ours=True)


_WORKERS = "gunicorn benchmarks.contenders.automodel:app --bind 127.0.0.1:{port} --worker-class"
_GUNICORN = f"{_WORKERS} uvicorn_worker.UvicornWorker --timeout 600 --workers {{cores}}"
_LITSERVE = "python -m benchmarks.contenders.litserve {port}"
_MOSEC = "python -m benchmarks.contenders.mosec --address 127.0.0.1 --port {port} --timeout 600000 --log-level warning"

_FASTAPI = (*MODEL_PACKAGES, "fastapi==0.165.0", "gunicorn==27.0.1", "uvicorn==0.54.0", "uvicorn-worker==0.4.0")

CONTENDERS = (
    _iei("IEI", "`iei serve`, as it comes", 0.999, IEI_DTYPE="float32"),
    _iei("IEI bf16", "the same with `IEI_DTYPE=bfloat16`", 0.995, IEI_DTYPE="bfloat16"),
    _iei("IEI int8", "the same with `IEI_DTYPE=int8`", 0.995, IEI_DTYPE="int8"),
    Contender(
        "bare loop",
        _FASTAPI,
        (Setup("", "python -m benchmarks.bare_loop {model} {pictures} --seconds {seconds} --batches"),),
        "no server: [decode, resize and batched forward of AutoModel](../benchmarks/bare_loop.py) in one process",
        bare=True,
    ),
    Contender(
        LIMIT,
        (LOCKED,),
        (
            Setup(
                "",
                "python -m benchmarks.limit {model} {pictures} --seconds {seconds} --batches",
                {"IEI_CACHE_DIR": "{cache}", "IEI_DTYPE": "float32"},
            ),
        ),
        "no server: [IEI's decoding, resizing and runtime](../benchmarks/limit.py) in one process",
        bare=True,
    ),
    Contender(
        "AutoModel",
        _FASTAPI,
        (
            Setup("one thread", _GUNICORN, {"BENCHMARK_THREADS": "1"}),
            Setup("torch's threads", _GUNICORN),
        ),
        "[FastAPI under gunicorn](../benchmarks/contenders/automodel.py), a model in each worker, a worker per core",
        ALL_MODELS,
    ),
    Contender(
        "LitServe",
        (*MODEL_PACKAGES, "litserve==0.2.19"),
        (
            Setup("workers", f"{_LITSERVE} 1 {{cores}}", {"BENCHMARK_THREADS": "1"}),
            Setup("batches", f"{_LITSERVE} 16 1"),
        ),
        "[LitServe](../benchmarks/contenders/litserve.py): a worker per core, or one with batches of up to 16",
        ALL_MODELS,
    ),
    Contender(
        "mosec",
        (*MODEL_PACKAGES, "mosec==0.9.8"),
        (
            Setup("one stage", _MOSEC, {"BENCHMARK_WORKERS": "{cores}", "BENCHMARK_THREADS": "1"}),
            Setup("two stages", _MOSEC, {"BENCHMARK_STAGES": "2", "BENCHMARK_WORKERS": "{cores}"}),
        ),
        "[mosec](../benchmarks/contenders/mosec.py): a worker per core, or decoders per core before one model",
        ALL_MODELS,
    ),
    Contender(
        "infinity",
        (
            "aiohttp==3.14.5",  # its extras forget it
            "infinity-emb[server,torch,vision]==0.0.78",
            "torch==2.15.0",
            "torchvision==0.29.2",
        ),
        (
            Setup(
                "as it comes",
                "infinity_emb v2 --model-id {model} --served-model-name model --host 127.0.0.1 --port {port} "
                "--engine torch --device cpu --dtype float32 --no-bettertransformer --url-prefix=",
                {"DO_NOT_TRACK": "1"},
            ),
        ),
        "[infinity](https://github.com/michaelfeil/infinity) with its PyTorch engine; of these models, it takes CLIP",
        ("CLIP-B/32",),
        OPENAI,
    ),
)
BY_NAME = {contender.name: contender for contender in CONTENDERS}
