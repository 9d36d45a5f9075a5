"""What it means that IEI computes the same as transformers, and describes what it computes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iei.models.spec import ImageTower, TextTower, output_shapes

Vectors = NDArray[np.float32]
"""[D], or [N, D]."""
Outputs = dict[str, Vectors]
"""Of one input, by name."""


def assert_equal(ours: Vectors, theirs: Vectors, name: str = "") -> None:
    assert ours.shape == theirs.shape, name
    assert ours.dtype == np.float32, name
    assert np.abs(ours - theirs).max() <= 1e-4, name
    assert cosine(ours, theirs).min() >= 0.99999, name


def assert_all_equal(ours: list[Outputs], theirs: list[Outputs]) -> None:
    for our_outputs, their_outputs in zip(ours, theirs, strict=True):
        for name, vectors in their_outputs.items():
            assert_equal(our_outputs[name], vectors, name)


def assert_described(tower: ImageTower | TextTower, outputs: Outputs, shape: tuple[int, ...]) -> None:
    """`outputs` of an input of this shape are what the tower says."""
    shapes = output_shapes(tower, outputs, tower.rows(shape))
    assert {name: vectors.shape for name, vectors in outputs.items()} == shapes


def cosine(left: Vectors, right: Vectors) -> Vectors:
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    result: Vectors = (left * right).sum(-1) / norms
    return result
