"""How near IEI's vectors are to those of transformers, through the whole server, for pictures in every encoding.

    uv run python -m benchmarks.parity [MODEL …] [--pictures FILE …]

MODEL is a folder or a hub id; without one, a tiny seeded checkpoint of each of five families is made. The reference is
`AutoModel` in float32 on what the checkpoint's own processor (the PIL one) makes of the decoded picture, and the mean
over all tokens. Exits with 1 when a vector is further away than IEI promises. Without arguments, writes the section
"parity" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps

from benchmarks.report import PAGE, replace_section, table
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.pictures import base64_of, encoded, jpeg, photos
from tests.servers import serve

FIVE = ("vit", "deit", "beit", "convnext", "swin")
COSINE = 0.99999
MAX_ABS = 1e-4


@dataclass(frozen=True)
class Difference:
    """How far a vector that the server answers is from the reference's."""

    cosine: float
    max_abs: float

    @staticmethod
    def between(served: np.ndarray, reference: np.ndarray) -> Difference:
        """Of two vectors, computed in float64."""
        a, b = served.astype(np.float64), reference.astype(np.float64)
        return Difference(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), float(np.abs(a - b).max()))

    @property
    def small(self) -> bool:
        """Whether it is within what IEI promises."""
        return self.cosine >= COSINE and self.max_abs <= MAX_ABS


def rgb(file: bytes) -> Image.Image:
    """The picture upright, in RGB, over white where it is transparent: by other means than IEI's own decoder."""
    with Image.open(io.BytesIO(file)) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8)).convert("RGB")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")


class Reference:
    """transformers, as its documentation uses it."""

    def __init__(self, model: str) -> None:
        self.processor = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")
        whole = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
        self.model = getattr(whole, "vision_model", whole)  # of a dual tower, the one that sees

    @torch.inference_mode()
    def embed(self, file: bytes) -> np.ndarray:
        """float32[dimension]: the mean over tokens, or over positions where the model has a map of them."""
        states = self.model(**self.processor(images=rgb(file), return_tensors="pt")).last_hidden_state[0]
        pooled: torch.Tensor = states.mean(dim=0) if states.ndim == 2 else states.mean(dim=(1, 2))
        return pooled.numpy()


def embed(url: str, files: list[bytes]) -> np.ndarray:
    """float32[n, dimension] from a running server. Raises RuntimeError with what it says when it refuses."""
    body = json.dumps({"inputs": [base64_of(file) for file in files]}).encode()
    request = urllib.request.Request(f"{url}/embed", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return np.array(json.load(response), np.float32)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url} answers {error.code}: {error.read().decode()}") from error


def differences(model: str, url: str, pictures: dict[str, bytes]) -> dict[str, Difference]:
    """The difference for each picture, by its name; the server at `url` serves `model`."""
    served, reference = embed(url, list(pictures.values())), Reference(model)
    return {
        name: Difference.between(vector, reference.embed(file))
        for (name, file), vector in zip(pictures.items(), served, strict=True)
    }


def checkpoints(models: list[str]) -> Iterator[tuple[str, str]]:
    """(name, folder or hub id) of each model to look at."""
    if models:
        yield from ((model, model) for model in models)
        return
    with tempfile.TemporaryDirectory(prefix="iei-parity-") as folder:
        for family in FIVE:
            target = Path(folder, family)
            target.mkdir()
            yield f"{family}, tiny", str(write_checkpoint(family, target))


def main() -> None:
    """Compares every model on every picture, prints the table, and exits with 1 when a vector is too far away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--pictures", nargs="+", type=Path, metavar="FILE", help="default: photos and all encodings")
    parser.add_argument("--all", action="store_true", help="a row for every picture, not only for the worst")
    arguments = parser.parse_args()
    pictures = (
        {path.name: path.read_bytes() for path in arguments.pictures} if arguments.pictures else default_pictures()
    )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows, good = [], True
    for name, model in checkpoints(arguments.models):
        print(f"{name} …", file=sys.stderr, flush=True)
        environment = {"IMAGE_EMBEDDING_MODEL": model, "IEI_DEVICE": "cpu", "IEI_DTYPE": "float32"}
        with serve(environment) as server:
            found = differences(model, server.url, pictures)
        good &= all(difference.small for difference in found.values())
        worst = max(found, key=lambda picture: found[picture].max_abs)
        for picture in found if arguments.all else [worst]:
            cells = (f"{found[picture].cosine:.8f}", f"{found[picture].max_abs:.1e}")
            rows.append([name, picture if arguments.all else f"{picture} (worst of {len(found)})", *cells])
    text = table(["model", "picture", "cosine", "max abs"], rows)
    print(text)
    if not (arguments.models or arguments.pictures or arguments.all):
        replace_section(PAGE, "parity", text)
    if not good:
        sys.exit(f"Some are worse than cosine {COSINE} or max-abs {MAX_ABS:g}.")


def default_pictures() -> dict[str, bytes]:
    """Photos as JPEG of 500×375 pixels, and a small one in every encoding."""
    return {name: jpeg(500, 375, name) for name in photos()} | encoded()


if __name__ == "__main__":
    main()
