"""Stands in for UMAP, in the process of embedding-atlas: a vector's place on the map is its first two values."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def nearest_neighbors(vectors: Any, n_neighbors: int, **others: Any) -> tuple[Any, Any, None]:
    """Exact ones."""
    distances = 1 - vectors @ vectors.T
    indices = np.argsort(distances, axis=1)[:, :n_neighbors]
    return indices, np.take_along_axis(distances, indices, axis=1), None


def fitted(**arguments: Any) -> SimpleNamespace:
    """What `umap.UMAP(…)` gives."""
    return SimpleNamespace(fit_transform=lambda vectors: vectors[:, :2])


for name, contents in (("umap", {"UMAP": fitted}), ("umap.umap_", {"nearest_neighbors": nearest_neighbors})):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)
