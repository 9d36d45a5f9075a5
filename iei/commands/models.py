"""`iei models`: the kinds of model that can be served."""

from __future__ import annotations

from iei.checkpoints.families import FAMILIES


def run() -> None:
    """Prints each `model_type` with the modalities that it accepts."""
    print("\n".join(f"{model_type:24}{', '.join(takes)}" for model_type, takes in sorted(FAMILIES.items())))
