"""Puts trained weights into the package: `python -m training.ship FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from iei.checkpoints.demo import SHIPPED


def main() -> None:
    """Writes the weights of the checkpoint in a folder in float16: half the bytes."""
    trained = load_file(Path(sys.argv[1]) / "model.safetensors")
    SHIPPED.write_bytes(save({name: weight.astype(np.float16) for name, weight in sorted(trained.items())}))


if __name__ == "__main__":
    main()
