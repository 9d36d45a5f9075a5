"""Puts trained weights into the package: `python -m training.ship FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from iei.checkpoints.demo import SHIPPED


def main() -> None:
    """Writes the weights of the checkpoint in a folder in float16, which halves them and changes no figure."""
    trained = load_file(Path(sys.argv[1]) / "model.safetensors")
    save_file({name: weight.astype(np.float16) for name, weight in sorted(trained.items())}, SHIPPED)


if __name__ == "__main__":
    main()
