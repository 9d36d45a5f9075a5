"""What one model computes in a second without any server: torch as it comes, and IEI's runtimes in every precision.

    uv run python -m benchmarks.forwards --prepare      # once: writes the models, converts and quantises them; minutes
    uv run python -m benchmarks.forwards                # measures; writes the section "forwards" of docs/benchmarks.md

The models have random weights of the real ones' shapes. Contenders take turns in each round, and medians over the
rounds are reported, so that a machine that slows down affects all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import machine
from benchmarks.report import progress, table, write_down
from iei.checkpoints.demo import PREPROCESSOR
from iei.load_options import LoadOptions
from iei.models.catalog import CatalogEntry, LoadRequest
from iei.runtimes.loading import load

FOLDER = Path("~/.cache/iei-benchmarks/forwards").expanduser()
SIDE = 224
TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT-Tiny": ("ViT", TINY),
    "ViT-B": ("ViT", {}),
    "Swin-T": ("Swin", {}),
    "ResNet-50": ("ResNet", {}),
}
"""Name → class in transformers, without its ending, and what of its config is not the default."""
PRECISIONS = {
    "IEI, torch": {"runtime": "torch"},
    "IEI, OpenVINO float32": {"runtime": "openvino"},
    "IEI, OpenVINO bfloat16": {"runtime": "openvino", "dtype": "bfloat16"},
    "IEI, OpenVINO int8": {"runtime": "openvino", "dtype": "int8", "gate": "warn"},
}
EAGER = "torch, eager"
BATCHES = (1, 8)

Forward = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Pictures uint8[224, 224, 3] → vectors [B, D]."""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    models: tuple[str, ...]
    rounds: int = 5
    seconds: float = 0.8


@dataclass(frozen=True)
class Rate:
    """Of one contender with one model, in one round."""

    alone: float
    """Pictures a second at batch 1."""
    together: float
    """At batch 8."""
    cosine: float
    """The lowest to eager float32, over eight pictures."""


def write_model(name: str) -> Path:
    """Writes a model with random weights, always the same, unless it is there."""
    folder = FOLDER / name.lower()
    if not (folder / "preprocessor_config.json").is_file():
        kind, options = MODELS[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**options)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def contenders(name: str, *, int8: bool) -> dict[str, Forward]:
    """All of them, loaded, each giving the mean over all tokens."""
    folder = write_model(name)
    found: dict[str, Forward] = {EAGER: _eager(folder)}
    for label, options in PRECISIONS.items():
        if int8 or "int8" not in label:
            found[label] = _ours(folder, options)
    return found


def _eager(folder: Path) -> Forward:
    model = transformers.AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def forward(pictures: Sequence[np.ndarray]) -> np.ndarray:
        torch.set_num_threads(int(machine.describe()["cores"]))
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        hidden = model(pixel_values=pixels.contiguous()).last_hidden_state
        vectors: np.ndarray = (hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden.mean(1)).numpy()
        return vectors

    return forward


def _ours(folder: Path, options: dict[str, Any]) -> Forward:
    loaded = load(LoadRequest(CatalogEntry("model", str(folder)), "cpu", LoadOptions(cache_dir=FOLDER, **options)))
    return lambda pictures: np.stack([row["mean"] for row in loaded.run("image", pictures, ["mean"])])


def measure(forward: Forward, exact: np.ndarray, pictures: Sequence[np.ndarray], seconds: float) -> Rate:
    """Both batch sizes, after one forward of each that does not count."""
    rates = []
    for batch in BATCHES:
        vectors = forward(pictures[:batch])
        started, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            forward(pictures[:batch])
            done += batch
        rates.append(done / elapsed)
    cosines = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
    return Rate(rates[0], rates[1], cosine=float(cosines.min()))


def main() -> None:
    """Measures, or prepares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument(
        "--seconds", type=float, default=Plan.seconds, help="for each batch size (default: %(default)s)"
    )
    parser.add_argument("--no-int8", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="only write, convert and quantise the models")
    given = parser.parse_args()
    plan = Plan(tuple(given.models), given.rounds, given.seconds)
    pictures = list(np.random.default_rng(0).integers(0, 256, (max(BATCHES), SIDE, SIDE, 3), np.uint8))
    rounds: list[dict[str, Rate]] = [{} for _ in range(plan.rounds)]
    for name in plan.models:
        loaded = contenders(name, int8=not given.no_int8)
        exact = loaded[EAGER](pictures)
        for number, this in enumerate(() if given.prepare else rounds):
            progress(f"{name}, round {number + 1} of {plan.rounds}")
            for label, forward in loaded.items():
                this[f"{name}: {label}"] = measure(forward, exact, pictures, plan.seconds)
    if not given.prepare:
        write_down("forwards", plan, rounds, _text(plan, rounds))


def _text(plan: Plan, rounds: Sequence[dict[str, Rate]]) -> str:
    labels = [EAGER, *PRECISIONS]
    rows = [
        [
            name,
            *(
                _cell([each[key] for each in rounds]) if (key := f"{name}: {label}") in rounds[0] else "–"
                for label in labels
            ),
        ]
        for name in plan.models
    ]
    here = machine.describe()
    return (
        f"{time.strftime('%Y-%m-%d')}, {here['cpu']}, {here['cores']} cores; torch {here['torch']}, "
        f"openvino {here['openvino']}, transformers {here['transformers']}.\n\n"
        f"Pictures a second at batch 8 (batch 1), medians of {plan.rounds} rounds of {plan.seconds:g} s each; below "
        "0.99999 the lowest cosine to eager float32 of eight pictures of noise.\n\n" + table(["model", *labels], rows)
    )


def _cell(rates: Sequence[Rate]) -> str:
    together, alone = (median(getattr(rate, name) for rate in rates) for name in ("together", "alone"))
    cosine = min(rate.cosine for rate in rates)
    return f"{together:.3g} ({alone:.3g})" + ("" if cosine >= 0.99999 else f" {cosine:.4f}")


if __name__ == "__main__":
    main()
