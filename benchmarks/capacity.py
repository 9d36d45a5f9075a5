"""How many machines embed so many pictures in so many days, and what limits each: arithmetic, not a measurement.

    python -m benchmarks.capacity                                   # the tables of docs/scale.md, for 10⁹ in a day
    python -m benchmarks.capacity --pictures 5e7 --days 0.5 --write

A machine does as much as the least of: its model, its cores that decode, its network.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from benchmarks.report import ROOT, replace_section, table

PAGE = ROOT / "docs" / "scale.md"
VECTOR_VALUES = 768
GBIT_S = 1e9 / 8
CORE_PRICE, GPU_PRICE = 0.05, 0.50
"""Of an hour, with the memory that belongs to it. Assumptions, and not anybody's offer: give yours."""
EFFICIENCY = 0.8
"""How much of the least of these rates a job gets, all in all: starts, ends, uneven shards. An assumption."""


@dataclass(frozen=True)
class Pictures:
    """Of one kind."""

    name: str
    decode_s: float
    """Seconds of one core, to pixels at the model's size."""
    size_bytes: float


KINDS = (
    # docs/which-model.md, "Speed on a CPU"; the sizes of the benchmark's own photos.
    Pictures("500×375, 46 kB", 0.004, 46e3),
    # The same page: a JPEG of 12 megapixels with IEI_FAST_DECODE, and without; 4 MB are an assumption.
    Pictures("12 MP, 4 MB, fast decode", 0.050, 4e6),
    Pictures("12 MP, 4 MB", 0.260, 4e6),
)


@dataclass(frozen=True)
class Model:
    """How fast a model is."""

    name: str
    per_core: float
    """Pictures per second of one core's forwards: docs/which-model.md has them for two cores."""
    per_gpu: float
    """The same of a GPU."""


MODELS = (
    # per_gpu: published by timm for an RTX 4090, mixed precision, PyTorch 2.9.1, batches of 1024:
    # results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv of huggingface/pytorch-image-models.
    Model("ViT-T/16", 114 / 2, 18_553),
    Model("ViT-B/16", 11.3 / 2, 2_993),
)


@dataclass(frozen=True)
class Machine:
    """What a machine has, and what it costs."""

    name: str
    cores: int
    gpus: int
    network_bytes_s: float

    @property
    def price(self) -> float:
        """Of an hour."""
        return self.cores * CORE_PRICE + self.gpus * GPU_PRICE

    def limits(self, model: Model, pictures: Pictures) -> dict[str, float]:
        """What limits it → pictures per second. On a machine without a GPU, forwards and decoding share the cores."""
        network = {"network": self.network_bytes_s / pictures.size_bytes}
        if self.gpus:
            return {"model": self.gpus * model.per_gpu, "decoding": self.cores / pictures.decode_s, **network}
        forward_s = 1 / model.per_core
        slower = "model" if forward_s > pictures.decode_s else "decoding"
        return {slower: self.cores / (forward_s + pictures.decode_s), **network}


MACHINES = (
    Machine("32 cores", 32, 0, 10 * GBIT_S),
    Machine("1 GPU, 16 cores", 16, 1, 10 * GBIT_S),
    Machine("1 GPU, 64 cores", 64, 1, 25 * GBIT_S),
)


def rows(pictures: float, days: float) -> list[list[str]]:
    """One for each machine, model and kind of picture."""
    result = []
    for kind in KINDS:
        for model in MODELS:
            for machine in MACHINES:
                limits = machine.limits(model, kind)
                limit = min(limits, key=limits.__getitem__)
                hours = pictures / (EFFICIENCY * limits[limit]) / 3600
                result.append(
                    [
                        kind.name,
                        model.name,
                        machine.name,
                        f"{limits[limit]:,.0f}",
                        limit,
                        f"{math.ceil(hours / 24 / days):,}",
                        f"{hours:,.0f}",
                        f"{hours * machine.price:,.0f}",
                    ]
                )
    return result


def summary(pictures: float, days: float) -> str:
    """The tables."""
    machines = table(
        ["pictures", "model", "machine", "pictures/s", "limit", "machines", "machine hours", "price"],
        rows(pictures, days),
    )
    per_s = pictures / days / 86400
    stores = table(
        ["pictures", "bytes in all", "network", "requests/s, one each", "requests/s, tar files of 1 GB"],
        [
            [
                kind.name,
                f"{pictures * kind.size_bytes / 1e12:,.0f} TB",
                f"{per_s * kind.size_bytes / GBIT_S:,.0f} Gbit/s",
                f"{per_s:,.0f}",
                f"{per_s * kind.size_bytes / 1e9:,.2f}",
            ]
            for kind in KINDS[:2]
        ],
    )
    forms = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "ubinary": 1 / 8}
    vectors = table(
        ["vectors of 768", *forms],
        [["TB", *(f"{pictures * VECTOR_VALUES * each / 1e12:.2f}" for each in forms.values())]],
    )
    assumed = (
        f"{pictures:,.0f} pictures in {days:g} days; an hour costs {CORE_PRICE:.2f} for a core and {GPU_PRICE:.2f} for "
        f"a GPU; {EFFICIENCY:.0%} of each rate:"
    )
    return "\n\n".join([assumed, machines, stores, vectors])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=float, default=1e9, help="default: %(default)g")
    parser.add_argument("--days", type=float, default=1, help="default: %(default)g")
    parser.add_argument("--write", action="store_true", help="writes them into docs/scale.md")
    options = parser.parse_args()
    text = summary(options.pictures, options.days)
    print(text)
    if options.write:
        replace_section(PAGE, "capacity", text)


if __name__ == "__main__":
    main()
