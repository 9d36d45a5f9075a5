"""What IEI does with a GPU, from the bare forward to pictures over HTTP, in less than ten minutes.

    python -m benchmarks.gpu                             # all of it; writes the section "gpu" of docs/benchmarks.md
    python -m benchmarks.gpu --device cpu --quick        # the same code in a minute; keeps no figures

Needs a CUDA GPU. The models have random weights of the real ones' shapes. Bare forwards take pictures that are on the
device already; the runtime brings them there and takes vectors back, one batch after the other; the engine does that
with batches that it makes of single pictures; the server gets JPEGs as bodies of requests. Each with the settings of
`COMPUTED`, so that what a setting gives can be seen at each step.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import transformers
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import machine
from benchmarks.forwards import FOLDER, MODELS, SIDE, write_model
from benchmarks.front_end import Measurement, loaded, measured
from benchmarks.report import progress, table, write_down
from benchmarks.workload import SIZE, pictures
from iei.engine.inprocess import InProcessEngine
from iei.load_options import LoadOptions
from iei.machine import cores, not_installed
from iei.models.catalog import CatalogEntry, LoadRequest
from iei.models.spec import output_shapes
from iei.runtimes.loading import LoadedModel, load
from iei.runtimes.torch.runtime import TorchRuntime
from iei.runtimes.torch.staging import Staging
from tests.servers import Server, serve

COMPUTED: dict[str, dict[str, Any]] = {
    "eager": {},
    "graphs": {"gpu_forward": "graphs"},
    "compile": {"gpu_forward": "compile"},
    "graphs, overlap": {"gpu_forward": "graphs", "gpu_overlap": True},
}
"""Name → settings of the runtime."""
SERVED: dict[str, dict[str, str]] = {
    "eager": {},
    "graphs": {"IEI_GPU_FORWARD": "graphs"},
    "graphs, overlap": {"IEI_GPU_FORWARD": "graphs", "IEI_GPU_OVERLAP": "true"},
    "graphs, overlap, pinned": {
        "IEI_GPU_FORWARD": "graphs",
        "IEI_GPU_OVERLAP": "true",
        "IEI_GPU_PIN_ARENAS": "true",
    },
    "graphs, overlap, GPU decodes": {
        "IEI_GPU_FORWARD": "graphs",
        "IEI_GPU_OVERLAP": "true",
        "IEI_DECODE_ON": "gpu",
    },
}
"""Name → settings of the server."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    device: str
    models: tuple[str, ...] = ("ViT-Tiny", "ViT-B", "Swin-T", "ResNet-50")
    """For forwards; the first is served."""
    compiled: tuple[str, ...] = ("ViT-B",)
    """Those of `models` that are compiled, too, which takes a minute or more each."""
    batches: tuple[int, ...] = (1, 8, 64)
    connections: tuple[int, ...] = (1, 16, 64, 256, 1024)
    seconds: float = 0.6
    served_seconds: float = 4.0
    workers: int = 16


@dataclass(frozen=True)
class Rate:
    """Of forwards of one size, or of the engine."""

    rate: float
    """Pictures a second."""


@dataclass(frozen=True)
class Served:
    """Pictures over HTTP."""

    measured: Measurement
    busy: float
    """The part of the time in which the engine had a forward running."""
    batch: float
    """Pictures of a forward, as the mean over forwards."""


def wait_for(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate_of(work: Callable[[], Any], count: int, device: torch.device, seconds: float) -> Rate:
    """Pictures a second, of a work on `count` of them; it is done in flights of eight, which are waited for."""
    for _ in range(3):
        work()
    wait_for(device)
    started, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(8):
            work()
        wait_for(device)
        done += 8 * count
    return Rate(done / elapsed)


def noise(count: int) -> list[np.ndarray]:
    """Pictures, uint8[224, 224, 3]."""
    return list(np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8))


