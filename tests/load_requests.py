"""What models are loaded with in tests."""

from __future__ import annotations

from typing import Any

from iei.load_options import LoadOptions
from iei.models.catalog import CatalogEntry, LoadRequest


def load_request(
    name: str, id: str, *, device: str = "auto", pooling_optional: bool = False, **options: Any
) -> LoadRequest:
    """To load the model `id` under `name`, with the default `options` but for those given, and torch: converting takes
    seconds."""
    return LoadRequest(CatalogEntry(name, id), device, LoadOptions(**{"runtime": "torch", **options}), pooling_optional)
