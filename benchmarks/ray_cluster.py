"""A bulk job on a Ray cluster whose node is killed half-way: is its result complete, and that of one machine?

    uv run python -m benchmarks.ray_cluster [--pictures 50000] [--nodes 3] [--write]

Draws small pictures, embeds them in this process, and then on a cluster of nodes that are processes of this machine,
with the smallest model that there is. When half of the rows have been written, one node gets SIGKILL. Prints what is
missing, what is there twice, and by how much vectors differ; `--write` keeps it in benchmarks/results. It measures that
nothing is lost, and not how fast Ray is: all nodes share the cores of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from PIL import Image

from benchmarks import machine
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.servers import ROOT

RESULT = ROOT / "benchmarks" / "results" / "ray_cluster.json"
BLOCKS = 200
"""Tasks that read."""


def draw(folder: Path, count: int) -> None:
    """`count` pictures, 1,000 to a folder, each with pixels of its own."""
    random = np.random.default_rng(0)
    for number in range(count):
        file = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (12, 16, 3), np.uint8)).save(file, compress_level=1)


def on_one_machine(pictures: Path, model: str) -> pa.Table:
    """Their rows, in the order of their ids, computed by this process."""
    from iei.ray import Embedder

    files = sorted(str(file) for file in pictures.rglob("*.png"))
    embedder = Embedder(model, id_column="path")
    tables = [embedder(pa.table({"path": files[start : start + 1000]})) for start in range(0, len(files), 1000)]
    embedder.close()
    return pa.concat_tables(tables)


def on_a_cluster(pictures: Path, model: str, out: Path, nodes: int) -> dict[str, float]:
    """Writes their rows to `out`, while a node is killed; returns after how many seconds, and what had been written."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": uuid4().hex, "PYTHONPATH": str(ROOT)}
    import ray
    from ray.cluster_utils import Cluster

    from iei.ray import embed

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    added = [cluster.add_node(num_cpus=2, resources={"embed": 1}) for _ in range(nodes)]
    ray.init(address=cluster.address, log_to_driver=False)
    read = ray.data.read_binary_files(
        str(pictures), include_paths=True, file_extensions=["png"], override_num_blocks=BLOCKS
    )
    half = sum(1 for _ in pictures.rglob("*.png")) / 2
    rows = embed(read, model, actors=(1, nodes), resources={"embed": 1}, column="bytes", id_column="path")
    seen: dict[str, float] = {}
    began = time.monotonic()

    def kill_one_half_way() -> None:
        while sum(map(_rows, out.glob("*.parquet"))) < half:
            time.sleep(0.5)
        seen["killed_at_s"] = round(time.monotonic() - began, 1)
        cluster.remove_node(added[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one_half_way, daemon=True)
    killer.start()
    rows.write_parquet(str(out), compression="zstd")
    seen["done_at_s"] = round(time.monotonic() - began, 1)
    ray.shutdown()
    cluster.shutdown()
    return seen


def _rows(part: Path) -> int:
    try:
        return int(pq.read_metadata(part).num_rows)
    except pa.ArrowInvalid:  # it is being written
        return 0


def compared(expected: pa.Table, found: pa.Table) -> dict[str, float]:
    """What differs."""
    found = found.sort_by("id")
    ids, others = expected["id"].to_pylist(), found["id"].to_pylist()
    differences = {
        "rows": len(others),
        "missing": len(set(ids) - set(others)),
        "twice": len(others) - len(set(others)),
        "errors": len(others) - found["error"].null_count,
    }
    if ids == others:
        vectors = [_vectors(table) for table in (expected, found)]
        differences["other_pictures"] = sum(
            ours != theirs
            for ours, theirs in zip(expected["sha256"].to_pylist(), found["sha256"].to_pylist(), strict=True)
        )
        differences["largest_difference"] = float(np.abs(vectors[0] - vectors[1]).max())
        differences["lowest_cosine"] = float((vectors[0] * vectors[1]).sum(1).min())
    return differences


def _vectors(table: pa.Table) -> np.ndarray[Any, Any]:
    vectors: np.ndarray[Any, Any] = np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iei-ray-") as name:
        folder = Path(name)
        pictures, out = folder / "pictures", folder / "out"
        pictures.mkdir()
        draw(pictures, arguments.pictures)
        model = str(write_text_checkpoint("clip", folder / "clip"))
        began = time.monotonic()
        expected = on_one_machine(pictures, model)
        alone_s = round(time.monotonic() - began, 1)
        seen = on_a_cluster(pictures, model, out, arguments.nodes)
        types = {str(pq.read_schema(file).field("embedding").type) for file in out.glob("*.parquet")}
        result = {
            "pictures": arguments.pictures,
            "nodes": arguments.nodes,
            "one_process_s": alone_s,
            **seen,
            **compared(expected, pads.dataset(out).to_table()),
            "types": sorted(types),
            "machine": machine.describe(),
        }
    print(json.dumps(result, indent=2))
    if arguments.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