def transformers_rates(plan: Plan, name: str, dtype: torch.dtype) -> Iterator[tuple[str, Rate]]:
    """Of AutoModel as it comes."""
    device = torch.device(plan.device)
    model = transformers.AutoModel.from_pretrained(write_model(name), dtype=dtype).eval().to(device)
    for count in plan.batches:
        pixels = torch.from_numpy(np.stack(noise(count))).to(device).permute(0, 3, 1, 2).to(dtype) / 127.5 - 1
        with torch.inference_mode():
            found = rate_of(lambda pixels=pixels: model(pixel_values=pixels), count, device, plan.seconds)  # type: ignore[misc]
        yield f"{name}: AutoModel {str(dtype).removeprefix('torch.')}, {count}", found


def request_of(plan: Plan, name: str, options: dict[str, Any]) -> LoadRequest:
    """How a model is loaded."""
    settings = LoadOptions(runtime="torch", cache_dir=FOLDER, max_batch=max(plan.batches), **options)
    return LoadRequest(CatalogEntry("model", str(write_model(name))), plan.device, settings)


def runtime_rates(plan: Plan, name: str, label: str) -> Iterator[tuple[str, Rate]]:
    """Of IEI's runtime: bare, with copies, and below the engine."""
    device = torch.device(plan.device)
    model = load(request_of(plan, name, COMPUTED[label]))
    progress(f"{name}, {label}: {model.spec.runtime}, {model.spec.dtype}")
    assert isinstance(model.runtime, TorchRuntime)
    runtime = model.runtime
    for count in plan.batches:
        batch = noise(count)
        with torch.inference_mode():
            there = runtime.upload("image", batch, Staging(device))
            bare = rate_of(lambda there=there: runtime.compute("image", there, ["mean"]), count, device, plan.seconds)  # type: ignore[misc]
        yield f"{name}: {label}, {count}", bare
        copied = rate_of(lambda batch=batch: model.run("image", batch, ["mean"]), count, device, plan.seconds)  # type: ignore[misc]
        yield f"{name}: {label}, copies, {count}", copied
    yield f"{name}: {label}, engine", asyncio.run(engine_rate(model, 4 * max(plan.batches), plan.seconds))


async def engine_rate(model: LoadedModel, in_work: int, seconds: float) -> Rate:
    """Pictures a second through an engine in this process, `in_work` of them at a time."""
    assert model.spec.image
    picture = noise(1)[0]
    shapes = output_shapes(model.spec.image, ["mean"], model.spec.image.rows(picture.shape))
    engine = InProcessEngine(model)
    await engine.start()
    started, done = time.perf_counter(), itertools.count()

    async def ask() -> None:
        while time.perf_counter() - started < seconds:
            await engine.run(model.spec, "image", picture, shapes, deadline=time.monotonic() + 60)
            next(done)

    await asyncio.gather(*(ask() for _ in range(in_work)))
    elapsed = time.perf_counter() - started
    await engine.stop()
    return Rate(next(done) / elapsed)


def served(plan: Plan, label: str) -> Iterator[tuple[str, Served]]:
    """JPEGs over HTTP, at each number of connections."""
    model = write_model(plan.models[0])
    env = {"IMAGE_EMBEDDING_MODEL": str(model), "IEI_DEVICE": plan.device, **SERVED[label]}
    with tempfile.NamedTemporaryFile("w") as bodies, serve(env, workers=plan.workers) as server:
        bodies.write("\n".join(pictures()))
        bodies.flush()
        loaded(server, Path(bodies.name), "file", min(64, max(plan.connections)), 2.0)
        for connections in plan.connections:
            before = totals(server)
            found = measured(server, Path(bodies.name), "file", connections, plan.served_seconds, bare=0.0)
            after = totals(server)
            seconds, batches, inputs = (after[name] - before[name] for name in TOTALS)
            result = Served(found, seconds / plan.served_seconds, inputs / max(1.0, batches))
            progress(f"{label}, {connections} connections: {found.rate:.0f} a second")
            yield f"{label}, {connections}", result


TOTALS = ("iei_forward_seconds_sum", "iei_batch_size_count", "iei_batch_size_sum")


