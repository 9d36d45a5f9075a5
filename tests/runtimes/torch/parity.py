"""What it means that IEI computes the same as transformers, and describes what it computes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from iei.models.spec import ImageTower, TextTower, output_shapes
from iei.runtimes.api import Model
from iei.runtimes.openvino.supported import NOT_CONVERTED
from tests.converted import load_here

Vectors = NDArray[np.float32]
"""[D], or [N, D]."""
Outputs = dict[str, Vectors]
"""Of one input, by name."""


class Case(NamedTuple):
    """A family, computed by one of the runtimes."""

    family: str
    runtime: str


def cases(families: Collection[str], *quick: str) -> list[Any]:
    """Every family with every runtime that takes it. OpenVINO has all but `quick` on demand: converting takes long."""
    converted = [family for family in families if family not in NOT_CONVERTED]
    return [
        *(pytest.param(Case(family, "torch"), id=family) for family in families),
        *(
            pytest.param(
                Case(family, "openvino"),
                id=f"{family}-openvino",
                marks=() if family in quick else pytest.mark.long,
            )
            for family in converted
        ),
    ]


def load_case(case: Case, checkpoint: Path, cache_dir: Path) -> Model:
    """The checkpoint in the runtime of the case."""
    model = load_here(checkpoint, cache_dir, case.runtime)
    assert model.spec.runtime.startswith(case.runtime)
    return model


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