def totals(server: Server) -> dict[str, float]:
    """The sums of `TOTALS` over all labels."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=60).text)
    samples = [sample for family in families for sample in family.samples]
    return {name: sum(sample.value for sample in samples if sample.name == name) for name in TOTALS}


def measure(plan: Plan) -> dict[str, Rate | Served]:
    """Everything, once."""
    found: dict[str, Rate | Served] = {}
    for name in plan.models:
        for dtype in (torch.float32, torch.bfloat16):
            found.update(transformers_rates(plan, name, dtype))
        for label in COMPUTED:
            if label != "compile" or name in plan.compiled:
                found.update(runtime_rates(plan, name, label))
    for label, env in SERVED.items():
        if env.get("IEI_DECODE_ON") == "gpu" and (plan.device == "cpu" or not_installed("torchcodec")):
            progress(f"{label}: left out, it needs a GPU and torchcodec")
            continue
        found.update(served(plan, label))
    return found


def summary(plan: Plan, found: dict[str, Rate | Served]) -> str:
    """The tables, and what they were measured on."""
    here = machine.describe()
    gpu = torch.cuda.get_device_name(plan.device) if plan.device.startswith("cuda") else "no GPU"
    rows = [
        [name.rpartition(",")[0], *(_rate(found[f"{name.rpartition(',')[0]}, {count}"]) for count in plan.batches)]
        for name in found
        if name.endswith(f", {plan.batches[0]}") and isinstance(found[name], Rate)
    ]
    engines = [
        [name.removesuffix(", engine"), _rate(rate)] for name, rate in found.items() if name.endswith(", engine")
    ]
    servers = [[name, *_cells(each)] for name, each in found.items() if isinstance(each, Served)]
    return "\n\n".join(
        [
            f"{time.strftime('%Y-%m-%d')}, {gpu}, {here['cpu']}, {here['cores']} cores; torch {torch.__version__}, "
            f"transformers {here['transformers']}.",
            f"Pictures of {SIDE} pixels a second, by batch size, {plan.seconds:g} s each; IEI's data type is the "
            "device's default:",
            table(["forward", *map(str, plan.batches)], rows),
            f"The engine in one process, {4 * max(plan.batches)} pictures in work:",
            table(["model", "pictures/s"], engines),
            f"{plan.models[0]} over HTTP, a JPEG of {SIZE[0]}×{SIZE[1]} in a request, {plan.workers} workers, "
            f"{plan.served_seconds:g} s each; milliseconds of CPU time for each request.",
            table(
                ["settings, connections", "req/s", "p50 ms", "p99 ms", "forward runs", "batch", "workers", "engine"],
                servers,
            ),
        ]
    )


def _rate(found: Rate | Served) -> str:
    assert isinstance(found, Rate)
    return f"{found.rate:,.0f}"


def _cells(each: Served) -> list[str]:
    one = each.measured
    engine_ms = one.cpu_ms["engine"] + one.cpu_ms["model"]
    return [
        f"{one.rate:,.0f}",
        f"{one.p50_ms:.1f}",
        f"{one.p99_ms:.1f}",
        f"{each.busy:.0%}",
        f"{each.batch:.1f}",
        f"{one.cpu_ms['worker']:.2f}",
        f"{engine_ms:.2f}",
    ]


QUICK = Plan("cpu", ("ViT-Tiny",), ("ViT-Tiny",), (1, 4), (1, 8), seconds=0.2, served_seconds=1.0, workers=2)


def main() -> None:
    """Measures, prints the tables and, without `--quick`, writes them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", choices=("cpu", *(f"cuda:{index}" for index in range(16))))
    parser.add_argument("--quick", action="store_true", help="one model, few sizes; keeps no figures")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=Plan.models)
    parser.add_argument("--workers", type=int, default=cores(), help="(default: the cores, %(default)s)")
    given = parser.parse_args()
    if given.device != "cpu" and not torch.cuda.is_available():
        parser.exit(1, "There is no CUDA GPU here, or torch is not a CUDA build.\n")
    if given.device == "cpu" and not given.quick:
        parser.exit(1, "On a CPU it can only be tried, with --quick.\n")
    plan = Plan(given.device, tuple(given.models), workers=given.workers)
    if given.quick:
        plan = Plan(**{**vars(QUICK), "device": given.device})
    found = measure(plan)
    text = summary(plan, found)
    print(text)
    if not given.quick:
        write_down("gpu", plan, [found], text)


if __name__ == "__main__":
    main()
